"""Where each rank's cell is in the map: nodes as blocks of cells, as many side by side as fit. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LABEL = 18


@dataclass(frozen=True)
class Places:
    """`blocks` says for each node where its label begins (x, y); a rank is `cell` columns wide, with its number before
    it where that is more than 2.

    `label` columns go before each block, 0 for none; `rows` is the height of the whole map, which may be more than
    the screen's; a node of more ranks than fit in a row goes on in the rows below.
    """

    blocks: tuple[tuple[int, int], ...]
    label: int
    cell: int
    across: int
    rows: int

    def of(self, node: int, local: int) -> tuple[int, int]:
        """(x, y) of a rank's cell."""
        x, y = self.blocks[node]
        return x + self.label + local % self.across * self.cell, y + local // self.across


def places(names: Sequence[str], sizes: Sequence[int], width: int, height: int) -> Places:
    """The roomiest arrangement of these nodes that fits; the tightest, to be scrolled, where none does.

    `names` are the hosts and `sizes` their numbers of ranks.
    """
    numbered = len(str(max(sum(sizes) - 1, 0))) + 2
    longest = max(map(len, names), default=0) + 1
    widest = max(sizes, default=1) or 1
    tried = None
    for label in dict.fromkeys((min(longest, LABEL), min(longest, 8), 0)):
        for cell in (numbered, 2, 1):
            if (label or cell == 1) and label + cell <= width:
                tried = _flow(sizes, widest, label, cell, width, height)
                if tried.rows <= height:
                    return tried
    return tried or _flow(sizes, widest, 0, 1, width, height)


def _flow(sizes: Sequence[int], widest: int, label: int, cell: int, width: int, height: int) -> Places:
    across = max(1, min(widest, (width - label) // cell))
    deep = -(-widest // across)
    block = label + across * cell
    columns = max(1, (width + 2) // (block + 2))
    if label:
        # Down each column first, so that neighbours in the list are neighbours on the screen, and no more columns than
        # the height asks for.
        down = max(-(-len(sizes) // columns), min(len(sizes), height // deep))
        blocks = tuple((i // down * (block + 2), i % down * deep) for i in range(len(sizes)))
        return Places(blocks, label, cell, across, down * deep)
    gap = 1
    columns = max(1, (width + gap) // (block + gap))
    blocks = tuple((i % columns * (block + gap), i // columns * deep) for i in range(len(sizes)))
    return Places(blocks, 0, cell, across, -(-len(sizes) // columns) * deep)
