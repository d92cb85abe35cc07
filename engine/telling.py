"""A run in words: each event on a line, its progress on a line. Pure; what every front end says is said here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine import events
from engine.text import clean
from engine.throughput import paced, whole

if TYPE_CHECKING:
    from engine.state import RunState


def words(event: events.AnyEvent, state: RunState | None = None) -> str:
    """An event for a human; "" for one that needs no words."""
    host = getattr(event, "host", "")
    if not host and state is not None and event.node_rank in state.nodes:
        host = state.nodes[event.node_rank].host
    match event:
        case events.Unreachable():
            over = state is not None and event.node_rank in state.nodes and state.nodes[event.node_rank].over
            return f"{host}: unreachable{'' if over else ', the job there runs on'}: {event.text}"
        case events.Lost():
            return f"{host}: {event.text}"
        case events.Launched():
            return f"{host}: launched"
        case events.StopSent():
            return f"{host}: stopping ({event.reason})"
        case events.Clue():
            return f"{host}: the kernel says ({clean(event.source)}): {clean(event.text)}"
        case events.Warning():
            return f"{host}: {clean(event.text)}"
        case events.Job():
            return event.text
        case events.WorkerExit() if event.code != 0:
            from engine.diagnosis import ending  # all its rules come with it, and most who tell need none

            # How a rank ended that nobody saw is told by its torchrun, a moment later.
            unseen = event.code is None and event.signal is None
            how = "ended" if unseen else ending(event.code, event.signal)
            return f"{host}: rank {event.rank} (local_rank {event.local_rank}) {how}"
        case events.Worker() if event.attempt and event.local_rank == 0:
            return f"{host}: its ranks were started anew (attempt {event.attempt})"
        case events.Swept() if event.left:
            return f"{host}: cannot be removed: {', '.join(str(left.pid) for left in event.left)}"
        case events.Swept() if event.killed:
            return f"{host}: {event.killed} left-over process(es) removed"
        case _:
            return ""


def progress(state: RunState, now: float) -> str:
    """The run on one line: “running 0:01:07 · step 40/60 · loss 2.31 · 5,120 tokens/s · 4/4 ranks”."""
    running = sum(worker.ended is None for worker in state.workers.values() if worker.key[0] == state.attempt)
    parts: list[str] = [state.outcome]
    if state.started is not None:
        parts[0] += f" {clock(now - state.started)}"
    if (metric := state.metric) is not None:
        if metric.step is not None:
            parts.append(f"step {metric.step}" + (f"/{metric.total}" if metric.total else ""))
        if metric.loss is not None:
            parts.append(f"loss {number(metric.loss)}")
        if isinstance(metric.rate, float | int):
            parts.append(f"{paced(metric.rate)} {metric.rate_unit}")
        if (all_ranks := whole(metric, state.plan)) is not None:
            parts[-1] += f" = {paced(all_ranks.rate)} {all_ranks.unit} (× {all_ranks.by})"
    parts.append(f"{running}/{state.plan.world_size} ranks")
    if state.job is not None and state.started is None:
        parts.append(state.job.text)
    away = [node.host for node in state.nodes.values() if node.link == "broken" and not node.over]
    if away:
        parts.append(f"unreachable: {', '.join(away[:3])}" + (" …" if len(away) > 3 else ""))
    return " · ".join(parts)


def number(value: float | str | None, digits: int = 4) -> str:
    """A metric's number as people write it; “-” for none."""
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if isinstance(value, (int, float)) else value


def short(value: float) -> str:
    """A number in at most seven characters: 2.685, 26.5k, 1.2e-05."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{value:.4g}"


def clock(seconds: float) -> str:
    """h:mm:ss."""
    whole = max(0, int(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
