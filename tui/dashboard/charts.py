"""Loss and throughput over the steps, and the spread of step time over the ranks."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from engine.telling import short
from tui.dashboard.drawn import Drawn, Piece, fitting, strip
from tui.glyphs import ASCII

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.style import Style
    from textual.strip import Strip

    from tui.dashboard.panel import Scene

AXIS = 8
BINS = 16
"""Cells for how many ranks take how long."""
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bits of a braille character (U+2800 …) by row and column."""


def braille(points: Sequence[tuple[float, float]], width: int, height: int, ascii_only: bool) -> list[str]:
    """A line through (x, y) points as `height` rows of `width` characters; low values are at the bottom."""
    if not points or width < 1 or height < 1:
        return [" " * width] * height
    tall, wide = (1, 1) if ascii_only else (4, 2)
    xs, ys = [x for x, _ in points], [y for _, y in points]
    left, low = min(xs), min(ys)
    across, up = (max(xs) - left) or 1.0, (max(ys) - low) or 1.0
    cells = [[0] * width for _ in range(height)]
    columns: dict[int, list[float]] = {}
    for x, y in points:
        columns.setdefault(round((x - left) / across * (width * wide - 1)), []).append((y - low) / up)
    flat = max(ys) == low
    dots = [(column, 0.5 if flat else sum(shares) / len(shares)) for column, shares in sorted(columns.items())]
    before = dots[0]
    for at, share in dots:
        reach = max(1, at - before[0])
        last = round((1 - before[1]) * (height * tall - 1))
        for column in range(before[0] + (at > before[0]), at + 1):
            level = before[1] + (share - before[1]) * (column - before[0]) / reach if at > before[0] else share
            row = round((1 - level) * (height * tall - 1))
            for dot in range(min(row, last), max(row, last) + 1):
                cells[dot // tall][column // wide] |= 1 if ascii_only else _DOTS[dot % 4][column % 2]
            last = row
        before = (at, share)
    sign = (lambda bits: "*" if bits else " ") if ascii_only else (lambda bits: chr(0x2800 + bits) if bits else " ")
    return ["".join(map(sign, row)) for row in cells]


class ChartsPanel(Drawn):
    """Two curves side by side or stacked, whichever the room is better for."""

    key = "charts"
    title = "charts"
    help = """Loss and throughput over the steps of the run. Below them how far the ranks' step times lie apart:
a block for those that take so long, from the fastest to the slowest, the higher the more."""

    def __init__(self) -> None:
        super().__init__()
        self._version: tuple[int, int, int] | None = None

    def rows(self, scene: Scene, width: int, height: int) -> list[Strip]:
        points = scene.curves.points
        loss = [(p.step, p.loss) for p in points if p.loss is not None]
        rate = [(p.step, p.rate) for p in points if p.rate is not None]
        unit = scene.curves.rate_unit or "rate"
        if not rate:
            rate, unit = [(p.step, p.step_time) for p in points if p.step_time is not None], "s/step"
        foot = [self._spread(scene, width)]
        room = height - len(foot)
        if width >= 2 * 34 and room < 16:
            half = (width - 2) // 2
            first = self._chart("loss", loss, half, room, self.palette.warning, scene)
            second = self._chart(unit, rate, width - 2 - half, room, self.palette.primary, scene)
            pairs = zip(first, second, strict=True)
            return [strip([*left, ("  ", None), *right]) for left, right in pairs] + foot
        upper = self._chart("loss", loss, width, room - room // 2, self.palette.warning, scene)
        lower = self._chart(unit, rate, width, room // 2, self.palette.primary, scene)
        return [strip(pieces) for pieces in (*upper, *lower)] + foot

    def _chart(
        self, name: str, points: list[tuple[int, float]], width: int, height: int, style: Style, scene: Scene
    ) -> list[list[Piece]]:
        if height < 2:
            return [[(" " * width, None)] for _ in range(height)]
        head = f"{name}: none was read" if scene.state.over else f"{name}: nothing yet"
        if points:
            head = f"{name} {short(points[-1][1])} {scene.glyphs.separator} step {points[-1][0]:,}"
        rows: list[list[Piece]] = [
            [(f"{head:<{width}}"[:width], self.palette.strong if points else self.palette.muted)]
        ]
        drawn = braille(points, max(1, width - AXIS), height - 1, scene.glyphs is ASCII)
        low, high = (min(y for _, y in points), max(y for _, y in points)) if points else (math.nan, math.nan)
        for at, text in enumerate(drawn):
            mark = short(high) if points and at == 0 else short(low) if points and at == height - 2 else ""
            rows.append([(f"{mark[: AXIS - 1]:>{AXIS - 1}} ", self.palette.muted), (text, style)])
        return rows

    def _spread(self, scene: Scene, width: int) -> Strip:
        """How far the ranks lie apart: how many of them take how long, from the fastest to the slowest."""
        times = {
            rank: one.step_time
            for rank, one in enumerate(scene.ranks)
            if one.step_time is not None and (one.word in ("running", "slow") or scene.state.over)
        }
        if len(times) < 2:
            return strip([])
        least, most = min(times.values()), max(times.values())
        groups: list[list[Piece]] = [
            [
                ("step time ", self.palette.muted),
                (f"{least:.3g} ", self.palette.text),
                (histogram(list(times.values()), BINS, scene.glyphs.levels), self.palette.primary),
                (f" {most:.3g} s", self.palette.text),
            ]
        ]
        slowest = max(times, key=lambda rank: times[rank])
        for name, value in (
            ("median", f"{statistics.median(times.values()):.3g} s"),
            ("slowest rank", str(slowest)),
        ):
            groups.append([(f"  {name} ", self.palette.muted), (value, self.palette.text)])
        return fitting(groups, width).crop(0, width)


def histogram(values: Sequence[float], width: int, levels: str) -> str:
    """How many of the values lie where between the least and the most of them, as blocks; where none does, a space."""
    low, high = min(values), max(values)
    counts = [0] * width
    for value in values:
        counts[min(width - 1, int((value - low) / (high - low) * width)) if high > low else width // 2] += 1
    tallest = max(counts)
    return "".join(levels[round(count / tallest * (len(levels) - 1))] if count else " " for count in counts)
