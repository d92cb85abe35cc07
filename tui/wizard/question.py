"""One question on the screen: its label, where the answer is typed, and beside it why it is wrong, or what it means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Input, Static, TextArea

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult
    from textual.binding import BindingType
    from textual.geometry import Size

    from tui.app import RankdeckApp
    from tui.wizard.fields import Field
    from tui.wizard.proposals import Proposal

LINES = frozenset({"words", "lines", "block", "env", "hosts"})
"""The kinds that are typed on several lines."""
_OWN_KEYS = frozenset({"f6", "f7"})
"""What TextArea would keep for itself and the wizard needs."""


class Question(Vertical):
    """A field of the draft. What is typed is told to the screen, which alone decides what it comes to."""

    app: RankdeckApp

    class Changed(Message):
        """The answer is another."""

        def __init__(self, key: str, text: str) -> None:
            super().__init__()
            self.key = key
            self.text = text

    class Left(Message):
        """The focus has gone elsewhere: now is the time to say what is wrong."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    def __init__(self, field: Field, text: str, *, key: str = "") -> None:
        super().__init__(classes=f"question-{field.kind}")
        self.field = field
        self.key = key or field.path
        self._text = text
        self._mistake = ""
        self._proposal: Proposal | None = None
        self._said: Content | None = None

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Static(Content(self.field.label), classes="label")
            yield self._answer()
        yield Static("", classes="note")

    def on_mount(self) -> None:
        self._say()
        if isinstance(control := self.control, Lines):
            control.move_cursor(control.document.end)

    @property
    def control(self) -> Line | Lines | Choice:
        """Where it is typed."""
        return self.query_one("#answer")  # type: ignore[return-value]

    def show(self, text: str) -> None:
        """Show an answer that comes from elsewhere."""
        self._text = text
        control = self.control
        if isinstance(control, Lines):
            if control.text != text:
                control.text = text
        else:
            control.value = text or (self.field.default if isinstance(control, Choice) else "")

    def tell(self, mistake: str, proposal: Proposal | None = None) -> None:
        """What is wrong with the answer ("" = nothing), or else what holds."""
        self._mistake, self._proposal = mistake, proposal
        self._say()

    def _answer(self) -> Line | Lines | Choice:
        field = self.field
        if field.kind in LINES:
            return Lines(self._text, placeholder=Content(field.default), id="answer", compact=True, soft_wrap=True)
        if field.kind in ("choice", "flag"):
            choices = field.choices or (("", "no"), ("true", "yes"))
            return Choice(choices, self._text or field.default)
        shown = f"{field.default}" if field.default else ""
        return Line(self._text, placeholder=shown, id="answer", compact=True, select_on_focus=False)

    def _say(self) -> None:
        glyphs = self.app.glyphs
        self.set_class(bool(self._mistake), "-wrong")
        if self._mistake:
            said = Content.styled(f"{glyphs.error} {self._mistake}", "$error")
        elif self._proposal is not None:
            proposal = self._proposal
            mark, style = {
                True: (glyphs.ok, "$secondary"),
                False: (glyphs.warning, "$warning"),
                None: (glyphs.info, "$secondary"),
            }[proposal.good]
            offer = f" (F6 takes {proposal.value})" if proposal.value else ""
            said = Content.styled(f"{mark} {proposal.why}{offer}", style)
        else:
            control = self.query("#answer").first()
            meaning = control.meaning if isinstance(control, Choice) else ""
            said = Content.styled(meaning or self.field.help, "$secondary")
        if said != self._said:
            self._said = said
            self.query_one(".note", Static).update(said)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._tell_changed(event.value)

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        event.stop()
        self._tell_changed(event.text_area.text)

    def on_choice_changed(self, event: Choice.Changed) -> None:
        event.stop()
        self._say()
        self._tell_changed(event.value)

    def _tell_changed(self, text: str) -> None:
        if text != self._text:
            self._text = text
            self.post_message(self.Changed(self.key, text))

    def on_descendant_blur(self) -> None:
        self.post_message(self.Left(self.key))


class Line(Input):
    """One line of text. The cursor does not blink: over a slow link that is a picture every half second."""

    def on_mount(self) -> None:
        self.cursor_blink = False


class Lines(TextArea, inherit_bindings=False):
    """Several lines of text; tab goes on, and the keys that the wizard needs are left to it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        binding for binding in TextArea.BINDINGS if isinstance(binding, Binding) and binding.key not in _OWN_KEYS
    ]

    def on_mount(self) -> None:
        self.cursor_blink = False


class Choice(Widget, can_focus=True):
    """One of a few: all are seen, arrows or space choose."""

    app: RankdeckApp
    help = "left and right, or space, choose; enter goes to the next question"
    value = reactive("")

    class Changed(Message):
        """Another one is chosen."""

        def __init__(self, value: str) -> None:
            super().__init__()
            self.value = value

    def __init__(self, choices: tuple[tuple[str, str], ...], value: str) -> None:
        super().__init__(id="answer")
        self.choices = choices
        self.set_reactive(Choice.value, value)

    @property
    def meaning(self) -> str:
        """The chosen one in words."""
        text = next((text for value, text in self.choices if value == self.value), "")
        return text.partition(": ")[2]

    def render(self) -> Content:
        lines: list[list[Content]] = []
        for value, text, x, _ in self._places(self.content_size.width):
            style = "bold $primary" if value == self.value else "$secondary"
            if not x:
                lines.append([])
            lines[-1].append(Content.styled(text, style))
        return Content("\n").join(Content(_GAP).join(line) for line in lines)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return max((y for *_, y in self._places(width)), default=0) + 1

    def watch_value(self) -> None:
        self.post_message(self.Changed(self.value))

    def on_key(self, event: events.Key) -> None:
        """Taken here and not by bindings: those are run where the focus is by then, when keys are typed ahead."""
        if event.key in _STEPS:
            event.stop()
            values = [value for value, _ in self.choices]
            at = values.index(self.value) if self.value in values else 0
            self.value = values[(at + _STEPS[event.key]) % len(values)]

    def on_click(self, event: events.Click) -> None:
        if (offset := event.get_content_offset(self)) is not None:
            for value, text, x, y in self._places(self.content_size.width):
                if offset.y == y and x <= offset.x < x + len(text):
                    self.value = value

    def _places(self, width: int) -> list[tuple[str, str, int, int]]:
        """(value, text, x, y) of every choice: on as few lines as the width allows."""
        signs = ("●", "○") if self.app.glyphs.ok == "✓" else ("(*)", "( )")
        places = []
        x = y = 0
        for value, text in self.choices:
            shown = f"{signs[value != self.value]} {_short(value, text)}"
            if x and x + len(shown) > width:
                x, y = 0, y + 1
            places.append((value, shown, x, y))
            x += len(shown) + len(_GAP)
        return places


_STEPS = {"left": -1, "up": -1, "h": -1, "right": 1, "down": 1, "l": 1, "space": 1}
_GAP = "   "


def _short(value: str, text: str) -> str:
    return value if ": " in text else text


def questions(of: Any) -> dict[str, Question]:
    """Every question below a widget, by key."""
    return {question.key: question for question in of.query(Question)}
