"""Preflight, run: every node is asked at once, then all answers are judged together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from engine import launchers, preflight
from engine.errors import RankdeckError
from engine.fleet import close_all

if TYPE_CHECKING:
    from collections.abc import Collection

    from engine.conversation import Conversation
    from engine.fleet import Fleet
    from engine.plan import Plan
    from engine.profile import Profile


class Checked:
    """What preflight found: observations, findings, and the conversations, still open."""

    def __init__(
        self,
        profile: Profile,
        conversations: dict[int, Conversation | RankdeckError],
        observations: dict[int, preflight.Observation | RankdeckError],
        findings: list[preflight.Finding],
    ) -> None:
        self.profile = profile
        self.conversations = conversations
        self.observations = observations
        self.findings = findings

    @property
    def errors(self) -> list[preflight.Finding]:
        return [finding for finding in self.findings if finding.severity == "error"]

    def plan(self, run: str) -> Plan:
        facts = preflight.node_facts(self.profile, self.observations)
        return launchers.find(self.profile.launcher).make_plan(self.profile, run, facts)


async def check(profile: Profile, fleet: Fleet, skip: Collection[str] = ()) -> Checked:
    """Preflight: ask every node, then judge over all of them."""
    launchers.find(profile.launcher)
    conversations = await fleet.dial_all()
    first = conversations.get(0)
    # Every node is asked for its way to the first one, which is the master unless the profile says otherwise.
    way = [first.peer] if first is not None and not isinstance(first, RankdeckError) and first.peer else []

    async def observe(rank: int) -> preflight.Observation | RankdeckError:
        conversation = conversations[rank]
        if isinstance(conversation, RankdeckError):
            return conversation
        try:
            question = preflight.ask(profile, rank, route_to=way)
            answer = await conversation.ask("probe", timeout=60.0, ask=question)
            return preflight.read(answer, node=conversation.host, peer=conversation.peer)
        except RankdeckError as error:
            return error

    try:
        found = await asyncio.gather(*(observe(rank) for rank in conversations))
        observations = dict(zip(conversations, found, strict=True))
        return Checked(profile, conversations, observations, preflight.judge(profile, observations, skip))
    except BaseException:
        await close_all(conversations)
        raise
