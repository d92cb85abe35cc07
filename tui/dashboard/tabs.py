"""The line of panel names with their keys: which are shown, which one has the focus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.segment import Segment
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from tui.themes import palette

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from textual import events


class Tabs(Widget):
    """“1 ranks  2 nodes  3 logs …”; a click shows the panel."""

    class Picked(Message):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    def __init__(self, names: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._names = names
        self._current = ""
        self._shown: Collection[str] = ()
        self._ends: list[int] = []
        self._alert = ("", "")

    def alert(self, name: str, sign: str) -> None:
        """Behind this panel's name there is from now on a sign that something is wrong."""
        if self._alert != (name, sign):
            self._alert = (name, sign)
            self.refresh()

    def show(self, current: str, shown: Collection[str]) -> None:
        self._current, self._shown = current, shown
        self.refresh()

    def render_line(self, y: int) -> Strip:
        colours = palette(self.app.current_theme)
        segments, self._ends = [Segment(" ")], []
        at = 1
        for number, (name, title) in enumerate(self._names, 1):
            style = colours.strong if name == self._current else colours.text if name in self._shown else colours.muted
            mark = f"{number} "
            sign = f" {self._alert[1]}" if name == self._alert[0] else ""
            segments += [
                Segment(mark, colours.warning if name == self._current else colours.muted),
                Segment(title, style),
                Segment(sign, colours.bad),
                Segment("   "),
            ]
            at += len(mark) + len(title) + len(sign) + 3
            self._ends.append(at)
        return Strip(segments).adjust_cell_length(self.size.width).apply_style(self.rich_style)

    def on_click(self, event: events.Click) -> None:
        for end, (name, _) in zip(self._ends, self._names, strict=False):
            if event.x < end:
                self.post_message(self.Picked(name))
                return
