"""The fold: what a run looks like, from the events of its nodes in any interleaving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import events
from engine.state import MEASURED, RunState
from tests.unit.runs_made_up import NodeStory, fold, made_plan, stderr_of

if TYPE_CHECKING:
    from collections.abc import Callable


def state_of(*stories: NodeStory, nodes: int = 2, max_restarts: int = 0) -> RunState:
    return fold(RunState(made_plan(nodes), max_restarts), stories)


def test_a_run_succeeds_when_every_node_has_an_exit_record_of_0() -> None:
    state = state_of(NodeStory(0).succeeds(), NodeStory(1).succeeds())

    assert state.over
    assert state.outcome == "succeeded"
    assert state.failures() == []
    assert state.verdict() is None


def test_a_run_whose_last_exit_record_is_missing_runs() -> None:
    second = NodeStory(1).succeeds()
    second.told.pop()

    assert state_of(NodeStory(0).succeeds(), second).outcome == "running"


def test_a_rank_that_failed_is_no_success_though_the_launch_command_returned_0() -> None:
    second = NodeStory(1).starts().exits(5.0, 0, code=1).exits(6.0, 1, code=0).ends(7.0, code=0)
    state = state_of(NodeStory(0).succeeds(), second)

    assert state.outcome == "failed"
    verdict = state.verdict()
    assert verdict is not None
    assert (verdict.node_rank, verdict.rank) == (1, 2)


def test_a_rank_that_failed_before_a_restart_that_went_well_is_forgiven() -> None:
    second = NodeStory(1).starts().exits(3.0, 0, code=1).exits(3.1, 1, signal=15)
    second.starts(4.0, attempt=1).exits(9.0, 0, code=0, attempt=1).exits(9.0, 1, code=0, attempt=1).ends(10.0, code=0)

    assert state_of(NodeStory(0).succeeds(), second, max_restarts=1).outcome == "succeeded"


def test_an_end_that_nobody_saw_is_no_failure() -> None:
    second = NodeStory(1).starts().exits(5.0, 0).exits(5.0, 1, code=0)
    state = state_of(NodeStory(0).starts(), second)

    assert state.final_failure is None
    assert state_of(NodeStory(0).succeeds(), second.ends(6.0, code=0)).outcome == "succeeded"


def test_an_unreachable_node_is_not_a_failed_one() -> None:
    state = state_of(NodeStory(0).succeeds(), NodeStory(1).starts())
    state.apply(events.Unreachable(t=4.0, node_rank=1, host="gpu02", text="no route to host"))

    assert state.nodes[1].link == "broken"
    assert state.outcome == "running"
    assert state.failures() == []
    assert state.final_failure is None


def test_a_node_that_comes_back_after_it_was_unreachable_may_still_succeed() -> None:
    state = state_of(NodeStory(0).succeeds())
    state.apply(events.Unreachable(t=4.0, node_rank=1, host="gpu02", text="no route to host"))
    state.apply(events.Reached(t=5.0, node_rank=1, host="gpu02"))
    fold(state, [NodeStory(1).succeeds()])

    assert state.nodes[1].link == "open"
    assert state.outcome == "succeeded"


def test_a_lost_node_fails_the_run() -> None:
    state = state_of(NodeStory(0).succeeds(), NodeStory(1).starts())
    state.apply(events.Lost(t=20.0, node_rank=1, host="gpu02", text="restarted while the run was on it"))

    assert state.over
    assert state.outcome == "failed"
    verdict = state.verdict()
    assert verdict is not None
    assert verdict.text == "gpu02 (node_rank 1) restarted while the run was on it"


@pytest.mark.parametrize("order", [1, -1])
def test_an_exit_record_beats_a_declaration_of_loss_in_either_order(order: int) -> None:
    lost = NodeStory(1).add(events.Lost, 5.0, host="gpu02", text="gone")

    assert state_of(NodeStory(0).succeeds(), *[lost, NodeStory(1).succeeds()][::order]).outcome == "succeeded"


def test_a_stop_before_anything_failed_is_stopped() -> None:
    stories = [
        NodeStory(k).starts().stops(5.0).exits(6.0, 0, signal=15).exits(6.0, 1, code=1).ends(7.0, code=1, stopped=True)
        for k in (0, 1)
    ]
    state = state_of(*stories)

    assert state.outcome == "stopped"
    assert state.stop_reason == "the user asked"


@pytest.mark.parametrize(("code", "signal", "outcome"), [(None, 15, "stopped"), (3, None, "failed")])
def test_a_job_that_was_cancelled_is_stopped_unless_a_rank_failed_by_itself(
    code: int | None, signal: int | None, outcome: str
) -> None:
    stories = [NodeStory(k).starts().exits(6.0, 0, code, signal).exits(6.1, 1, None, 15).ends(7.0, 1) for k in (0, 1)]
    state = state_of(*stories)
    state.apply(events.Job(t=8.0, id="7", state="CANCELLED"))

    assert state.outcome == outcome


def test_a_failure_before_the_stop_is_failed() -> None:
    first = NodeStory(0).starts().stops(5.5).exits(6.0, 0, signal=15).exits(6.0, 1, signal=15).ends(7.0, code=1)
    second = NodeStory(1).starts().exits(5.0, 1, code=3).exits(5.2, 0, signal=15).ends(5.3, code=1)
    state = state_of(first, second)

    assert state.outcome == "failed"
    verdict = state.verdict()
    assert verdict is not None
    assert (verdict.host, verdict.rank, verdict.sure) == ("gpu02", 3, True)


def test_a_stop_that_reaches_one_node_first_is_still_a_stop_for_the_others_victims() -> None:
    first = NodeStory(0).starts().stops(5.0).exits(5.1, 0, signal=15).exits(5.1, 1, signal=15).ends(5.2, code=1)
    second = NodeStory(1).starts().exits(5.15, 0, code=1).exits(5.15, 1, code=1).stops(5.3).ends(5.4, code=1)

    assert state_of(first, second).outcome == "stopped"


def test_times_of_nodes_are_compared_on_one_clock() -> None:
    state = RunState(made_plan())
    state.apply(events.Reached(t=0.0, node_rank=0, host="gpu01", clock=100.0))
    first = NodeStory(0).starts(100.0).exits(106.0, 0, code=1).exits(106.0, 1, code=1).ends(107.0, code=1)
    second = NodeStory(1).starts(0.0).exits(8.0, 0, code=1).exits(8.0, 1, code=1).ends(9.0, code=1)
    fold(state, [first, second])

    verdict = state.verdict()
    assert verdict is not None
    assert verdict.host == "gpu01"
    assert state.started == 0.0
    assert state.over_at == 9.0


def test_a_failure_that_a_restart_may_mend_is_not_final() -> None:
    state = state_of(NodeStory(0).starts().exits(3.0, 0, code=1), max_restarts=2)
    assert state.final_failure is None

    fold(state, [NodeStory(0).starts(4.0, attempt=2).exits(5.0, 0, code=1, attempt=2)])
    assert state.final_failure is not None


def test_a_torchrun_that_ended_badly_is_final_whatever_restarts_are_left() -> None:
    state = state_of(NodeStory(0).starts().add(events.TorchrunExit, 3.0, signal=9), max_restarts=3)

    failure = state.final_failure
    assert failure is not None
    assert failure.kind == "torchrun"


def test_a_restart_shows_the_ranks_of_the_new_attempt() -> None:
    story = NodeStory(0).starts().exits(3.0, 0, code=1).starts(4.0, attempt=1)
    state = state_of(story, max_restarts=1)

    assert state.attempt == 1
    assert state.workers[0, 0, 0].failed
    assert state.workers[1, 0, 0].ended is None


def test_progress_is_that_of_the_furthest_rank_of_the_newest_attempt() -> None:
    state = state_of(NodeStory(0).starts())
    for attempt, step, loss in ((0, 50, 2.0), (1, 3, None), (1, 3, 4.0), (1, 2, 5.0)):
        state.apply(events.Metric(t=1.0, node_rank=0, attempt=attempt, local_rank=0, step=step, loss=loss))

    assert state.metric is not None
    assert (state.metric.attempt, state.metric.step, state.metric.loss) == (1, 3, 4.0)


def test_a_line_that_speaks_of_less_takes_nothing_from_what_is_known_of_a_rank() -> None:
    state = RunState(made_plan())
    where: dict[str, Any] = {"node_rank": 0, "attempt": 0, "local_rank": 0}
    state.apply(
        events.Metric(t=1.0, **where, step=3, loss=4.0, rate=9.0, rate_unit="it/s", extra={"acc": 0.5, "ppl": 3.0})
    )
    state.apply(events.Metric(t=2.0, **where, grad_norm=0.7, extra={"acc": 0.6}))
    known = events.Metric(
        t=2.0, **where, step=3, loss=4.0, grad_norm=0.7, rate=9.0, rate_unit="it/s", extra={"acc": 0.6, "ppl": 3.0}
    )
    assert state.workers[0, 0, 0].metric == known
    assert state.metric == known


@pytest.mark.parametrize("name", MEASURED)
def test_what_only_some_lines_tell_stays_known(name: str) -> None:
    state = RunState(made_plan())
    known: dict[str, Any] = dict.fromkeys(MEASURED, 3)
    whole = events.Metric(t=1.0, node_rank=0, attempt=0, local_rank=0, **known)
    state.apply(whole)
    state.apply(msgspec.structs.replace(whole, **{name: None}))
    assert state.workers[0, 0, 0].metric == whole


def test_a_run_that_could_not_be_started_everywhere_is_not_running() -> None:
    state = RunState(made_plan())
    state.apply(events.Ended(t=1.0, outcome="failed", text="gpu02: no space left"))

    assert state.outcome == "failed"


def test_an_event_of_a_node_that_the_plan_does_not_know_changes_nothing() -> None:
    state = state_of(NodeStory(0).succeeds(), NodeStory(1).succeeds(), NodeStory(7).starts().exits(1.0, 0, code=1))

    assert state.outcome == "succeeded"
    assert all(key[1] in (0, 1) for key in state.workers)


def test_rank_is_by_the_plan_until_the_worker_has_been_seen() -> None:
    state = RunState(made_plan())
    path = stderr_of(1, 0)
    stream = events.Stream(t=0.0, node_rank=1, path=path, attempt=0, local_rank=0, stream="stderr")
    assert state.rank_of(1, stream) == 2

    state.apply(events.Worker(t=0.0, node_rank=1, attempt=0, local_rank=0, rank=0, pid=1, start=1))
    assert state.rank_of(1, stream) == 0


STORIES: dict[str, Callable[[int], NodeStory]] = {
    "well": lambda k: NodeStory(k).succeeds(),
    "badly": lambda k: NodeStory(k).starts().exits(5.0 + k, 0, code=1).exits(5.5 + k, 1, signal=15).ends(6.0, code=1),
    "stopped": lambda k: NodeStory(k).starts().stops(5.0).exits(6.0, 0, signal=15).ends(7.0, code=1, stopped=True),
    "killed": lambda k: NodeStory(k).starts().ends(4.0, signal=9),
    "running": lambda k: NodeStory(k).starts(),
}


def picture(state: RunState) -> Any:
    workers = {k: (w.rank, w.ended, w.code, w.signal) for k, w in state.workers.items()}
    return state.outcome, state.over, state.verdict(), state.failures(), workers, state.started, state.attempt


@given(st.data(), st.lists(st.sampled_from(sorted(STORIES)), min_size=3, max_size=3))
def test_nodes_may_interleave_in_any_way(data: st.DataObject, how: list[str]) -> None:
    stories = [STORIES[name](rank) for rank, name in enumerate(how)]
    whole = picture(state_of(*stories, nodes=3))
    rows = [list(story.told) for story in stories]
    mixed = RunState(made_plan(3))
    while any(rows):
        mixed.apply(data.draw(st.sampled_from([row for row in rows if row])).pop(0))

    assert picture(mixed) == whole


@given(st.lists(st.sampled_from(sorted(STORIES)), min_size=2, max_size=2))
def test_folding_the_same_events_again_changes_nothing(how: list[str]) -> None:
    stories = [STORIES[name](rank) for rank, name in enumerate(how)]
    state = state_of(*stories)
    before = picture(state)

    assert picture(fold(state, stories)) == before


def test_a_run_without_progress_says_which_rank_is_behind_and_how_to_see_where_it_stands() -> None:
    state = state_of(NodeStory(0).starts(), NodeStory(1).starts())
    for step in range(10):
        for node_rank, local_rank in ((0, 0), (1, 0)):
            if node_rank == 0 or step < 8:
                beat = events.Metric(
                    t=10.0 + step, node_rank=node_rank, attempt=0, local_rank=local_rank, step=step, loss=1.0
                )
                state.apply(beat)
    assert state.alarms(20.0) == []
    (stall,) = state.alarms(120.0)
    behind = state.workers[0, 1, 0]
    assert (stall.kind, stall.rank) == ("stall", behind.rank)
    assert f"ssh {state.nodes[1].host} py-spy dump --pid {behind.pid}" in stall.text


def test_the_end_of_a_run_is_no_stall() -> None:
    state = state_of(NodeStory(0).succeeds(), NodeStory(1).succeeds())
    for step in range(10):
        state.apply(events.Metric(t=10.0 + step, node_rank=0, attempt=0, local_rank=0, step=step, loss=1.0))
    assert state.alarms(500.0) == []


def test_throughput_is_compared_with_the_first_steps_of_a_long_run() -> None:
    state = state_of(NodeStory(0).starts(), NodeStory(1).starts())
    for step in range(400):
        rate = 100.0 - step / 10  # so slowly that no two neighbours differ
        beat = events.Metric(
            t=10.0 + step, node_rank=0, attempt=0, local_rank=0, step=step, rate=rate, rate_unit="it/s"
        )
        state.apply(beat)
    assert [alarm.kind for alarm in state.alarms(410.0)] == ["throughput-drop"]


def test_a_late_rank_whose_host_is_busy_is_told_with_that() -> None:
    state = state_of(NodeStory(0).starts(), NodeStory(1).starts())
    for step in range(10):
        for node_rank, wait in ((0, 0.4), (1, 0.01)):
            beat = events.Metric(
                t=10.0 + step, node_rank=node_rank, attempt=0, local_rank=0, step=step, step_time=1.0, comm_time=wait
            )
            state.apply(beat)
    for node_rank, cpu in ((0, 30.0), (1, 99.0)):
        state.apply(events.Sample(t=20.0, node_rank=node_rank, cpu=cpu))
    (late,) = state.alarms(20.0)
    assert (late.kind, late.rank) == ("straggler", state.workers[0, 1, 0].rank)
    assert late.text.endswith(f"the processors of {state.nodes[1].host} are 99% busy")
