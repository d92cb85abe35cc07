"""Loss and throughput over time, in bounded memory. Pure: metrics in, points out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from engine.events import Metric, Number

LIMIT = 2048


class Point(msgspec.Struct, frozen=True):
    """`t` in unix seconds on the node's clock; `loss`, `rate` and `step_time` [s] where the line had them."""

    t: float
    step: int
    loss: float | None
    rate: float | None
    step_time: float | None


class Curves:
    """The progress of a run: one point a step, of whichever rank reported it first; thinned by half when full."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.rate_unit = ""
        self._attempt = 0
        self._stride = 1

    def add(self, metric: Metric) -> None:
        """Take the progress line of a rank. A restart begins again where its steps do: later points are dropped."""
        if metric.step is None:
            return
        if metric.attempt > self._attempt:
            self._attempt = metric.attempt
            self.points = [point for point in self.points if point.step < metric.step]
        if metric.attempt < self._attempt or (self.points and metric.step < self.points[-1].step + self._stride):
            return
        self.rate_unit = metric.rate_unit or self.rate_unit
        self.points.append(
            Point(metric.t, metric.step, finite(metric.loss), finite(metric.rate), finite(metric.step_time))
        )
        if len(self.points) > LIMIT:
            del self.points[1::2]
            self._stride *= 2


def finite(number: Number | None) -> float | None:
    """The number where it is one that can be drawn."""
    return float(number) if isinstance(number, (int, float)) and math.isfinite(number) else None
