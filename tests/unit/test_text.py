"""Whatever a node says, what comes out of `clean` is one line that a terminal shows and does not obey."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.text import clean, clean_lines, coloured

FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
ANYTHING = st.characters(codec=None)
NASTY = st.sampled_from("\x1b\x07\x08\x9b\x9d\x9c\x90\r\n\t[];\\PX^_m0\u202e\u2066\ud800é字")


@given(st.text(NASTY | ANYTHING, max_size=400))
def test_nothing_that_a_terminal_obeys_comes_out(text: str) -> None:
    assert FORBIDDEN.search(clean(text)) is None


@given(st.text(NASTY | ANYTHING, max_size=400))
def test_what_is_clean_stays_as_it_is(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@given(st.text(NASTY, max_size=200), st.integers(1, 40))
def test_a_line_is_never_longer_than_its_limit(text: str, limit: int) -> None:
    assert len(clean(text, limit)) <= limit


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_text_is_untouched(text: str) -> None:
    assert clean(text) is text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[1;31mloss\x1b[0m 0.5", "loss 0.5"),
        ("\x1b]0;title\x07step 3", "step 3"),
        ("\x1b]52;c;ZXZpbA==\x1b\\done", "done"),
        ("\x1bPq#0\x1b\\x\x1b_apc\x1b\\y\x1b^pm\x1b\\z\x1bXsos\x1b\\!", "xyz!"),
        ("\x9b2Ja\x9d0;t\x9cb", "ab"),
        ("\x1b(Bascii\x1b7", "ascii"),
        ("\x1b]0;never ended, still to be read", "0;never ended, still to be read"),
        ("  0%|  | 0/9\r 50%|# | 4/9\r100%|##| 9/9", "100%|##| 9/9"),
        ("windows line\r", "windows line"),
        ("two\nlines", "two lines"),
        ("a\tb", "a       b"),
        ("user\u202egnp.exe", "usergnp.exe"),
        ("caf\xe9 字 🙂", "café 字 🙂"),
        ("half \ud83d", "half \ufffd"),
        ("\x1b\x1b[0m[31mred", "[31mred"),
    ],
)
def test_a_line_is_shown_as_what_it_says(raw: str, shown: str) -> None:
    assert clean(raw) == shown


def test_a_cut_is_seen() -> None:
    assert clean("x" * 5000, 10) == "xxxxxxxxx…"


def test_the_last_lines_of_a_text_are_kept_apart() -> None:
    assert clean_lines("one\ntwo\x1b[0m\nthree\n\n", 2) == ("two", "three")
    assert clean_lines("\n \n") == ()


@pytest.mark.parametrize("piece", ["\x1b]", "\x9d", "\x1b[", "\x9b1;", "\x1bP\x9d", "\r", "\n", "\t"])
def test_a_flood_of_introducers_takes_no_longer_than_its_length(piece: str) -> None:
    began = time.process_time()
    clean(piece * 200_000)
    assert time.process_time() - began < 0.5


@given(st.text(NASTY | ANYTHING, max_size=400), st.integers(1, 60))
def test_pieces_with_colours_are_as_safe_and_as_short_as_clean_text(text: str, limit: int) -> None:
    pieces = coloured(text, limit)
    shown = "".join(piece for _, piece in pieces)
    assert FORBIDDEN.search(shown) is None
    assert len(shown) <= limit
    assert all(re.fullmatch(r"[0-9;:]*", parameters) for parameters, _ in pieces)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x1b\x9b"), max_size=100))
def test_without_colours_there_is_one_piece_and_it_is_the_clean_text(text: str) -> None:
    assert coloured(text) == [("", clean(text))]


def test_colours_are_kept_as_parameters_and_other_sequences_are_not() -> None:
    raw = "\x1b]0;t\x07step \x1b[1;31m7\x1b[2K\x1b[0m\tok\x9b38;5;9m!"
    assert coloured(raw) == [("", "step "), ("1;31", "7"), ("0", "  ok"), ("38;5;9", "!")]


def test_a_cut_among_colours_is_seen() -> None:
    assert coloured("\x1b[31m" + "x" * 50 + "\x1b[32m" + "y" * 50, 60) == [("31", "x" * 50), ("32", "y" * 9 + "…")]
