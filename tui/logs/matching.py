"""Which lines of a piece of a log match, as they are shown: without colours, after the last carriage return."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from engine.text import clean
from tui.logs.lines import RAW_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tui.logs.pattern import Pattern

_ORDINARY = bytes(range(0x20, 0x7F)) + b"\n"
_DRESSED = re.compile(
    rb"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\x8b-\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]|\xef\xbb\xbf"
)
"""Bytes for which what is shown differs from what is there."""
SHOWN_LIMIT = 4 * RAW_LIMIT


def matching(data: bytes, pattern: Pattern) -> list[int]:
    """Offsets in `data`, which is whole lines, of those that match."""
    found = list((_line_by_line if _dressed(data) else _at_once)(data, pattern))
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


def _dressed(data: bytes) -> bool:
    """Are some lines shown otherwise than they are?"""
    unusual = data.translate(None, _ORDINARY)
    if not unusual:
        return False
    # Lines that end as on Windows are shown without their carriage return.
    return bool(_DRESSED.search(data.replace(b"\r\n", b"\n") if b"\r" in unusual else data))


def _at_once(data: bytes, pattern: Pattern) -> Iterator[int]:
    """Look for the pattern in all lines together: a hundred times faster where there is little to find."""
    text = "\n" + data.decode("utf-8", "surrogateescape")
    ascii_only = text.isascii()
    search = _Finder(text, pattern, ascii_only)
    at, counted, offset = 1, 1, 0
    stop = len(text) - text.endswith("\n")
    while at < len(text) and 0 <= (hit := search(at)) <= stop:
        start = text.rfind("\n", 0, hit) + 1
        end = text.find("\n", hit)
        end = len(text) if end < 0 else end
        at = end + 1
        if (pattern.plain and search.certain) or pattern.regex.search(text[start:end]):
            if ascii_only:
                yield start - 1
            else:
                offset += len(text[counted:start].encode("utf-8", "surrogateescape"))
                counted = start
                yield offset


class _Finder:
    """The next place at or after an index where something may match; -1 for none. `certain`: there it does."""

    def __init__(self, text: str, pattern: Pattern, ascii_only: bool) -> None:
        texts = pattern.required
        if not pattern.exact and not (ascii_only and all(each.isascii() for each in texts)):
            texts = ()  # lower case of other alphabets may be longer or shorter
        self.certain = bool(texts) and pattern.plain
        self._regex = pattern.regex
        self._text = text if pattern.exact or not texts else text.lower()
        self._next = {each: 0 for each in texts}

    def __call__(self, at: int) -> int:
        if not self._next:
            match = self._regex.search(self._text, at)
            return match.start() if match else -1
        nearest = -1
        for each, known in self._next.items():
            begins = each.startswith("\n")
            if 0 <= known < at:
                known = self._text.find(each, at - begins)
                known = self._next[each] = known + begins if known >= 0 else -1
            if known >= 0 and (nearest < 0 or known < nearest):
                nearest = known
        return nearest
