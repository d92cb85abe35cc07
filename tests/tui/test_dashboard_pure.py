"""What the dashboard shows is worked out by pure functions: where, what, and how each rank does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import events
from engine.curves import LIMIT, Curves
from engine.state import RunState
from tests.unit.runs_made_up import NodeStory, fold, made_plan
from tui.dashboard.arrangement import arrangement
from tui.dashboard.charts import braille, histogram
from tui.dashboard.health import health, summary
from tui.dashboard.places import places
from tui.dashboard.story import together


@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=150),
    name=st.text("abcdefgh", min_size=1, max_size=30),
    width=st.integers(8, 250),
    height=st.integers(1, 60),
)
def test_no_two_ranks_share_a_cell_and_none_is_outside(sizes: list[int], name: str, width: int, height: int) -> None:
    found = places([name] * len(sizes), sizes, width, height)
    cells = [found.of(node, local) for node, size in enumerate(sizes) for local in range(size)]
    assert len(set(cells)) == len(cells)
    assert all(0 <= x < width and 0 <= y < found.rows for x, y in cells)


def test_1024_ranks_fit_beside_the_logs() -> None:
    assert places([f"node{i:03}" for i in range(128)], [8] * 128, 76, 20).rows <= 20


@pytest.mark.parametrize(
    ("size", "current", "zoomed", "shown"),
    [
        ((80, 24), "nodes", False, {"nodes"}),
        ((160, 48), "nodes", False, {"ranks", "nodes", "charts", "story", "logs"}),
        ((160, 24), "charts", False, {"ranks", "charts", "logs"}),
        ((160, 24), "logs", False, {"ranks", "nodes", "logs"}),
        ((160, 48), "logs", True, {"logs"}),
    ],
)
def test_the_screen_shows_what_it_has_room_for(
    size: tuple[int, int], current: str, zoomed: bool, shown: set[str]
) -> None:
    assert arrangement(*size, current, zoomed) == shown


def test_the_first_to_fail_and_those_that_went_with_it_look_different() -> None:
    stories = [
        NodeStory(0).starts().exits(10, 0, signal=15).exits(10, 1, signal=15).ends(11, code=1),
        NodeStory(1).starts().exits(9, 0, signal=9).exits(10, 1, signal=15).ends(11, code=1),
    ]
    words = [one.word for one in health(fold(RunState(made_plan()), stories))]
    assert words == ["killed", "killed", "failed", "killed"]


def test_a_rank_that_takes_longer_than_the_others_is_slow() -> None:
    stories = [NodeStory(0).starts(), NodeStory(1).starts()]
    for story in stories:
        for local in range(2):
            slow = (story.node_rank, local) == (1, 0)
            story.add(events.Metric, 1.0, attempt=0, local_rank=local, step=1, step_time=2.0 if slow else 1.0)
    found = health(fold(RunState(made_plan()), stories))
    assert [one.word for one in found] == ["running", "running", "slow", "running"]
    assert summary(found) == "3 running, 1 slow"


def test_ranks_that_have_not_begun_are_waiting() -> None:
    assert {one.word for one in health(RunState(made_plan()))} == {"waiting"}


def test_a_node_that_does_not_answer_is_unreachable_and_not_failed() -> None:
    story = NodeStory(0).starts().add(events.Unreachable, 5.0, host="gpu01", text="no route")
    assert [one.word for one in health(fold(RunState(made_plan()), [story]))][:2] == ["unreachable"] * 2


@given(
    values=st.lists(st.floats(-1e9, 1e9), max_size=300),
    width=st.integers(1, 120),
    height=st.integers(1, 30),
    plain=st.booleans(),
)
def test_a_chart_fills_its_room_exactly(values: list[float], width: int, height: int, plain: bool) -> None:
    rows = braille([(float(x), y) for x, y in enumerate(values)], width, height, plain)
    assert [len(row) for row in rows] == [width] * height
    assert not plain or all(row.isascii() for row in rows)


def test_a_rising_curve_rises() -> None:
    rows = braille([(0.0, 0.0), (1.0, 1.0)], 10, 3, True)
    assert rows[0].endswith("*")
    assert rows[-1].startswith("*")


def step(number: int, loss: float) -> events.Metric:
    return events.Metric(t=float(number), node_rank=0, attempt=0, local_rank=0, step=number, loss=loss)


def test_curves_stay_small_and_keep_their_ends() -> None:
    curves = Curves()
    for number in range(1, 20_001):
        curves.add(step(number, loss=float(number)))
    assert LIMIT / 4 < len(curves.points) <= LIMIT
    assert curves.points[0].step == 1
    assert curves.points[-1].step > 19_980


def test_several_ranks_that_report_the_same_step_make_one_point() -> None:
    curves = Curves()
    for _ in range(4):
        curves.add(step(1, loss=2.0))
    assert len(curves.points) == 1


def test_a_restart_from_an_earlier_step_begins_there_again() -> None:
    curves = Curves()
    for number in range(1, 11):
        curves.add(step(number, loss=1.0))
    curves.add(events.Metric(t=50.0, node_rank=0, attempt=1, local_rank=0, step=5, loss=0.5))
    assert [point.step for point in curves.points] == [1, 2, 3, 4, 5]


def test_a_few_ranks_are_numbered_and_each_node_has_its_own_row() -> None:
    found = places(["gpu01", "gpu02"], [8, 8], 60, 6)
    assert (found.label, found.cell) == (6, len("15") + 2)
    assert [y for _, y in found.blocks] == [0, 1]


def test_where_the_step_times_of_the_ranks_lie_is_drawn_as_a_heap() -> None:
    assert histogram([1.0, 1.0, 1.0, 1.0, 2.0], 5, "_.:-=+*#") == "#   :"
    assert histogram([1.0, 1.0], 5, "_.:-=+*#") == "  #  "


def test_what_many_nodes_say_alike_is_one_line() -> None:
    def launched(count: int) -> list[tuple[str, events.AnyEvent]]:
        return [(f"gpu{k}: launched", events.Launched(t=1.0, node_rank=k, host=f"gpu{k}")) for k in range(count)]

    assert [text for text, _ in together(launched(2))] == ["gpu0, gpu1: launched"]
    assert [text for text, _ in together(launched(128))] == ["128 nodes: launched"]
    other = ("gpu0: rank 3 exited with code 1", events.Launched(t=2.0, node_rank=0, host="gpu0"))
    assert [text for text, _ in together([launched(1)[0], other])] == ["gpu0: launched", other[0]]
