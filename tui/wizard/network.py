"""The step that says where the nodes meet: proposed from what they said, and explained."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding

from tui.wizard.step import Step

if TYPE_CHECKING:
    from textual.binding import BindingType

    from engine.profile import Profile


class NetworkStep(Step):
    key = "network"
    title = "How do the nodes find each other?"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("f6", "take", "take the proposal", id="wizard.propose")]
    keys: ClassVar[tuple[str, ...]] = (
        "rendezvous.master_addr",
        "rendezvous.master_port",
        "rendezvous.interface",
        "rendezvous.backend",
        "rendezvous.max_restarts",
    )

    @classmethod
    def used(cls, profile: Profile) -> bool:
        return profile.launcher == "torchrun"

    def working(self) -> tuple[object, ...]:
        return (bool(self.sheet.offered()),)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "take" or bool(self.sheet.offered())

    def action_take(self) -> None:
        """Take every answer that is proposed instead of one that does not work."""
        self.post_message(self.Answered(self.sheet.offered()))
