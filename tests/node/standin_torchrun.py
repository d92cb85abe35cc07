"""A stand-in for torchrun without torch: the same processes, environment, folders, log texts and order of signals.

usage: standin_torchrun.py NPROC LOG_DIR PROGRAM…
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CLOSE_SECONDS = 30.0


class Ended(Exception):
    pass


def end(*_: Any) -> None:
    raise Ended


def start(local_rank: int, nproc: int, folder: Path, program: list[str]) -> subprocess.Popen[bytes]:
    folder = folder / str(local_rank)
    folder.mkdir(parents=True)
    env = {**os.environ, "LOCAL_RANK": str(local_rank), "RANK": str(local_rank), "LOCAL_WORLD_SIZE": str(nproc)}
    env["TORCHELASTIC_RESTART_COUNT"] = "0"
    with (folder / "stdout.log").open("wb") as out, (folder / "stderr.log").open("wb") as err:
        return subprocess.Popen(program, env=env, stdout=out, stderr=err, start_new_session=True)


def close(workers: list[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()
    deadline = time.monotonic() + CLOSE_SECONDS
    while time.monotonic() < deadline and any(worker.poll() is None for worker in workers):
        time.sleep(0.02)
    for worker in workers:
        worker.kill()
        worker.wait()


def main() -> int:
    nproc, folder, program = int(sys.argv[1]), Path(sys.argv[2]) / "none_x1", sys.argv[3:]
    signal.signal(signal.SIGTERM, end)
    workers: list[subprocess.Popen[bytes]] = []
    try:
        workers += [start(k, nproc, folder / "attempt_0", program) for k in range(nproc)]
        while any(worker.poll() is None for worker in workers):
            time.sleep(0.1)
            for local_rank, worker in enumerate(workers):
                if worker.poll():
                    ending = f"exitcode: {worker.returncode}"
                    print(f"failed ({ending}) local_rank: {local_rank} (pid: {worker.pid}) of binary: x", flush=True)
                    close(workers)
                    return 1
    except Ended:
        close(workers)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
