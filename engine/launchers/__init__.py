"""Launchers: how a plan becomes running processes. To add one, write its file and its line in `LAUNCHERS`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from engine.errors import RequestError
from engine.launchers import slurm, torchrun

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.plan import NodeFacts, Plan
    from engine.profile import Profile


class Launcher(Protocol):
    """What every launcher's module offers; the first of its formats is what `print` shows."""

    FORMATS: tuple[str, ...]

    def make_plan(self, profile: Profile, run_id: str, facts: Mapping[int, NodeFacts] | None = None) -> Plan: ...

    def render(self, plan: Plan, format: str) -> str: ...


LAUNCHERS: dict[str, Launcher] = {
    "torchrun": torchrun,
    "slurm": slurm,
}


def find(name: str) -> Launcher:
    """The launcher of that name. Raises RequestError for one that this version does not have."""
    if name in LAUNCHERS:
        return LAUNCHERS[name]
    raise RequestError(f"this version launches with {' or '.join(LAUNCHERS)}, not with {name}")
