"""How ranks find each other: one store of keys, in which every rank writes how far it has come.

Where ranks hang, the store still answers: it tells the ranks that never came from those that wait for them.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from torch.distributed import HashStore, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.train.world import World

LAST_WORDS_S = 2.0  # how long the report of a hang may take


class Behind(NamedTuple):
    """Who is not as far as this rank: those that never came, and those that stopped at an earlier stage."""

    stage: str
    missing: tuple[int, ...]
    late: tuple[int, ...]
    unreachable: bool = False  # not even the store answers

    def __str__(self) -> str:
        if self.unreachable:
            return f"{self.stage}: rank 0's store does not answer"
        if self.missing:
            return f"{self.stage}: not arrived: {ranks_text(self.missing)}"
        if self.late:
            return f"{self.stage}: arrived, and then stopped before it: {ranks_text(self.late)}"
        return f"{self.stage}: every rank is in it, and it does not end"


class Meeting:
    """The ranks' store, and how far each has come."""

    def __init__(self, world: World, timeout_s: float) -> None:
        """Connects to the store; RuntimeError when nothing answers at the address in time."""
        self.world = world
        self.stages: list[str] = []
        self.store = connect(world, timeout_s) if world.address else HashStore()

    def reach(self, stage: str) -> None:
        """Says that this rank has come as far as `stage`; the stages of all ranks have the same order."""
        self.stages.append(stage)
        self.store.set(f"at/{self.world.rank}", str(len(self.stages)))

    def behind(self) -> Behind:
        """Who is not as far as this rank; asked over a connection of its own, because a waiting one is locked."""
        stage = self.stages[-1] if self.stages else "start"
        try:
            store = connect(self.world, LAST_WORDS_S, serve=False) if self.world.address else self.store
            at = {}
            for rank in range(self.world.ranks):
                at[rank] = int(store.get(f"at/{rank}")) if store.check([f"at/{rank}"]) else 0
        except (RuntimeError, ValueError):
            return Behind(stage, (), (), unreachable=True)
        return Behind(
            stage,
            missing=tuple(rank for rank, count in at.items() if count == 0),
            late=tuple(rank for rank, count in at.items() if 0 < count < len(self.stages)),
        )


def connect(world: World, timeout_s: float, *, serve: bool = True) -> Store:
    """The store at rank 0's address; rank 0 serves it, unless torchrun does. A restarted attempt has its own keys."""
    timeout = datetime.timedelta(seconds=max(timeout_s, 0.1))
    own = serve and world.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = TCPStore(
        world.address, world.port, None, is_master=own, timeout=timeout, wait_for_workers=False, multi_tenant=own
    )
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"rankdeck/{attempt}", store)


def ranks_text(ranks: tuple[int, ...]) -> str:
    """`rank 3`, `ranks 0-3, 7`."""
    parts: list[list[int]] = []
    for rank in sorted(ranks):
        if parts and rank == parts[-1][-1] + 1:
            parts[-1][1:] = [rank]
        else:
            parts.append([rank])
    text = ", ".join("-".join(map(str, part)) for part in parts)
    return f"rank{'s' if len(ranks) > 1 else ''} {text}"


class Deadline:
    """Ends this process when its time is up, even if it hangs in C++; `late` is called first and says why.

    A collective that hangs never returns to Python; only another thread can still act.
    """

    def __init__(self, seconds: float, late: Callable[[], None], code: int = 1) -> None:
        self.at = time.monotonic() + seconds
        self.done = threading.Event()
        self.late = late
        self.code = code
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.at - time.monotonic()

    def _watch(self) -> None:
        if not self.done.wait(max(self.left, 0.0)):
            with contextlib.suppress(BaseException):
                self.late()
            os._exit(self.code)

    def __enter__(self) -> Deadline:
        return self

    def __exit__(self, *error: object) -> None:
        self.done.set()
