"""Which lines of a piece of a log match, as they are shown: without colours, after the last carriage return."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from engine.text import clean
from tui.logs.lines import RAW_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tui.logs.pattern import Pattern

_DRESSED = re.compile(
    rb"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|\xc2[\x80-\x9f]|\xe2\x80[\x8b-\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]|\xef\xbb\xbf"
)
"""Bytes for which what is shown differs from what is there."""
SHOWN_LIMIT = 4 * RAW_LIMIT


def matching(data: bytes, pattern: Pattern) -> list[int]:
    """Offsets in `data`, which is whole lines, of those that match."""
    look = _line_by_line if _DRESSED.search(data) else _at_once
    found = list(look(data, pattern))
    if not pattern.inverse:
        return found
    without = frozenset(found)
    return [at for at in _starts(data) if at not in without]


def _starts(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        yield at
        at = data.find(b"\n", at) + 1 or len(data)


def _line_by_line(data: bytes, pattern: Pattern) -> Iterator[int]:
    at = 0
    for raw in data.split(b"\n"):
        if at < len(data) and pattern.regex.search(clean(raw.decode("utf-8", "replace"), SHOWN_LIMIT)):
            yield at
        at += len(raw) + 1


def _at_once(data: bytes, pattern: Pattern) -> Iterator[int]:
    """Look for the pattern in all lines together: a hundred times faster where there is little to find."""
    text = data.decode("utf-8", "surrogateescape")
    ascii_only = text.isascii()
    search = _finder(text, pattern, ascii_only)
    at = counted = offset = 0
    stop = len(text) - text.endswith("\n")
    while at < len(text) and 0 <= (hit := search(at)) <= stop:
        start = text.rfind("\n", 0, hit) + 1
        end = text.find("\n", hit)
        end = len(text) if end < 0 else end
        at = end + 1
        # An expression may reach over the end of a line; what counts is whether the line alone has it.
        if pattern.plain or pattern.regex.search(text[start:end]):
            if ascii_only:
                yield start
            else:
                offset += len(text[counted:start].encode("utf-8", "surrogateescape"))
                counted = start
                yield offset


class _finder:
    """The next place at or after an index where something may match; -1 for none."""

    def __init__(self, text: str, pattern: Pattern, ascii_only: bool) -> None:
        self._plain = pattern.plain and (pattern.exact or (ascii_only and pattern.wanted.isascii()))
        self._text = text if pattern.exact or not self._plain else text.lower()
        self._wanted = pattern.wanted if pattern.exact else pattern.wanted.lower()
        self._regex = pattern.regex

    def __call__(self, at: int) -> int:
        if self._plain:
            return self._text.find(self._wanted, at)
        match = self._regex.search(self._text, at)
        return match.start() if match else -1
