"""A list of rows that is drawn by what is visible of it, whatever its length, with a cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.binding import Binding
from textual.geometry import Region
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from tui.themes import Palette, palette

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.style import Style
    from textual import events
    from textual.binding import BindingType

    from tui.app import RankdeckApp

Piece = tuple[str, "Style | None"]


class Rows(Widget, can_focus=True):
    """Subclasses say how many rows there are (`count`) and what is in one (`row`); `changed` after news."""

    app: RankdeckApp
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "up", id="move.up", show=False),
        Binding("down,j", "move(1)", "down", id="move.down", show=False),
        Binding("pageup", "page(-1)", "page up", id="move.page-up", show=False),
        Binding("pagedown", "page(1)", "page down", id="move.page-down", show=False),
        Binding("home,g", "go(0)", "first", id="move.first", show=False),
        Binding("end,G", "go(-1)", "last", id="move.last", show=False),
        Binding("enter", "choose", "open", id="move.open", show=False),
    ]
    cursor = reactive(0, repaint=False)

    class Moved(Message):
        """The cursor stands on another row."""

        def __init__(self, rows: Rows, index: int) -> None:
            super().__init__()
            self.rows = rows
            self.index = index

        @property
        def control(self) -> Rows:
            return self.rows

    class Chosen(Moved):
        """Enter, or a click on a row."""

    _top = 0

    def count(self) -> int:
        """How many rows there are."""
        raise NotImplementedError

    def row(self, index: int, width: int) -> Sequence[Piece]:
        """One row as pieces of text; it is cut, or filled up, to `width`."""
        raise NotImplementedError

    def head(self, width: int) -> Sequence[Sequence[Piece]]:
        """Rows above, which stay while the others scroll."""
        return ()

    @property
    def palette(self) -> Palette:
        return palette(self.app.current_theme, self.has_focus)

    def changed(self) -> None:
        """There is news: draw again."""
        self.cursor = max(0, min(self.cursor, self.count() - 1))
        self._follow()
        self.refresh()

    # ---- the picture ----------------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        width, height = self.content_size
        base = self.rich_style
        head = self.head(width)
        if y < len(head):
            return _strip(head[y], width, base)
        y -= len(head)
        room, count = height - len(head), self.count()
        index = self._top + y
        bar = count > room > 0
        pieces = self.row(index, width - bar) if index < count else ()
        here = index == self.cursor and index < count
        line = _strip(pieces, width - bar, base + self._cursor_style() if here else base)
        if bar:
            line = Strip([*line, Segment(self._bar(y, room, count), base + self.palette.muted)])
        return line

    def _cursor_style(self) -> Style:
        name = "rows--cursor" if self.has_focus else "rows--blurred"
        return self.get_component_rich_style(name)

    COMPONENT_CLASSES: ClassVar[set[str]] = {"rows--cursor", "rows--blurred"}
    DEFAULT_CSS = """
    Rows { height: 1fr; }
    Rows > .rows--cursor { background: $block-cursor-background; color: $block-cursor-foreground; text-style: bold; }
    Rows > .rows--blurred { background: $panel; }
    """

    def _bar(self, y: int, room: int, count: int) -> str:
        size = max(1, room * room // count)
        start = self._top * (room - size) // max(1, count - room)
        return self.app.glyphs.levels[-1] if start <= y < start + size else " "

    # ---- the cursor -----------------------------------------------------------------------------------------------

    def watch_cursor(self, before: int, now: int) -> None:
        top = self._top
        self._follow()
        if self._top != top:
            self.refresh()
        else:
            self.redraw(before)
            self.redraw(now)
        if self.is_mounted:
            self.post_message(self.Moved(self, self.cursor))

    def redraw(self, index: int) -> None:
        """Draw one row again, and no other."""
        width = self.content_size.width
        self.refresh(Region(0, len(self.head(width)) + index - self._top, width, 1))

    def _follow(self) -> None:
        room = max(1, self.content_size.height - len(self.head(self.content_size.width)))
        self._top = max(0, min(self._top, self.cursor, self.count() - room))
        self._top = max(self._top, self.cursor - room + 1)

    def action_move(self, step: int) -> None:
        self.cursor = max(0, min(self.cursor + step, self.count() - 1))

    def action_page(self, step: int) -> None:
        self.action_move(step * max(1, self.content_size.height - 2))

    def action_go(self, index: int) -> None:
        self.cursor = max(0, self.count() - 1) if index < 0 else index

    def action_choose(self) -> None:
        if self.count():
            self.post_message(self.Chosen(self, self.cursor))

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None:
            return
        index = self._top + offset.y - len(self.head(self.content_size.width))
        if 0 <= index < self.count():
            self.cursor = index
            self.action_choose()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.action_move(3)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.action_move(-3)

    def on_resize(self) -> None:
        self._follow()

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()


def _strip(pieces: Sequence[Piece], width: int, base: Style) -> Strip:
    return Strip(Segment(text, style) for text, style in pieces if text).adjust_cell_length(width).apply_style(base)
