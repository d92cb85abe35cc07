"""The colours: dark, light and high contrast, all from the palette of Okabe and Ito (2008), told apart by everyone.

The two ANSI themes of Textual, which take the terminal's own sixteen colours, are offered beside them.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.style import Style
from textual.color import Color
from textual.theme import Theme

DARK = Theme(
    name="rankdeck-dark",
    primary="#56B4E9",
    secondary="#8fa3b8",
    accent="#E69F00",
    success="#2fb58c",
    warning="#E69F00",
    error="#f0703a",
    foreground="#d8dee6",
    background="#0e1318",
    surface="#131a21",
    panel="#1b242d",
    dark=True,
    variables={
        "border": "#33424f",
        "footer-key-foreground": "#E69F00",
        "footer-background": "#131a21",
        "input-cursor-background": "#d8dee6",
        "block-cursor-background": "#24506b",
        "block-cursor-foreground": "#ffffff",
        "block-cursor-text-style": "bold",
    },
)
LIGHT = Theme(
    name="rankdeck-light",
    primary="#0072B2",
    secondary="#52616e",
    accent="#9a5b00",
    success="#00785a",
    warning="#9a5b00",
    error="#b83f00",
    foreground="#1b232a",
    background="#fbfbf8",
    surface="#f2f3ef",
    panel="#e6e8e3",
    dark=False,
    variables={
        "border": "#b4bbb8",
        "footer-key-foreground": "#0072B2",
        "footer-background": "#f2f3ef",
        "block-cursor-background": "#bfe0f2",
        "block-cursor-foreground": "#10181e",
        "block-cursor-text-style": "bold",
    },
)
CONTRAST = Theme(
    name="rankdeck-contrast",
    primary="#8fd3ff",
    secondary="#ffffff",
    accent="#ffd21a",
    success="#45f0c0",
    warning="#ffd21a",
    error="#ff9a66",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#161616",
    dark=True,
    text_alpha=1.0,
    variables={
        "border": "#ffffff",
        "text-muted": "#e8e8e8",
        "footer-key-foreground": "#ffd21a",
        "footer-background": "#000000",
        "block-cursor-background": "#ffd21a",
        "block-cursor-foreground": "#000000",
        "block-cursor-text-style": "bold",
    },
)
THEMES = (DARK, LIGHT, CONTRAST)
OFFERED = (*(theme.name for theme in THEMES), "ansi-dark", "ansi-light")
"""By the names that a user chooses from, the default first."""


@dataclass(frozen=True)
class Palette:
    """The colours of the theme as styles for drawn lines. They double what a sign says, never replace it."""

    text: Style
    muted: Style
    strong: Style
    primary: Style
    good: Style
    warning: Style
    bad: Style
    chosen: Style


def palette(theme: Theme, focused: bool = True) -> Palette:
    """The styles of a theme; `chosen` is quieter where its widget has no focus."""
    made = _palettes.get((theme.name, focused))
    if made is None:
        made = _palettes[theme.name, focused] = _palette(theme, focused)
    return made


_palettes: dict[tuple[str, bool], Palette] = {}


def _palette(theme: Theme, focused: bool) -> Palette:

    def style(color: str | None, bold: bool | None = None) -> Style:
        return Style(color=Color.parse(color).rich_color if color else None, bold=bold)

    return Palette(
        text=style(theme.foreground),
        muted=style(theme.secondary),
        strong=style(theme.foreground, bold=True),
        primary=style(theme.primary),
        good=style(theme.success),
        warning=style(theme.warning),
        bad=style(theme.error, bold=True),
        chosen=Style(
            color=Color.parse(theme.background or "ansi_default").rich_color,
            bgcolor=Color.parse((theme.warning if focused else theme.foreground) or "ansi_default").rich_color,
            bold=focused,
        ),
    )
