"""Runs on two nodes that are both this machine: real preflight, supervisors and viewers, a stand-in for torchrun."""

from __future__ import annotations

import hashlib
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import events, runs
from engine.check import Preflight
from engine.errors import Unreachable
from engine.fleet import Fleet
from engine.node import sweep
from engine.profile import Node, Profile, Program, Rendezvous
from engine.session import Session
from engine.transport import Connector, LocalTransport
from tests.node.launching import STANDIN

if TYPE_CHECKING:
    from engine.conversation import Conversation
    from engine.transport import Transport

STREAMS = ("n*/journal.jsonl", "n*/torchrun.log", "n*/ranks/*/attempt_*/*/*.log")


class Seen:
    """A viewer that keeps what it is shown."""

    def __init__(self) -> None:
        self.events: list[events.AnyEvent] = []
        self.logs: dict[tuple[int, str], bytes] = {}

    def event(self, event: events.AnyEvent) -> None:
        self.events.append(event)

    def log(self, node_rank: int, stream: str, data: bytes) -> None:
        self.logs[node_rank, stream] = self.logs.get((node_rank, stream), b"") + data

    def kinds(self, node_rank: int) -> list[str]:
        return [type(event).__name__ for event in self.events if event.node_rank == node_rank]

    def text(self) -> str:
        return b"".join(self.logs.values()).decode()


class Wire(Connector):
    """Connects to this machine; keeps the transports. While it is `cut`, no new one comes through but the
    next few that it is told to let through."""

    def __init__(self) -> None:
        super().__init__()
        self.transports: list[LocalTransport] = []
        self.cut = False
        self.lets_through = 0

    async def connect(self, host: str, *, user: str = "", port: int | None = None) -> Transport:
        if self.cut and not self.lets_through:
            raise Unreachable("the wire is cut", node=host)
        self.lets_through = max(0, self.lets_through - 1)
        transport = await super().connect(host, user=user, port=port)
        assert isinstance(transport, LocalTransport)
        self.transports.append(transport)
        return transport

    def kill(self, number: int) -> None:
        """Kill our program at the other end of one transport, as if the connection had broken."""
        (link,) = self.transports[number]._links
        link._process.kill()


class Place:
    """Where the runs of one test are: our folder, the nodes' folder, and a torchrun on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "node"
        self.bin = folder / "bin"
        self.bin.mkdir()
        torchrun = self.bin / "torchrun"
        torchrun.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, str(STANDIN)])} "$@"\n')
        torchrun.chmod(0o755)

    def profile(self, script: str, *, ranks: int = 1, secrets: tuple[str, ...] = ()) -> Profile:
        """Two nodes; every rank is `sh -c SCRIPT`."""
        node = Node(host="localhost", gpus=ranks)
        return Profile(
            version=1,
            name="lab",
            nodes=(node, node),
            rendezvous=Rendezvous(master_port="auto"),
            program=Program(
                kind="command",
                path="sh",
                args=("-c", script),
                activate=f"export PATH={self.bin}:{Path(sys.executable).parent}:$PATH",
            ),
            secrets=secrets,
            state_dir=str(self.state),
        )

    async def launch(
        self, profile: Profile, wire: Wire, viewer: Seen | None = None, run: str = ""
    ) -> tuple[Session, dict[int, Conversation]]:
        checked = Preflight(profile, Fleet(profile.nodes, profile.state_dir, wire))
        await checked.run()
        try:
            return await Session.launch(checked, checked.plan(run or runs.new_name("lab")), wire, viewer or Seen())
        except BaseException:
            await checked.close()
            raise

    def on_node(self, run: str) -> Path:
        return self.state / "runs" / run

    def left(self) -> list[dict[str, Any]]:
        """Processes of any run that are still there."""
        return sweep.find(str(self.state))

    def clear(self) -> None:
        deadline = time.monotonic() + 20
        while (left := self.left()) and time.monotonic() < deadline:
            sweep.kill(left, 0.0)


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every stream below a run's folder, by its name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for pattern in STREAMS
        for path in folder.glob(pattern)
    }
