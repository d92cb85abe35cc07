"""A line as it is shown: safe text with styles, and its rows of a given width."""

from __future__ import annotations

import functools
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style

from engine.text import LINE_LIMIT, coloured
from tui.logs import sgr
from tui.logs.levels import level

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tui.logs.levels import Level

# Joiners and variation selectors: terminals disagree about the width of what they join.
_STAMP = re.compile(r"\[?\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?\]?(?= |$)")
_JOINING = re.compile("[\u200c\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef\U0001f3fb-\U0001f3ff]")

Painted = tuple[int, int, Style]
"""From, to, how."""


@dataclass(frozen=True)
class Shown:
    """`text` is one line that a terminal shows and does not obey; `narrow`: every character takes one cell.

    The first `stamp` characters say when it was written.
    """

    text: str
    painted: tuple[Painted, ...]
    level: Level
    narrow: bool
    stamp: int

    def starts(self, width: int) -> Sequence[int]:
        """Where each row begins when the line is wrapped at `width` cells: characters, the first one 0."""
        if self.narrow or width < 2:
            return range(0, len(self.text) or 1, max(width, 1))
        return _wrap(self.text, width)

    def index(self, start: int, cell: int) -> int:
        """The character that is `cell` cells to the right of the one at `start`; the length for what is beyond."""
        if self.narrow:
            return min(max(0, start + cell), len(self.text))
        for at in range(start, len(self.text)):
            cell -= cell_len(self.text[at])
            if cell < 0:
                return at
        return len(self.text)


@functools.lru_cache(maxsize=512)
def shown(raw: bytes, cut: int) -> Shown:
    """A line's bytes made safe; `cut` more bytes of it are said to be there."""
    state, at = sgr.PLAIN, 0
    parts: list[str] = []
    painted: list[Painted] = []
    for parameters, piece in coloured(raw.decode("utf-8", "replace"), LINE_LIMIT):
        if parameters:
            state = sgr.after(state, parameters)
        piece = piece if piece.isascii() else _JOINING.sub("", piece)
        parts.append(piece)
        if piece and (style := sgr.style(state)) is not None:
            painted.append((at, at + len(piece), style))
        at += len(piece)
    text = "".join(parts)
    if cut:
        text = f"{text.removesuffix('…')}… and {cut:,} bytes more"
    stamp = _STAMP.match(text)
    narrow = text.isascii() or cell_len(text) == len(text)
    return Shown(text, tuple(painted), level(text), narrow, stamp.end() if stamp else 0)


def segments(text: str, start: int, end: int, base: Style | None, painted: Iterable[Painted]) -> list[Segment]:
    """`text[start:end]`, with what is painted later on top of what is painted before."""
    layers = [(max(a, start), min(b, end), style) for a, b, style in painted if a < end and b > start]
    if not layers:
        return [Segment(text[start:end], base)]
    cuts = sorted({start, end, *(a for a, _, _ in layers), *(b for _, b, _ in layers)})
    found = []
    for a, b in itertools.pairwise(cuts):
        style = base or Style.null()
        for first, last, layer in layers:
            if first <= a and b <= last:
                style += layer
        found.append(Segment(text[a:b], style))
    return found


@functools.lru_cache(maxsize=512)
def _wrap(text: str, width: int) -> tuple[int, ...]:
    starts, used = [0], 0
    for at, character in enumerate(text):
        cells = cell_len(character)
        if used + cells > width:
            starts.append(at)
            used = 0
        used += cells
    return tuple(starts)
