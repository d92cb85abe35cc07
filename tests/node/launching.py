"""Starts a real supervisor in a state folder of its own, and waits for what its journal says."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

from engine.node import journal, proc, sweep

ROOT = Path(__file__).parents[2]
TORCHRUN = Path(sys.executable).with_name("torchrun")
STANDIN = Path(__file__).with_name("standin_torchrun.py")

Record = dict[str, Any]


def build_program(folder: Path) -> Path:
    """The zip that travels, made from the sources as they are."""
    path = folder / "agent.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for source in [ROOT / "engine/__init__.py", *sorted((ROOT / "engine/node").glob("*.py"))]:
            archive.write(source, source.relative_to(ROOT))
        archive.writestr("__main__.py", "from engine.node.__main__ import main\n\nmain()\n")
    return path


def standin(nproc: int, source: str) -> str:
    """A script that runs the stand-in for torchrun; `source` is the Python program of each rank."""
    words = [sys.executable, str(STANDIN), f"--nproc_per_node={nproc}"]
    rank = shlex.join([sys.executable, "-u", "-c", source])
    return f"exec {shlex.join(words)} --log_dir=$RANKDECK_RUN_DIR/ranks {rank}"


def torchrun(nproc: int, program: Path, *options: str) -> str:
    """A script that runs the real torchrun on one node."""
    words = [str(TORCHRUN), "--standalone", f"--nproc_per_node={nproc}", "--redirects=3", *options]
    return f"exec {shlex.join(words)} --log_dir $RANKDECK_RUN_DIR/ranks {shlex.quote(str(program))}"


class Launch:
    """One run folder and what happens in it."""

    def __init__(self, program: Path, state: Path, run: str = "lab-1", node_rank: int = 0) -> None:
        self.program = program
        self.state = state
        self.job = f"{run}/n{node_rank}"
        self.run_dir = state / "runs" / run / f"n{node_rank}"
        self.answer: Record = {}

    def start(
        self,
        script: str,
        *,
        grace: float = 10.0,
        secrets: dict[str, str] | None = None,
        python: str = sys.executable,
        env: dict[str, str] | None = None,
    ) -> Record:
        """Write job.json unless it is there, start the supervisor, and return its answer."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        run, _, node = self.job.partition("/n")
        job = {"version": 1, "run": run, "node_rank": int(node), "script": script, "grace": grace}
        (self.run_dir / "job.json").write_text(json.dumps(job))
        done = subprocess.run(
            [python, "-I", "-S", str(self.program), "supervise", str(self.run_dir)],
            input=json.dumps({"secrets": secrets or {}}).encode() + b"\n",
            capture_output=True,
            timeout=20,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )
        assert done.stderr == b"", done.stderr.decode()
        self.answer = json.loads(done.stdout)
        return self.answer

    def stop(self, grace: float, reason: str = "test") -> None:
        beside = self.run_dir / ".stop"
        beside.write_text(json.dumps({"grace": grace, "reason": reason}))
        beside.rename(self.run_dir / "stop.json")

    def records(self, *types: str) -> list[Record]:
        path = self.run_dir / "journal.jsonl"
        records = journal.read(str(path))[0] if path.exists() else []
        return [record for record in records if not types or record["type"] in types]

    def wait_for(self, type: str, count: int = 1, seconds: float = 30.0) -> list[Record]:
        """The records of a type, once there are so many."""
        deadline = time.monotonic() + seconds
        while len(found := self.records(type)) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} {type}: {self.records()} {self.log()}"
            time.sleep(0.02)
        return found

    def wait_until_free(self, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while sweep.alive(str(self.run_dir)):
            assert time.monotonic() < deadline, f"the supervisor does not end: {self.records()}"
            time.sleep(0.02)

    def finish(self, seconds: float = 30.0) -> Record:
        """The last record; the supervisor has let go of its lock and nothing of the job is left, not even a zombie."""
        self.wait_for("finished", seconds=seconds)
        self.wait_until_free()
        last = self.records()[-1]
        assert last["type"] == "finished"
        assert self.found() == []
        for record in self.records("torchrun", "worker"):
            left = proc.stat(record["pid"])
            assert left is None or left.start != record["start"], f"left over: {left}"
        return last

    def found(self) -> list[Record]:
        return sweep.find(str(self.state), {self.job})

    def log(self) -> str:
        path = self.run_dir / "torchrun.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    def output(self, local_rank: int, stream: str = "stdout") -> str:
        return "".join(p.read_text() for p in sorted(self.run_dir.glob(f"ranks/*/attempt_*/{local_rank}/{stream}.log")))

    def clear(self) -> None:
        """End whatever a failed test has left."""
        if sweep.alive(str(self.run_dir)):
            self.stop(0.0)
            self.wait_until_free()
        sweep.kill(self.found(), 0.0)
