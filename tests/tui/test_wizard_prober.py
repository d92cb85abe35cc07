"""Nodes looked at in the background: this machine, and one that does not answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from engine.errors import HostKeyUnknown, Unreachable
from engine.preflight import Observation
from engine.transport import Connector
from tests.tui.test_wizard_draft import typed
from tui.wizard.prober import Prober

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


async def never(unknown: HostKeyUnknown) -> bool:
    raise AssertionError(unknown)


@pytest.fixture
async def prober() -> AsyncIterator[Prober]:
    connector = Connector()
    prober = Prober(connector, never, lambda: None)
    yield prober
    await prober.close()
    await connector.close()


async def until(true: Callable[[], bool]) -> None:
    for _ in range(600):
        if true():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come true within 30 s")


async def test_a_node_is_looked_at_as_soon_as_it_is_named(prober: Prober) -> None:
    profile = typed(nodes="localhost", rendezvous__master_port="29611").judged().profile
    prober.want(profile)
    assert prober.observations(profile) == {}
    await until(lambda: 0 in prober.observations(profile))
    seen = prober.observations(profile)[0]
    assert isinstance(seen, Observation)
    assert seen.system.cpu_count > 0
    assert [asked.port for asked in seen.ports.asked] == [29611]


async def test_a_node_that_does_not_answer_says_why(prober: Prober) -> None:
    profile = typed(nodes="127.0.0.1 port=1").judged().profile
    prober.want(profile)
    await until(lambda: 0 in prober.observations(profile))
    assert isinstance(prober.observations(profile)[0], Unreachable)


async def test_two_nodes_on_one_machine_share_one_look(prober: Prober) -> None:
    profile = typed(nodes="localhost,localhost").judged().profile
    prober.want(profile)
    await until(lambda: 1 in prober.observations(profile))
    assert len(prober.looks) == 1


async def test_a_node_that_is_no_longer_named_is_left(prober: Prober) -> None:
    profile = typed(nodes="localhost").judged().profile
    prober.want(profile)
    await until(lambda: 0 in prober.observations(profile))
    prober.want(typed(nodes="").judged().profile)
    assert prober.looks == {}
    assert await prober.lend(profile.nodes[0], profile) is None


async def test_another_question_is_asked_over_the_same_conversation(prober: Prober) -> None:
    draft = typed(nodes="localhost")
    prober.want(profile := draft.judged().profile)
    await until(lambda: 0 in prober.observations(profile))
    draft.put("rendezvous.master_port", "auto")
    prober.want(changed := draft.judged().profile)
    assert prober.observations(changed) == {}
    await until(lambda: 0 in prober.observations(changed))
    lent = await prober.lend(profile.nodes[0], profile)
    assert lent is not None
    await lent.close()
