"""Preflight as a matrix: a row a check, a column a node, filled in as the nodes answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.cells import set_cell_size
from textual.binding import Binding
from textual.geometry import Region
from textual.reactive import reactive

from engine.preflight import CHECKS
from tui.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.style import Style
    from textual import events
    from textual.binding import BindingType

    from engine.preflight import Cell, Check
    from engine.slurm.preflight import JobCheck
    from tui.rows import Piece

BAD = ("error", "warning")
_WORTH = ("error", "warning", "skipped", "ok")
_LEAST = 24


class Matrix(Rows):
    """`rank` is the node under the cursor; None is the column of what concerns no single node."""

    title = "preflight"
    help = """A row is a check, a column a node (by its node rank); “all” is what concerns no single node.
Below is what was found where the cursor stands: evidence and remedy."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "aside(-1)", "node before", id="move.left", show=False),
        Binding("right,l", "aside(1)", "next node", id="move.right", show=False),
        Binding("n", "next_bad(1)", "next problem", id="matrix.next", show=False),
        Binding("N", "next_bad(-1)", "problem before", id="matrix.previous", show=False),
    ]
    column = reactive(0, repaint=False)

    def __init__(self) -> None:
        super().__init__(id="matrix")
        self.checks: Mapping[str, Check | JobCheck] = CHECKS
        self.cells: Mapping[tuple[int | None, str], Cell] = {}
        self.hosts: tuple[str, ...] = ()
        self._left = 0
        self._worst: dict[str, str] = {}

    @property
    def check(self) -> str:
        """The id of the check under the cursor."""
        return tuple(self.checks)[self.cursor]

    @property
    def rank(self) -> int | None:
        return self.column - 1 if self.column else None

    def show(
        self,
        checks: Mapping[str, Check | JobCheck],
        cells: Mapping[tuple[int | None, str], Cell],
        hosts: tuple[str, ...],
    ) -> None:
        """The matrix at this moment."""
        if checks is not self.checks:
            self.checks, self.cursor = checks, 0
        if hosts != self.hosts:
            self.column = min(self.column, len(hosts))
        self.cells, self.hosts = cells, hosts
        self._worst = {}
        for (_, name), cell in cells.items():
            if cell.state in _WORTH and _WORTH.index(cell.state) < _WORTH.index(self._worst.get(name, _WORTH[-1])):
                self._worst[name] = cell.state
        self.changed()

    def count(self) -> int:
        return len(self.checks) if self.cells else 0

    def head(self, width: int) -> Sequence[Sequence[Piece]]:
        label, wide, shown = self._layout(width)
        numbers = "".join(f"{rank:>{wide}}" if wide > 1 else str(rank % 10) for rank in shown)
        return ([(" " * label, None), ("all ", self._of_column(0)), (numbers, self.palette.muted)],)

    def row(self, index: int, width: int) -> Sequence[Piece]:
        name = tuple(self.checks)[index]
        label, wide, shown = self._layout(width)
        palette = self.palette
        style = {"error": palette.bad, "warning": palette.warning, "skipped": palette.muted}.get(
            self._worst.get(name, ""), palette.text
        )
        title = shortened(self.checks[name].title, label - 1, self.app.glyphs.ellipsis)
        pieces: list[Piece] = [(set_cell_size(title, label), style)]
        for column in (0, *(rank + 1 for rank in shown)):
            rank = column - 1 if column else None
            sign, sign_style = self._sign(rank, name)
            if index == self.cursor and column == self.column:
                sign_style = palette.chosen
            room = 4 if rank is None else wide
            gap = " " * (1 if rank is None else wide - 1)
            rest = " " * (room - len(gap) - 1)
            pieces += [(gap, None), (sign, sign_style), (rest, None)]
        return pieces

    def _layout(self, width: int) -> tuple[int, int, range]:
        """(columns for titles, columns a node, the nodes that are shown)"""
        count = len(self.hosts)
        longest = max(len(check.title) for check in self.checks.values()) + 2
        digits = len(str(max(count - 1, 0)))
        for wide in (digits + 2, digits + 1, 1):
            label = min(longest, width - 5 - wide * count)
            if label >= _LEAST:
                return label, wide, range(count)
        room = width - 5 - _LEAST
        return _LEAST, 1, range(self._left, min(count, self._left + room))

    def _sign(self, rank: int | None, name: str) -> tuple[str, Style]:
        glyphs, palette = self.app.glyphs, self.palette
        cell = self.cells.get((rank, name))
        state = "waiting" if cell is None else cell.state
        if rank is None and state == "ok" and not self.checks[name].across:
            return " ", palette.muted
        return {
            "ok": (glyphs.ok, palette.good),
            "info": ("i", palette.primary),
            "warning": (glyphs.warning, palette.warning),
            "error": (glyphs.error, palette.bad),
            "skipped": (glyphs.track, palette.muted),
            "unseen": (glyphs.lost, palette.muted),
        }.get(state, (glyphs.pending, palette.muted))

    def _of_column(self, column: int) -> Style:
        return self.palette.strong if self.column == column else self.palette.muted

    # ---- the cursor -----------------------------------------------------------------------------------------------

    def watch_column(self) -> None:
        *_, shown = self._layout(max(1, self.content_size.width))
        if self.rank is not None and shown and self.rank not in shown:
            self._left = self.rank if self.rank < shown.start else self.rank - len(shown) + 1
            self.refresh()
        else:
            self.refresh(Region(0, 0, self.content_size.width, 1))
            self.redraw(self.cursor)
        if self.is_mounted:
            self.post_message(self.Moved(self, self.cursor))

    def action_aside(self, step: int) -> None:
        self.column = max(0, min(self.column + step, len(self.hosts)))

    def action_next_bad(self, step: int) -> None:
        """The next cell that is worth looking at, after the cursor and around."""
        names = tuple(self.checks)
        places = [(row, column) for row in range(len(names)) for column in range(len(self.hosts) + 1)]
        at = places.index((self.cursor, self.column))
        for row, column in (
            [*places[at + 1 :], *places[: at + 1]][::step] if step > 0 else [*places[at:], *places[:at]][::-1]
        ):
            cell = self.cells.get((column - 1 if column else None, names[row]))
            if cell is not None and cell.state in BAD:
                self.cursor, self.column = row, column
                return

    def go_to(self, rank: int | None, name: str) -> None:
        """Put the cursor on one cell."""
        self.cursor = tuple(self.checks).index(name)
        self.column = 0 if rank is None else rank + 1

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is not None:
            label, wide, shown = self._layout(self.content_size.width - (self.count() > self.content_size.height - 1))
            x = offset.x - label
            if 0 <= x < 4:
                self.column = 0
            elif x >= 4 and (x - 4) // wide < len(shown):
                self.column = shown[(x - 4) // wide] + 1
        super().on_click(event)


def shortened(title: str, room: int, ellipsis: str) -> str:
    """A title in so many columns: whole, or to the end of a clause or else of a word."""
    if len(title) <= room:
        return title
    kept = title[: room - len(ellipsis) + 1]
    ends = [kept.rfind(end) for end in (": ", "; ", ", ")]
    end = max(ends) if max(ends) >= room // 2 else kept.rfind(" ")
    return kept[: end if end > 0 else -1] + ellipsis
