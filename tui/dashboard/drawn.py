"""A panel that is drawn line by line: only the rows that differ from the last scene go to the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.segment import Segment
from textual.geometry import Region
from textual.strip import Strip

from tui.dashboard.panel import Panel
from tui.themes import Palette, palette

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.style import Style
    from textual import events

    from tui.dashboard.panel import Scene

Piece = tuple[str, "Style | None"]


def strip(pieces: Iterable[Piece]) -> Strip:
    """A row out of pieces of text; neighbours of one style become one piece for the terminal."""
    return Strip(Segment(text, style) for text, style in pieces if text).simplify()


def fitting(groups: Iterable[Sequence[Piece]], width: int) -> Strip:
    """As many of these groups, from the first one on, as fit whole."""
    kept: list[Piece] = []
    for group in groups:
        width -= sum(cell_len(text) for text, _ in group)
        if width < 0 and kept:
            break
        kept += group
    return strip(kept)


class Drawn(Panel):
    """`rows` makes the picture of a scene; what does not change is not drawn again."""

    def __init__(self) -> None:
        super().__init__()
        self.scene: Scene | None = None
        self._made: tuple[object, list[Strip]] = (None, [])
        self._rows: list[Strip] = []

    def rows(self, scene: Scene, width: int, height: int) -> list[Strip]:
        """The rows of the picture, from the top; those beyond `height` are not shown."""
        raise NotImplementedError

    @property
    def palette(self) -> Palette:
        return palette(self.app.current_theme, self.has_focus)

    def draw(self, scene: Scene) -> None:
        self.scene = scene
        self.redraw()

    def redraw(self) -> None:
        """Make the picture of the scene again and refresh what differs."""
        width, height = self.content_size
        if self.scene is None or not width or not height:
            return
        base = self.rich_style  # looked up once: the property walks all ancestors
        rows = self.rows(self.scene, width, height)[:height]
        frame, before = self._made
        self._made = ((width, base), rows)
        if frame != (width, base):
            self._rows, before = [], []
        del self._rows[len(rows) :]
        for y in range(max(len(before), len(rows))):
            if y < len(rows):
                if y < len(before) and before[y] == rows[y]:
                    continue
                self._rows[y : y + 1] = [rows[y].adjust_cell_length(width).apply_style(base)]
            self.refresh(Region(0, y, width, 1))

    def render_line(self, y: int) -> Strip:
        return self._rows[y] if y < len(self._rows) else Strip.blank(self.content_size.width, self.rich_style)

    def on_resize(self, event: events.Resize) -> None:
        self._made = (None, [])
        self.redraw()
        self.refresh()

    def on_focus(self) -> None:
        self.redraw()

    def on_blur(self) -> None:
        self.redraw()
