"""Alarms about made-up curves: each is raised by what it is for, and by nothing that only looks so."""

from __future__ import annotations

import math
import random

import msgspec

from engine.alarms import Alarm, Beat, alarms

RANDOM = random.Random(7)


def quiet(steps: int = 100, data: float = 0.01, start: float = 0.0) -> list[Beat]:
    """A run as it should be: a noisy loss that falls, and steps of about a second."""
    return [
        Beat(
            step=step,
            loss=3 / (1 + step / 50) * RANDOM.uniform(0.9, 1.1),
            rate=100 * RANDOM.uniform(0.95, 1.05),
            step_time=1.0,
            data_time=data,
            t=start + step,
        )
        for step in range(1, steps + 1)
    ]


def changed(beats: list[Beat], first: int, last: int, **fields: float) -> list[Beat]:
    return [msgspec.structs.replace(b, **fields) if first <= (b.step or 0) <= last else b for b in beats]


def only(found: list[Alarm]) -> Alarm:
    assert len(found) == 1, found
    return found[0]


def test_a_run_as_it_should_be_raises_nothing() -> None:
    assert alarms({0: quiet(), 1: quiet()}, now=101.0) == []


def test_one_slow_step_and_one_bad_batch_raise_nothing() -> None:
    assert alarms({0: changed(quiet(), 50, 51, rate=10.0, loss=2.1)}) == []


def test_a_loss_that_is_no_number() -> None:
    found = only(alarms({0: changed(quiet(), 40, 100, loss=math.nan)}))
    assert (found.kind, found.step, found.rank) == ("nan-loss", 40, 0)


def test_a_loss_that_jumps() -> None:
    found = only(alarms({None: changed(quiet(), 60, 60, loss=9.0)}))
    assert (found.kind, found.step) == ("loss-spike", 60)


def test_throughput_that_falls_for_good() -> None:
    found = only(alarms({0: changed(quiet(), 61, 100, rate=60.0)}))
    assert found.kind == "throughput-drop"
    assert found.step is not None and 58 <= found.step <= 64


def test_steps_that_wait_for_data() -> None:
    assert only(alarms({0: quiet(data=0.4), 1: quiet(data=0.45)})).kind == "data-bound"


def test_a_rank_that_is_late() -> None:
    found = only(alarms({0: quiet(), 1: quiet(), 2: quiet(data=0.2)}))
    assert (found.kind, found.rank) == ("straggler", 2)


def test_a_run_that_stands_still_names_the_rank_that_is_behind() -> None:
    found = only(alarms({0: quiet(100), 1: quiet(97)}, now=200.0))
    assert (found.kind, found.rank, found.step) == ("stall", 1, 100)
    assert "100 s" in found.text


def test_of_a_run_that_goes_on_a_throughput_that_came_back_raises_nothing() -> None:
    beats = changed(quiet(), 40, 60, rate=50.0)
    assert only(alarms({0: beats})).kind == "throughput-drop"
    assert alarms({0: beats}, now=101.0) == []


def test_rates_in_several_units_are_not_compared() -> None:
    beats = [msgspec.structs.replace(b, unit="it/s" if (b.step or 0) % 3 else "samples/s") for b in quiet()]
    assert alarms({0: [msgspec.structs.replace(b, rate=1.0) if b.unit == "it/s" else b for b in beats]}) == []


def test_a_rank_that_all_others_wait_for() -> None:
    waiting = changed(quiet(), 1, 100, comm_time=0.3)
    found = only(alarms({0: waiting, 1: waiting, 2: changed(quiet(), 1, 100, comm_time=0.02)}))
    assert (found.kind, found.rank) == ("straggler", 2)


def test_ranks_that_wait_alike_raise_nothing() -> None:
    waiting = changed(quiet(), 1, 100, comm_time=0.3)
    assert alarms({0: waiting, 1: waiting, 2: changed(quiet(), 1, 100, comm_time=0.25)}) == []


def test_a_noisy_loss_that_jumps_as_often_before_is_no_spike() -> None:
    beats = [msgspec.structs.replace(b, loss=2.0 if (b.step or 0) % 6 else 6.0) for b in quiet()]
    assert alarms({0: changed(beats, 90, 90, loss=7.0)}) == []
