"""A trainer's own rate as one of the whole run, in the most telling unit that the profile allows. Pure.

A program says samples/s, it/s or tokens/s of one GPU. What follows from the profile is worked out here, and labelled
with how; where it would be a guess (steps of an unknown batch, or of micro-batches), nothing is said.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from engine.events import Metric
    from engine.plan import Plan


class Whole(NamedTuple):
    """A rate over all ranks; `by` tells what the program's own rate is multiplied with."""

    rate: float
    unit: str
    by: str


def whole(metric: Metric, plan: Plan) -> Whole | None:
    """None where the program's rate is of all ranks already, or the profile does not tell enough."""
    if not isinstance(metric.rate, (int, float)) or not math.isfinite(metric.rate):
        return None
    rate, unit, factors = float(metric.rate), metric.rate_unit, []
    if unit == "it/s" and plan.global_batch and plan.grad_accum == 1:
        # With accumulation a program may count steps or micro-batches.
        rate, unit = rate * plan.global_batch, "samples/s"
        factors.append(f"{plan.global_batch} samples a step")
    if unit.endswith("/gpu"):
        # Per GPU is what a step handles over the GPUs that handle it, with any parallelism.
        rate, unit = rate * plan.world_size, unit[: -len("/gpu")]
        factors.append(f"{plan.world_size} ranks")
    if unit == "samples/s" and plan.sequence_length:
        rate, unit = rate * plan.sequence_length, "tokens/s"
        factors.append(f"{plan.sequence_length} tokens a sample")
    return Whole(rate, unit, " × ".join(factors)) if factors else None


def paced(rate: float) -> str:
    """A rate as people read it: `5,120`, `8.29`, `0.0184`."""
    return f"{rate:,.0f}" if abs(rate) >= 100 else f"{rate:.3g}"
