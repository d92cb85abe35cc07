"""What is to become of a running job when the user leaves: leave it, stop it, or stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.app import ComposeResult
    from textual.binding import BindingType


LOOK = 0.5
"""Seconds between looks whether the run goes on."""


class Leave(ModalScreen[str | None]):
    """“detach”, “stop”, or None to stay. `outcome` tells how the run stands: it may end while this is being read."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("d", "answer('detach')", "detach"),
        ("s", "answer('stop')", "stop"),
        ("escape,q,n", "dismiss(None)", "stay"),
        ("left,h", "app.focus_previous", ""),
        ("right,l", "app.focus_next", ""),
    ]

    def __init__(self, run: str, outcome: Callable[[], str], *, ours: bool, readonly: bool) -> None:
        super().__init__()
        self._run = run
        self._outcome = outcome
        self._ours = ours
        self._readonly = readonly

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Content(f"{self._run} is still running"), classes="question")
            yield Static(
                Content(f"Detached, it goes on without you; come back with: rankdeck attach {self._run}"),
                classes="detail",
            )
            with Horizontal(classes="buttons"):
                yield Button("Detach (d)", id="detach", variant="primary")
                yield Button("Stop the job (s)", id="stop", variant="warning", disabled=self._readonly)
                yield Button("Stay (esc)", id="stay")

    def on_mount(self) -> None:
        self.query_one("#stop" if self._ours and not self._readonly else "#detach").focus()
        self.set_interval(LOOK, self._look)

    def _look(self) -> None:
        if (outcome := self._outcome()) != "running":
            self.query_one(".question", Static).update(Content(f"{self._run} has ended: {outcome}"))
            self.query_one(".detail", Static).update(Content("There is nothing left to detach from or to stop."))
            self.query_one("#detach", Button).label = "Quit (d)"
            self.query_one("#stop").display = False
            if self.focused is None or not self.focused.display:
                self.query_one("#detach").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(None if event.button.id == "stay" else event.button.id)

    def action_answer(self, answer: str) -> None:
        if answer != "stop" or not self._readonly:
            self.dismiss(answer)
