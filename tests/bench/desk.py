"""A user at a workstation with one node, both this machine: the real `rankdeck`, over a loopback sshd."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from engine.node import journal
from tests.bench.machine import loopback, served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.loopback.sshd import Lab, Sshd

RANKDECK = str(Path(sys.prefix) / "bin" / "rankdeck")


class Desk:
    """`node` is the folder of the login user at the node's end, `home` that of the user here."""

    def __init__(self, lab: Lab, sshd: Sshd, host: str) -> None:
        self.lab, self.sshd, self.host = lab, sshd, host
        self.node = lab.folder / "home"
        self.home = lab.folder / "desk"
        self.home.mkdir()
        self.env = {
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin",
            "XDG_STATE_HOME": str(self.home / "state"),
            "RANKDECK_SSH_CONFIG": str(lab.config),
        }

    def ssh(self, text: str) -> list[str]:
        """The plain OpenSSH command line that runs `text` on the node."""
        return ["ssh", "-F", str(self.lab.config), self.host, text]

    def launch(self, program: str, *args: str, ranks: int) -> str:
        """Start this Python program as every rank, detached; the run's name."""
        script = self.node / "program.py"
        script.write_text(program)
        profile = self.home / "bench.yaml"
        profile.write_text(
            f"version: 1\nname: bench\nnodes: [{{host: {self.host}, gpus: {ranks}}}]\n"
            "rendezvous: {master_addr: 127.0.0.1, master_port: auto}\n"
            f"program:\n  path: {script}\n  args: {json.dumps(args)}\n"
            f"  activate: {json.dumps(f'export OMP_NUM_THREADS=1 PATH={sys.prefix}/bin:$PATH')}\n"
        )
        return self.run("launch", str(profile), "--detach").strip()

    def run(self, *argv: str) -> str:
        """`rankdeck ARGV…` to its end; its stdout. RuntimeError if it fails."""
        done = subprocess.run(
            [RANKDECK, *argv], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"rankdeck {' '.join(argv)} ended with {done.returncode}: {done.stderr[-3000:]}")
        return done.stdout

    @contextlib.contextmanager
    def viewer(self, *argv: str) -> Iterator[psutil.Popen]:
        """`rankdeck ARGV…` running beside, unread."""
        viewer = psutil.Popen(
            [RANKDECK, *argv], env=self.env, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield viewer
        finally:
            viewer.terminate()
            viewer.wait(30)

    def there(self, run: str) -> Path:
        """The run's folder on the node."""
        return self.node / ".local/state/rankdeck/runs" / run / "n0"

    def here(self, run: str) -> Path:
        """The run's mirrors."""
        return self.home / "state/rankdeck/watched" / run / "n0"

    def stream(self, folder: Path, local_rank: int = 0) -> Path:
        """A rank's stdout in one of these folders, as soon as there is one."""
        pattern = f"ranks/*/attempt_0/{local_rank}/stdout.log"
        wait_until(lambda: any(folder.glob(pattern)))
        return next(folder.glob(pattern))

    def records(self, run: str) -> list[dict[str, Any]]:
        return journal.read(str(self.there(run) / "journal.jsonl"))[0]

    def await_end(self, run: str, seconds: float = 300.0) -> None:
        wait_until(lambda: any(record["type"] == "finished" for record in self.records(run)), seconds)

    def supervisor(self, run: str) -> psutil.Process:
        return psutil.Process(next(r["pid"] for r in self.records(run) if r["type"] == "supervisor"))

    def serve(self) -> psutil.Process:
        """Our program at the other end of the only connection there is."""
        wait_until(lambda: len(served(self.sshd)) == 1)
        return served(self.sshd)[0]


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    """RuntimeError where it does not come true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError("it does not happen")
        time.sleep(0.05)


@contextlib.contextmanager
def desk() -> Iterator[Desk]:
    with loopback(1) as (lab, sshd, hosts):
        os.environ.pop("RANKDECK_STATE", None)
        yield Desk(lab, sshd, hosts[0])
