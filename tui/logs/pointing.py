"""The mouse in a log: the wheel scrolls, a drag selects text or moves the scroll bar, a click marks a line.

Dragging beyond the edge scrolls on. Shift with the mouse is the terminal's own selection, as everywhere.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from tui.logs.page import look
from tui.logs.selection import Selection

if TYPE_CHECKING:
    from textual import events

    from tui.logs.selection import Place
    from tui.logs.view import LogView

WHEEL = 3
_WORD = re.compile(r"\S+")


class Pointing:
    """What the mouse is doing: nothing, selecting text from `_anchor`, or holding the scroll bar."""

    def __init__(self, view: LogView) -> None:
        self._view = view
        self._held: Literal["", "text", "bar"] = ""
        self._anchor: Place | None = None
        self._at = (0, 0)

    def wheel(self, event: events.MouseEvent, way: int) -> None:
        event.stop()
        if event.shift:
            self._view.action_sideways(way)
        else:
            self._view.page.move(way * WHEEL)
            self._view.redraw()

    def down(self, event: events.MouseDown) -> None:
        if event.button != 1 or event.y >= self._view.size.height - 1:
            return
        self._view.capture_mouse()
        if event.x >= self._view.size.width - 1:
            self._held = "bar"
            self._scroll_to(event.y)
        else:
            self._held, self._anchor = "text", self._view.page.place(event.x, event.y)
            self._view.page.selection = None
            self._view.redraw()

    def move(self, event: events.MouseMove) -> None:
        self._at = (event.x, event.y)
        if self._held == "bar":
            self._scroll_to(event.y)
        elif self._held == "text":
            self._drag()

    def up(self, event: events.MouseUp) -> None:
        if not self._held:
            return
        self._view.release_mouse()
        if self._held == "text" and self._view.page.selection is None and self._anchor is not None:
            self._view.page.finder.mark = self._anchor[0]
        self._held = ""
        self._view.redraw()

    def click(self, event: events.Click) -> None:
        """On the foot: follow. Twice selects a word, three times the line."""
        page = self._view.page
        if event.y >= self._view.size.height - 1:
            page.follow(True)
        elif event.chain == 3 and self._anchor is not None:
            page.selection = Selection(self._anchor, self._anchor, whole=True)
        elif event.chain == 2 and self._anchor is not None and page.lines is not None:
            at, index = self._anchor
            for line in page.lines.forward(at, 1):
                for word in _WORD.finditer(look(line).text):
                    if word.start() <= index < word.end():
                        page.selection = Selection((at, word.start()), (at, word.end() - 1))
        self._view.redraw()

    def tick(self) -> None:
        """Time goes by while a drag stands beyond the edge."""
        if self._held == "text" and not 0 <= self._at[1] < self._view.size.height - 1:
            self._drag()

    def _drag(self) -> None:
        page, (x, y) = self._view.page, self._at
        height = self._view.size.height - 1
        page.follow(False)
        if y < 0 or y >= height:
            page.move(max(-WHEEL, y) if y < 0 else min(WHEEL, y - height + 1))
            self._view.redraw()
        head = page.place(x, min(max(y, 0), height - 1))
        if self._anchor is not None and head is not None and (head != self._anchor or page.selection is not None):
            page.selection = Selection(self._anchor, head)
        self._view.redraw()

    def _scroll_to(self, y: int) -> None:
        self._view.page.finder.stay()
        if self._view.page.view is not None:
            self._view.page.view.to_share(y / max(1, self._view.size.height - 2))
        self._view.redraw()
