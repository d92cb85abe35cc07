"""The wizard: a profile from questions, one step a screen. A new step is a file and its line in `STEPS`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from engine import profile
from engine.collective import SECONDS as COLLECTIVE
from tui.wizard import kept
from tui.wizard.batch import BatchStep
from tui.wizard.draft import Draft
from tui.wizard.launcher import LauncherStep
from tui.wizard.network import NetworkStep
from tui.wizard.nodes import NodesStep
from tui.wizard.preflight import PreflightStep
from tui.wizard.program import ProgramStep
from tui.wizard.review import ReviewStep
from tui.wizard.screen import Wizard
from tui.wizard.slurm import SlurmStep

if TYPE_CHECKING:
    from pathlib import Path

    from engine.profile import Profile
    from tui.wizard.step import Step

STEPS: tuple[type[Step], ...] = (
    LauncherStep,
    NodesStep,
    NetworkStep,
    ProgramStep,
    BatchStep,
    SlurmStep,
    PreflightStep,
    ReviewStep,
)


def new(name: str = "", hosts: str = "") -> Wizard:
    """A new profile, from where the user left it if there is such a draft; `hosts` is a host list to begin with.

    Nobody has seen it work yet: its preflight lets the ranks all-reduce for real.
    """
    found = kept.find("")
    if found is not None and not (name or hosts):
        return Wizard(found[0], STEPS, note=_kept_since(found[1]), collective=COLLECTIVE)
    draft = Draft(answers={key: text for key, text in (("name", name), ("nodes", hosts)) if text})
    return Wizard(draft, STEPS, collective=COLLECTIVE)


def edit(path: Path) -> Wizard:
    """A saved profile, to be changed; with the changes that were not saved. ProfileError where it cannot be read."""
    draft = _on_disk(path)
    if (found := kept.find(draft.path)) is not None and found[0].differs_from(draft):
        return Wizard(found[0], STEPS, note=_kept_since(found[1]))
    return Wizard(draft, STEPS)


def review(path: Path) -> Wizard:
    """A saved profile, as it is on disk, to be launched: preflight runs at once."""
    draft = _on_disk(path)
    found = kept.find(draft.path)
    note = "changes that were not saved are kept: e on the first screen goes on with them" if found else ""
    return Wizard(draft, STEPS, start="review", note=note)


def launching(asked: Profile, skip: tuple[str, ...] = (), *, ours: bool = False, collective: float = 0.0) -> Wizard:
    """A profile that is launched as soon as preflight has found no error; until then its matrix is shown."""
    draft = Draft.of(asked)
    draft.skip = set(skip)
    return Wizard(draft, STEPS, start="preflight", armed=True, ours=ours, collective=collective)


def again(asked: Profile, run: str) -> Wizard:
    """The profile of a run that was launched before, to be changed and launched again."""
    return Wizard(Draft.of(asked), STEPS, start="review", note=f"as {run} was launched; change what you like")


def _on_disk(path: Path) -> Draft:
    seen = profile.fingerprint(path)
    return Draft.of(profile.load(path), str(path), seen)


def _kept_since(moment: float) -> str:
    return f"what you typed until {time.strftime('%d %b %H:%M', time.localtime(moment))} is back"
