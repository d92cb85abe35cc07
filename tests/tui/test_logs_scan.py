"""A scan finds every matching line of a log, those around its origin first, while the log grows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tui.logs_made_up import BytesSource
from tui.logs import lines
from tui.logs.hits import FoundLines, Hits, unnamed_file
from tui.logs.matching import matching
from tui.logs.pattern import Pattern
from tui.logs.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXTS = st.lists(st.sampled_from([b"\n", b"a", b"bc\n", b"hit\n", b"a hit", b"x" * 9]), max_size=40).map(b"".join)


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK", 16)
        patch.setattr(lines, "FIRST_READ", 4)
        yield


class Scanned:
    """A scan with its two files, run here."""

    def __init__(self, source: BytesSource, pattern: str, origin: int) -> None:
        before, after = self._files = unnamed_file(), unnamed_file()
        self.scan = Scan(source, Pattern(pattern), origin, before, after)
        self.hits = Hits(before, after, origin)

    def run(self) -> None:
        self.scan.more()
        while not self.scan.done:
            self.scan.step()
        self.hits.update(self.scan.state())

    def __enter__(self) -> Scanned:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            os.close(file)


def expected(source: BytesSource, pattern: str) -> list[int]:
    """By looking at every line alone."""
    found = []
    for line in lines.forward(source, 0, 1000):
        if matching(source.data[line.at : line.end], Pattern(pattern)):
            found.append(line.at)
    return found


@given(TEXTS, TEXTS, st.sampled_from(["hit", "!hit", "a|b", "^$"]), st.data())
def test_every_line_that_matches_is_found_once_and_in_order(
    text: bytes, more: bytes, pattern: str, data: st.DataObject
) -> None:
    source = BytesSource(text)
    starts = [line.at for line in lines.forward(source, 0, 1000)]
    origin = data.draw(st.sampled_from([*starts, len(text)]))
    with Scanned(source, pattern, origin) as scanned:
        scanned.run()
        hits = scanned.hits
        assert hits.several(hits.first, len(hits)) == expected(source, pattern)
        source.data += more
        source.poll()
        scanned.run()
        every = expected(source, pattern)
        assert [hits.at(number) for number in range(hits.first, hits.stop)] == every
        for at in range(len(source.data) + 1):
            assert hits.below(at) == min((hit for hit in every if hit > at), default=None)
            assert hits.above(at) == max((hit for hit in every if hit < at), default=None)
        found = FoundLines(source, hits)
        assert [line.at for line in found.forward(0, 1000)] == every
        assert [line.at for line in found.backward(source.size, 3)] == every[-3:]


def test_what_is_around_the_origin_is_known_first() -> None:
    source = BytesSource(b"".join(b"hit %03d\n" % number for number in range(100)))
    with Scanned(source, "hit", 400) as scanned:
        for _ in range(4):
            scanned.scan.step()
        scanned.hits.update(scanned.scan.state())
        hits = scanned.hits
        assert hits.low < 400 < hits.high
        assert (hits.above(400), hits.below(400)) == (392, 408)
        assert hits.below(0) is None
        assert not hits.scanned_above(400)
        assert not hits.scanned_below(400)


def test_an_error_while_writing_is_not_hidden() -> None:
    source = BytesSource(b"hit\n" * 3)
    read_only = os.open("/dev/null", os.O_RDONLY)
    scan = Scan(source, Pattern("hit"), 0, read_only, read_only)
    with pytest.raises(OSError, match="Bad file descriptor"):
        scan.step()
    os.close(read_only)
