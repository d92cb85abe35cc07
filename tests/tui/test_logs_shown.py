"""Whatever bytes a log holds, what is drawn is safe, as wide as it says, and coloured as the program meant it."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.style import Style

from tests.tui.logs_made_up import LEVELS, BytesSource
from tui.logs import sgr
from tui.logs.levels import level
from tui.logs.lines import AllLines
from tui.logs.selection import Selection
from tui.logs.shown import segments, shown

OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
PARTS = b"\x1b[ \x1b]52;c; \x07 \xc2\x9b 31;1 m \r \t \xe2\x80\xae a \xe5\xad\x97 \x80".split(b" ")
NASTY = st.lists(st.sampled_from(PARTS), max_size=30).map(b"".join)


@given(NASTY | st.binary(max_size=200), st.integers(0, 3))
def test_no_bytes_reach_the_terminal_as_orders(raw: bytes, cut: int) -> None:
    line = shown(raw, cut)
    assert OBEYED.search(line.text) is None
    for part in segments(line.text, 0, len(line.text), None, line.painted):
        assert OBEYED.search(part.text) is None
        assert part.style is None or part.style.link is None


@given(NASTY | st.binary(max_size=120), st.integers(2, 40))
def test_the_rows_of_a_wrapped_line_are_its_text_and_none_is_too_wide(raw: bytes, width: int) -> None:
    line = shown(raw, 0)
    starts = [*line.starts(width), len(line.text)]
    rows = [line.text[a:b] for a, b in itertools.pairwise(starts)]
    assert "".join(rows) == line.text
    assert all(cell_len(row) <= width for row in rows)


@given(st.text(max_size=40), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=5), st.data())
def test_painting_changes_no_text(text: str, spans: list[tuple[int, int]], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    painted = [(a, b, Style(bold=True)) for a, b in spans if a < b]
    assert "".join(part.text for part in segments(text, start, end, None, painted)) == text[start:end]


def test_colours_that_a_program_writes_are_kept() -> None:
    line = shown(b"a \x1b[1;31mred\x1b[0m \x1b[38;5;208mx\x1b[38;2;1;2;3my\x1b[39mz", 0)
    assert line.text == "a red xyz"
    drawn = {part.text: part.style for part in segments(line.text, 0, 9, None, line.painted)}
    assert drawn["red"] == Style(bold=True, color="color(1)")
    assert drawn["x"] == Style(color="color(208)")
    assert drawn["y"] == Style(color="#010203")
    assert not drawn["z"]


@pytest.mark.parametrize(
    "parameters", ["8", "5", "40", "48;5;1", "48;2;9;9;9", "30;22", "99999", "38", "38;7", "58;5;1"]
)
def test_nothing_else_is_taken_from_colour_sequences(parameters: str) -> None:
    assert sgr.style(sgr.after(sgr.PLAIN, parameters)) in (None, Style())


def test_only_the_last_state_of_a_progress_bar_is_shown() -> None:
    assert shown(b"\r 10%|#  | 1/9\r 20%|## | 2/9", 0).text == " 20%|## | 2/9"


def test_what_is_left_out_of_a_long_line_is_said() -> None:
    line = shown(b"x" * 16384, 90_000)
    assert line.text.endswith("x… and 90,000 bytes more")
    assert len(line.text) < 4200


def test_wide_characters_are_found_by_their_cells() -> None:
    line = shown("字a字".encode(), 0)
    assert [line.index(0, cell) for cell in range(6)] == [0, 0, 1, 2, 2, 3]
    assert line.starts(3) == (0, 2)


@pytest.mark.parametrize(("text", "expected"), LEVELS)
def test_errors_and_warnings_are_told_by_what_programs_write(text: str, expected: str) -> None:
    assert level(text) == expected


@pytest.mark.parametrize(
    ("anchor", "head", "whole", "text"),
    [
        ((4, 1), (14, 0), False, "wo\nthree\nf"),
        ((14, 0), (4, 1), False, "wo\nthree\nf"),
        ((4, 1), (4, 1), False, "w"),
        ((4, 1), (8, 2), True, "two\nthree"),
        ((0, 3), (4, 0), False, "\nt"),
    ],
)
def test_a_selection_is_text_from_one_place_to_another(
    anchor: tuple[int, int], head: tuple[int, int], whole: bool, text: str
) -> None:
    lines = AllLines(BytesSource(b"one\ntwo\nthree\nfour\n"))
    assert Selection(anchor, head, whole).text(lines, lambda line: line.raw.decode(), 10_000) == text


def test_a_selection_of_a_whole_log_is_not_read_further_than_can_be_copied() -> None:
    lines = AllLines(BytesSource(b"0123456789\n" * 100_000))
    text = Selection((0, 0), (1_099_989, 0), True).text(lines, lambda line: line.raw.decode(), 1000)
    assert 1000 <= len(text) < 4000
