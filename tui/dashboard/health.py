"""How each rank does, as the map and its summary show it: one word a rank. Pure."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.state import RunState, WorkerState

WORDS = ("waiting", "running", "slow", "silent", "ended", "failed", "killed", "unreachable", "lost")
BAD = frozenset({"slow", "silent", "failed", "lost", "unreachable"})
"""What `n` goes to."""
SLOW = 1.3
"""A rank is slow when its step takes this many times the median of all ranks."""


@dataclass(frozen=True)
class Health:
    """`word` is one of WORDS; `pace` is its step time over the median of all ranks, None where it prints none."""

    word: str
    pace: float | None = None
    worker: WorkerState | None = None


def health(state: RunState) -> list[Health]:
    """One a rank of the plan, by (node_rank, local_rank)."""
    root = state.verdict() if any(worker.failed for worker in state.workers.values()) else None
    first = root.rank if root is not None else None
    newest: dict[int, int] = {}
    for attempt, node_rank, _ in state.workers:
        newest[node_rank] = max(attempt, newest.get(node_rank, 0))
    workers = {(key[1], key[2]): w for key, w in state.workers.items() if key[0] == newest[key[1]]}
    times = [t for w in workers.values() if (t := step_time(w)) is not None]
    median = statistics.median(times) if times else 0.0
    found = []
    for plan in state.plan.nodes:
        node = state.nodes[plan.node_rank]
        for local in range(plan.nproc):
            worker = workers.get((plan.node_rank, local))
            pace = None
            if worker is not None and median > 0 and (own := step_time(worker)) is not None:
                pace = own / median
            if worker is not None and worker.ended is not None:
                word = "ended"
                if worker.failed:
                    word = "failed" if first in (None, plan.first_rank + local) else "killed"
            elif node.lost:
                word = "lost"
            elif node.link == "broken":
                word = "unreachable"
            elif worker is None:
                word = "waiting"
            elif pace is not None and pace >= SLOW:
                word = "slow"
            else:
                word = "running"
            found.append(Health(word, pace, worker))
    return found


def step_time(worker: WorkerState) -> float | None:
    """Seconds that the rank's newest step took."""
    metric = worker.metric
    value = metric.step_time if metric is not None else None
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) and value > 0 else None


def summary(ranks: list[Health]) -> str:
    """“1020 running, 3 slow, 1 failed”."""
    counts = {word: sum(one.word == word for one in ranks) for word in WORDS}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)
