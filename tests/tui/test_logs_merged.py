"""Several logs read as one, in the order in which they came."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.arrivals import LONG, Arrivals, encode, read_names
from engine.arrivals import Arrival as Record
from tui.logs import merged
from tui.logs.lines import forward
from tui.logs.merged import Choice, Merged, OneStream
from tui.logs.sources import open_source


def stream(local_rank: int, kind: str = "stdout") -> str:
    return f"ranks/x_1/attempt_0/{local_rank}/{kind}.log"


class Run:
    """A run's folder on the workstation, into which logs come."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.order = Arrivals(folder)
        self.sizes: dict[tuple[int, str], int] = {}

    def come(self, node_rank: int, name: str, data: bytes, late: bool = False) -> None:
        path = self.folder / f"n{node_rank}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(data)
        key = (node_rank, name)
        self.order.came(node_rank, name, self.sizes.get(key, 0), data, late)
        self.sizes[key] = self.sizes.get(key, 0) + len(data)
        self.order.flush()

    def over(self) -> None:
        for (node_rank, name), size in self.sizes.items():
            self.order.over(node_rank, {name: size})
        self.order.flush()


def texts(source: Merged) -> list[str]:
    return [line.raw.decode() for line in forward(source, 0, 1000)]


async def test_lines_are_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    run = Run(tmp_path)
    both = Merged(tmp_path, Choice())
    assert (both.size, both.poll()) == (0, False)
    run.come(0, stream(0), b"zero 1\nzero 2\nzer")
    run.come(1, stream(0), b"one 1\n")
    run.come(0, stream(0), b"o 3\n")
    assert both.poll()
    assert texts(both) == ["zero 1", "zero 2", "one 1", "zero 3"]
    streams = [both.stream(line.at) for line in forward(both, 0, 10)]
    assert streams == [(0, stream(0)), (0, stream(0)), (1, stream(0)), (0, stream(0))]
    assert both.stream(both.size) is None
    run.order.close()
    both.close()


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(), ["a", "b", "c", "d", "e"]),
        (Choice(node_rank=0), ["a", "b", "c", "e"]),
        (Choice(node_rank=0, local_rank=1), ["c"]),
        (Choice(node_rank=0, local_rank=0, kind="stderr"), ["b"]),
        (Choice(kind="stdout"), ["a", "c", "d"]),
        (Choice(kind="stderr"), ["b", "e"]),
    ],
)
async def test_what_is_shown_can_be_chosen(tmp_path: Path, choice: Choice, expected: list[str]) -> None:
    run = Run(tmp_path)
    run.come(0, stream(0), b"a\n")
    run.come(0, stream(0, "stderr"), b"b\n")
    run.come(0, stream(1), b"c\n")
    run.come(1, stream(0), b"d\n")
    run.come(0, "torchrun.log", b"e\n")
    source = Merged(tmp_path, choice)
    assert texts(source) == expected
    again = open_source(source.name)
    assert (again.size, again.read(0, 100)) == (source.size, source.read(0, 100))
    for opened in (source, again):
        opened.close()
    run.order.close()


async def test_what_has_no_newline_yet_is_told_apart_and_joins_when_its_stream_is_over(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.come(0, stream(0, "stderr"), b"start\n\r 10%|#\r 20%|##")
    run.come(0, stream(1), b"ready\n")
    source = Merged(tmp_path, Choice(node_rank=0))
    assert texts(source) == ["start", "ready"]
    assert source.unfinished() == [((0, stream(0, "stderr")), b"\r 10%|#\r 20%|##")]
    run.over()
    source.poll()
    assert texts(source) == ["start", "ready", "\r 10%|#\r 20%|##"]
    assert source.unfinished() == []
    run.order.close()
    source.close()


async def test_when_lines_came_and_whether_they_had_been_waiting_is_known(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.come(0, stream(0), b"old\n", late=True)
    run.come(0, stream(0), b"new\n")
    source = Merged(tmp_path, Choice())
    first, second = source.extent(0), source.extent(4)
    assert first is not None
    assert second is not None
    assert (first.arrival.late, second.arrival.late) == (True, False)
    assert first.arrival.when <= second.arrival.when
    run.order.close()
    source.close()


async def test_of_one_log_every_byte_is_there_at_once_and_when_it_came(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.come(0, stream(0), b"one\n")
    run.come(0, stream(1), b"other\n")
    run.come(0, stream(0), b"x" * LONG + b"two\n")
    one = OneStream(tmp_path, (0, stream(0)))
    both = Merged(tmp_path, Choice())
    assert one.size == LONG + 8
    assert [one.when(0), one.when(LONG)] == [both.when(0), both.when(20)]
    with one.path.open("ab") as file:
        file.write(b"not recorded yet")
    one.poll()
    assert one.when(one.size - 1) is None
    run.order.close()
    one.close()
    both.close()


@pytest.mark.parametrize("name", [stream(3), stream(0, "stderr"), "torchrun.log"])
def test_a_stream_can_be_chosen_by_its_name(name: str) -> None:
    choice = Choice.of((2, name))
    assert choice.has((2, name))
    others = [stream(rank, kind) for rank in (0, 3) for kind in ("stdout", "stderr")]
    assert [other for other in others if choice.has((2, other))] == [other for other in others if other == name]


async def test_a_mirror_that_begins_anew_is_read_anew(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.come(0, stream(0), b"damaged\n")
    source = Merged(tmp_path, Choice())
    path = tmp_path / "n0" / stream(0)
    path.rename(path.with_suffix(".damaged"))
    run.order.restart(0, stream(0))
    run.sizes.clear()
    run.come(0, stream(0), b"good\n")
    source.poll()
    source.poll()
    assert texts(source) == ["good"]
    assert source.generation == 1
    run.order.close()
    source.close()


async def test_of_a_million_records_few_are_held(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.come(0, stream(0), b"x" * 100 + b"\n")
    run.come(0, stream(1), b"y\n" * 1000)
    run.order.close()
    words = b"".join(encode(Record(1, 1, n, n + 1, False, False)) for n in range(1000)) * 1000
    (tmp_path / "arrivals").write_bytes(words)
    source = Merged(tmp_path, Choice())
    while source.poll():
        assert source.reading <= 1.0
    assert (source.size, source.reading) == (1_000_000, 1.0)
    assert len(source._at) < 1000
    source.close()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(["stdout", "stderr"]),
            st.sampled_from([b"a", b"b\n", b"cc\ndd", b"x" * LONG, b"\n\n"]),
        ),
        max_size=30,
    ),
    st.sampled_from(
        [Choice(), Choice(node_rank=1), Choice(kind="stderr"), Choice(node_rank=2, local_rank=0, kind="stdout")]
    ),
    st.data(),
)
async def test_every_log_is_there_whole_and_in_its_own_order(
    came: list[tuple[int, str, bytes]], choice: Choice, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(merged, "GROUP", 4)
        run, source = Run(Path(name)), Merged(Path(name), choice)
        for node, kind, piece in came:
            run.come(node, stream(0, kind), piece)
            if data.draw(st.booleans()):
                source.poll()
        run.over()
        run.order.close()
        while source.poll():
            pass
        whole = source.read(0, 1 << 30)
        assert len(whole) == source.size
        expected = sum(size for key, size in run.sizes.items() if choice.has(key))
        joined: dict[tuple[int, str], bytes] = {key: b"" for key in read_names(Path(name)) if choice.has(key)}
        at, added = 0, 0
        while (extent := source.extent(at)) is not None:
            key = source.stream(at)
            assert key is not None
            joined[key] += whole[at : extent.end - extent.arrival.open]
            added += extent.arrival.open
            at = extent.end
        assert expected + added == source.size
        for (node, log), found in joined.items():
            assert found == (Path(name) / f"n{node}" / log).read_bytes()
        start = data.draw(st.integers(0, source.size))
        count = data.draw(st.integers(0, 50))
        assert source.read(start, count) == whole[start : start + count]
        source.close()
