"""The order in which logs came is written down once, without gaps, whoever watches."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from engine import arrivals
from engine.arrivals import FILE, LONG, NAMES, Arrival, Arrivals, decode, encode, read_names

if TYPE_CHECKING:
    import pytest

OUT = "ranks/x_1/attempt_0/0/stdout.log"
WRITTEN = [b"a", b"b\n", b"cc\ndd", b"x" * LONG]
ERR = "ranks/x_1/attempt_0/0/stderr.log"


def records(folder: Path) -> list[Arrival]:
    return decode((folder / FILE).read_bytes()) if (folder / FILE).exists() else []


def ranges(folder: Path) -> list[tuple[int, int, int, bool]]:
    return [(r.number, r.start, r.end, r.open) for r in records(folder)]


@given(
    st.integers(0, 2**43 - 1), st.integers(0, 2**20 - 1), st.integers(0, 2**62 - 1), st.integers(0, 2**62 - 1),
    st.booleans(), st.booleans(),
)  # fmt: skip
def test_a_record_is_read_as_it_was_written(when: int, number: int, start: int, end: int, op: bool, late: bool) -> None:
    arrival = Arrival(when, number, start, end, op, late)
    assert decode(encode(arrival) + b"torn") == [arrival]


async def test_whole_lines_are_recorded_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    order = Arrivals(tmp_path)
    order.came(0, OUT, 0, b"one\ntw", False)
    order.flush()
    order.came(1, ERR, 0, b"x\n", True)
    order.flush()
    order.came(0, OUT, 6, b"o\n", False)
    order.flush()
    order.close()
    assert read_names(tmp_path) == [(0, OUT), (1, ERR)]
    assert ranges(tmp_path) == [(0, 0, 4, False), (1, 0, 2, False), (0, 4, 8, False)]
    assert [r.late for r in records(tmp_path)] == [False, True, False]
    whens = [r.when for r in records(tmp_path)]
    assert whens == sorted(whens)


async def test_a_line_without_end_is_recorded_when_it_is_long_or_its_stream_is_over(tmp_path: Path) -> None:
    order = Arrivals(tmp_path)
    order.came(0, ERR, 0, b"\r 5%" * LONG, False)
    order.flush()
    order.came(0, ERR, 4 * LONG, b"last words", False)
    order.flush()
    assert ranges(tmp_path) == [(0, 0, 4 * LONG, True)]
    order.over(0, {ERR: 4 * LONG + 10, OUT: 7})
    order.flush()
    order.close()
    assert ranges(tmp_path)[1:] == [(0, 4 * LONG, 4 * LONG + 10, True), (1, 0, 7, True)]
    assert records(tmp_path)[-1].late


async def test_what_was_here_before_anyone_wrote_down_its_order_is_whole_lines_too(tmp_path: Path) -> None:
    for name, data in ((OUT, b"one\ntwo\n"), (ERR, b"one\ntw")):
        path = tmp_path / "n0" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    order = Arrivals(tmp_path)
    order.over(0, {OUT: 8, ERR: 6})
    order.close()
    assert ranges(tmp_path) == [(0, 0, 8, False), (1, 0, 6, True)]


async def test_it_is_written_by_itself_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "EVERY", 0.01)
    order = Arrivals(tmp_path)
    order.came(0, OUT, 0, b"one\n", False)
    for _ in range(500):
        if records(tmp_path):
            break
        await asyncio.sleep(0.01)
    order.came(0, OUT, 4, b"two\n", False)
    order.close()
    assert ranges(tmp_path) == [(0, 0, 4, False), (0, 4, 8, False)]


async def test_of_two_viewers_one_writes_and_the_other_takes_over_without_a_gap(tmp_path: Path) -> None:
    first, second = Arrivals(tmp_path), Arrivals(tmp_path)
    for order in (first, second):
        order.came(0, OUT, 0, b"one\n", False)
        order.flush()
    assert ranges(tmp_path) == [(0, 0, 4, False)]
    second.came(0, OUT, 4, b"two\n", False)
    second.flush()
    first.close()
    second.came(0, OUT, 8, b"three\n", False)
    second.flush()
    second.close()
    assert ranges(tmp_path) == [(0, 0, 4, False), (0, 4, 14, False)]


async def test_what_a_killed_viewer_left_torn_is_cut_off(tmp_path: Path) -> None:
    order = Arrivals(tmp_path)
    order.came(0, OUT, 0, b"one\n", False)
    order.close()
    with (tmp_path / FILE).open("ab") as file:
        file.write(b"torn record")
    with (tmp_path / NAMES).open("ab") as file:
        file.write(b'[3, "torn')
    order = Arrivals(tmp_path)
    order.came(1, ERR, 0, b"two\n", False)
    order.close()
    assert ranges(tmp_path) == [(0, 0, 4, False), (1, 0, 4, False)]
    assert read_names(tmp_path) == [(0, OUT), (1, ERR)]


async def test_a_mirror_that_begins_anew_is_another_stream(tmp_path: Path) -> None:
    order = Arrivals(tmp_path)
    order.came(0, OUT, 0, b"damaged copy\n", False)
    order.flush()
    order.restart(0, OUT)
    order.came(0, OUT, 0, b"good\n", False)
    order.close()
    assert read_names(tmp_path) == [(0, OUT), (0, OUT)]
    assert ranges(tmp_path) == [(0, 0, 13, False), (1, 0, 5, False)]


async def test_a_full_disk_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    order = Arrivals(tmp_path)
    order.came(0, OUT, 0, b"one\n", False)
    order.flush()
    order.close()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.sampled_from([b"a", b"b\n", b"cc\ndd", b"x" * LONG]), st.booleans(), st.booleans()
        )
    )
)
async def test_the_records_of_a_stream_cover_it_from_its_beginning(
    steps: list[tuple[int, bytes, bool, bool]],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = {0: 0, 1: 0, 2: 0}
        order = Arrivals(folder)
        for node, data, flush, again in steps:
            order.came(node, OUT, sizes[node], data, False)
            sizes[node] += len(data)
            if flush:
                order.flush()
            if again:
                order.close()
                order = Arrivals(folder)
        order.over(0, {OUT: sizes[0]})
        order.close()
        names = read_names(folder)
        for number, (node, _) in enumerate(names):
            mine = [r for r in records(folder) if r.number == number]
            assert all(r.start < r.end for r in mine)
            assert [r.start for r in mine] == [0, *(r.end for r in mine)][:-1] or not mine
            if node == 0 and mine:
                assert mine[-1].end == sizes[0]
