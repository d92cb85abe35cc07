"""One line at the foot of a log to type into: what to search, what to filter by, which line to go to."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType

REMEMBERED = 50


class Prompt(Horizontal):
    """Hidden until asked. Enter answers, esc leaves, up and down go through what was typed before."""

    DEFAULT_CSS = """
    Prompt { dock: bottom; height: 1; display: none; background: $panel; }
    Prompt.open { display: block; }
    Prompt Static { width: auto; color: $accent; text-style: bold; padding: 0 1 0 0; }
    Prompt Input { width: 1fr; background: $panel; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "back"),
        Binding("up", "recall(-1)", "typed before"),
        Binding("down", "recall(1)", "typed after", show=False),
    ]

    class Answered(Message):
        """Something was typed, or nothing: `text` is empty then; None when the user left."""

        def __init__(self, kind: str, text: str | None) -> None:
            super().__init__()
            self.kind = kind
            self.text = text

    def __init__(self) -> None:
        super().__init__()
        self._kind = ""
        self._typed: dict[str, list[str]] = {}
        self._at = 0

    def compose(self) -> ComposeResult:
        yield Static()
        yield Input(compact=True, max_length=500, select_on_focus=True)

    def on_mount(self) -> None:
        self.query_one(Input).cursor_blink = False

    def ask(self, kind: str, label: str, text: str, hint: str) -> None:
        """Open, with `text` to be typed over; without it, with what was typed last."""
        typed = self._typed.setdefault(kind, [])
        self._kind, self._at = kind, len(typed)
        field = self.query_one(Input)
        self.query_one(Static).update(Content(label))
        field.placeholder = hint
        field.value = text or (typed[-1] if typed else "")
        self.add_class("open")
        self.screen.set_focus(field)  # at once: what is typed next is meant for it

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        text = event.value
        typed = self._typed[self._kind]
        if text:
            self._typed[self._kind] = [*(one for one in typed if one != text), text][-REMEMBERED:]
        self._close(text)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()

    def action_leave(self) -> None:
        self._close(None)

    def action_recall(self, way: int) -> None:
        typed = self._typed.get(self._kind, [])
        self._at = min(max(self._at + way, 0), len(typed))
        field = self.query_one(Input)
        field.value = typed[self._at] if self._at < len(typed) else ""
        field.cursor_position = len(field.value)

    def _close(self, text: str | None) -> None:
        self.remove_class("open")
        self.post_message(self.Answered(self._kind, text))
