"""The wizard's own dialogs: hosts to pick, one node's differences, what saving changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from tui.rows import Rows
from tui.wizard.fields import NODE_FIELDS
from tui.wizard.question import Line, Question, questions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult
    from textual.binding import BindingType

    from tui.rows import Piece
    from tui.wizard.offers import Offer


class Hosts(Rows):
    """Hosts to pick from; `picked` keeps the order in which they are offered."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "choose", "pick", id="hosts.pick", show=False),
        Binding("a", "all", "pick all that are shown", id="hosts.all", show=False),
    ]

    def __init__(self, offers: Sequence[Offer]) -> None:
        super().__init__()
        self._all = self._shown = list(offers)
        self._chosen: set[str] = set()
        self._width = max((len(offer.host) for offer in offers), default=0)

    @property
    def picked(self) -> list[str]:
        return [offer.host for offer in self._all if offer.host in self._chosen]

    def filter(self, part: str) -> None:
        """Show the hosts with this in their names; what is picked stays picked."""
        self._shown = [offer for offer in self._all if part.lower() in offer.host.lower()]
        self.changed()

    def count(self) -> int:
        return len(self._shown)

    def row(self, index: int, width: int) -> Sequence[Piece]:
        offer, palette = self._shown[index], self.palette
        chosen = offer.host in self._chosen
        sign = ("[x] ", palette.good) if chosen else ("[ ] ", palette.muted)
        name = (f"{offer.host:<{self._width}}  ", palette.strong if chosen else palette.text)
        return [sign, name, (offer.origin, palette.muted)]

    def action_all(self) -> None:
        names = {offer.host for offer in self._shown}
        self._chosen = self._chosen - names if names <= self._chosen else self._chosen | names
        self.refresh()

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        event.stop()
        self._chosen ^= {self._shown[event.index].host}
        self.refresh()


class PickHosts(ModalScreen["list[str] | None"]):
    """Hosts that are known already: space picks, enter takes them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "cancel"),
        Binding("enter,f6", "take", "take", priority=True),
        Binding("down", "app.focus_next", "", show=False),
    ]

    def __init__(self, offers: Sequence[Offer]) -> None:
        super().__init__()
        self._offers = offers

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Content("Hosts that are known here"), classes="question")
            yield Line(placeholder="filter by name", compact=True)
            yield Hosts(self._offers)
            yield Static(Content("space picks · a picks all · tab filters · enter takes · esc cancels"), classes="hint")

    def on_mount(self) -> None:
        self.query_one(Hosts).focus()

    def on_input_changed(self, event: Line.Changed) -> None:
        self.query_one(Hosts).filter(event.value)

    def action_take(self) -> None:
        self.dismiss(self.query_one(Hosts).picked or None)


class OneNode(ModalScreen["dict[str, str] | None"]):
    """What is different on one node."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "cancel"),
        Binding("f2", "take", "take"),
    ]

    def __init__(self, host: str, answers: dict[str, str]) -> None:
        super().__init__()
        self._host = host
        self._answers = dict(answers)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Content(f"{self._host}: what differs on this node"), classes="question")
            for name, field in NODE_FIELDS.items():
                yield Question(field, self._answers.get(name, ""))
            with Horizontal(classes="buttons"):
                yield Button("Cancel (esc)", id="cancel")
                yield Button("Take it (F2)", id="take", variant="primary")

    def on_mount(self) -> None:
        next(iter(questions(self).values())).control.focus()

    def on_question_changed(self, event: Question.Changed) -> None:
        self._answers[event.key] = event.text

    def on_input_submitted(self) -> None:
        self.focus_next()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "take":
            self.action_take()
        else:
            self.dismiss(None)

    def action_take(self) -> None:
        self.dismiss({name: text for name, text in self._answers.items() if text.strip()})


class Difference(ModalScreen[bool]):
    """What saving would change in the file, line by line."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,n", "dismiss(False)", "cancel"),
        Binding("f2,y", "dismiss(True)", "save"),
    ]

    def __init__(self, path: str, difference: str, *, new: bool) -> None:
        super().__init__()
        self._path = path
        self._difference = difference
        self._new = new

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog difference"):
            verb = "A new file" if self._new else "What changes in"
            yield Static(Content(f"{verb} {self._path}"), classes="question")
            with VerticalScroll(id="changes"):
                yield Static(coloured(self._difference))
            with Horizontal(classes="buttons"):
                yield Button("Cancel (esc)", id="cancel")
                yield Button("Save (F2)", id="save", variant="primary")

    def on_mount(self) -> None:
        self.query_one("#save").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "save")


def coloured(difference: str) -> Content:
    """A unified diff; its signs say what the colours double."""
    styles = {"+": "$success", "-": "$error", "@": "$primary"}
    lines = difference.splitlines()[2:]
    return Content("\n").join(Content.styled(line, styles.get(line[:1], "$secondary")) for line in lines)
