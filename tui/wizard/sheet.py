"""The wizard's one model: the draft, what it comes to, and what the nodes have said. No Textual in here.

typed -> Draft -> Judged (profile, mistakes) -> Preview (the exact commands, or what is missing)
                      └ nodes -> Prober -> observations -> facts ┘
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from engine import launchers, preflight, runs
from engine.errors import RankdeckError
from engine.plan import NodeFacts, Plan, known_ranks
from tui.wizard.fields import FIELDS
from tui.wizard.proposals import proposals
from tui.wizard.sums import sums

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.preflight import Observation
    from engine.profile import Profile
    from tui.wizard.draft import Draft
    from tui.wizard.proposals import Proposal
    from tui.wizard.sums import Sums

SHOWN = 5
"""Nodes that are named one by one."""


class Preview(msgspec.Struct, frozen=True):
    """The exact commands of a plan, or what is missing for one: a sentence a line."""

    plan: Plan | None = None
    missing: tuple[str, ...] = ()
    launcher: str = "torchrun"

    @property
    def text(self) -> str:
        """What would run on every node, byte for byte."""
        return "" if self.plan is None else render(self.launcher, self.plan)


def render(launcher: str, plan: Plan) -> str:
    """A plan in the form that its launcher names first."""
    found = launchers.find(launcher)
    return found.render(plan, found.FORMATS[0])


class Sheet:
    """The draft and everything that follows from it: `judge` after each change of the draft, `hear` after news."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.observations: Mapping[int, Observation | RankdeckError] = {}
        self.run, self._named_for = runs.new_name(""), ""
        self.facts: dict[int, NodeFacts] = {}
        self.preview = Preview()
        self.judge()

    @property
    def profile(self) -> Profile:
        return self.judged.profile

    def judge(self) -> None:
        """Read the draft again."""
        self.judged = self.draft.judged()
        if self.profile.name != self._named_for:
            self.run, self._named_for = runs.new_name(self.profile.name), self.profile.name
        self._stale = True
        self.hear(self.observations)

    def hear(self, observations: Mapping[int, Observation | RankdeckError]) -> None:
        """What the nodes have said so far, by node rank."""
        if observations == self.observations and not self._stale:
            return
        self.observations, self._stale = observations, False
        self.facts = preflight.node_facts(self.profile, observations) if self.profile.nodes else {}
        self.preview = self._preview()

    def proposals(self) -> dict[str, Proposal]:
        return proposals(self.profile, self.facts, self.observations)

    def offered(self) -> dict[str, str]:
        """Answers to take instead, by question."""
        return {key: proposal.value for key, proposal in self.proposals().items() if proposal.value}

    def sums(self) -> Sums:
        return sums(self.profile, self.facts, self.observations)

    def _uncounted(self) -> tuple[str, ...]:
        """The nodes whose ranks nobody has counted, and why."""
        lines = []
        for rank, node in enumerate(self.profile.nodes):
            if known_ranks(node, self.facts.get(rank, NodeFacts())) is None:
                why = "does not answer" if rank in self.observations else "has not answered yet"
                lines.append(f"{node.host} {why}: how many ranks? `slots=8` behind its name would say")
        return (*lines[:SHOWN], f"and {len(lines) - SHOWN} nodes more") if len(lines) > SHOWN else tuple(lines)

    def _preview(self) -> Preview:
        if self.judged.mistakes:
            order = list(FIELDS)
            known = sorted(self.judged.mistakes.items(), key=lambda item: order.index(item[0]))
            return Preview(missing=tuple(f"{FIELDS[key].label}: {text}" for key, text in known))
        if self.profile.launcher == "torchrun" and (uncounted := self._uncounted()):
            return Preview(missing=uncounted)
        try:
            made = launchers.find(self.profile.launcher).make_plan(self.profile, self.run, self.facts)
        except RankdeckError as error:
            return Preview(missing=(str(error),))
        return Preview(plan=made, launcher=self.profile.launcher)
