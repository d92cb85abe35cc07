"""The step that says where the nodes meet: proposed from what they said, and explained."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tui.wizard.step import Step

if TYPE_CHECKING:
    from engine.profile import Profile


class NetworkStep(Step):
    key = "network"
    title = "How do the nodes find each other?"
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
