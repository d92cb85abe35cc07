"""Rules: the failures of all nodes -> the first real one. Pure.

torchrun names a root cause per node, and on every node but one that is a victim: a rank whose peer went away. The root
is the earliest failure, over all nodes, that is not a victim's. See `VICTIM` for how victims speak.
"""

from __future__ import annotations

import re
import signal as signals
from typing import Literal

import msgspec

VICTIM = re.compile(
    r"Connection closed by peer|Connection reset by peer|Broken pipe|Connection was likely closed"
    r"|recvValue failed|socketProgress|Connection closed by remote peer|connectFullMesh failed"
    r"|Watchdog caught collective operation timeout|Some NCCL operations have failed or timed out"
    r"|ncclRemoteError|remote process exited or there was a network error|The client socket has timed out"
    r"|DistNetworkError|DistStoreError|Timed out waiting .*ms for (?:recv|send) op|Read error \["
    r"|connect.*Connection refused|RendezvousConnectionError|failed to (?:recv|send), got"
    r"|SignalException: Process \d+ got signal: 15",
    re.IGNORECASE,
)
"""What a rank or torchrun says when a peer or the store went away (texts of torch 1.9 to 2.13, gloo and NCCL)."""

EVIDENCE = 3


class Failure(msgspec.Struct, frozen=True):
    """Something that ended badly. `t` in unix seconds on the workstation's clock; `tail` the last lines it wrote.

    `after_stop`: its own node was being stopped already, or its torchrun was gone.
    """

    kind: Literal["worker", "torchrun", "lost"]
    t: float
    node_rank: int
    host: str
    attempt: int = 0
    local_rank: int | None = None
    rank: int | None = None
    code: int | None = None
    signal: int | None = None
    after_stop: bool = False
    tail: tuple[str, ...] = ()

    @property
    def victim(self) -> bool:
        if self.kind == "lost":
            return False
        if self.after_stop or (self.kind == "worker" and self.signal == signals.SIGTERM):
            return True
        return any(VICTIM.search(line) for line in self.tail)


class Verdict(msgspec.Struct, frozen=True):
    """The first real failure: one sentence, and the lines that show it. `sure` is False where only victims are left."""

    t: float
    node_rank: int
    host: str
    rank: int | None
    text: str
    evidence: tuple[str, ...]
    sure: bool


def root(failures: list[Failure]) -> Verdict | None:
    """The verdict on failures sorted by time; None when there is none.

    A torchrun that ended because one of its own ranks failed is not a failure of its own. A node that was lost is
    noticed late, after its victims: it comes first where everybody else is a victim.
    """
    failures = sorted(failures, key=lambda failure: failure.t)
    with_workers = {f.node_rank for f in failures if f.kind == "worker" and not f.after_stop}
    own = [f for f in failures if not (f.kind == "torchrun" and f.signal is None and f.node_rank in with_workers)]
    real = [f for f in own if not f.victim]
    chosen = real or [f for f in own if not f.after_stop] or own
    if not chosen:
        return None
    first = chosen[0]
    return Verdict(first.t, first.node_rank, first.host, first.rank, sentence(first), evidence(first), bool(real))


def ending(code: int | None, signal: int | None) -> str:
    """How a process ended, in words."""
    if signal is not None:
        try:
            return f"was killed by {signals.Signals(signal).name}"
        except ValueError:
            return f"was killed by signal {signal}"
    return "ended, nobody saw how" if code is None else f"exited with code {code}"


def sentence(failure: Failure) -> str:
    """“rank 3 (local_rank 1) on gpu02 exited with code 1”."""
    where = f"on {failure.host} (node_rank {failure.node_rank})"
    if failure.kind == "lost":
        return f"{failure.host} (node_rank {failure.node_rank}) {failure.tail[0]}"
    how = ending(failure.code, failure.signal)
    if failure.kind == "torchrun":
        return f"torchrun {where} {how}"
    return f"rank {failure.rank} (local_rank {failure.local_rank}) {where} {how}"


def evidence(failure: Failure) -> tuple[str, ...]:
    """The lines worth reading: the last exception of a traceback, or the end of what was written."""
    if failure.kind == "lost":
        return ()
    lines = [line for line in failure.tail if line.strip()]
    raised = [
        i for i, line in enumerate(lines) if re.match(r"\S*(?:Error|Exception|Interrupt|Exit)\b.*", unprefixed(line))
    ]
    end = raised[-1] + 1 if raised else len(lines)
    return tuple(lines[max(0, end - EVIDENCE) : end])


def unprefixed(line: str) -> str:
    """Without torch's own `[rank0]: `."""
    return re.sub(r"^\[rank\d+\]:\s?", "", line)
