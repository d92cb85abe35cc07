"""The step of a Slurm job: what to ask the cluster for, in sbatch's own words, beside what the cluster has."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.content import Content
from textual.widgets import Static

from engine.errors import RankdeckError
from engine.slurm import cluster
from engine.slurm.login import look_around
from tui.wizard.fields import FIELDS
from tui.wizard.question import Question, questions
from tui.wizard.step import Step

if TYPE_CHECKING:
    from collections.abc import Collection

    from textual.app import ComposeResult

    from engine.profile import Profile
    from tui.wizard.sheet import Sheet


class SlurmStep(Step):
    key = "slurm"
    title = "What is Slurm asked for?"
    keys: ClassVar[tuple[str, ...]] = tuple(key for key in FIELDS if key.startswith("slurm."))

    def __init__(self, sheet: Sheet) -> None:
        super().__init__(sheet)
        self._asked: tuple[str, str] | None = None

    @classmethod
    def used(cls, profile: Profile) -> bool:
        return profile.launcher == "slurm"

    def compose(self) -> ComposeResult:
        yield Static(Content(self.title), classes="title")
        yield Static(id="cluster")
        for key in self.keys:
            yield Question(FIELDS[key], self.sheet.draft.get(key))

    def settle(self, told: Collection[str]) -> None:
        super().settle(told)
        profile = self.sheet.profile
        if profile.slurm is None or "slurm.login" in self.sheet.judged.mistakes:
            return
        asked = (profile.slurm.login, profile.state_dir)
        typing = (found := questions(self).get("slurm.login")) is not None and found.control.has_focus
        if asked == self._asked or typing:
            return
        self._asked = asked
        if profile.slurm.login or shutil.which("sbatch"):
            self._look(profile)
        else:
            self._tell(Content.styled("there is no sbatch on this machine: name the login host", "$secondary"))

    @work(exclusive=True)
    async def _look(self, profile: Profile) -> None:
        """Ask the login node what there is, and what is free now."""
        self._tell(Content.styled("asking what the cluster has …", "$secondary"))
        try:
            offers = cluster.offers(await look_around(profile, self.app.connector))
            self._tell(Content("\n".join(offers) or "Slurm tells of no partition"))
        except RankdeckError as error:
            self._tell(Content.styled(error.text, "$warning"))

    def _tell(self, text: Content) -> None:
        self.query_one("#cluster", Static).update(text)
