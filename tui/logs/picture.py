"""The picture of a log: rows out of lines, with a margin, what was found, what is selected, and a scroll bar."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from tui.logs.shown import segments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tui.glyphs import Glyphs
    from tui.logs.shown import Shown
    from tui.themes import Palette


@dataclass(frozen=True)
class Looks:
    """The styles of a theme, each with the background that it stands on."""

    text: Style
    muted: Style
    good: Style
    primary: Style
    warning: Style
    bad: Style
    hit: Style
    chosen: Style
    thumb: Style
    tints: tuple[Style, ...]


@functools.lru_cache(maxsize=16)
def looks(colours: Palette, focused: bool, base: Style) -> Looks:
    plain = Style(bold=False)
    return Looks(
        text=base,
        muted=base + colours.muted,
        good=base + colours.good,
        primary=base + colours.primary,
        warning=base + colours.warning,
        bad=base + colours.bad + plain,
        hit=base + colours.warning + Style(reverse=True),
        chosen=base + Style(reverse=True),
        thumb=base + (colours.primary if focused else colours.muted),
        tints=tuple(base + each for each in (colours.primary, colours.good, colours.warning, colours.muted)),
    )


class Piece(NamedTuple):
    """One row to draw: the characters from `start` to `end` of a line, and what is special about it.

    `tint` is a number that tells the labels of different ranks apart.
    """

    line: Shown
    start: int
    end: int
    first: bool
    marked: bool
    margin: str
    label: str
    tint: int
    spans: tuple[tuple[int, int], ...]
    selected: tuple[int, int] | None
    thumb: bool | None


def row(piece: Piece, width: int, look: Looks, glyphs: Glyphs) -> Strip:
    """The row, `width` cells wide: a sign, the margin, the label, the text, the scroll bar where there is one."""
    line = piece.line
    style = {"error": look.bad, "warning": look.warning, "": look.text}[line.level]
    painted = [(0, line.stamp, look.muted), *line.painted]
    painted += [(start, end, look.hit) for start, end in piece.spans]
    if piece.selected is not None:
        painted.append((*piece.selected, look.chosen))
    text = segments(line.text, piece.start, piece.end, style, painted)
    if piece.selected is not None and not line.text:
        text = [Segment(" ", look.chosen)]
    head = [_sign(piece, look, glyphs)]
    if piece.margin:
        head.append(Segment(piece.margin, look.muted))
    if piece.label:
        head.append(Segment(piece.label, look.tints[piece.tint % len(look.tints)]))
    room = width - (piece.thumb is not None)
    strip = Strip([*head, *text]).adjust_cell_length(room, look.text)
    if piece.thumb is None:
        return strip
    return Strip([*strip, Segment(glyphs.thumb if piece.thumb else " ", look.thumb)], width)


def _sign(piece: Piece, look: Looks, glyphs: Glyphs) -> Segment:
    if piece.marked and piece.first:
        return Segment(f"{glyphs.running} ", look.primary)
    if piece.first and piece.line.level == "error":
        return Segment(f"{glyphs.error} ", look.bad)
    if piece.first and piece.line.level == "warning":
        return Segment(f"{glyphs.warning} ", look.warning)
    return Segment("  ", look.text)


def foot(left: Sequence[tuple[str, Style]], right: str, width: int, look: Looks) -> Strip:
    """The line below the log: what goes on at the left, where the view is at the right as far as there is room."""
    parts: list[Segment] = []
    for text, style in left:
        if text:
            parts += [Segment("  ", look.text)] if parts else []
            parts.append(Segment(text, style))
    strip = Strip(parts)
    room = width - strip.cell_length
    if len(right) + 2 <= room:
        strip = Strip([*parts, Segment(" " * (room - len(right)), look.text), Segment(right, look.muted)])
    return strip.adjust_cell_length(width, look.text)


def thumb(top: float, bottom: float, height: int) -> tuple[int, int] | None:
    """The rows of a scroll bar that stand for this share of the whole, first and behind the last; None for all."""
    if height < 2 or bottom - top >= 0.9999:
        return None
    size = max(1, round((bottom - top) * height))
    start = min(round(top * height), height - size)
    if bottom >= 0.9999:
        start = height - size
    elif start + size == height and size < height:
        start -= 1
    return max(start, 0), max(start, 0) + size
