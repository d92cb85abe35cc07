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
    """One line of text."""


class Lines(TextArea, inherit_bindings=False):
    """Several lines of text; tab goes on, and the keys that the wizard needs are left to it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        binding for binding in TextArea.BINDINGS if isinstance(binding, Binding) and binding.key not in _OWN_KEYS
    ]


class Choice(Widget, can_focus=True):
    """One of a few: all are seen, left and right choose."""

    app: RankdeckApp
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,up,h", "choose(-1)", "previous", show=False),
        Binding("right,down,l,space", "choose(1)", "next", show=False),
    ]
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
        signs = ("●", "○") if self.app.glyphs.ok == "✓" else ("(*)", "( )")
        parts = []
        for value, text in self.choices:
            chosen = value == self.value
            style = "bold $primary" if chosen else "$secondary"
            parts.append(Content.styled(f"{signs[not chosen]} {_short(value, text)}", style))
        return Content("   ").join(parts)

    def watch_value(self) -> None:
        self.post_message(self.Changed(self.value))

    def action_choose(self, step: int) -> None:
        values = [value for value, _ in self.choices]
        at = values.index(self.value) if self.value in values else 0
        self.value = values[(at + step) % len(values)]

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        place, x = 0, offset.x if offset is not None else -1
        gap = 3
        sign = 2 if self.app.glyphs.ok == "✓" else 4
        for value, text in self.choices:
            width = sign + len(_short(value, text))
            if place <= x < place + width:
                self.value = value
            place += width + gap


def _short(value: str, text: str) -> str:
    return value if ": " in text else text


def questions(of: Any) -> dict[str, Question]:
    """Every question below a widget, by key."""
    return {question.key: question for question in of.query(Question)}
