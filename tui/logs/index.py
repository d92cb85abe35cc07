"""How many lines there are, and which number each has: newlines counted per block, eight bytes kept for each.

Counting begins at the end of the source, where the user looks, and goes on both ways: with what is written from then
on, and back to the beginning. Numbers count newlines, as `grep -n` and editors do.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING

from tui.logs import lines

if TYPE_CHECKING:
    from tui.logs.source import Source


class LineIndex:
    """Newlines of a source. All offsets are bytes."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._block = lines.BLOCK
        self._origin = source.size // self._block
        self._after = array("Q")
        """Newlines from the origin to the end of each whole block after it."""
        self._before = array("Q")
        """Newlines from the origin back to the beginning of each block before it."""

    def grow(self, budget: int) -> bool:
        """Count on, reading about `budget` bytes at most; is everything counted now but the unfinished block?"""
        size = self._source.size // self._block
        while budget > 0 and self._high < size:
            self._after.append((self._after[-1] if self._after else 0) + self._count(self._high))
            budget -= self._block
        while budget > 0 and self._low > 0:
            self._before.append((self._before[-1] if self._before else 0) + self._count(self._low - 1))
            budget -= self._block
        return self._high >= size and self._low == 0

    @property
    def counted(self) -> float:
        """How much of the source is counted, from 0 to 1."""
        whole = self._source.size // self._block
        return (self._high - self._low) / whole if whole else 1.0

    def between(self, start: int, end: int) -> int | None:
        """Newlines from `start` up to `end`; None where that is not counted yet."""
        first, last = self._before_offset(start), self._before_offset(end)
        return None if first is None or last is None else last - first

    def number(self, at: int) -> int | None:
        """The number of the line at `at`, the first one being 1; None while what is above it is not counted."""
        above = self.between(0, at)
        return None if above is None else above + 1

    def find(self, number: int) -> int | None:
        """Where line `number` begins, the last one for a number that is too large; None while that is not known."""
        size = self._source.size // self._block
        if self._low > 0 or self._high < size:
            return None
        wanted = number - 1
        if wanted <= 0:
            return 0

        def through(block: int) -> int:
            return self._before_offset((block + 1) * self._block) or 0

        top = self._before_offset(0) or 0
        block = bisect_left(range(size), wanted + top, key=through)
        data = self._source.read(block * self._block, self._block)
        position = -1
        for _ in range(wanted + top - (self._before_offset(block * self._block) or 0)):
            following = data.find(b"\n", position + 1)
            if following < 0:
                break
            position = following
        found = block * self._block + position + 1
        return found if found < self._source.size else lines.line_start(self._source, max(self._source.size - 1, 0))

    @property
    def _low(self) -> int:
        return self._origin - len(self._before)

    @property
    def _high(self) -> int:
        return self._origin + len(self._after)

    def _count(self, block: int) -> int:
        return self._source.read(block * self._block, self._block).count(b"\n")

    def _before_offset(self, offset: int) -> int | None:
        """Newlines from the origin to `offset`, negative before it."""
        offset = min(offset, self._source.size)
        block = offset // self._block
        if not self._low <= block <= self._high:
            return None
        if block >= self._origin:
            whole = self._after[block - self._origin - 1] if block > self._origin else 0
        else:
            whole = -self._before[self._origin - block - 1]
        rest = offset - block * self._block
        return whole + (self._source.read(block * self._block, rest).count(b"\n") if rest else 0)
