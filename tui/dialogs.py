"""The questions that stop everything else: yes or no, a host key, a passphrase, a line of text. Esc means no."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult
    from textual.binding import BindingType
    from textual.geometry import Size

    from engine.errors import HostKeyUnknown


class Confirm(ModalScreen[bool]):
    """A question with a consequence; the answer is no until a y or the button says yes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("y", "answer(True)", "yes"),
        ("n,escape", "answer(False)", "no"),
        ("left,right,h,l", "app.focus_next", ""),
    ]

    def __init__(self, question: str, *, detail: str = "", yes: str = "Yes", no: str = "No") -> None:
        super().__init__()
        self._question = question
        self._detail = detail
        self._yes = yes
        self._no = no

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Content(self._question), classes="question")
            if self._detail:
                yield Static(Content(self._detail), classes="detail")
            with Horizontal(classes="buttons"):
                yield Button(f"{self._no} (n)", id="no")
                yield Button(f"{self._yes} (y)", id="yes", variant="warning")

    def on_mount(self) -> None:
        self.query_one("#no").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


class HostKey(Confirm):
    """An unknown host key: what it is, and what storing it means."""

    def __init__(self, unknown: HostKeyUnknown) -> None:
        super().__init__(
            f"{unknown.node}: the host key of {unknown.host} port {unknown.port} is not known",
            detail=(
                f"{unknown.key_type}\n{unknown.fingerprint}\n\nCompare it with the machine's own:\n"
                "  ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub\n"
                "Yes stores it in your known_hosts. No leaves the node out."
            ),
            yes="Store it",
        )


class Ask(ModalScreen[str | None]):
    """A line of text, or None for escape; `secret` shows dots."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "dismiss(None)", "cancel")]

    def __init__(self, question: str, *, value: str = "", placeholder: str = "", secret: bool = False) -> None:
        super().__init__()
        self._question = question
        self._value = value
        self._placeholder = placeholder
        self._secret = secret

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Content(self._question), classes="question")
            yield Input(self._value, placeholder=self._placeholder, password=self._secret)
            yield Static("enter accepts · esc cancels", classes="hint")

    def on_mount(self) -> None:
        self.query_one(Input).cursor_blink = False

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)


class TooSmall(ModalScreen[None]):
    """In place of a screen that would be cut: what there is, and what it takes."""

    WIDTH, HEIGHT = 60, 15

    def compose(self) -> ComposeResult:
        yield Static(id="too-small")

    def on_screen_resume(self) -> None:
        """A dialog that was opened on top is answered, and the terminal may have grown meanwhile."""
        if self.fits(self.app.size):
            self.dismiss()

    @classmethod
    def fits(cls, size: Size) -> bool:
        return size.width >= cls.WIDTH and size.height >= cls.HEIGHT

    def on_resize(self, event: events.Resize) -> None:
        size = event.size
        text = f"The terminal is {size.width}x{size.height}.\nRankdeck needs {self.WIDTH}x{self.HEIGHT}."
        self.query_one(Static).update(Content(text))
