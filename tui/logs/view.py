"""A log on the screen: follows, scrolls, searches, filters, selects, copies; any size, any rate.

Only rows that differ from the last drawing go to the terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.binding import Binding
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from tui import terminal
from tui.glyphs import UNICODE, Glyphs
from tui.logs import pager
from tui.logs.page import Page
from tui.logs.picture import foot, looks, row
from tui.logs.pointing import Pointing
from tui.logs.prompt import Prompt
from tui.themes import palette

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.style import Style
    from textual import events
    from textual.app import ComposeResult
    from textual.binding import BindingType

    from tui.logs.page import Label
    from tui.logs.picture import Looks
    from tui.logs.source import Key, Source

COUNT_EVERY = 0.1
SIDEWAYS = 16
ASKED = {
    "search": ("/", "text or regular expression"),
    "filter": ("only", "text or regular expression; ! before it hides what matches; empty shows all"),
    "line": ("line", "a number, or a percentage: 40%"),
}
"""For each question of the prompt its label and what may be typed."""


class LogView(Widget, can_focus=True):
    """A view of one source at a time. `show` gives it one, `draw` brings the screen up to date."""

    ALLOW_SELECT = False  # Textual selects places on the screen; here a selection stays on its text
    DEFAULT_CSS = "LogView { height: 1fr; }"
    title = "log"
    help = """The log follows its end. Moving up stops that, and then nothing moves but by you; G follows again.
A search looks through the whole log: n goes down, N goes up. A filter hides the other lines; with ! before it, those
that match. Drag with the mouse, or v and the arrows, to select; y copies to the terminal you sit at, over ssh too."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "ask('search')", "search", id="log.search", key_display="/"),
        Binding("n", "find(1)", "next hit", id="log.next", show=False),
        Binding("N", "find(-1)", "previous hit", id="log.previous", show=False),
        Binding("f,ampersand", "ask('filter')", "filter", id="log.filter", key_display="f"),
        Binding("e", "error(1)", "error", id="log.error"),
        Binding("E", "error(-1)", "previous error", id="log.error-before", show=False),
        Binding("G,end", "follow", "follow", id="log.follow", key_display="G"),
        Binding("F", "toggle_follow", "pause or follow", id="log.pause", show=False),
        Binding("g,home", "start", "first line", id="move.first", show=False),
        Binding("k,up", "move(-1)", "up", id="move.up", show=False),
        Binding("j,down", "move(1)", "down", id="move.down", show=False),
        Binding("b,pageup", "page(-1.0)", "page up", id="move.page-up", show=False),
        Binding("space,pagedown", "page(1.0)", "page down", id="move.page-down", show=False),
        Binding("ctrl+u", "page(-0.5)", "half a page up", id="move.half-up", show=False),
        Binding("ctrl+d", "page(0.5)", "half a page down", id="move.half-down", show=False),
        Binding("h,left", "sideways(-1)", "left", id="move.left", show=False),
        Binding("l,right", "sideways(1)", "right", id="move.right", show=False),
        Binding("0", "sideways(-999)", "to the left edge", id="log.edge", show=False),
        Binding("colon", "ask('line')", "go to line or %", id="log.line", show=False, key_display=":"),
        Binding("w", "wrap", "wrap", id="log.wrap", show=False),
        Binding("t", "times", "times", id="log.times", show=False),
        Binding("v", "select", "select lines", id="log.select", show=False),
        Binding("shift+up", "extend(-1)", "select up", id="log.select-up", show=False),
        Binding("shift+down", "extend(1)", "select down", id="log.select-down", show=False),
        Binding("y", "copy", "copy", id="log.copy", show=False),
        Binding("ctrl+c", "copy_selection", "copy what is selected", id="log.copy-selected", show=False),
        Binding("p", "pager", "open in $PAGER", id="log.pager", show=False),
        Binding("escape", "clear", "clear", id="log.clear", show=False),
    ]

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.glyphs: Glyphs = UNICODE
        self.page = Page(self._found)
        self._label_width = 0
        self._empty = self._remark = ""
        self.growing = True
        """May there be more? Of what is over the end is the end."""
        self._pointing = Pointing(self)
        self._strips: list[Strip] = []
        self._made_of: list[object] = []
        self._said = ""

    def compose(self) -> ComposeResult:
        yield Prompt()

    def on_mount(self) -> None:
        self.set_interval(COUNT_EVERY, self._work)

    async def on_unmount(self) -> None:
        self.page.open(None)
        await self.page.finder.close()

    # ---- what the owner calls -------------------------------------------------------------------------------------

    def show(
        self,
        source: Source | None,
        label: Callable[[Key], Label] | None = None,
        label_width: int = 0,
    ) -> None:
        """Look at another source, from its end; the one before is closed. `label` goes before the lines of a stream."""
        self._label_width, self.page.label = label_width, label
        self.page.open(source)
        self.draw()

    def draw(self, empty: str = "", remark: str = "") -> None:
        """Take in what is new and show it, if that is where the view is.

        `empty` is what an empty log says; `remark` is what is to be said of the whole.
        """
        self._empty, self._remark = empty, remark
        self.page.poll()
        self.redraw()

    # ---- drawing --------------------------------------------------------------------------------------------------

    def redraw(self) -> None:
        """Make the picture again and refresh the rows that differ."""
        width, height = self.size
        if width < 4 or height < 2 or not self.is_attached:
            return
        look = looks(palette(self.app.current_theme, self.has_focus), self.has_focus, self.rich_style)
        before = self._made_of
        self._picture(width, height, look)
        for y in range(height):
            if y >= len(before) or before[y] != self._made_of[y]:
                self.refresh(Region(0, y, width, 1))

    def _picture(self, width: int, height: int, look: Looks) -> None:
        """Make the rows; one that is made of the same as before is taken over."""
        before, strips = self._made_of, self._strips
        self._made_of, self._strips = [], []

        def put(made_of: object, make: Callable[[], Strip]) -> None:
            y = len(self._strips)
            same = y < len(before) and before[y] == (made_of, width, look)
            self._strips.append(strips[y] if same else make())
            self._made_of.append((made_of, width, look))

        pieces = self.page.pieces(width, height - 1, self._label_width)
        for piece in pieces:
            put(piece, lambda piece=piece: row(piece, width, look, self.glyphs))  # type: ignore[misc]
        for y in range(len(pieces), height - 1):
            text = self._nothing() if not pieces and y == (height - 2) // 2 else ""
            line = text[:width].center(width)
            put(text, lambda line=line: Strip([Segment(line, look.muted)]).adjust_cell_length(width, look.text))  # type: ignore[misc]
        left, right = self._words(look), f" {self.glyphs.separator} ".join([*self._modes(), *self.page.where()])
        put((tuple(left), right), lambda: foot(left, right, width, look))

    def render_lines(self, crop: Region) -> list[Strip]:
        """The rows as they are: this widget has no border and no padding that Textual would have to add."""
        strips = self._strips[crop.y : crop.bottom]
        blank = Strip.blank(self.size.width, self.rich_style)
        strips += [blank] * (crop.height - len(strips))
        background = self.background_colors[1]
        for each in self.get_line_filters():
            strips = [strip.apply_filter(each, background) for strip in strips]
        if crop.column_span != (0, self.size.width):
            strips = [strip.crop(*crop.column_span) for strip in strips]
        return strips

    def _nothing(self) -> str:
        text = self.page.finder.text("filter")
        return f"no line matches “{text}”; esc shows all" if text and self.page.source else self._empty

    def _words(self, look: Looks) -> list[tuple[str, Style]]:
        page = self.page
        found: list[tuple[str, Style]] = []
        if page.following:
            word = f"{self.glyphs.running} following" if self.growing else f"{self.glyphs.ok} the end"
            found.append((word if page.source is not None else "", look.good))
        else:
            found.append((f"{self.glyphs.stopped} paused", look.primary))
        if page.new:
            found.append((f"{page.new:,} new lines, G to follow", look.warning))
        if page.selection is not None:
            found.append(("selected: y copies, esc ends", look.primary))
        if said := self._said or page.finder.message:
            found.append((said, look.text))
        found += [(words, look.primary) for words in page.finder.words()]
        if self._remark:
            found.append((self._remark, look.warning))
        return found

    def _modes(self) -> list[str]:
        return [name for name, on in (("wrap", self.page.wrap), (f"column {self.page.x}", self.page.x)) if on]

    def _found(self) -> None:
        """A search knows more."""
        if self.is_attached:
            self.page.poll()
            self.redraw()

    def _work(self) -> None:
        self.page.count()
        self._pointing.tick()

    def on_resize(self) -> None:
        self._made_of = []
        self.redraw()

    def on_focus(self) -> None:
        self.redraw()

    def on_blur(self) -> None:
        self.redraw()

    # ---- keys -----------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        page = self.page
        if action == "find":
            return bool(page.finder.text("search")) or None
        if action == "copy_selection":
            return page.selection is not None
        if action == "clear":
            return bool(page.selection or page.finder.text("search") or page.finder.text("filter"))
        if action == "times":
            return (page.source is not None and page.source.timed) or None
        return True

    def action_move(self, rows: int) -> None:
        if self.page.selection is not None and self.page.selection.whole:
            self.page.extend(rows)
        else:
            self.page.move(rows)
        self._moved()

    def action_page(self, pages: float) -> None:
        self.action_move(round(pages * max(1, self.size.height - 2)))

    def action_start(self) -> None:
        self.page.finder.stay()
        if self.page.view is not None:
            self.page.view.to_start()
        self._moved()

    def action_follow(self) -> None:
        self.page.follow(True)
        self._moved()

    def action_toggle_follow(self) -> None:
        self.page.follow(not self.page.following)
        self._moved()

    def action_sideways(self, steps: int) -> None:
        self.page.sideways(steps * SIDEWAYS)
        self._moved()

    def action_wrap(self) -> None:
        self.page.wrap, self.page.x = not self.page.wrap, 0
        self._moved()

    def action_times(self) -> None:
        self.page.times = not self.page.times
        self._moved()

    def action_find(self, way: int) -> None:
        self.page.find("search", way)
        self._moved()

    def action_error(self, way: int) -> None:
        self.page.find("errors", way)
        self._moved()

    def action_ask(self, kind: str) -> None:
        label, hint = ASKED[kind]
        text = self.page.finder.text("filter") if kind == "filter" else ""
        self.query_one(Prompt).ask(kind, label, text, hint)

    def on_prompt_answered(self, message: Prompt.Answered) -> None:
        message.stop()
        self.focus()
        self._said = ""
        if message.text is not None:
            if message.kind == "line":
                self._said = self.page.go(message.text)
            elif message.kind == "filter":
                self.page.look_for("filter", message.text)
            else:
                self.page.look_for("search", message.text)
        self.redraw()

    def action_select(self) -> None:
        self.page.selection = None
        self.page.extend(0)
        self._moved()

    def action_extend(self, lines: int) -> None:
        self.page.extend(lines)
        self._moved()

    def action_copy(self) -> None:
        text = self.page.selected_text(terminal.CLIPBOARD_LIMIT)
        self.page.selection = None
        self._moved()
        self._said = terminal.copy(self.app, text) if text else "there is nothing to copy"
        self.redraw()

    def action_copy_selection(self) -> None:
        self.action_copy()

    def action_clear(self) -> None:
        page = self.page
        if page.selection is not None:
            page.selection = None
        elif page.finder.text("search"):
            page.finder.stop("search")
        else:
            page.look_for("filter", "")
        self._moved()

    def action_pager(self) -> None:
        if self.page.source is not None:
            at = None if self.page.following else self.page.top
            self.run_worker(self._page_out(self.page.source, at), exclusive=True)

    async def _page_out(self, source: Source, at: int | None) -> None:
        self._said = await pager.page(self.app, source, at)
        self.redraw()

    def _moved(self) -> None:
        self._said = ""
        self.redraw()

    # ---- mouse ----------------------------------------------------------------------------------------------------

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._pointing.wheel(event, -1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._pointing.wheel(event, 1)

    def on_mouse_down(self, event: events.MouseDown) -> None:
        self._pointing.down(event)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        self._pointing.move(event)

    def on_mouse_up(self, event: events.MouseUp) -> None:
        self._pointing.up(event)

    def on_click(self, event: events.Click) -> None:
        self._pointing.click(event)
