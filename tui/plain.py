"""`--ascii`: whatever is drawn, by us, by Textual or by a rank, goes to the terminal in ASCII, cell for cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.segment import Segment
from textual.filter import LineFilter

if TYPE_CHECKING:
    from textual.color import Color

DRAWN = {
    **dict.fromkeys("─━═╌╍▔▁", "-"),
    **dict.fromkeys("│┃║▎▍▌▏▊█▇▆▅▄▃▂▕▐", "|"),
    **dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼", "+"),
    "×": "x", "·": ".", "•": "*", "…": "~", "→": ">", "←": "<", "▶": ">", "■": "#", "✓": "+", "✗": "x",
    "“": '"', "”": '"',
}  # fmt: skip


def plain(text: str) -> str:
    """The same number of cells, ASCII only; what has no likeness is a question mark."""
    if text.isascii():
        return text
    return "".join(one if one.isascii() else DRAWN.get(one) or "?" * cell_len(one) for one in text)


class Plain(LineFilter):
    """The last thing that a row goes through."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(plain(text), style, control) for text, style, control in segments]
