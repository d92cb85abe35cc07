"""What is measured, beside what a user would use instead, and the table of it."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

SIGNS = {"most": "≤", "least": "≥"}


class Figure(NamedTuple):
    """One line of the table. `value` is compared with `target`, of which it may be at "most" or has to be at "least"
    so much; `ours` and `beside` are the measurements behind it, in words with units."""

    what: str
    ours: str
    beside: str
    value: float
    target: float
    bound: str = "most"
    unit: str = "×"

    @property
    def met(self) -> bool:
        return self.value <= self.target if self.bound == "most" else self.value >= self.target


def spread(values: Sequence[float], digits: int = 2, unit: str = "s") -> str:
    """The median, with the smallest and largest value."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f} {unit}"
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} {unit} ({low:.{digits}f}–{high:.{digits}f})"


def table(figures: Sequence[Figure]) -> str:
    """The figures as aligned text, each with its target and whether it is met."""
    rows = [("what", "Rankdeck", "instead", "figure", "target", "")]
    for figure in figures:
        rows.append(
            (
                figure.what,
                figure.ours,
                figure.beside or "-",
                f"{figure.value:.3g} {figure.unit}",
                f"{SIGNS[figure.bound]} {figure.target:g} {figure.unit}",
                "met" if figure.met else "MISSED",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)


def markdown(figures: Sequence[Figure]) -> str:
    """The figures as README.md shows them."""
    rows = ["| what | Rankdeck | instead | figure | aim | |", "|---|---|---|---|---|---|"]
    for figure in figures:
        unit = "" if figure.unit == "×" else f" {figure.unit}"
        value, target = f"{figure.value:.3g}{unit}", f"{SIGNS[figure.bound]} {figure.target:.3g}{unit}"
        cells = [figure.what, figure.ours, figure.beside, value, target, "met" if figure.met else "missed"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"
