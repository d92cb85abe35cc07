"""How each rank does, as the map and its summary show it: one word a rank. Pure."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from engine.state import WorkerState

if TYPE_CHECKING:
    from engine.state import RunState

WORDS = ("waiting", "running", "slow", "silent", "ended", "failed", "killed", "unreachable", "lost")
BAD = frozenset({"slow", "silent", "failed", "lost", "unreachable"})
"""What `n` goes to."""
SLOW = 1.3
"""A rank is slow when its step takes this many times the median of all ranks."""


class Health(msgspec.Struct, frozen=True, gc=False):
    """`word` is one of WORDS; `step_time` in seconds and `pace`, the same over the median of all ranks, are None where
    the rank prints none."""

    word: str
    pace: float | None = None
    step_time: float | None = None
    worker: WorkerState | None = None


def health(state: RunState) -> list[Health]:
    """One a rank of the plan, by (node_rank, local_rank)."""
    newest = dict.fromkeys(state.nodes, 0)
    if state.attempt:
        for attempt, node_rank, _ in state.workers:
            newest[node_rank] = max(attempt, newest[node_rank])
    workers = [
        state.workers.get((newest[plan.node_rank], plan.node_rank, local))
        for plan in state.plan.nodes
        for local in range(plan.nproc)
    ]
    times = [None if worker is None else step_time(worker) for worker in workers]
    known = [time for time in times if time is not None]
    median = statistics.median(known) if known else 0.0
    over = any(worker is not None and worker.ended is not None for worker in workers)
    root = state.verdict() if over and any(worker is not None and worker.failed for worker in workers) else None
    first = root.rank if root is not None else None
    failed = over and state.outcome in ("failed", "stopped")
    found: list[Health] = []
    for plan in state.plan.nodes:
        node = state.nodes[plan.node_rank]
        away = "lost" if node.lost else "unreachable" if node.link == "broken" else ""
        for rank in range(plan.first_rank, plan.first_rank + plan.nproc):
            worker, time = workers[rank], times[rank]
            pace = None if time is None else time / median
            if worker is None or worker.ended is None:
                slow = pace is not None and pace >= SLOW
                word = away or ("waiting" if worker is None else "slow" if slow else "running")
            elif worker.failed:
                word = "failed" if first in (None, rank) else "killed"
            else:
                # Of an end that nobody saw, the run's own tells.
                word = "ended" if worker.code == 0 or not failed else "killed"
            found.append(Health(word, pace, time, worker))
    return found


def step_time(worker: WorkerState) -> float | None:
    """Seconds that the rank's newest step took."""
    metric = worker.metric
    value = metric.step_time if metric is not None else None
    return value if isinstance(value, (int, float)) and 0 < value < math.inf else None


def summary(ranks: list[Health]) -> str:
    """“1020 running, 3 slow, 1 failed”."""
    counts = Counter(one.word for one in ranks)
    return ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word])
