"""A preflight while it runs, against the real program of a node on this machine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest

from engine.check import Preflight
from engine.errors import RequestError, Unreachable
from engine.fleet import Fleet
from engine.preflight.observation import Job, Jobs, Observation
from engine.profile import Node, Profile, Program, Rendezvous
from engine.transport import Connector

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine.conversation import Conversation


class LateFleet(Fleet):
    """A fleet whose node 1 is dialled only when `let_in` is set; it cannot be reached while `away`."""

    let_in: asyncio.Event
    away = False

    async def dial(self, node_rank: int) -> Conversation:
        if node_rank == 1:
            await self.let_in.wait()
            if self.away:
                raise Unreachable("no route to the host", node="localhost")
        return await super().dial(node_rank)


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    nodes = (Node(host="localhost", gpus=1), Node(host="localhost", gpus=1))
    return Profile(
        version=1,
        name="two",
        nodes=nodes,
        rendezvous=Rendezvous(master_port="auto"),
        program=Program(kind="command", path="true"),
        state_dir=str(tmp_path / "state"),
    )


@pytest.fixture
def fleet(profile: Profile) -> Iterator[LateFleet]:
    made = LateFleet(profile.nodes, profile.state_dir, Connector())
    made.let_in = asyncio.Event()
    yield made


async def until(preflight: Preflight, rank: int, check: str, state: str) -> None:
    for _ in range(600):
        if preflight.cells()[rank, check].state == state:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{check} on {rank} is {preflight.cells()[rank, check]}")


async def test_results_come_node_by_node_and_a_slow_node_delays_no_other(profile: Profile, fleet: LateFleet) -> None:
    preflight = Preflight(profile, fleet)
    running = asyncio.ensure_future(preflight.run())
    for check in ("reach.ssh", "node.state", "program.activate", "ports.master"):
        await until(preflight, 0, check, "ok")
        assert preflight.cells()[1, check].state == "waiting"
    assert preflight.cells()[None, "program.versions"].state == "waiting"
    fleet.let_in.set()
    await running
    assert "waiting" not in {cell.state for cell in preflight.cells().values()}
    await preflight.close()


async def test_the_viewer_is_told_of_every_change_and_reads_the_end_last(profile: Profile, fleet: LateFleet) -> None:
    states: list[str] = []
    preflight = Preflight(profile, fleet, changed=lambda: states.append(preflight.cells()[1, "node.state"].state))
    fleet.let_in.set()
    await preflight.run()
    assert (states[0], states[-1]) == ("waiting", "ok")
    await preflight.close()


async def test_a_node_that_was_away_is_connected_when_it_is_tried_again(profile: Profile, fleet: LateFleet) -> None:
    fleet.let_in.set()
    fleet.away = True
    preflight = Preflight(profile, fleet)
    await preflight.run()
    assert next((f.check, f.node_rank) for f in preflight.errors) == ("reach.ssh", 1)
    fleet.away = False
    first = preflight.conversations[0]
    await preflight.retry(node_rank=1)
    assert "reach.ssh" not in {finding.check for finding in preflight.errors}
    assert preflight.conversations[0] is first
    await preflight.close()


async def test_one_check_is_tried_again_without_the_others(profile: Profile, fleet: LateFleet, tmp_path: Path) -> None:
    fleet.let_in.set()
    preflight = Preflight(profile, fleet)
    await preflight.run()
    await preflight.retry(check="node.state")
    system = [preflight.observations[rank] for rank in (0, 1)]
    assert all(not isinstance(found, Exception) and found.system.hostname for found in system)
    assert preflight.cells()[0, "program.activate"].state == "ok"
    await preflight.close()


async def test_a_check_to_skip_that_is_none_is_refused_before_anybody_is_asked(
    profile: Profile, fleet: LateFleet
) -> None:
    with pytest.raises(RequestError):
        Preflight(profile, fleet, skip=["ports.mastre"])
    assert fleet.nodes


async def test_who_would_be_disturbed_is_told_and_the_user_decides(profile: Profile, fleet: LateFleet) -> None:
    asked: list[str] = []

    async def no(text: str) -> bool:
        asked.append(text)
        return False

    fleet.let_in.set()
    preflight = Preflight(profile, fleet, skip=["program.torch", "program.torchrun"], collective=30.0, consent=no)
    await preflight.run()
    job = Job(job="other-1/n0", pid=1, comm="python")
    for rank, found in preflight.observations.items():
        assert isinstance(found, Observation)
        preflight.observations[rank] = msgspec.structs.replace(found, jobs=Jobs(found=(job,)))
    await preflight.retry(check="collective.works")
    assert asked == ["the run other-1/n0 is on localhost: an all-reduce over all ranks disturbs it"]
    assert [f.text for f in preflight.findings if f.check == "collective.works"] == [
        "the all-reduce is not tried, for the run other-1/n0 is on localhost"
    ]
    await preflight.close()


async def test_a_measurement_that_is_skipped_is_not_made(profile: Profile, fleet: LateFleet) -> None:
    skip = ["collective.works", "speed.bandwidth"]
    preflight = Preflight(profile, fleet, skip=skip, measure=True, collective=30.0)
    assert {"speed", "collective"}.isdisjoint(preflight.waiting[0])
