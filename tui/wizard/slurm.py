"""The step of a Slurm job: what to ask the cluster for, in sbatch's own words."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tui.wizard.fields import FIELDS
from tui.wizard.step import Step

if TYPE_CHECKING:
    from engine.profile import Profile


class SlurmStep(Step):
    key = "slurm"
    title = "What is Slurm asked for?"
    keys: ClassVar[tuple[str, ...]] = tuple(key for key in FIELDS if key.startswith("slurm."))

    @classmethod
    def used(cls, profile: Profile) -> bool:
        return profile.launcher == "slurm"
