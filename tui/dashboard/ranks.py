"""The rank map: a cell a rank, a block a node; what is wrong shows by its shape, and again by its colour."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding

from tui.dashboard.drawn import Drawn, Piece, fitting, strip
from tui.dashboard.health import BAD, Health, summary
from tui.dashboard.panel import Panel
from tui.dashboard.places import Places, places

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.style import Style
    from textual import events
    from textual.binding import BindingType
    from textual.strip import Strip

    from tui.dashboard.panel import Scene

FOOT = 2
TOP = 5
"""The level of a rank at the median's pace: a full block would hide which cell is selected."""


class RanksPanel(Drawn):
    """Every rank at once. The height of a cell's block is its pace against the median of all ranks."""

    key = "ranks"
    title = "ranks"
    help = """One cell a rank, one block a node.
  full block: at the median's pace; lower: slower · failed x · killed with it × · ended ✓
  silent or unreachable ? or ~ · waiting ·
The two lines below tell of the selected rank, and count all of them."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "move(-1)", "previous rank", id="move.left", show=False),
        Binding("right,l", "move(1)", "next rank", id="move.right", show=False),
        Binding("up,k", "row(-1)", "row up", id="move.up", show=False),
        Binding("down,j", "row(1)", "row down", id="move.down", show=False),
        Binding("home,g", "move(-99999)", "first rank", id="move.first", show=False),
        Binding("end,G", "move(99999)", "last rank", id="move.last", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._places: Places | None = None
        self._first_row = 0

    def rows(self, scene: Scene, width: int, height: int) -> list[Strip]:
        plan = scene.state.plan
        ranks = scene.ranks
        room = max(1, height - FOOT)
        nodes = plan.nodes
        shown = self._places = places([n.host for n in nodes], [n.nproc for n in nodes], width, room)
        node, local = located(scene, scene.selected)
        _, y = shown.of(node, local)
        self._first_row = min(max(self._first_row, y - room + 1), y, max(0, shown.rows - room))
        signs, muted, chosen = self._signs(scene), self.palette.muted, self.palette.chosen
        window = range(self._first_row, min(shown.rows, self._first_row + room))
        lines: dict[int, list[Piece]] = {y: [] for y in window}
        ends = dict.fromkeys(window, 0)
        gap = " " * (shown.cell > 1)
        digits = shown.cell - 2
        for index in sorted(range(len(nodes)), key=lambda i: shown.blocks[i]):
            block = nodes[index]
            x, top = shown.blocks[index]
            for at in range(-(-max(1, block.nproc) // shown.across)):
                y = top + at
                if y not in lines:
                    continue
                line = lines[y]
                name = block.host if at == 0 else ""
                label = name if len(name) < shown.label else name[: shown.label - 2] + scene.glyphs.ellipsis
                line.append((" " * (x - ends[y]) + (f"{label:<{shown.label}}" if shown.label else ""), muted))
                first = at * shown.across
                cells = range(first, min(block.nproc, first + shown.across))
                for rank in range(block.first_rank + first, block.first_rank + first + len(cells)):
                    sign, style = signs[look(ranks[rank])]
                    if rank == scene.selected:
                        line += [(f"{rank:>{digits}}" if digits > 0 else "", chosen), (sign, chosen), (gap, muted)]
                    elif digits > 0:
                        line += [(f"{rank:>{digits}}", muted), (sign + gap, style)]
                    else:
                        line.append((sign + gap, style))
                ends[y] = x + shown.label + len(cells) * shown.cell
        visible = [strip(merged(line)) for line in lines.values()]
        blank = [strip([]) for _ in range(room - len(visible))]
        return [*visible, *blank, *self._foot(scene, ranks, width)]

    def _signs(self, scene: Scene) -> dict[str | int, tuple[str, Style]]:
        """Sign and style of every look that a rank can have: a word, or a level below 0 for the slow and above for the
        others."""
        glyphs, palette = scene.glyphs, self.palette
        signs: dict[str | int, tuple[str, Style]] = {
            "waiting": (glyphs.pending, palette.muted),
            "silent": (glyphs.silent, palette.warning),
            "ended": (glyphs.ok, palette.good),
            "failed": (glyphs.error, palette.bad),
            "killed": (glyphs.times, palette.muted),
            "unreachable": (glyphs.lost, palette.warning),
            "lost": (glyphs.lost, palette.bad),
        }
        for level in range(TOP + 1):
            signs[level] = (glyphs.levels[level], palette.primary)
            signs[-level - 1] = (glyphs.levels[level], palette.warning)
        return signs

    def _foot(self, scene: Scene, ranks: list[Health], width: int) -> list[Strip]:
        palette, dot = self.palette, scene.glyphs.separator
        node, local = located(scene, scene.selected)
        block, one = scene.state.plan.nodes[node], ranks[scene.selected]
        about = [f"rank {scene.selected}", f"{block.host} local_rank {local}", one.word]
        if one.worker is not None and one.worker.metric is not None:
            metric = one.worker.metric
            if metric.step is not None:
                about.append(f"step {metric.step}")
            if isinstance(metric.step_time, (int, float)):
                about.append(f"{metric.step_time:.3g} s")
            if one.pace is not None:
                about.append(f"{one.pace:.2f}{scene.glyphs.times} median")
        if one.worker is not None and one.worker.ended is None and one.worker.pid:
            about.append(f"pid {one.worker.pid}")
        groups = [[(f" {dot} " if at else "", palette.muted), (text, palette.text)] for at, text in enumerate(about)]
        bad = any(rank.word in BAD for rank in ranks)
        return [
            fitting(groups, width).crop(0, width),
            strip([(summary(ranks), palette.warning if bad else palette.muted)]).crop(0, width),
        ]

    def action_move(self, by: int) -> None:
        if self.scene is not None:
            last = self.scene.state.plan.world_size - 1
            self.post_message(Panel.Chose(max(0, min(last, self.scene.selected + by))))

    def action_row(self, by: int) -> None:
        """To the nearest rank in the next row up or down, of whatever node it is."""
        if self.scene is None or self._places is None:
            return
        shown = self._places
        x, y = shown.of(*located(self.scene, self.scene.selected))
        spots = [
            (shown.of(n.node_rank, i), n.first_rank + i) for n in self.scene.state.plan.nodes for i in range(n.nproc)
        ]
        beyond = [(spot, rank) for spot, rank in spots if (spot[1] - y) * by > 0]
        if beyond:
            _, rank = min(beyond, key=lambda one: (abs(one[0][1] - y), abs(one[0][0] - x)))
            self.post_message(Panel.Chose(rank))

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None or self.scene is None or self._places is None:
            return
        shown, y = self._places, offset.y + self._first_row
        for node in self.scene.state.plan.nodes:
            for local in range(node.nproc):
                at = shown.of(node.node_rank, local)
                if at[1] == y and at[0] <= offset.x < at[0] + shown.cell:
                    self.post_message(Panel.Chose(node.first_rank + local))
                    return


def located(scene: Scene, rank: int) -> tuple[int, int]:
    """(node_rank, local_rank) of a rank, by the plan."""
    for node in scene.state.plan.nodes:
        if node.first_rank <= rank < node.first_rank + node.nproc:
            return node.node_rank, rank - node.first_rank
    return 0, 0


def look(one: Health) -> str | int:
    """The key of a rank's sign: its word, or for one that runs its level against the median's pace."""
    if one.word not in ("running", "slow"):
        return one.word
    level = TOP if one.pace is None or one.pace <= 1 else max(0, round(TOP / one.pace))
    return level if one.word == "running" else -level - 1


def merged(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Neighbours of one style as one piece."""
    for style, group in itertools.groupby(pieces, key=lambda piece: piece[1]):
        yield "".join([text for text, _ in group]), style
