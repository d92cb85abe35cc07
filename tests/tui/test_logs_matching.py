"""A line matches as it is shown, and the fast way through a log finds what the slow way finds."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.text import clean
from tests.tui.logs_made_up import LEVELS
from tui.logs.levels import ERRORS
from tui.logs.literals import required
from tui.logs.matching import matching
from tui.logs.pattern import Pattern

ERROR_LINES = [text for text, expected in LEVELS if expected == "error"]
PIECES = st.sampled_from(
    ["loss", "Loss 3", "é", "İ", "\n", "\n", "\t", " ", "\x1b[31m", "\r", "step 12", "字", "ss", "b", "a", "\ud800"]
)
TEXTS = st.lists(PIECES, max_size=30).map(lambda parts: "".join(parts).encode("utf-8", "surrogatepass"))
WANTED = [
    "loss",
    "Loss",
    "!loss",
    "l.ss",
    "ss$",
    "^a",
    "a[^b]*b",
    r"\s+s",
    "é",
    "É",
    "İ",
    "x*",
    "(",
    "a|é",
    r"\bstep \d+",
    "字",
]


@given(TEXTS, st.sampled_from(WANTED))
def test_lines_match_as_they_are_shown(data: bytes, wanted: str) -> None:
    pattern = Pattern(wanted)
    expected, at = [], 0
    for raw in data.split(b"\n"):
        shown = clean(raw.decode("utf-8", "replace"))
        if at < len(data) and bool(pattern.regex.search(shown)) is not pattern.inverse:
            expected.append(at)
        at += len(raw) + 1
    assert matching(data, pattern) == expected


@pytest.mark.parametrize(
    ("typed", "line", "spans"),
    [
        ("loss", "Loss and loss", [(0, 4), (9, 13)]),
        ("Loss", "Loss and loss", [(0, 4)]),
        (r"\W3", "step 3", [(4, 6)]),
        (r"l\w+", "LOSS", [(0, 4)]),
        ("[rank0", "a [rank0] b", [(2, 8)]),
        ("!loss", "loss", []),
        ("x*", "axxb", [(1, 3)]),
        ("É", "é É", [(2, 3)]),
        ("é", "é É", [(0, 1), (2, 3)]),
        ("!", "wow!", [(3, 4)]),
    ],
)
def test_what_was_typed_is_found_in_a_line(typed: str, line: str, spans: list[tuple[int, int]]) -> None:
    assert Pattern(typed).spans(line) == spans


@given(
    st.lists(
        st.sampled_from(["ab", "b+", "c*", "d?", ".", "[ab]", "|", "(x|y)", r"\.", r"\d", "e{1,2}", "^", "$", "ab|cd"])
    )
    .map("".join)
    .filter(lambda text: Pattern(text).note == ""),
    st.text("abcdexy.1", max_size=12),
)
def test_a_line_that_matches_has_what_is_required(expression: str, line: str) -> None:
    texts = required(expression)
    if texts and re.search(expression, line):
        assert any(text in line for text in texts)


@pytest.mark.parametrize(
    ("expression", "texts"),
    [
        (r"step +77777[0-9] ", ("77777",)),
        ("(?:nan|error|traceback)", ("nan", "error", "traceback")),
        (r"loss.*nan", ("loss",)),
        (r"\[rank3\]:", ("[rank3]:",)),
        (r"a|bcd", ()),
        (r"(a|b)cd", ()),
        (r"\d+", ()),
    ],
)
def test_what_a_pattern_requires(expression: str, texts: tuple[str, ...]) -> None:
    assert required(expression) == texts


@pytest.mark.parametrize("line", ERROR_LINES)
def test_every_error_has_one_of_the_texts_that_are_looked_for_first(line: str) -> None:
    data = f"step 1\n{line}\nstep 2\n".encode()
    assert matching(data, Pattern(ERRORS)) == [7]
    assert matching(data[7:], Pattern(ERRORS)) == [0]


def test_a_quiet_log_is_searched_at_hundreds_of_megabytes_a_second() -> None:
    data = (
        b"2026-11-24 08:00:00,000 INFO train step 123 loss 2.3456 lr 2.0e-04 tokens/s 51,234 grad_norm 0.412\n" * 2500
    )
    for text in ("zzz", "Error: ", r"step +77777\d", ERRORS):
        pattern = Pattern(text)
        matching(data, pattern)
        best = min(_seconds(data, pattern) for _ in range(5))
        assert len(data) / best > 30e6, text  # some 300 MB/s where nothing else runs


def _seconds(data: bytes, pattern: Pattern) -> float:
    began = time.process_time()
    matching(data, pattern)
    return time.process_time() - began


def test_what_is_no_regular_expression_is_plain_text_and_that_is_said() -> None:
    pattern = Pattern("loss(")
    assert pattern.plain
    assert "plain text" in pattern.note
    assert pattern.spans("loss(x)") == [(0, 5)]
