"""A line matches as it is shown, and the fast way through a log finds what the slow way finds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.text import clean
from tui.logs.matching import matching
from tui.logs.pattern import Pattern

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


def test_what_is_no_regular_expression_is_plain_text_and_that_is_said() -> None:
    pattern = Pattern("loss(")
    assert pattern.plain
    assert "plain text" in pattern.note
    assert pattern.spans("loss(x)") == [(0, 5)]
