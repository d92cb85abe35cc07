"""The YAML that configuration needs: read as a full reader reads it, and all else refused with its line."""

from __future__ import annotations

import io
from typing import Any

import pytest
from ruamel.yaml import YAML

from engine.train.plain_yaml import YamlError, parse

READ = {
    "scalars": "a: 1\nb: -2\nc: 0.5\nd: 1.0e-3\ne: text\nf: true\ng: false\nh: null\ni: ~\nj:\n",
    "text that looks like more": "url: http://host:80/x\nclock: 12h\npath: a/b.c\nmod: pkg.mod:build\nit: don't\n",
    "quotes": "a: 'it''s # no comment'\nb: \"a\\tb\\n\"\n'c d': x\n",
    "comments": "# first\na: 1  # behind\n\n  # indented\nb: x#y\n",
    "nesting": "a:\n  b: 1\n  c:\n    d: x\ne: 2\n",
    "flow": "a: [1, x, 'y, z', [2, 3]]\nb: {c: 1, d: {e: [true]}, f: g h}\nc: []\nd: {}\n",
    "a document's start": "---\na: 1\n",
}


@pytest.mark.parametrize("name", READ)
def test_what_is_known_is_read_as_a_full_reader_reads_it(name: str) -> None:
    full: Any = YAML(typ="safe", pure=True).load(io.StringIO(READ[name]))
    assert parse(READ[name]) == full


@pytest.mark.parametrize(("text", "value"), [("3e-4", 3e-4), ("65_536", 65536), ("1.", 1.0), (".5", 0.5), ("+3", 3)])
def test_numbers_are_numbers_however_they_are_written(text: str, value: float) -> None:
    assert parse(f"a: {text}") == {"a": value}


def test_json_is_read_as_json() -> None:
    assert parse('{"a": [1, "x"],\n "b": null}') == {"a": [1, "x"], "b": None}


def test_an_empty_text_holds_nothing() -> None:
    assert parse("# nothing\n") is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\na: 2", "line 2: a is there twice"),
        ("a: &anchor 1", "line 1: '&anchor 1' is YAML that is not known here"),
        ("a: |\n  block", "line 1: '|' is YAML that is not known here"),
        ("a:\n  - item", "line 2: '- item' is no `key: value`"),
        ("a:\n  b: 1\n c: 2", "line 3: indented otherwise"),
        ("a: 1\n  b: 2", "line 2: indented otherwise"),
        ("a: [1, 2", "line 1: [ does not end"),
        ("a: 'x", "line 1: the quote of 'x does not end"),
        ("a: [1]]", "line 1: ']' behind the closing bracket"),
        ("\ta: 1", "line 1: a tab"),
        ("hello", "line 1: 'hello' is no `key: value`"),
        ('{"a": 1', "Expecting"),
    ],
)
def test_all_else_is_refused_with_its_line(text: str, says: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse(text)
    assert says in str(caught.value)
