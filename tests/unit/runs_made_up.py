"""Plans, profiles and events for tests that need a run and no machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine import events
from engine.plan import NodePlan, Plan
from engine.profile import Node, Profile, Program

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.state import RunState

RUN = "lab-20261124-120000-abcd"


def made_plan(nodes: int = 2, nproc: int = 2, run: str = RUN) -> Plan:
    parts = [
        NodePlan(node_rank=k, host=f"gpu0{k + 1}", nproc=nproc, first_rank=k * nproc, script="exec true\n")
        for k in range(nodes)
    ]
    return Plan(
        run=run,
        profile_name="lab",
        nodes=tuple(parts),
        world_size=nodes * nproc,
        master_addr="gpu01",
        master_port=29500,
    )


def made_profile(nodes: int = 2, nproc: int = 2) -> Profile:
    return Profile(
        version=1,
        name="lab",
        nodes=tuple(Node(host=f"gpu0{k + 1}", gpus=nproc) for k in range(nodes)),
        program=Program(kind="script", path="train.py"),
    )


def stderr_of(node_rank: int, local_rank: int, attempt: int = 0) -> str:
    return f"ranks/x_{node_rank}/attempt_{attempt}/{local_rank}/stderr.log"


class NodeStory:
    """What one node's journal says, told with times in seconds."""

    def __init__(self, node_rank: int, nproc: int = 2) -> None:
        self.node_rank = node_rank
        self.nproc = nproc
        self.told: list[events.AnyEvent] = []

    def add(self, kind: type[events.Event], t: float, **fields: Any) -> NodeStory:
        event: Any = kind(t=t, node_rank=self.node_rank, **fields)
        self.told.append(event)
        return self

    def starts(self, t: float = 0.0, attempt: int = 0) -> NodeStory:
        if not attempt:
            self.add(events.Supervisor, t, pid=1, start=1, boot="b").add(events.Torchrun, t, pid=2, start=2)
        for local_rank in range(self.nproc):
            path = stderr_of(self.node_rank, local_rank, attempt)
            self.add(events.Stream, t, path=path, attempt=attempt, local_rank=local_rank, stream="stderr")
            rank = self.node_rank * self.nproc + local_rank
            self.add(events.Worker, t, attempt=attempt, local_rank=local_rank, rank=rank, pid=10 + local_rank, start=3)
        return self

    def exits(
        self, t: float, local_rank: int, code: int | None = None, signal: int | None = None, attempt: int = 0
    ) -> NodeStory:
        rank = self.node_rank * self.nproc + local_rank
        return self.add(
            events.WorkerExit,
            t,
            attempt=attempt,
            local_rank=local_rank,
            rank=rank,
            pid=10 + local_rank,
            code=code,
            signal=signal,
        )

    def stops(self, t: float) -> NodeStory:
        return self.add(events.Stop, t, reason="the user asked", grace=35.0)

    def ends(self, t: float, code: int | None = None, signal: int | None = None, stopped: bool = False) -> NodeStory:
        self.add(events.TorchrunExit, t, code=code, signal=signal).add(events.Swept, t)
        return self.add(events.Finished, t, code=code, signal=signal, stopped=stopped)

    def succeeds(self, t: float = 10.0) -> NodeStory:
        self.starts()
        for local_rank in range(self.nproc):
            self.exits(t, local_rank, code=0)
        return self.ends(t + 1, code=0)


def fold(state: RunState, stories: Iterable[NodeStory]) -> RunState:
    return state.fold(event for story in stories for event in story.told)
