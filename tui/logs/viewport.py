"""Which rows of a log are on the screen. Pure: a place in the lines, moved by rows; no drawing, no clock.

Rules:
- Following shows the end. Moving up stops that; then only the user moves the view, whatever is written.
- Moving down where there is no more to see follows again.
- The view never shows emptiness below the last line while there are lines above.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tui.logs.lines import Line, Lines

Row = tuple["Line", int]
"""A line and which of its parts: a wrapped line has several, any other has part 0 only."""


class Viewport:
    """`parts` says how many rows a line takes. `top` is where the first visible line begins, `skip` counts its parts
    that are above the view."""

    def __init__(self, lines: Lines, parts: Callable[[Line], int] = lambda line: 1) -> None:
        self.lines = lines
        self.parts = parts
        self.height = 1
        self.following = True
        self.top = 0
        self.skip = 0

    def rows(self) -> list[Row]:
        """What is to be seen, from the top."""
        if not self.following:
            rows = self._below(self.top, self.skip)
            if len(rows) == self.height:
                return rows
        rows = self._last()
        self.top, self.skip = (rows[0][0].at, rows[0][1]) if rows else (0, 0)
        return rows

    def move(self, count: int) -> None:
        """Move down by so many rows, or up by `-count`."""
        if count < 0:
            self.rows()
            self.following = False
            self._up(-count)
        elif not self.following:
            last = self._last()
            end = (last[0][0].at, last[0][1]) if last else (0, 0)
            if (self.top, self.skip) >= end:
                self.following = True
            else:
                self._down(count)
                self.top, self.skip = min((self.top, self.skip), end)

    def to_start(self) -> None:
        self.following, self.skip = False, 0
        first = self.lines.forward(0, 1)
        self.top = first[0].at if first else 0

    def to(self, at: int) -> None:
        """Stop following, and bring the line at `at` into view; a third of the view is above it if it is not there."""
        visible = any(line.at == at for line, _ in self.rows())
        self.following = False
        if not visible:
            self.top, self.skip = at, 0
            self._up(self.height // 3)

    def to_share(self, share: float) -> None:
        """The line that is so far down comes to the top."""
        self.following, self.skip = share >= 1.0, 0
        self.top = self.lines.at_share(min(max(share, 0.0), 1.0))

    def _last(self) -> list[Row]:
        rows: list[Row] = []
        for line in reversed(self.lines.backward(self.lines.end, self.height)):
            rows += [(line, part) for part in reversed(range(self.parts(line)))]
            if len(rows) >= self.height:
                break
        return rows[: self.height][::-1]

    def _below(self, at: int, skip: int) -> list[Row]:
        rows: list[Row] = []
        for line in self.lines.forward(at, self.height):
            rows += [(line, part) for part in range(skip if line.at == at else 0, self.parts(line))]
            if len(rows) >= self.height:
                break
        return rows[: self.height]

    def _up(self, count: int) -> None:
        count -= self.skip
        self.skip = 0
        if count <= 0:
            self.skip = -count
            return
        for line in reversed(self.lines.backward(self.top, count)):
            self.top = line.at
            count -= self.parts(line)
            if count <= 0:
                self.skip = -count
                return

    def _down(self, count: int) -> None:
        count += self.skip
        self.skip = 0
        for line in self.lines.forward(self.top, count + 1):
            self.top = line.at
            parts = self.parts(line)
            if count < parts:
                self.skip = count
                return
            self.top = line.end
            count -= parts
