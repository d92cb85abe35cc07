"""How each rank does, as the map and its summary show it: one word a rank. Pure."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from engine.state import RunState, WorkerState

WORDS = ("waiting", "running", "slow", "silent", "ended", "failed", "killed", "unreachable", "lost")
BAD = frozenset({"slow", "silent", "failed", "lost", "unreachable"})
"""What `n` goes to."""
SLOW = 1.3
"""A rank is slow when its step takes this many times the median of all ranks."""


class Health(NamedTuple):
    """`word` is one of WORDS; `pace` is its step time over the median of all ranks, None where it prints none."""

    word: str
    pace: float | None = None
    worker: WorkerState | None = None


def health(state: RunState) -> list[Health]:
    """One a rank of the plan, by (node_rank, local_rank)."""
    newest: dict[int, int] = {}
    for attempt, node_rank, _ in state.workers:
        newest[node_rank] = max(attempt, newest.get(node_rank, 0))
    workers = {(key[1], key[2]): w for key, w in state.workers.items() if key[0] == newest[key[1]]}
    root = state.verdict() if any(worker.failed for worker in workers.values()) else None
    failed = state.outcome in ("failed", "stopped")
    first = root.rank if root is not None else None
    times = {key: t for key, w in workers.items() if (t := step_time(w)) is not None}
    median = statistics.median(times.values()) if times else 0.0
    found = []
    for plan in state.plan.nodes:
        node = state.nodes[plan.node_rank]
        away = "lost" if node.lost else "unreachable" if node.link == "broken" else ""
        for local in range(plan.nproc):
            key = (plan.node_rank, local)
            worker = workers.get(key)
            pace = times[key] / median if key in times else None
            if worker is not None and worker.ended is not None:
                if worker.failed:
                    word = "failed" if first in (None, plan.first_rank + local) else "killed"
                else:
                    # Of an end that nobody saw, the run's own tells.
                    word = "ended" if worker.code == 0 or not failed else "killed"
            else:
                slow = pace is not None and pace >= SLOW
                word = away or ("waiting" if worker is None else "slow" if slow else "running")
            found.append(Health(word, pace, worker))
    return found


def step_time(worker: WorkerState) -> float | None:
    """Seconds that the rank's newest step took."""
    metric = worker.metric
    value = metric.step_time if metric is not None else None
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) and value > 0 else None


def summary(ranks: list[Health]) -> str:
    """“1020 running, 3 slow, 1 failed”."""
    counts = Counter(one.word for one in ranks)
    return ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word])
