"""Unknown host keys: who is asked, how often, and when nobody is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine.errors import HostKeyUnknown, Unreachable
from engine.fleet import Fleet
from engine.profile import Node
from engine.transport import Connector

if TYPE_CHECKING:
    from engine.transport import Transport


class ScriptedConnector(Connector):
    """Every node is behind a jump host with an unknown key; once that is stored, nothing answers."""

    def __init__(self, entry: str) -> None:
        super().__init__()
        self.entry = entry
        self.stored: list[str] = []

    async def connect(self, host: str, *, user: str = "", port: int | None = None) -> Transport:
        if self.stored:
            raise Unreachable("nothing listens there", node=host)
        raise HostKeyUnknown(
            node="jump", host="10.0.0.1", port=22, key_type="ssh-ed25519", fingerprint="SHA256:abc", entry=self.entry
        )

    async def remember(self, unknown: HostKeyUnknown) -> None:
        self.stored.append(unknown.entry)


NODES = [Node(host=f"gpu0{k}") for k in range(3)]


async def test_a_key_that_all_nodes_meet_is_asked_about_once() -> None:
    asked: list[str] = []

    async def accept(unknown: HostKeyUnknown) -> bool:
        asked.append(unknown.fingerprint)
        return True

    connector = ScriptedConnector(entry="10.0.0.1 ssh-ed25519 AAAA")
    found = await Fleet(NODES, "", connector, accept).dial_all()
    assert [type(error) for error in found.values()] == [Unreachable] * 3
    assert asked == ["SHA256:abc"]
    assert connector.stored == ["10.0.0.1 ssh-ed25519 AAAA"]


async def test_a_refused_key_is_stored_nowhere() -> None:
    async def accept(unknown: HostKeyUnknown) -> bool:
        return False

    connector = ScriptedConnector(entry="10.0.0.1 ssh-ed25519 AAAA")
    found = await Fleet(NODES[:1], "", connector, accept).dial_all()
    assert isinstance(found[0], HostKeyUnknown)
    assert connector.stored == []


async def test_where_the_configuration_lets_no_key_be_stored_nobody_is_asked() -> None:
    async def accept(unknown: HostKeyUnknown) -> bool:
        pytest.fail("there is nothing that a yes could do")

    found = await Fleet(NODES[:1], "", ScriptedConnector(entry=""), accept).dial_all()
    assert isinstance(found[0], HostKeyUnknown)
