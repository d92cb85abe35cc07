"""Lines of a source, found from any place in it by looking at a bounded number of bytes around that place.

Rules:
- A line ends with a newline. One that is too long is broken: a multiple of `BLOCK` begins a line when the whole block
  before it holds no newline. So a line has less than two blocks, and reading from above or from below finds the same.
- The position of a line is the offset of its first byte. It stays, whatever is written behind it.
- Of a line that overwrites itself with carriage returns what follows the last one is shown; `raw` is capped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from tui.logs.source import Source

BLOCK = 256 * 1024
RAW_LIMIT = 16 * 1024
"""Bytes of one line that are kept to be shown."""
FIRST_READ = 16 * 1024


class Line(NamedTuple):
    """`raw` are the bytes to show, without the line's end; `cut` more are not in it. The next line is at `end`.

    `over` tells a line that can grow no more.
    """

    at: int
    end: int
    raw: bytes
    cut: int = 0
    over: bool = True


class Lines(Protocol):
    """An order of lines to look at: all of a source, or those that a filter lets through."""

    @property
    def end(self) -> int:
        """Where the next line would begin."""

    def forward(self, at: int, count: int) -> list[Line]:
        """At most `count` lines that begin at `at` or later, the nearest first."""

    def backward(self, at: int, count: int) -> list[Line]:
        """At most `count` lines that begin before `at`, in their order, the nearest last."""

    def share(self, at: int) -> float:
        """How far down `at` is, from 0 to 1."""

    def at_share(self, share: float) -> int:
        """The beginning of the line that is so far down."""


class AllLines:
    """Every line of a source."""

    def __init__(self, source: Source) -> None:
        self.source = source

    @property
    def end(self) -> int:
        return self.source.size

    def forward(self, at: int, count: int) -> list[Line]:
        return forward(self.source, at, count)

    def backward(self, at: int, count: int) -> list[Line]:
        return backward(self.source, min(at, self.source.size), count)

    def share(self, at: int) -> float:
        return at / self.source.size if self.source.size else 0.0

    def at_share(self, share: float) -> int:
        return line_start(self.source, int(share * self.source.size))


def forward(source: Source, at: int, count: int) -> list[Line]:
    """At most `count` lines from `at`, which begins one. The last one may be unfinished."""
    lines: list[Line] = []
    buffer, base, step = b"", at, max(FIRST_READ, min(BLOCK, count * 200))
    while len(lines) < count and at < source.size:
        limit = min(_limit(at), source.size)
        newline = buffer.find(b"\n", at - base, limit - base)
        if newline < 0 and base + len(buffer) < limit:
            buffer, base = buffer[at - base :], at
            more = source.read(base + len(buffer), step)
            if more:
                buffer += more
                step = min(2 * step, BLOCK)
                continue
            limit = base + len(buffer)
            if limit == at:
                break
        end = base + newline + 1 if newline >= 0 else limit
        lines.append(_line(at, end, buffer[at - base : end - base]))
        at = end
    return lines


def backward(source: Source, at: int, count: int) -> list[Line]:
    """At most `count` lines before `at`, which begins a line or is the end, in their order."""
    lines: list[Line] = []
    buffer, base, step = b"", at, max(FIRST_READ, min(BLOCK, count * 200))
    while len(lines) < count and at > 0:
        broken = (at - 1) // BLOCK * BLOCK
        floor = max(broken - BLOCK, 0)
        newline = buffer.rfind(b"\n", max(floor - base, 0), at - 1 - base) if at - 1 > base else -1
        if newline < 0 and base > floor:
            start = max(floor, base - step)
            more = source.read(start, base - start)
            if len(more) < base - start:
                break
            buffer, base = more + buffer[: at - base], start
            step = min(2 * step, BLOCK)
            continue
        start = base + newline + 1 if newline >= 0 else broken
        lines.append(_line(start, at, buffer[start - base : at - base]))
        at = start
    return lines[::-1]


def line_start(source: Source, offset: int) -> int:
    """Where the line begins that holds the byte at `offset`; the end of the source for what is beyond it."""
    if offset >= source.size:
        return source.size
    found = backward(source, offset + 1, 1)
    return found[0].at if found else 0


def _limit(at: int) -> int:
    """Where a line that begins at `at` is broken at the latest."""
    return (at // BLOCK + (2 if at % BLOCK else 1)) * BLOCK


def _line(at: int, end: int, data: bytes) -> Line:
    newline = data.endswith(b"\n")
    raw = data[:-1] if newline else data
    over = newline or end == _limit(at)
    if len(raw) <= RAW_LIMIT:
        return Line(at, end, raw, 0, over)
    raw = raw.rstrip(b"\r").rpartition(b"\r")[2]
    return Line(at, end, raw[:RAW_LIMIT], max(0, len(raw) - RAW_LIMIT), over)
