"""What is selected in a log: from one character to another. It stays on its text, wherever that is on the screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tui.logs.lines import Line, Lines

Place = tuple[int, int]
"""Where a line begins, and the number of a character in it as shown."""
AT_ONCE = 200


@dataclass(frozen=True)
class Selection:
    """`anchor` is where it began, `head` where it is moved. `whole` selects the lines they are in."""

    anchor: Place
    head: Place
    whole: bool = False

    @property
    def ends(self) -> tuple[Place, Place]:
        return min(self.anchor, self.head), max(self.anchor, self.head)

    def span(self, at: int, length: int) -> tuple[int, int] | None:
        """What of the line at `at`, of `length` characters, is selected; None for nothing."""
        (first, start), (last, end) = self.ends
        if not first <= at <= last:
            return None
        if self.whole:
            return 0, length
        found = (start if at == first else 0, min(end + 1, length) if at == last else length)
        return found if found[0] < found[1] or length == 0 else None

    def text(self, lines: Lines, show: Callable[[Line], str], limit: int) -> str:
        """The selected text; it may stop somewhere after `limit` bytes."""
        first, last = self.ends[0][0], self.ends[1][0]
        parts: list[str] = []
        size, at = 0, first
        while size <= limit and (batch := lines.forward(at, AT_ONCE)):
            for line in batch:
                if line.at > last:
                    return "\n".join(parts)
                text = show(line)
                start, end = self.span(line.at, len(text)) or (0, 0)
                parts.append(text[start:end])
                size += len(parts[-1].encode()) + 1
            at = batch[-1].end
        return "\n".join(parts)
