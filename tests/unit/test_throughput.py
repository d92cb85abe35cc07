"""Rates of a program, as rates of the whole run."""

from __future__ import annotations

import msgspec
import pytest

from engine import events
from engine.plan import make_plan
from engine.profile import Batch, Node, Profile, Program
from engine.telling import number
from engine.throughput import paced, whole

BATCH = Batch(per_device=4, sequence_length=512)


def asked(rate: float | str, unit: str, batch: Batch | None) -> tuple[str, str, str] | None:
    """What is said of a rate, of a run of 2 nodes × 8 ranks."""
    nodes = tuple(Node(host=name, gpus=8, addr="10.0.0.1") for name in ("a", "b"))
    plan = make_plan(Profile(version=1, name="p", nodes=nodes, program=Program(path="t.py"), batch=batch), "p-1")
    said = {"type": "metric", "t": 0.0, "node_rank": 0, "attempt": 0, "local_rank": 0, "rate": rate, "rate_unit": unit}
    metric = msgspec.convert(said, events.Metric)
    found = whole(metric, plan)
    return (number(found.rate), found.unit, found.by) if found else None


@pytest.mark.parametrize(
    ("rate", "unit", "batch", "expected"),
    [
        (100.0, "tokens/s/gpu", None, ("1600", "tokens/s", "16 ranks")),
        (2.0, "it/s", Batch(per_device=4), ("128", "samples/s", "64 samples a step")),
        (2.0, "it/s", BATCH, ("6.554e+04", "tokens/s", "64 samples a step × 512 tokens a sample")),
        (10.0, "samples/s", BATCH, ("5120", "tokens/s", "512 tokens a sample")),
        (10.0, "samples/s/gpu", BATCH, ("8.192e+04", "tokens/s", "16 ranks × 512 tokens a sample")),
    ],
)
def test_a_rate_is_worked_out_over_all_ranks_and_says_how(
    rate: float, unit: str, batch: Batch | None, expected: tuple[str, str, str]
) -> None:
    assert asked(rate, unit, batch) == expected


@pytest.mark.parametrize(
    ("rate", "unit", "batch"),
    [
        (5000.0, "tokens/s", BATCH),  # of all ranks already
        (10.0, "samples/s", Batch(per_device=4)),
        (2.0, "it/s", None),
        (2.0, "it/s", Batch(per_device=4, grad_accum=2)),  # steps or micro-batches?
        ("nan", "tokens/s/gpu", BATCH),
    ],
)
def test_what_would_be_a_guess_is_not_said(rate: float | str, unit: str, batch: Batch | None) -> None:
    assert asked(rate, unit, batch) is None


def test_a_slow_rate_keeps_its_digits() -> None:
    assert [paced(rate) for rate in (5120.4, 99.95, 8.294, 0.01842)] == ["5,120", "100", "8.29", "0.0184"]
