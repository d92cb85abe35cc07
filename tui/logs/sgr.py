"""What the colour sequences in a log may do here: colour and weight of letters, and nothing else.

Select Graphic Rendition, ECMA-48 8.3.117; 256 colours and true colour as in ITU-T T.416 and as xterm has them.
Backgrounds, concealing and blinking are left out: they can hide text or hurt.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

from rich.color import Color
from rich.style import Style

if TYPE_CHECKING:
    from collections.abc import Iterator


class Sgr(NamedTuple):
    """What is switched on. `colour` is a number up to 255, or "#rrggbb"."""

    bold: bool = False
    dim: bool = False
    italic: bool = False
    underline: bool = False
    reverse: bool = False
    strike: bool = False
    colour: int | str | None = None


PLAIN = Sgr()
_ON = {1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "reverse", 9: "strike"}
_OFF = {22: ("bold", "dim"), 23: ("italic",), 24: ("underline",), 27: ("reverse",), 29: ("strike",), 39: ("colour",)}
_BLACK = (0, 8)
"""Black and its bright form cannot be told from a dark background: they are shown dim."""


@functools.lru_cache(maxsize=1024)
def after(before: Sgr, parameters: str) -> Sgr:
    """What is on after a sequence with these parameters, “1;31”."""
    state = before
    codes = _codes(parameters)
    for code in codes:
        if code == 0:
            state = PLAIN
        elif code in _ON:
            state = state._replace(**{_ON[code]: True})
        elif code in _OFF:
            state = state._replace(**{name: PLAIN._asdict()[name] for name in _OFF[code]})
        elif 30 <= code <= 37 or 90 <= code <= 97:
            number = code - 30 if code < 90 else code - 82
            state = state._replace(colour=None, dim=True) if number in _BLACK else state._replace(colour=number)
        elif code in (38, 48, 58):
            colour = _extended(codes)
            state = state._replace(colour=colour) if code == 38 else state
    return state


@functools.lru_cache(maxsize=1024)
def style(state: Sgr) -> Style | None:
    """How that is drawn; None for nothing special."""
    if state == PLAIN:
        return None
    colour = None
    if isinstance(state.colour, int):
        colour = Color.from_ansi(state.colour)
    elif state.colour is not None:
        colour = Color.parse(state.colour)
    return Style(
        color=colour,
        bold=state.bold or None,
        dim=state.dim or None,
        italic=state.italic or None,
        underline=state.underline or None,
        reverse=state.reverse or None,
        strike=state.strike or None,
    )


def _codes(parameters: str) -> Iterator[int]:
    for number in parameters.replace(":", ";").split(";"):
        yield int(number) if 0 < len(number) <= 4 else 0


def _extended(codes: Iterator[int]) -> int | str | None:
    kind = next(codes, None)
    if kind == 5:
        number = next(codes, 0)
        return number if number <= 255 and number not in _BLACK else None
    if kind == 2:
        red, green, blue = (min(next(codes, 0), 255) for _ in range(3))
        return f"#{red:02x}{green:02x}{blue:02x}"
    return None
