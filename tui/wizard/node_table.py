"""The nodes of a draft in a table that fills in as they answer: GPUs, Python, torch, address; or why they do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

from engine.errors import RankdeckError
from engine.plan import NodeFacts, known_ranks
from engine.preflight import Observation
from tui.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.geometry import Size

    from engine.profile import Node
    from tui.rows import Piece
    from tui.wizard.sheet import Sheet

COLUMNS = ("#", "host", "ranks", "GPUs", "python", "torch", "address", "interface")
_WIDEST = {"host": 24, "GPUs": 34, "address": 24}
_GAP = 2


class NodeTable(Rows):
    """One row a node, in the order of their node ranks."""

    title = "nodes"

    def __init__(self, sheet: Sheet) -> None:
        super().__init__(id="node-table")
        self.sheet = sheet
        self._cells: list[tuple[str, ...]] = []
        self._widths: list[int] = []

    def settle(self) -> None:
        """Make the rows anew from the sheet."""
        profile, before = self.sheet.profile, len(self._cells)
        self._cells = [self._row(rank, node) for rank, node in enumerate(profile.nodes)]
        answered = [
            cells if isinstance(self.sheet.observations.get(rank), Observation) else cells[:3] + ("",) * 5
            for rank, cells in enumerate(self._cells)
        ]
        columns = list(zip(COLUMNS, *answered, strict=True))
        self._widths = [
            min(max(map(cell_len, cells)), _WIDEST.get(name, 16)) for name, cells in zip(COLUMNS, columns, strict=True)
        ]
        if len(self._cells) != before:
            self.refresh(layout=True)
        self.changed()

    def count(self) -> int:
        return len(self._cells)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._cells) + 1

    def head(self, width: int) -> Sequence[Sequence[Piece]]:
        if not self._cells:
            return ()
        return ([("  " + self._line(COLUMNS, width - 2), self.palette.muted)],)

    def row(self, index: int, width: int) -> Sequence[Piece]:
        glyphs, palette = self.app.glyphs, self.palette
        look = self.sheet.observations.get(index)
        cells = self._cells[index]
        if not isinstance(look, Observation):
            lead = self._line(cells[:3], width - 2)
            sign, style = (glyphs.pending, palette.muted) if look is None else (glyphs.error, palette.bad)
            room = width - cell_len(lead) - 4
            said = (
                cells[3] if cell_len(cells[3]) <= room else set_cell_size(cells[3], max(0, room - 1)) + glyphs.ellipsis
            )
            return [(f"{sign} ", style), (lead + "  ", palette.text), (said, style)]
        bad = not look.python.looked or not look.python.torch
        mark = (f"{glyphs.warning} ", palette.warning) if bad else (f"{glyphs.ok} ", palette.good)
        return [mark, (self._line(cells, width - 2), palette.text)]

    def _line(self, cells: Sequence[str], width: int) -> str:
        """As many columns as fit, each as wide as its widest cell."""
        out: list[str] = []
        used = 0
        for cell, wide in zip(cells, self._widths, strict=False):
            if used + wide > width and out:
                break
            text = cell if cell_len(cell) <= wide else set_cell_size(cell, wide - 1) + self.app.glyphs.ellipsis
            out.append(set_cell_size(text, wide))
            used += wide + _GAP
        return (" " * _GAP).join(out)

    def _row(self, rank: int, node: Node) -> tuple[str, ...]:
        fact = self.sheet.facts.get(rank, NodeFacts())
        ranks = known_ranks(node, fact)
        user = f"{node.user}@" if node.user else ""
        port = f":{node.port}" if node.port else ""
        lead = (str(rank), f"{user}{node.host}{port}", "auto" if ranks is None else str(ranks))
        look = self.sheet.observations.get(rank)
        if look is None:
            return (*lead, f"asking {self.app.glyphs.ellipsis}", "", "", "", "")
        if isinstance(look, RankdeckError):
            return (*lead, look.text.replace("\n", " "), "", "", "", "")
        python = look.python
        version = python.python_version or ("no activation" if not python.activated else "none")
        return (*lead, gpus_text(look), version, python.torch or "none", fact.addr or "none", fact.interface)


def gpus_text(seen: Observation) -> str:
    """`8 × NVIDIA A100-SXM4-80GB`, or that there are none."""
    names: dict[str, int] = {}
    for gpu in seen.gpus.usable:
        name = gpu.name.removeprefix("NVIDIA ") or "GPU"
        names[name] = names.get(name, 0) + 1
    if not names:
        return f"none, {seen.system.cpu_count} CPUs"
    return ", ".join(f"{count} × {name}" for name, count in names.items())
