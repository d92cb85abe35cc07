"""The lines that a scan has found, read from its files: by number, by place, as lines to look at."""

from __future__ import annotations

import os
import tempfile
from array import array
from bisect import bisect_left
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tui.logs.lines import Line, forward, line_start

if TYPE_CHECKING:
    from tui.logs.source import Source


def unnamed_file() -> int:
    """A descriptor of a temporary file without a name: it is gone with whoever holds it."""
    fd, name = tempfile.mkstemp(prefix="rankdeck-hits-")
    Path(name).unlink()
    return fd


class Hits:
    """Numbers go from `first` up to `stop`; below 0 are those before the origin of the scan."""

    def __init__(self, before: int, after: int, origin: int) -> None:
        self.low = self.high = origin
        self.down = self.done = False
        self.first = self.stop = 0
        self._before = before
        self._after = after
        self._open: int | None = None
        self._found = 0

    def update(self, state: dict[str, Any]) -> None:
        """Take over what the scan says of itself."""
        self.low, self.high, self._open = state["low"], state["high"], state["open"]
        self.down, self.done = state["down"], state["done"]
        self._found = state["after"]
        self.first, self.stop = -state["before"], state["after"] + (self._open is not None)

    def __len__(self) -> int:
        return self.stop - self.first

    def at(self, number: int) -> int:
        """Where this line begins."""
        return self.several(number, 1)[0]

    def several(self, number: int, count: int) -> list[int]:
        """Where lines begin, in their order, from this number on."""
        last = min(number + count, self.stop)
        found: list[int] = []
        if number < 0:
            upto = min(last, 0)
            found += reversed(self._read(self._before, -upto, upto - number))
        if last > 0:
            start = max(number, 0)
            found += self._read(self._after, start, min(last, self._found) - start)
            if last > self._found and self._open is not None:
                found.append(self._open)
        return found

    def index(self, at: int) -> int:
        """The number of the first line found that begins at `at` or later."""
        return self.first + bisect_left(range(self.first, self.stop), at, key=self.at)

    def has(self, at: int) -> bool:
        """Is the line at `at` among those found?"""
        number = self.index(at)
        return number < self.stop and self.at(number) == at

    def below(self, at: int) -> int | None:
        """The nearest one that begins after `at`; None while there is none, or what is between is not scanned."""
        number = self.index(at + 1)
        return self.at(number) if at + 1 >= self.low and number < self.stop else None

    def above(self, at: int) -> int | None:
        """The nearest one that begins before `at`; None while there is none, or what is between is not scanned."""
        number = self.index(at) - 1
        return self.at(number) if (self.down or at <= self.high) and number >= self.first else None

    def scanned_above(self, at: int) -> bool:
        """Is everything before `at` known?"""
        return self.low == 0 and (self.down or at <= self.high)

    def scanned_below(self, at: int) -> bool:
        """Is everything after `at` known, as of the last word of the scan?"""
        return self.down and self.low <= at + 1

    @staticmethod
    def _read(fd: int, number: int, count: int) -> array[int]:
        found = array("Q")
        if count > 0:
            data = os.pread(fd, 8 * count, 8 * number)
            found.frombytes(data[: len(data) // 8 * 8])
        return found


class FoundLines:
    """The lines that a filter lets through."""

    def __init__(self, source: Source, hits: Hits) -> None:
        self.source = source
        self.hits = hits

    @property
    def end(self) -> int:
        return self.source.size

    def forward(self, at: int, count: int) -> list[Line]:
        return self._lines(self.hits.index(at), count)

    def backward(self, at: int, count: int) -> list[Line]:
        stop = self.hits.index(at)
        start = max(self.hits.first, stop - count)
        return self._lines(start, stop - start)

    def share(self, at: int) -> float:
        return (self.hits.index(at) - self.hits.first) / len(self.hits) if len(self.hits) else 0.0

    def at_share(self, share: float) -> int:
        number = self.hits.first + int(share * len(self.hits))
        return self.hits.at(number) if number < self.hits.stop else line_start(self.source, self.source.size)

    def _lines(self, number: int, count: int) -> list[Line]:
        return [line for at in self.hits.several(number, count) for line in forward(self.source, at, 1)]
