"""What the user looks for: a regular expression, with smart case, `!` before it for the lines without it.

Text that is no regular expression is looked for as it stands. Plain text is found by `str.find`, which takes no time; a
real expression may take any time at all, and runs in the process that scans, never on the UI's loop.
"""

from __future__ import annotations

import functools
import re

from tui.logs.levels import ERROR_TEXTS, ERRORS
from tui.logs.literals import required

KNOWN = {ERRORS: ERROR_TEXTS}
_SPECIAL = frozenset(".^$*+?{}[]\\|()")


class Pattern:
    """`text` as typed. `note` says in words how it was understood, where that is not as usual."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.inverse = text.startswith("!") and len(text) > 1
        self.wanted = text[1:] if self.inverse else text
        self.plain = not _SPECIAL.intersection(self.wanted)
        self.note = ""
        if not self.plain:
            try:
                re.compile(self.wanted)
            except (re.error, OverflowError, RecursionError) as error:
                self.plain = True
                self.note = f"taken as plain text: no regular expression ({error})"
        # A capital letter that is not part of an escape such as \W asks for exact case.
        letters = self.wanted if self.plain else re.sub(r"\\.", "", self.wanted)
        self.exact = letters.lower() != letters

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    @functools.cached_property
    def required(self) -> tuple[str, ...]:
        """Texts of which every matching line has one, in lower case unless the case is exact; () if unknown."""
        found = KNOWN.get(self.wanted) or ((self.wanted,) if self.plain else required(self.wanted))
        return found if self.exact else tuple(text.lower() for text in found)

    @functools.cached_property
    def regex(self) -> re.Pattern[str]:
        flags = re.MULTILINE | (0 if self.exact else re.IGNORECASE)
        return re.compile(re.escape(self.wanted) if self.plain else self.wanted, flags)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where `text`, one line, has what is wanted; of a pattern that is not `plain` this may take any time."""
        if self.inverse:
            return []
        if not self.plain:
            return [match.span() for match in self.regex.finditer(text) if match.end() > match.start()]
        wanted, found, at = self.wanted, [], 0
        if not self.exact:
            if not text.isascii() or not wanted.isascii():
                return [match.span() for match in self.regex.finditer(text)]
            wanted, text = wanted.lower(), text.lower()
        while wanted and (at := text.find(wanted, at)) >= 0:
            found.append((at, at + len(wanted)))
            at += len(wanted)
        return found
