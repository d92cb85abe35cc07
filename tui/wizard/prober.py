"""Nodes looked at as soon as they are named: one conversation a node, kept open for what comes after.

Tells nothing to any widget but that something changed. What a node is asked depends on the answers so far (working
folder, activation, port), so a node is asked again, over the same conversation, when its question changes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias

from engine import preflight
from engine.errors import RankdeckError
from engine.fleet import Fleet, close_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.conversation import Conversation
    from engine.fleet import Accept
    from engine.preflight import Observation
    from engine.profile import Node, Profile
    from engine.transport import Connector

NodeId: TypeAlias = tuple[str, str, "int | None", str]
"""Host, user, port, state folder: what tells one conversation from another."""
Look: TypeAlias = "Observation | RankdeckError | None"
"""What a node said, why it did not, or None while it is being asked."""

PATIENCE = 60.0


def node_id(node: Node, profile: Profile) -> NodeId:
    return node.host, node.user, node.port, profile.state_dir


class Prober:
    """The nodes of a draft, being looked at. `changed` is called in the event loop, often."""

    def __init__(self, connector: Connector, accept: Accept, changed: Callable[[], None]) -> None:
        self.looks: dict[NodeId, Look] = {}
        self._connector = connector
        self._accept = accept
        self._changed = changed
        self._nodes: dict[NodeId, Node] = {}
        self._questions: dict[NodeId, dict[str, Any]] = {}
        self._open: dict[NodeId, Conversation] = {}
        self._tasks: dict[NodeId, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    def want(self, profile: Profile) -> None:
        """Look at the nodes of this profile, and at no others."""
        first = self._open.get(node_id(profile.nodes[0], profile)) if profile.nodes else None
        way = [first.peer] if first is not None and first.peer else []
        wanted: dict[NodeId, dict[str, Any]] = {}
        for rank, node in enumerate(profile.nodes):
            identity = node_id(node, profile)
            if identity not in wanted:
                wanted[identity] = preflight.ask(profile, rank, route_to=way)
                self._nodes[identity] = node
        for identity in [known for known in self._questions if known not in wanted]:
            self._forget(identity)
        for identity, question in wanted.items():
            if self._questions.get(identity) != question:
                self._questions[identity] = question
                self._start(identity)

    def again(self) -> None:
        """Look once more at every node."""
        for identity in self._questions:
            self._start(identity)

    def observations(self, profile: Profile) -> dict[int, Observation | RankdeckError]:
        """What the nodes of this profile have said so far, by rank."""
        looks = {rank: self.looks.get(node_id(node, profile)) for rank, node in enumerate(profile.nodes)}
        return {rank: look for rank, look in looks.items() if look is not None}

    async def lend(self, node: Node, profile: Profile) -> Conversation | None:
        """The open conversation with a node, which is the borrower's from now on.

        A look under way is waited for, or given up where the node has not even been reached.
        """
        identity = node_id(node, profile)
        if (task := self._tasks.get(identity)) is None:
            return None
        self._questions[identity] = {}  # whatever is wanted next is another question
        if identity not in self._open:
            task.cancel()
        await asyncio.wait({task})
        conversation = self._open.pop(identity, None)
        return None if conversation is None or conversation.ended.done() else conversation

    async def close(self) -> None:
        """Leave every node."""
        for identity in list(self._questions):
            self._forget(identity)
        while self._leaving:
            await asyncio.gather(*self._leaving)

    def _start(self, identity: NodeId) -> None:
        if (task := self._tasks.get(identity)) is not None:
            task.cancel()
        self.looks[identity] = None
        self._tasks[identity] = asyncio.create_task(self._look(identity))
        self._changed()

    async def _look(self, identity: NodeId) -> None:
        node, state_dir = self._nodes[identity], identity[3]
        look: Look
        try:
            conversation = self._open.get(identity)
            if conversation is None or conversation.ended.done():
                conversation = await Fleet([node], state_dir, self._connector, self._accept).dial(0)
                self._open[identity] = conversation
            answer = await conversation.ask("probe", timeout=PATIENCE, ask=self._questions[identity])
            look = preflight.read(answer, node=node.host, peer=conversation.peer)
        except RankdeckError as error:
            look = error
        self.looks[identity] = look
        self._changed()

    def _forget(self, identity: NodeId) -> None:
        """Cut the look short, and leave the node."""
        for known in (self.looks, self._questions, self._nodes):
            known.pop(identity, None)
        task = self._tasks.pop(identity, None)
        if task is not None:
            task.cancel()
        leaving = asyncio.create_task(self._leave(identity, task))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def _leave(self, identity: NodeId, task: asyncio.Task[None] | None) -> None:
        if task is not None:
            await asyncio.wait({task})
        if identity not in self._questions and (conversation := self._open.pop(identity, None)) is not None:
            await close_all({0: conversation})
