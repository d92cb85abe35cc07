"""XTuner's own command, with the exit status of what it starts: `xtuner train CONFIG …`.

`xtuner` runs `python` (one rank, or below srun) or `torchrun` from the PATH, waits, and returns 0 whatever became of
it; and 0, too, when it cannot start anything (xtuner/entry_point.py of 0.2.0: subprocess.run without a check). So two
programs of these names stand first on its PATH: each runs the real one and writes down how that ended.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from typing import Any, Dict, List

STARTED = ("python", "torchrun")
STARTED_NOTHING, CANNOT_START = 1, 127
TICK_SECONDS = 0.05
COLLECTED, COLLECTED_BYTES = "work_dir.tar.gz", 32 << 20
TEXTS = (".log", ".json", ".jsonl", ".py", ".yaml", ".txt", "last_checkpoint")
WATCH = """#!/bin/sh
export PATH={path}
echo $$ > {folder}/pid
{name} "$@" &
child=$!
trap 'kill -TERM $child' TERM
while wait $child; code=$?; kill -0 $child 2>/dev/null; do :; done
echo $code >> {folder}/codes
exit $code
"""
"""A signal interrupts `wait`, which then is not the end of the program."""


def run(command: List[str]) -> int:
    """Run XTuner's command to its end; the exit status of what it started, -N for signal N."""
    run_dir = os.environ.get("RANKDECK_RUN_DIR")
    folder, began = tempfile.mkdtemp(prefix="xtuner-", dir=run_dir), time.time()
    try:
        code = Command(folder, command).end()
        if run_dir and os.environ.get("SLURM_LOCALID", "0") == "0":
            collect(work_dir(command), os.path.join(run_dir, COLLECTED), began)
        return code
    except OSError as error:
        sys.stderr.write("rankdeck: %s cannot be started: %s\n" % (command[0], error))
        return CANNOT_START
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def work_dir(command: List[str]) -> str:
    """Where `xtuner train CONFIG …` writes, unless CONFIG itself says so: --work-dir, or work_dirs/ and its name."""
    found = os.path.join("work_dirs", os.path.splitext(os.path.basename("".join(command[2:3])))[0])
    for word, following in zip(command, [*command[1:], ""]):
        if word == "--work-dir":
            found = following
        elif word.startswith("--work-dir="):
            found = word.partition("=")[2]
    return found


def collect(folder: str, target: str, since: float) -> None:
    """The texts (logs, scalars, the config) that were written in the work dir since then, as one file: what `rankdeck
    pull` brings. Weights stay where they are."""
    left = COLLECTED_BYTES
    with contextlib.suppress(OSError):
        with tarfile.open(target + ".new", "w:gz") as archive:
            for here, _, names in os.walk(folder):
                for path in (os.path.join(here, name) for name in sorted(names) if name.endswith(TEXTS)):
                    about = os.stat(path)
                    if about.st_mtime >= since - 1 and about.st_size <= left:
                        left -= about.st_size
                        archive.add(path, os.path.relpath(path, folder), recursive=False)
        os.replace(target + ".new", target)


class Command:
    """XTuner's command, started; SIGTERM goes to what it has started, and not to it: then it would end first."""

    def __init__(self, folder: str, command: List[str]) -> None:
        self.folder = folder
        path = os.environ.get("PATH", os.defpath)
        for name in STARTED:
            place = os.path.join(folder, name)
            with open(place, "w", encoding="utf-8") as file:
                file.write(WATCH.format(path=shlex.quote(path), folder=shlex.quote(folder), name=name))
            os.chmod(place, 0o700)
        env: Dict[str, str] = {**os.environ, "PATH": folder + os.pathsep + path}
        self.child = subprocess.Popen(command, env=env)
        signal.signal(signal.SIGTERM, self.stop)

    def stop(self, *_: Any) -> None:
        watching = self.read("pid")
        try:
            os.kill(int(watching[-1]) if watching else self.child.pid, signal.SIGTERM)
        except OSError:
            pass

    def end(self) -> int:
        code = self.child.wait()
        while self.watching():
            time.sleep(TICK_SECONDS)
        codes = [int(text) for text in self.read("codes")]
        worst = next(filter(None, codes), 0)
        if worst > 128:
            return 128 - worst
        if code == 0 and not codes and os.access(os.path.join(self.folder, STARTED[0]), os.X_OK):
            sys.stderr.write("rankdeck: xtuner has started nothing; what it says above is why\n")
            return STARTED_NOTHING
        return worst or code

    def watching(self) -> bool:
        """Is what XTuner has started still there, though XTuner itself is not?"""
        pids = self.read("pid")
        return bool(pids) and not self.read("codes") and os.path.exists("/proc/%s" % pids[-1])

    def read(self, name: str) -> List[str]:
        try:
            with open(os.path.join(self.folder, name), encoding="utf-8") as file:
                return file.read().split()
        except OSError:
            return []
