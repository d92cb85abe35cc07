"""A user at the workstation: profiles, the real `rankdeck` command, and what is on the disks afterwards."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.cluster import Cluster
    from tests.cluster.hosts import Host

RANKDECK = str(Path(sys.prefix) / "bin" / "rankdeck")
VENV = f"export PATH={sys.prefix}/bin:$PATH"

TALK = """\
import os, sys, time
lines, pause = int(sys.argv[1]), float(sys.argv[2])
rank = os.environ["RANK"]
for number in range(lines):
    print(f"rank {rank} line {number} " + "x" * 60, flush=True)
    if pause:
        time.sleep(pause)
print(f"rank {rank} says goodbye", flush=True)
"""
"""A rank that prints numbered lines and ends."""


class Workstation:
    """`rankdeck` as a user runs it, in a home of its own, against the cluster."""

    def __init__(self, cluster: Cluster, env: dict[str, str]) -> None:
        self.cluster = cluster
        self.env = env
        self.home = Path(env["HOME"])

    def profile(self, name: str, *argv: str, hosts: tuple[Host, ...], ranks: int = 2, extra: str = "") -> str:
        """Write a profile that runs `argv` as every rank, below a real torchrun; its path."""
        nodes = "".join(f"  - {{host: {h.name}, addr: {h.address}, gpus: {ranks}}}\n" for h in hosts)
        text = (
            f"version: 1\nname: {name}\nnodes:\n{nodes}"
            f"program:\n  kind: command\n  path: {json.dumps(argv[0])}\n  args: {json.dumps(list(argv[1:]))}\n"
            f"  activate: {json.dumps(VENV)}\n{extra}"
        )
        path = self.home / f"{name}.yaml"
        path.write_text(text)
        return str(path)

    def script(self, name: str, text: str) -> str:
        """A program in the shared folder; its path, the same on every host."""
        path = self.cluster.share / name
        path.write_text(text)
        return str(path)

    def run(self, *argv: str, timeout: float = 90.0, **kw: Any) -> subprocess.CompletedProcess[str]:
        """Run `rankdeck ARGV…` to its end, without a terminal."""
        kw.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(
            [RANKDECK, *argv], env=self.env, capture_output=True, text=True, timeout=timeout, cwd=self.home, **kw
        )

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Start `rankdeck ARGV…`; its output goes to files, so that a killed viewer blocks nobody."""
        count = len(list(self.home.glob("viewer-*.out")))
        with (self.home / f"viewer-{count}.out").open("w") as out, (self.home / f"viewer-{count}.err").open("w") as err:
            return subprocess.Popen(
                [RANKDECK, *argv],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                text=True,
                cwd=self.home,
            )

    def launch(self, profile: str, *flags: str) -> str:
        """`rankdeck launch --detach`; the run's name."""
        done = self.run("launch", profile, "--detach", *flags)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def folder(self, run: str) -> Path:
        return Path(self.env["XDG_STATE_HOME"]) / "rankdeck" / "watched" / run

    def await_text(self, text: str, run: str, *, ranks: int, seconds: float = 40.0) -> None:
        """Wait until `text` is in the logs of so many ranks, on the nodes themselves."""
        wait_until(
            lambda: (
                sum(
                    text in log.read_text(errors="replace")
                    for host in self.cluster.hosts
                    if host.is_on
                    for log in node_folder(host, run).glob("n*/ranks/*/attempt_*/*/stdout.log")
                )
                >= ranks
            ),
            seconds=seconds,
        )


def node_folder(host: Host, run: str) -> Path:
    """A run's folder on a node."""
    return host.path(f".local/state/rankdeck/runs/{run}")


def wait_until(condition: Callable[[], object], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.1)


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every stream below a run's folder, by its name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for pattern in ("n*/journal.jsonl", "n*/torchrun.log", "n*/ranks/*/attempt_*/*/*.log")
        for path in folder.glob(pattern)
    }


def sums_on_nodes(hosts: tuple[Host, ...], run: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for host in hosts:
        found.update(sums(node_folder(host, run)))
    return found
