"""A stand-in for torchrun without torch: the same processes, environment, folders, log texts and order of signals.

usage: standin_torchrun.py [--OPTION=VALUE]… PROGRAM…     options as torchrun's; nproc_per_node, node_rank, nnodes and
log_dir mean something, the others are passed over. The program is a command, as after --no_python.
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


def start(local_rank: int, options: dict[str, str], folder: Path, program: list[str]) -> subprocess.Popen[bytes]:
    nproc, node_rank = int(options["nproc_per_node"]), int(options.get("node_rank", "0"))
    folder = folder / str(local_rank)
    folder.mkdir(parents=True)
    env = {**os.environ, "LOCAL_RANK": str(local_rank), "RANK": str(node_rank * nproc + local_rank)}
    env.update(LOCAL_WORLD_SIZE=str(nproc), WORLD_SIZE=str(nproc * int(options.get("nnodes", "1"))))
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
    words = sys.argv[1:]
    first = next(place for place, word in enumerate(words) if not word.startswith("--"))
    options = {name.removeprefix("--"): value for name, _, value in (word.partition("=") for word in words[:first])}
    folder, program = Path(options["log_dir"]) / "none_x1", words[first:]
    signal.signal(signal.SIGTERM, end)
    workers: list[subprocess.Popen[bytes]] = []
    try:
        nproc = int(options["nproc_per_node"])
        workers += [start(k, options, folder / "attempt_0", program) for k in range(nproc)]
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
