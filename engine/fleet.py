"""The conversations with all nodes of a profile, opened side by side."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from engine.conversation import Conversation, converse
from engine.errors import HostKeyUnknown, RankdeckError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from engine.profile import Node
    from engine.transport import Connector

    Accept = Callable[[HostKeyUnknown], Awaitable[bool]]


async def no(unknown: HostKeyUnknown) -> bool:
    """Accept no unknown host key."""
    return False


class Fleet:
    """Conversations with the nodes of a profile, opened side by side."""

    def __init__(self, nodes: Iterable[Node], state_dir: str, connector: Connector, accept: Accept = no) -> None:
        self.nodes = list(nodes)
        self.state_dir = state_dir
        self._connector = connector
        self._accept = accept
        self._asking = asyncio.Lock()
        self._accepted: set[tuple[str, int, str]] = set()

    async def dial(self, node_rank: int) -> Conversation:
        """One conversation; an unknown host key is shown to the user, one at a time."""
        node = self.nodes[node_rank]
        try:
            return await self._dial(node)
        except HostKeyUnknown as unknown:
            key = (unknown.host, unknown.port, unknown.fingerprint)
            async with self._asking:
                if key not in self._accepted:  # a jump host's key stands before every node behind it
                    if not unknown.entry or not await self._accept(unknown):
                        raise
                    await self._connector.remember(unknown)
                    self._accepted.add(key)
            return await self._dial(node)

    async def dial_all(self) -> dict[int, Conversation | RankdeckError]:
        """Every node's conversation, or why there is none."""

        async def one(node_rank: int) -> Conversation | RankdeckError:
            try:
                return await self.dial(node_rank)
            except RankdeckError as error:
                return error

        found = await asyncio.gather(*(one(rank) for rank in range(len(self.nodes))))
        return dict(enumerate(found))

    async def _dial(self, node: Node) -> Conversation:
        transport = await self._connector.connect(node.host, user=node.user, port=node.port)
        try:
            return await converse(transport, node.host, self.state_dir)
        except BaseException:
            await transport.close()
            raise


async def close_all(conversations: Mapping[int, Conversation | RankdeckError]) -> None:
    opened = [c for c in conversations.values() if not isinstance(c, RankdeckError)]
    await asyncio.gather(*(conversation.close() for conversation in opened))
