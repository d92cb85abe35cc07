"""The node from which jobs are submitted: one conversation with it, shared by all who watch the run's nodes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from engine.errors import NodeRefused, RankdeckError, RequestError
from engine.fleet import Fleet, no
from engine.profile import Node
from engine.slurm import cluster, words

if TYPE_CHECKING:
    from engine.conversation import Conversation
    from engine.fleet import Accept
    from engine.profile import Profile
    from engine.transport import Connector

LOCAL = "localhost"


def login_node(profile: Profile) -> Node:
    """Where sbatch is: the profile's login host, or this machine."""
    assert profile.slurm is not None
    user, _, host = profile.slurm.login.rpartition("@")
    return Node(host=host or LOCAL, user=user)


class Login(Fleet):
    """A fleet of one: whichever node of the run is dialled, the answer is a share of the same conversation."""

    def __init__(self, profile: Profile, connector: Connector, accept: Accept = no) -> None:
        super().__init__([login_node(profile)], profile.state_dir, connector, accept)
        self._open: Conversation | None = None
        self._dialling = asyncio.Lock()

    @property
    def host(self) -> str:
        return self.nodes[0].host

    def adopt(self, conversation: Conversation) -> None:
        """Go on with a conversation that is open."""
        conversation.batch = True
        self._open = conversation

    async def dial(self, node_rank: int) -> Conversation:
        async with self._dialling:
            if self._open is None or self._open.ended.done():
                self.adopt(await super().dial(0))
                assert self._open is not None
                return self._open
            return self._open.share()


EXPLAINED = ("sbatch", "scancel", "squeue", "unknown")


async def ask(conversation: Conversation, what: str, *, timeout: float = 90.0, **fields: Any) -> dict[str, Any]:
    """A question to Slurm through the login node; RequestError or Unreachable with meaning and remedy for a refusal."""
    try:
        return await conversation.ask("slurm", timeout=timeout, ask=what, **fields)
    except NodeRefused as refused:
        raise explained(refused) from None


async def look_around(profile: Profile, connector: Connector, accept: Accept = no) -> cluster.Cluster:
    """What the cluster of this profile has to offer now; RankdeckError where its login node cannot tell."""
    conversation = await Login(profile, connector, accept).dial(0)
    try:
        return cluster.read(await ask(conversation, "cluster"))
    finally:
        await conversation.close()


def explained(refused: NodeRefused) -> RankdeckError:
    if refused.code in EXPLAINED:
        return words.explain(refused.text, refused.node)
    if refused.code == "no-slurm":
        return RequestError(refused.text, node=refused.node, remedy="set slurm.login to a login node of the cluster")
    return refused
