"""The wizard's own dialogs: hosts to pick, one node's differences, what saving changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, SelectionList, Static
from textual.widgets.selection_list import Selection

from tui.wizard.fields import NODE_FIELDS
from tui.wizard.question import Question, questions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult
    from textual.binding import BindingType

    from tui.wizard.offers import Offer

OFFERED = 300
"""Hosts that the list shows at most; the filter finds the others."""


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
        self._picked: dict[str, None] = {}
        self._shown: set[str] = set()

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Content("Hosts that are known here"), classes="question")
            yield Input(placeholder="filter", compact=True)
            yield SelectionList[str](compact=True)
            yield Static(Content("space picks · enter takes them · esc cancels"), classes="hint")

    def on_mount(self) -> None:
        self._fill("")
        self.query_one(SelectionList).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._fill(event.value)

    def on_selection_list_selected_changed(self, event: SelectionList.SelectedChanged[str]) -> None:
        for host in self._shown.difference(event.selection_list.selected):
            self._picked.pop(host, None)
        self._picked |= dict.fromkeys(event.selection_list.selected)

    def action_take(self) -> None:
        order = [offer.host for offer in self._offers if offer.host in self._picked]
        self.dismiss(order or None)

    def _fill(self, part: str) -> None:
        hosts = self.query_one(SelectionList)
        with hosts.prevent(SelectionList.SelectedChanged):
            hosts.clear_options()
            found = [offer for offer in self._offers if part.lower() in offer.host.lower()]
            self._shown = {offer.host for offer in found[:OFFERED]}
            width = max((len(offer.host) for offer in found), default=0)
            hosts.add_options(
                Selection(
                    Content.assemble((f"{offer.host:<{width}}  ", ""), (offer.origin, "$secondary")),
                    offer.host,
                    offer.host in self._picked,
                )
                for offer in found[:OFFERED]
            )
            hosts.highlighted = 0 if found else None


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

    def on_question_done(self, event: Question.Done) -> None:
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
