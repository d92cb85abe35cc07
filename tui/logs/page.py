"""What of a log is looked at: which source, which lines of it, from where, how wide, what is selected. No drawing.

Each look reads the lines that are on the screen from the source and nothing else, so that its cost does not depend on
how much there is or how fast it comes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tui.logs.finder import Finder
from tui.logs.index import LineIndex
from tui.logs.lines import Line
from tui.logs.picture import Piece, thumb
from tui.logs.selection import Selection
from tui.logs.shown import Shown, shown
from tui.logs.viewport import Viewport

if TYPE_CHECKING:
    from collections.abc import Callable

    from tui.logs.finder import Kind
    from tui.logs.lines import Lines
    from tui.logs.selection import Place
    from tui.logs.source import Key, Source

COUNTED = 8 << 20
"""Bytes that are counted for line numbers each time, about 4 ms of work."""
SIGN_WIDTH = 2
CLOCK_WIDTH = 9
UNFINISHED = 4
"""Rows that lines without an end take at most, and at most a quarter of the view."""

Label = tuple[str, int]
"""A text, and a number for its colour."""
NO_LABEL: Label = ("", 0)


class Page:
    """One view of one source at a time. `changed` is called when a search knows more."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.source: Source | None = None
        self.finder = Finder(changed)
        self.selection: Selection | None = None
        self.view: Viewport | None = None
        self.wrap = False
        self.x = 0
        self.label: Callable[[Key], Label] | None = None
        """What goes before the lines of a stream, where there are several."""
        self.times = False
        self._index: LineIndex | None = None
        self._generation = 0
        self._seen = 0
        self._visible: list[tuple[Line, int]] = []
        self.margin = SIGN_WIDTH
        """Cells before the text."""

    # ---- the source -----------------------------------------------------------------------------------------------

    def open(self, source: Source | None) -> None:
        """Look at this one, from its end."""
        before, self.source = self.source, source
        if before is not None and before is not source:
            before.close()
        self.selection, self.view, self._index = None, None, None
        self._visible, self._seen = [], 0
        if source is not None:
            self._generation = source.generation
            self._index = LineIndex(source)
        self.finder.open(source, source.size if source is not None else 0)
        if self.finder.lines is not None:
            self.view = Viewport(self.finder.lines)

    def poll(self) -> None:
        """Take in what is new."""
        if self.source is None:
            return
        self.source.poll()
        if self.source.generation != self._generation:
            self.open(self.source)
        self.finder.poll()
        target = self.finder.arrival()
        if target is not None and self.view is not None:
            self.view.to(target)

    def count(self) -> None:
        """Some of the work that line numbers take."""
        if self._index is not None:
            self._index.grow(COUNTED)

    @property
    def lines(self) -> Lines | None:
        return self.finder.lines

    @property
    def top(self) -> int:
        """Where the first visible line begins."""
        return self._visible[0][0].at if self._visible else 0

    @property
    def following(self) -> bool:
        return self.view is None or self.view.following

    # ---- looking --------------------------------------------------------------------------------------------------

    def pieces(self, width: int, height: int, label_width: int) -> list[Piece]:
        """The rows to draw, from the top; fewer than `height` where there is no more."""
        self._visible = []
        view, lines, source = self.view, self.finder.lines, self.source
        if view is None or lines is None or source is None:
            return []
        clock = CLOCK_WIDTH if self.times and source.timed else 0
        self.margin = SIGN_WIDTH + clock + label_width
        room = max(2, width - self.margin - 1)
        growing = source.unfinished() if view.following and not self.finder.text("filter") else []
        growing = growing[: min(UNFINISHED, height // 4)]
        view.lines, view.height = lines, height - len(growing)
        view.parts = (lambda line: len(look(line).starts(room))) if self.wrap else (lambda line: 1)
        rows = view.rows()
        end = rows[-1][0].end if rows else 0
        self._seen = max(self._seen, source.size if view.following else end)
        bar = thumb(lines.share(rows[0][0].at), lines.share(end), height) if rows else None
        spans = self.finder.spans({look(line).text for line, _ in rows})

        def piece(y: int, line: Line, part: int, label: Label, when: float | None) -> Piece:
            made = look(line)
            start, stop = self._extent(made, part, room)
            return Piece(
                line=made,
                start=start,
                end=stop,
                first=part == 0,
                marked=line.at == self.finder.mark,
                margin=(time.strftime("%H:%M:%S", time.localtime(when)) if when is not None else "").ljust(clock),
                label=label[0].ljust(label_width),
                tint=label[1],
                spans=tuple(spans.get(made.text, ())),
                selected=self.selection.span(line.at, len(made.text)) if self.selection else None,
                thumb=None if bar is None else bar[0] <= y < bar[1],
            )

        pieces = []
        for y, (line, part) in enumerate(rows):
            key = source.stream(line.at) if self.label is not None and part == 0 else None
            label = self.label(key) if self.label is not None and key is not None else NO_LABEL
            when = source.when(line.at) if clock and part == 0 else None
            pieces.append(piece(y, line, part, label, when))
            self._visible.append((line, pieces[-1].start))
        for key, raw in growing:
            label = self.label(key) if self.label is not None else NO_LABEL
            pieces.append(piece(len(pieces), Line(-1, -1, raw), 0, label, None))
        return pieces

    def _extent(self, made: Shown, part: int, room: int) -> tuple[int, int]:
        if self.wrap:
            starts = made.starts(room)
            return starts[part], starts[part + 1] if part + 1 < len(starts) else len(made.text)
        start = made.index(0, self.x)
        return start, made.index(start, room)

    def place(self, x: int, y: int) -> Place | None:
        """The character at a cell of the last picture; beyond the last row the end of the last line."""
        if not self._visible:
            return None
        line, start = self._visible[min(max(y, 0), len(self._visible) - 1)]
        made = look(line)
        if y >= len(self._visible):
            return line.at, len(made.text)
        return line.at, made.index(start, max(0, x - self.margin))

    def shows(self, at: int) -> bool:
        return any(line.at == at for line, _ in self._visible)

    # ---- words ----------------------------------------------------------------------------------------------------

    @property
    def new(self) -> int:
        """How many lines were written since the view stopped following."""
        if self.following or self._index is None or self.source is None:
            return 0
        if self.finder.text("filter"):
            return self.finder.found_after(self._seen)
        return self._index.between(self._seen, self.source.size) or 0

    @property
    def unordered(self) -> bool:
        """Is the order of what is at the top unknown?"""
        return self.source is not None and bool(self._visible) and self.source.late(self.top)

    def where(self) -> list[str]:
        """The number of the line at the top, how many there are, how large that is."""
        if self.source is None or self._index is None or not self._visible:
            return []
        size = bytes_in_words(self.source.size)
        total = self._index.between(0, self.source.size)
        if total is None:
            return [f"counting {self._index.counted:.0%}", size]
        if self.following:
            return [f"{total:,} lines", size]
        return [f"line {self._index.number(self.top) or 0:,} of {total:,}", size]

    # ---- going ----------------------------------------------------------------------------------------------------

    def move(self, rows: int) -> None:
        self.finder.stay()
        if self.view is not None:
            self.view.move(rows)

    def follow(self, on: bool) -> None:
        self.finder.stay()
        if self.view is not None:
            self.view.following = on

    def sideways(self, cells: int) -> None:
        self.x = 0 if self.wrap else max(0, self.x + cells)

    def go(self, target: str) -> str:
        """To a line number, or a percentage; what is wrong with it, "" for nothing."""
        self.finder.stay()
        number = target.strip().removesuffix("%")
        if self.view is None or self._index is None or not number.isdecimal():
            return "" if not target else f"“{target}” is no line number and no percentage"
        if target.strip().endswith("%"):
            self.view.to_share(min(int(number), 100) / 100)
            return ""
        at = self._index.find(int(number))
        if at is None:
            return "the lines are being counted, wait a moment"
        self.view.to(at)
        self.finder.mark = at
        return ""

    def find(self, kind: Kind, way: int) -> None:
        """To the next hit from the line gone to last, if that is in view, else from what is; following, the newest."""
        if self.source is None:
            return
        mark = self.finder.mark
        if self.following:
            way, start = -1, self.source.size
        elif mark is not None and self.shows(mark):
            start = mark
        else:
            start = self.top - 1 if way > 0 else self.top
        self.finder.jump(kind, way, start)
        self.poll()

    def look_for(self, kind: Kind, text: str) -> None:
        """Search or filter anew; empty text ends it."""
        if self.source is None:
            return
        origin = self.source.size if self.following else self.top
        self.finder.look(kind, text, origin)
        if kind == "search" and text:
            self.find(kind, 1)

    # ---- selecting ------------------------------------------------------------------------------------------------

    def extend(self, lines: int) -> None:
        """Move the head of a selection of whole lines; it begins at the current line."""
        if self.lines is None or self.view is None or not self._visible:
            return
        chosen = self.selection
        if chosen is None or not chosen.whole:
            at = self.current
            chosen = Selection((at, 0), (at, 0), whole=True)
        elif lines:
            at = chosen.head[0]
            if lines > 0:
                found = self.lines.forward(at, lines + 1)
                at = found[-1].at if found else at
            else:
                found = self.lines.backward(at, -lines)
                at = found[0].at if found else at
            chosen = Selection(chosen.anchor, (at, 0), whole=True)
        self.selection = chosen
        self.view.to(chosen.head[0])

    @property
    def current(self) -> int:
        """The line that keys without a selection mean: the one gone to last if it is in view, else the last visible."""
        mark = self.finder.mark
        if mark is not None and self.shows(mark):
            return mark
        return self._visible[-1][0].at if self._visible else 0

    def selected_text(self, limit: int) -> str:
        """What is selected, else the current line."""
        if self.lines is None or not self._visible:
            return ""
        chosen = self.selection or Selection((self.current, 0), (self.current, 0), whole=True)
        return chosen.text(self.lines, lambda line: look(line).text, limit)


def look(line: Line) -> Shown:
    return shown(line.raw, line.cut)


def bytes_in_words(size: int) -> str:
    """“118 MB”."""
    value = float(size)
    units = ["TB", "GB", "MB", "kB", "B"]
    unit = units.pop()
    while value >= 1000 and units:
        value, unit = value / 1000, units.pop()
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
