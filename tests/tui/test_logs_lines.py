"""Lines are found from any place in a log, in files of any size, with lines of any length."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tui.logs_made_up import BytesSource
from tui.logs import lines
from tui.logs.index import LineIndex
from tui.logs.lines import AllLines, backward, forward, line_start
from tui.logs.source import LogFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXTS = st.lists(st.sampled_from([b"\n", b"a", b"bc\n", b"\r", b"longer line\n", b"x" * 9]), max_size=40).map(b"".join)


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    """Blocks of 8 bytes and reads of 4, so that short texts have every kind of border."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK", 8)
        patch.setattr(lines, "FIRST_READ", 4)
        yield


@given(TEXTS)
def test_reading_down_and_reading_up_find_the_same_lines(text: bytes) -> None:
    source = BytesSource(text)
    down, up = forward(source, 0, 1000), backward(source, len(text), 1000)
    assert down == up
    assert [line.at for line in down[1:]] == [line.end for line in down[:-1]]
    assert (down[0].at, down[-1].end) == (0, len(text)) if text else not down


@given(TEXTS)
def test_every_newline_ends_a_line_and_only_long_lines_are_broken(text: bytes) -> None:
    for line in forward(BytesSource(text), 0, 1000):
        inside = text[line.at : line.end]
        assert b"\n" not in inside[:-1]
        assert len(inside) < 16
        assert inside.endswith(b"\n") or line.end == len(text) or line.end % 8 == 0


@given(TEXTS, TEXTS)
def test_a_line_keeps_its_place_while_the_log_grows(text: bytes, more: bytes) -> None:
    before, after = (forward(BytesSource(data), 0, 1000) for data in (text, text + more))
    assert after[: max(len(before) - 1, 0)] == before[:-1]
    assert {line.at for line in before} <= {line.at for line in after}


@given(TEXTS, st.data())
def test_the_line_around_any_byte_is_found(text: bytes, data: st.DataObject) -> None:
    source = BytesSource(text)
    offset = data.draw(st.integers(0, len(text) + 3))
    starts = [line.at for line in forward(source, 0, 1000)]
    expected = max((at for at in starts if at <= offset), default=0) if offset < len(text) else len(text)
    assert line_start(source, offset) == expected


@given(TEXTS, st.data())
def test_a_window_is_a_piece_of_the_whole(text: bytes, data: st.DataObject) -> None:
    source = BytesSource(text)
    whole = forward(source, 0, 1000)
    first, count = data.draw(st.integers(0, len(whole))), data.draw(st.integers(0, 6))
    at = whole[first].at if first < len(whole) else len(text)
    assert forward(source, at, count) == whole[first : first + count]
    assert backward(source, at, count) == whole[max(0, first - count) : first]


@given(TEXTS, TEXTS, st.integers(1, 64))
def test_lines_are_numbered_as_grep_numbers_them(text: bytes, more: bytes, budget: int) -> None:
    source = BytesSource(text)
    index = LineIndex(source)
    source.data += more
    source.poll()
    while not index.grow(budget):
        pass
    text += more
    for line in forward(source, 0, 1000):
        assert index.number(line.at) == text.count(b"\n", 0, line.at) + 1
    for number in range(1, text.count(b"\n") + 1):
        found = index.find(number)
        assert found is not None
        assert index.number(found) == number
        assert found == 0 or text[found - 1 : found] == b"\n"


def test_before_it_is_counted_back_to_the_beginning_a_number_is_unknown() -> None:
    source = BytesSource(b"0123456\n" * 10)
    index = LineIndex(source)
    assert index.number(72) is None
    assert index.between(79, 80) is None or index.between(79, 80) == 1
    while not index.grow(8):
        pass
    assert index.number(72) == 10


def test_a_progress_bar_of_megabytes_shows_its_last_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "BLOCK", 256 * 1024)
    bar = b"".join(b"\r%3d%%|###| %d/90000" % (i // 900, i) for i in range(90_000))
    source = BytesSource(b"start\n" + bar)
    last = backward(source, source.size, 1)[0]
    assert last.raw.rpartition(b"\r")[2] == b" 99%|###| 89999/90000"
    assert len(last.raw) <= lines.RAW_LIMIT


def test_of_a_line_without_end_the_beginning_is_kept_and_the_rest_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "BLOCK", 256 * 1024)
    line = forward(BytesSource(b"y" * 100_000 + b"\nnext\n"), 0, 2)[0]
    assert (line.end, len(line.raw), line.cut) == (100_001, lines.RAW_LIMIT, 100_000 - lines.RAW_LIMIT)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_lines(data: bytes) -> None:
    source = BytesSource(data)
    assert b"".join(data[line.at : line.end] for line in forward(source, 0, 1000)) == data


def test_a_share_of_the_way_down_is_the_beginning_of_a_line() -> None:
    every = AllLines(BytesSource(b"one\ntwo\nthree\n"))
    assert [every.at_share(share) for share in (0.0, 0.4, 0.9, 1.0)] == [0, 4, 8, 14]


def test_a_file_that_comes_late_grows_and_is_replaced_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    file = LogFile(path)
    assert (file.size, file.poll(), file.problem) == (0, False, "")
    path.write_bytes(b"one\n")
    assert file.poll()
    assert (file.read(0, 100), file.generation) == (b"one\n", 0)
    with path.open("ab") as more:
        more.write(b"two\n")
    assert file.read(0, 100) == b"one\n"
    assert file.poll()
    assert file.read(4, 100) == b"two\n"
    path.rename(tmp_path / "stdout.log.damaged")
    assert not file.poll()
    assert file.read(0, 3) == b"one"
    path.write_bytes(b"other\n")
    assert file.poll()
    assert (file.read(0, 100), file.generation) == (b"other\n", 1)
    file.close()


def test_why_a_file_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    file = LogFile(tmp_path / "loop")
    assert "cannot be read" in file.problem
    assert file.read(0, 10) == b""


def test_a_window_costs_the_same_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hole of a terabyte stands for a log of that size: what is read around a place is bounded."""
    monkeypatch.setattr(lines, "BLOCK", 256 * 1024)
    path = tmp_path / "huge.log"
    with path.open("wb") as file:
        file.truncate(1 << 40)
        file.seek(0, 2)
        file.write(b"\n" + b"step\n" * 10_000)
    huge = LogFile(path)
    assert [line.raw for line in backward(huge, huge.size, 3)] == [b"step"] * 3
    middle = random.Random(1).randrange(1 << 39, 1 << 40)
    assert middle - line_start(huge, middle) <= lines.BLOCK
    huge.close()
