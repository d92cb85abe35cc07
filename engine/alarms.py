"""What the progress of the ranks says by itself: losses that go wrong, throughput that falls, who waits for whom. Pure.

Every judgement is on medians, so that one slow step (a checkpoint, an evaluation) raises nothing.
"""

from __future__ import annotations

import itertools
import math
from statistics import median
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Kind = Literal["nan-loss", "loss-spike", "throughput-drop", "data-bound", "straggler", "stall"]

WINDOW = 32
"""Losses that a new one is compared with; no fewer than a quarter of them."""
SPIKE = 1.5
SPREADS = 8.0
BEYOND = 2.0
"""A spike is this many times the median loss of the window, so many median deviations above it, and so many times as
far above it as any loss of the window."""
SLOW = 0.7
BASELINE = 20
RECENT = 5
WARM_UP = 2
"""A drop is a median of the last RECENT rates below SLOW times that of the first BASELINE after WARM_UP."""
DATA_SHARE = 0.3
"""Share of a step spent waiting for data from which a run is bound by it."""
LATE = 2.0
"""Times the other ranks' data time, and a tenth of the step, that make a straggler; with the times for which ranks wait
for each other it is the other way round: nobody has to wait for the others less."""
SPOKESMEN = 8
"""Ranks whose losses and rates are looked at for what all of them share."""
STALL = 8.0
STALL_LEAST = 30.0
"""Median intervals, and seconds, without a line of progress."""


class Beat(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One measured step. Times in seconds; `t` in unix seconds where it is known."""

    step: int | None = None
    loss: float | None = None
    rate: float | None = None
    unit: str = ""
    step_time: float | None = None
    data_time: float | None = None
    comm_time: float | None = None
    t: float | None = None


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """Something to look at: since which step, of which rank where it is one's own, in a sentence."""

    kind: Kind
    text: str
    step: int | None = None
    rank: int | None = None


def alarms(ranks: Mapping[int | None, Sequence[Beat]], now: float | None = None) -> list[Alarm]:
    """The alarms of a run, by the steps that each rank has reported; `now` in unix seconds where the run goes on."""
    found: list[Alarm] = []
    for rank, beats in ranks.items():
        if (bad := _not_finite(rank, beats)) is not None:
            found.append(bad)
    for rank in sorted(ranks, key=lambda rank: -len(ranks[rank]))[:SPOKESMEN]:
        found += [one for one in (_spike(rank, ranks[rank]), _drop(rank, ranks[rank], now is not None)) if one]
    times = {rank: pair for rank, beats in ranks.items() if (pair := _data_times(beats)) is not None}
    late = _straggler(times) or _waited_for(ranks)
    found += [one for one in (_data_bound(times), late) if one]
    if now is not None and (stalled := _stall(ranks, now)) is not None:
        found.append(stalled)
    return _once(found)


def _once(found: Iterable[Alarm]) -> list[Alarm]:
    """Ranks of one run see the same loss: of each kind the earliest."""
    first: dict[str, Alarm] = {}
    for one in found:
        known = first.get(one.kind)
        if known is None or (one.step is not None and known.step is not None and one.step < known.step):
            first[one.kind] = one
    return list(first.values())


def _not_finite(rank: int | None, beats: Sequence[Beat]) -> Alarm | None:
    for beat in beats:
        if beat.loss is not None and not math.isfinite(beat.loss):
            return Alarm(
                kind="nan-loss", text=f"the loss is {beat.loss} at step {beat.step}", step=beat.step, rank=rank
            )
    return None


def _spike(rank: int | None, beats: Sequence[Beat]) -> Alarm | None:
    losses = [(b.step, b.loss) for b in beats if b.loss is not None and math.isfinite(b.loss)]
    for at in range(WINDOW // 4, len(losses)):
        step, loss = losses[at]
        window = [value for _, value in losses[max(0, at - WINDOW) : at]]
        usual = median(window)
        spread = median(abs(value - usual) for value in window)
        if loss - usual > max((SPIKE - 1) * abs(usual), SPREADS * spread, BEYOND * (max(window) - usual)):
            return Alarm(
                kind="loss-spike",
                text=f"the loss jumped to {loss:.4g} at step {step}, from about {usual:.4g}",
                step=step,
                rank=rank,
            )
    return None


def _drop(rank: int | None, beats: Sequence[Beat], going_on: bool) -> Alarm | None:
    """Of a run that goes on, only what holds now."""
    rated = [b for b in beats if b.rate is not None and math.isfinite(b.rate) and b.rate > 0]
    # A trainer may tell rates in several units, on lines of their own.
    unit = max({b.unit for b in rated}, key=lambda unit: sum(b.unit == unit for b in rated), default="")
    rates = [(b.step, b.rate or 0.0) for b in rated if b.unit == unit][WARM_UP:]
    if len(rates) < 2 * RECENT:
        return None
    baseline = median(rate for _, rate in rates[:BASELINE])
    for at in range(len(rates) if going_on else RECENT, len(rates) + 1):
        recent = median(rate for _, rate in rates[at - RECENT : at])
        if recent < SLOW * baseline:
            since = rates[at - RECENT // 2 - 1][0]
            text = f"throughput fell to {recent:.4g} from {baseline:.4g} at about step {since}"
            return Alarm(kind="throughput-drop", text=text, step=since, rank=rank)
    return None


def _data_times(beats: Sequence[Beat]) -> tuple[float, float] | None:
    """Median (data time, step time) of a rank, in seconds."""
    both = [(b.data_time, b.step_time) for b in beats if b.data_time is not None and b.step_time]
    both = both[WARM_UP:] or both
    return (median(d for d, _ in both), median(s for _, s in both)) if len(both) >= RECENT else None


def _data_bound(times: Mapping[int | None, tuple[float, float]]) -> Alarm | None:
    if not times:
        return None
    data, step = median(d for d, _ in times.values()), median(s for _, s in times.values())
    if data < DATA_SHARE * step:
        return None
    text = f"{data / step:.0%} of each step waits for data ({data:.3g} of {step:.3g} s): more or faster data workers"
    return Alarm(kind="data-bound", text=text)


def _straggler(times: Mapping[int | None, tuple[float, float]]) -> Alarm | None:
    """The rank for whose data all others wait: step times are alike, where ranks wait for each other."""
    if len(times) < 2:
        return None
    late = max(times, key=lambda rank: times[rank][0])
    others = median(data for rank, (data, _) in times.items() if rank != late)
    data, step = times[late]
    if data < LATE * others or data - others < step / 10:
        return None
    text = f"rank {late} is late: it waits {data:.3g} s a step for its data, the others {others:.3g} s"
    return Alarm(kind="straggler", text=text, rank=late)


def _waited_for(ranks: Mapping[int | None, Sequence[Beat]]) -> Alarm | None:
    """The rank that does not wait, where all others wait for it: it is late for what all do together."""
    waits: dict[int | None, tuple[float, float]] = {}
    for rank, beats in ranks.items():
        both = [(b.comm_time, b.step_time) for b in beats if b.comm_time is not None and b.step_time]
        both = both[WARM_UP:] or both
        if len(both) >= RECENT:
            waits[rank] = (median(wait for wait, _ in both), median(step for _, step in both))
    if len(waits) < 2:
        return None
    late = min(waits, key=lambda rank: waits[rank][0])
    others = median(wait for rank, (wait, _) in waits.items() if rank != late)
    wait, step = waits[late]
    if others < LATE * wait or others - wait < step / 10:
        return None
    text = f"rank {late} is late: the others wait {others:.3g} s a step for it, and it {wait:.3g} s for them"
    return Alarm(kind="straggler", text=text, rank=late)


def _stall(ranks: Mapping[int | None, Sequence[Beat]], now: float) -> Alarm | None:
    """No rank has reported a step for many times as long as a step takes; named is the rank that is furthest behind."""
    if now - max((beats[-1].t or 0.0 for beats in ranks.values() if beats), default=now) < STALL_LEAST:
        return None
    last: dict[int | None, Beat] = {}
    usual = 0.0
    for rank, beats in ranks.items():
        timed = [beat for beat in beats if beat.t is not None]
        if len(timed) < 3:
            continue
        times = [beat.t for beat in timed if beat.t is not None]
        last[rank] = timed[-1]
        usual = max(usual, median(b - a for a, b in itertools.pairwise(times)))
    if not last:
        return None
    newest = max(beat.t or 0.0 for beat in last.values())
    if now - newest < max(STALL * usual, STALL_LEAST):
        return None
    steps = {rank: beat.step for rank, beat in last.items() if beat.step is not None}
    behind = min(steps, key=lambda rank: steps[rank]) if len(set(steps.values())) > 1 else None
    text = f"no progress for {now - newest:.0f} s, where a line came every {usual:.3g} s"
    if behind is not None:
        text += f"; rank {behind} is furthest behind, at step {steps[behind]}"
    return Alarm(kind="stall", text=text, step=max(steps.values(), default=None), rank=behind)
