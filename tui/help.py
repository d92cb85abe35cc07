"""The keys of the place that has the focus, and what cannot be done there and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from tui import keys

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import ActiveBinding, BindingType
    from textual.screen import Screen

KEYS = {
    "question_mark": "?", "slash": "/", "left_square_bracket": "[", "right_square_bracket": "]", "escape": "esc",
    "exclamation_mark": "!", "plus": "+", "minus": "-", "comma": ",", "full_stop": ".", "percent_sign": "%",
    "ampersand": "&", "colon": ":",
}  # fmt: skip


def why_not(active: ActiveBinding) -> str:
    """Why a key does nothing now, as the place that it belongs to says; "" where it does, or nobody says."""
    if active.enabled or not hasattr(active.node, "why_not"):
        return ""
    return str(active.node.why_not(active.binding.action.partition("(")[0]))


KEY_WIDTH, NAME_AT = 16, 48
"""Columns for the keys, and where the name of what they do begins if there is room for it."""


class Help(ModalScreen[None]):
    """What the focused widget, its screen and the program answer to, nearest first."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q,question_mark,f1", "dismiss", "close")]

    def __init__(self, of: Screen[Any]) -> None:
        super().__init__()
        self._of = of

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog help"):
            yield Static(Content(self._text()))

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).border_title = "keys · esc closes"
        self.query_one(VerticalScroll).focus()

    def _text(self) -> str:
        focused = self._of.focused
        about = (getattr(focused, "help", "") or getattr(self._of, "help", "")).strip()
        sections: dict[str, dict[tuple[str, str], list[str]]] = {}
        for active in self._of.active_bindings.values():
            binding = active.binding
            if not binding.description:
                continue
            place = getattr(active.node, "title", None) or type(active.node).__name__
            place = "everywhere" if active.node is self.app else str(place)
            why = why_not(active)
            what = f"{binding.description} (not now: {why})" if why else binding.description
            pressed = sections.setdefault(place, {}).setdefault((what, binding.id or ""), [])
            pressed.append(KEYS.get(binding.key, binding.key))
        lines = [flowing(about), ""] if about else []
        for place, actions in sections.items():
            lines.append(place)
            for (what, name), names in actions.items():
                line = f"  {', '.join(names):<{KEY_WIDTH}} {what}"
                lines.append(f"{line:<{NAME_AT}} {name}" if len(line) <= NAME_AT else line)
            lines.append("")
        lines.append(
            f"Keys of your own: in {keys.path()} a line for each,\nwith the name at the right: log.search: ctrl+f"
        )
        return "\n".join(lines)


def flowing(text: str) -> str:
    """Lines of a paragraph as one, to be broken where the screen ends; lines that begin with a space stay."""
    lines: list[str] = []
    for line in text.split("\n"):
        if lines and line and lines[-1] and not line.startswith(" ") and not lines[-1].startswith(" "):
            lines[-1] += f" {line}"
        else:
            lines.append(line)
    return "\n".join(lines)
