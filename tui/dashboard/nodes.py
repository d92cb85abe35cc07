"""The node table: a line a node, and on request a line a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding

from engine.diagnosis import ending
from tui.dashboard.drawn import Drawn, Piece, strip
from tui.dashboard.panel import Panel

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.style import Style
    from textual.binding import BindingType
    from textual.strip import Strip

    from engine.events import Gpu, Sample
    from engine.state import NodeState
    from tui.dashboard.panel import Scene

    Column = tuple[str, int, Callable[[Sample], str], Callable[[Gpu], str] | None]

HOST = 16
STALE = 10.0
"""Seconds after which a sample says nothing about now."""


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}%"


def size(value: float | None) -> str:
    """Bytes as people say them: 1.5G."""
    if value is None:
        return "-"
    for unit in ("", "K", "M", "G", "T"):
        if value < 999.5 or unit == "T":
            return f"{value:.0f}{unit}" if value >= 99.5 or not unit else f"{value:.1f}{unit}"
        value /= 1024
    return "-"


def rate(value: float | None) -> str:
    return "-" if value is None else f"{size(value)}/s"


def _of_gpus(
    read: Callable[[Gpu], float | None], fold: Callable[[list[float]], float]
) -> Callable[[Sample], float | None]:
    def folded(sample: Sample) -> float | None:
        values = [value for gpu in sample.gpus if (value := read(gpu)) is not None]
        return fold(values) if values else None

    return folded


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


COLUMNS: tuple[Column, ...] = (
    ("GPU", 5, lambda s: percent(_of_gpus(lambda g: g.util, mean)(s)), lambda g: percent(g.util)),
    ("GMEM", 6, lambda s: size(_of_gpus(lambda g: g.memory, sum)(s)), lambda g: size(g.memory)),
    ("WATT", 6, lambda s: _plain(_of_gpus(lambda g: g.power, sum)(s)), lambda g: _plain(g.power)),
    ("TEMP", 5, lambda s: _plain(_of_gpus(lambda g: g.temperature, max)(s)), lambda g: _plain(g.temperature)),
    ("CPU", 5, lambda s: percent(s.cpu), None),
    ("MEM", 5, lambda s: percent(s.memory), None),
    ("NET IN", 8, lambda s: rate(s.net_in), None),
    ("NET OUT", 8, lambda s: rate(s.net_out), None),
    ("RDMA IN", 8, lambda s: rate(s.rdma_in), None),
    ("RDMA OUT", 9, lambda s: rate(s.rdma_out), None),
)
"""Head, width, a node's cell, a GPU's cell. The leftmost are kept where the screen is narrow."""


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


class NodesPanel(Drawn):
    """What each machine does: GPUs, CPU, memory, network."""

    key = "nodes"
    title = "nodes"
    help = """One line a node: GPU utilisation (mean), GPU memory in use, power, hottest GPU, CPU, memory, network.
enter opens the GPUs of a node. “-” means that the node does not tell."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "node up", id="move.up", show=False),
        Binding("down,j", "move(1)", "node down", id="move.down", show=False),
        Binding("home,g", "move(-99999)", "first node", id="move.first", show=False),
        Binding("end,G", "move(99999)", "last node", id="move.last", show=False),
        Binding("enter,space", "open", "its GPUs", id="nodes.gpus"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._opened: set[int] = set()
        self._top = 0

    def rows(self, scene: Scene, width: int, height: int) -> list[Strip]:
        chosen = node_of(scene, scene.selected)
        gpus = any(n.sample is not None and n.sample.gpus for n in scene.state.nodes.values())
        rdma = any(n.sample is not None and n.sample.rdma_in is not None for n in scene.state.nodes.values())
        columns = [c for c in COLUMNS if (gpus or c[3] is None) and (rdma or not c[0].startswith("RDMA"))]
        while columns and 4 + HOST + sum(c[1] for c in columns) > width:
            columns.pop()
        lines: list[tuple[NodeState, Gpu | None]] = []
        at = 0
        for node in scene.state.nodes.values():
            if node.node_rank == chosen:
                at = len(lines)
            lines.append((node, None))
            if node.node_rank in self._opened and node.sample is not None:
                lines += [(node, gpu) for gpu in node.sample.gpus]
        room = max(1, height - 1)
        self._top = min(max(self._top, at - room + 1), at, max(0, len(lines) - room))
        head = f"   {'NODE':<{HOST}}" + "".join(f"{name:>{wide}}" for name, wide, _, _ in columns)
        shown = [
            self._node(scene, node, columns, node.node_rank == chosen, width)
            if gpu is None
            else self._gpu(gpu, columns)
            for node, gpu in lines[self._top : self._top + room]
        ]
        return [strip([(head, self.palette.muted)]).crop(0, width), *shown]

    def _node(self, scene: Scene, node: NodeState, columns: list[Column], chosen: bool, width: int) -> Strip:
        sign, style, word = self._standing(scene, node)
        base = self.palette.chosen if chosen else None
        text = self.palette.text + base if base else self.palette.text
        host = node.host if len(node.host) < HOST else node.host[: HOST - 2] + scene.glyphs.ellipsis
        pieces: list[Piece] = [(f" {sign} ", style), (f"{host:<{HOST}}", text)]
        sample = node.sample
        if sample is not None and (node.over or scene.now - (sample.t - node.clock) < STALE):
            pieces += [(f"{cell(sample):>{wide}}", self.palette.text) for _, wide, cell, _ in columns]
        else:
            pieces.append((f" {word}", self.palette.muted))
        return strip(pieces).crop(0, width)

    def _standing(self, scene: Scene, node: NodeState) -> tuple[str, Style, str]:
        """A node's sign, its style, and the same in words."""
        glyphs, palette = scene.glyphs, self.palette
        if node.lost:
            return glyphs.error, palette.bad, node.lost
        if node.finished is not None:
            if node.finished.code == 0:
                return glyphs.ok, palette.good, "ended with exit code 0"
            how = ending(node.finished.code, node.finished.signal)
            return glyphs.error, palette.bad, f"stopped, {how}" if node.finished.stopped else how
        if node.link == "broken":
            return glyphs.lost, palette.warning, f"unreachable, the job there runs on: {node.link_text}"
        if node.stopping is not None:
            return glyphs.stopped, palette.warning, "stopping"
        if node.supervisor is None:
            return glyphs.pending, palette.muted, "starting"
        return glyphs.running, palette.primary, "running"

    def _gpu(self, gpu: Gpu, columns: list[Column]) -> Strip:
        name = f"GPU {gpu.index} {gpu.name}"[: HOST - 1]
        cells = "".join(f"{cell(gpu) if cell else '':>{wide}}" for _, wide, _, cell in columns)
        return strip([(f"     {name:<{HOST - 2}}{cells}", self.palette.muted)])

    def action_move(self, by: int) -> None:
        if self.scene is not None:
            nodes = self.scene.state.plan.nodes
            at = max(0, min(len(nodes) - 1, node_of(self.scene, self.scene.selected) + by))
            self.post_message(Panel.Chose(nodes[at].first_rank))

    def action_open(self) -> None:
        if self.scene is not None:
            self._opened ^= {node_of(self.scene, self.scene.selected)}
            self.redraw()


def node_of(scene: Scene, rank: int) -> int:
    """The node_rank of a rank, by the plan."""
    return next((n.node_rank for n in scene.state.plan.nodes if rank < n.first_rank + n.nproc), 0)
