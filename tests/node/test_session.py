"""One run on two nodes, from launch to its end: watched, left, stopped, broken, refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from engine import runs
from engine.errors import NodeRefused, PreflightFailed, RequestError
from engine.fleet import close_all
from engine.plan import job_of
from engine.session import Session
from tests.node.running import STREAMS, Place, Seen, Wire, sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from engine.state import RunState

LINES = "for i in `seq 200`; do echo rank $RANK line $i; done"
LINGER = "echo rank $RANK waits; sleep 100 & wait"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("RANKDECK_STATE", str(tmp_path / "here"))
    made = Place(tmp_path)
    yield made
    made.clear()


async def until(condition: Callable[[], object], seconds: float = 40.0) -> None:
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it does not happen")


def comes_back(session: Session, wire: Wire) -> tuple[Session, Seen]:
    """Another viewer of the same run, that wants every log from its beginning."""
    viewer = Seen()
    again = Session(session.folder, wire, viewer)
    again.replay = 1 << 20
    again.wants = lambda node_rank, stream: True
    return again, viewer


def whole_logs(place: Place, session: Session) -> dict[tuple[int, str], bytes]:
    """What the nodes' files hold, as a viewer is shown it; empty ones are not shown."""
    root = place.on_node(session.folder.run)
    logs = [path for pattern in STREAMS if pattern.endswith(".log") for path in root.glob(pattern)]
    named = {str(path.relative_to(root)): path.read_bytes() for path in logs}
    return {(int(name[1]), name.partition("/")[2]): data for name, data in named.items() if data}


def summary(session: Session) -> runs.Summary:
    found = session.folder.summary()
    assert found is not None
    return found


def talk_until(told: Path) -> str:
    """Talk, and say goodbye when the file `told` is there."""
    return f"{LINES}; while ! [ -e {told} ]; do sleep 0.1; done; echo rank $RANK says goodbye"


async def leave(watching: asyncio.Task[RunState]) -> None:
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait_for(watching, 20)


async def test_a_run_is_launched_watched_and_here_byte_for_byte(place: Place, tmp_path: Path) -> None:
    viewer = Seen()
    script = talk_until(tmp_path / "told")
    session, conversations = await place.launch(place.profile(script, ranks=2), Wire(), viewer)
    session.wants = lambda node_rank, stream: True
    watching = asyncio.ensure_future(session.watch(conversations))
    await until(lambda: len(session.state.workers) == 4)
    (tmp_path / "told").touch()
    state = await watching

    assert state.outcome == "succeeded"
    assert summary(session).outcome == "succeeded"
    assert sorted(worker.rank for worker in state.workers.values()) == [0, 1, 2, 3]
    here = sums(session.folder.path)
    assert len(here) == 2 * (2 + 2 * 2)
    assert here == sums(place.on_node(session.folder.run))
    assert sum(data.endswith(b"says goodbye\n") for data in viewer.logs.values()) == 4
    for rank in (0, 1):
        kinds = viewer.kinds(rank)
        assert kinds[:3] == ["Launched", "Reached", "Supervisor"]
        assert kinds[-1] == "Finished"
    assert viewer.kinds(-1)[-1] == "Ended"
    assert place.left() == []


async def test_a_viewer_that_leaves_and_comes_back_misses_nothing(place: Place, tmp_path: Path) -> None:
    wire = Wire()
    session, conversations = await place.launch(place.profile(talk_until(tmp_path / "told"), ranks=2), wire)
    first, seen_first = comes_back(session, wire)
    await close_all(conversations)
    watching = asyncio.ensure_future(first.watch())
    await until(lambda: " line 100" in seen_first.text())
    await leave(watching)
    assert place.left(), "leaving must not end the run"

    (tmp_path / "told").touch()
    second, seen_second = comes_back(session, wire)
    assert (await second.watch()).outcome == "succeeded"
    assert sums(session.folder.path) == sums(place.on_node(session.folder.run))
    assert seen_second.logs == whole_logs(place, session)


async def test_two_viewers_at_once_are_each_shown_every_byte_over_broken_links(place: Place, tmp_path: Path) -> None:
    wire = Wire()
    session, conversations = await place.launch(place.profile(talk_until(tmp_path / "told")), wire)
    await close_all(conversations)
    dialled = len(wire.transports)
    viewers = [comes_back(session, wire) for _ in range(2)]
    watching = [asyncio.ensure_future(each.watch()) for each, _ in viewers]
    await until(lambda: all(" line 50" in seen.text() for _, seen in viewers))
    for number in range(dialled, dialled + 3):
        wire.kill(number)
    (tmp_path / "told").touch()
    assert [(await each).outcome for each in watching] == ["succeeded", "succeeded"]
    assert "Unreachable" in [kind for _, seen in viewers for rank in (0, 1) for kind in seen.kinds(rank)]
    assert sums(session.folder.path) == sums(place.on_node(session.folder.run))
    assert [seen.logs for _, seen in viewers] == [whole_logs(place, session)] * 2


async def test_a_finished_run_is_read_without_its_nodes(place: Place) -> None:
    wire = Wire()
    session, conversations = await place.launch(place.profile("echo hello"), wire)
    session.wants = lambda node_rank, stream: True
    await session.watch(conversations)
    wire.cut = True
    again, seen = comes_back(session, wire)
    again.replay = 1000
    assert (await again.watch()).outcome == "succeeded"
    assert seen.text().count("hello") == 2


async def test_a_rank_that_fails_stops_the_other_node_and_is_named(place: Place) -> None:
    script = f'if [ $RANK = 1 ]; then sleep 0.5; echo "ValueError: bad batch" >&2; exit 3; fi; {LINGER}'
    session, conversations = await place.launch(place.profile(script), Wire())
    state = await session.watch(conversations)
    assert state.outcome == "failed"
    verdict = state.verdict()
    assert verdict is not None
    assert verdict.rank == 1
    assert "ValueError: bad batch" in " ".join(verdict.evidence)
    assert "rank 1" in summary(session).text
    assert place.left() == []


async def test_a_killed_supervisor_fails_the_run_and_leaves_nothing(place: Place) -> None:
    session, conversations = await place.launch(place.profile(LINGER), Wire())
    watching = asyncio.ensure_future(session.watch(conversations))
    await until(lambda: len(session.state.workers) == 2)
    supervisor = session.state.nodes[1].supervisor
    assert supervisor is not None
    os.kill(supervisor.pid, signal.SIGKILL)
    state = await watching
    assert state.outcome == "failed"
    assert "lost its supervisor" in state.nodes[1].lost
    assert session.problems == []
    await until(lambda: place.left() == [])


async def test_a_node_that_stays_away_is_given_up_while_the_other_answers(place: Place) -> None:
    wire = Wire()
    session, conversations = await place.launch(place.profile(LINGER), wire)
    session.lost_after = 0.3
    watching = asyncio.ensure_future(session.watch(conversations))
    await until(lambda: len(session.state.workers) == 2)
    wire.cut = True
    wire.kill(1)
    state = await watching
    assert state.outcome == "failed"
    assert "unreachable" in state.nodes[1].lost
    assert state.nodes[0].finished is not None, "the node that answers is stopped"
    assert {process["job"] for process in place.left()} == {f"{session.folder.run}/n1"}


async def test_a_clock_that_jumps_condemns_no_node(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    wire, real = Wire(), time.time
    session, conversations = await place.launch(place.profile(LINGER), wire)
    watching = asyncio.ensure_future(session.watch(conversations))
    await until(lambda: len(session.state.workers) == 2)
    wire.cut = True
    wire.kill(1)
    await until(lambda: session.state.nodes[1].link == "broken")
    for jump in (3600.0, -3600.0):
        monkeypatch.setattr("time.time", lambda jump=jump: real() + jump)
        await asyncio.sleep(0.6)
        assert not session.state.nodes[1].lost
    monkeypatch.setattr("time.time", real)
    wire.cut = False
    await until(lambda: session.state.nodes[1].link == "open")
    session.request_stop("enough", 5.0)
    assert (await watching).outcome == "stopped"


async def test_the_first_node_that_is_back_after_our_own_outage_condemns_no_other(place: Place) -> None:
    wire = Wire()
    session, conversations = await place.launch(place.profile(LINGER), wire)
    watching = asyncio.ensure_future(session.watch(conversations))
    await until(lambda: len(session.state.workers) == 2)
    wire.cut = True
    wire.kill(0)
    wire.kill(1)
    await until(lambda: all(node.link == "broken" for node in session.state.nodes.values()))
    for watch in session._watches.values():
        assert watch.broken_since is not None
        watch.broken_since -= 3600
    wire.lets_through = 1
    await until(lambda: any(node.link == "open" for node in session.state.nodes.values()))
    await asyncio.sleep(1.2)
    assert not any(node.lost for node in session.state.nodes.values())
    wire.cut = False
    await until(lambda: all(node.link == "open" for node in session.state.nodes.values()))
    session.request_stop("enough", 5.0)
    assert (await watching).outcome == "stopped"


async def test_stop_ends_a_run_that_ignores_sigterm_and_says_that_nothing_is_left(place: Place) -> None:
    wire = Wire()
    script = "trap '' TERM; echo rank $RANK waits; while :; do sleep 1; done"
    session, conversations = await place.launch(place.profile(script), wire)
    await close_all(conversations)
    another = Session(session.folder, wire, Seen())
    results = await another.stop_now(0.5)
    assert [result.text for result in results] == ["localhost: stopped, nothing left"] * 2
    assert place.left() == []
    assert (await another.watch(once=True)).outcome == "stopped"
    assert summary(session).outcome == "stopped"


async def test_stop_says_which_node_did_not_answer(place: Place) -> None:
    wire = Wire()
    session, conversations = await place.launch(place.profile(LINGER), wire)
    await close_all(conversations)
    wire.cut = True
    results = await Session(session.folder, wire, Seen()).stop_now(0.5)
    assert ["the wire is cut" in result.error for result in results] == [True, True]
    assert len({process["job"] for process in place.left()}) == 2


async def test_a_viewer_whose_output_is_gone_ends_its_watch_and_no_run(place: Place) -> None:
    class Gone(Seen):
        def log(self, node_rank: int, stream: str, data: bytes) -> None:
            raise BrokenPipeError

    session, conversations = await place.launch(place.profile(LINGER), Wire(), Gone())
    session.wants = lambda node_rank, stream: True
    with pytest.raises(BrokenPipeError):
        await asyncio.wait_for(session.watch(conversations), 30)
    assert place.left()


async def test_whoever_leaves_while_the_run_is_started_leaves_no_run(place: Place) -> None:
    session_events = Seen()
    starting = asyncio.ensure_future(place.launch(place.profile(LINGER), Wire(), session_events))
    await until(runs.listing)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    (folder,) = runs.listing()
    found = folder.summary()
    assert found is not None
    assert (found.outcome, found.text) == ("stopped", "left while it was started")
    assert place.left() == []


async def test_a_launch_whose_answer_was_lost_and_that_is_sent_again_starts_nothing_twice(place: Place) -> None:
    session, conversations = await place.launch(place.profile(LINGER), Wire())
    plan = session.record.plan
    fields = {"run": plan.run, "node_rank": 0, "job": job_of(plan, 0), "secrets": {}}
    answer = await conversations[0].ask("launch", timeout=30, **fields)
    assert answer == {"again": True}
    await close_all(conversations)
    journal = (place.on_node(plan.run) / "n0" / "journal.jsonl").read_text()
    assert journal.count('"type":"supervisor"') == 1


async def test_a_node_that_refuses_the_launch_leaves_nothing_started_elsewhere(place: Place) -> None:
    taken = place.on_node("lab-taken") / "n1"
    taken.mkdir(parents=True)
    (taken / "job.json").write_text("{}")
    with pytest.raises(NodeRefused, match="for another job"):
        await place.launch(place.profile(LINGER), Wire(), run="lab-taken")
    assert place.left() == []
    journal = (place.on_node("lab-taken") / "n0" / "journal.jsonl").read_text().splitlines()
    assert json.loads(journal[-1])["type"] == "finished"
    found = runs.find("lab-taken").summary()
    assert found is not None
    assert found.outcome == "failed"


async def test_a_wrong_request_starts_nothing(place: Place) -> None:
    with pytest.raises(RequestError, match="HF_TOKEN_OF_NOBODY"):
        await place.launch(place.profile(LINGER, secrets=("HF_TOKEN_OF_NOBODY",)), Wire())
    asked = place.profile(LINGER)
    missing = msgspec.structs.replace(asked.program, path="no-such-program-anywhere")
    with pytest.raises(PreflightFailed, match="nothing was started"):
        await place.launch(msgspec.structs.replace(asked, program=missing), Wire())
    assert list(runs.listing()) == []
    assert not (place.state / "runs").exists()
    assert place.left() == []
