"""The text of a run, line by line: whose line it is, where it stands in which file, and when it was written.

Console output carries the marks of what it came through; they are in marks.py.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import msgspec

from engine.diagnosis.marks import ANSI, NONE, Marks, marks, unmarked
from engine.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Kind = Literal["console", "worker", "record", "system", "journal"]

SHOWN = 400
"""Characters of a line of evidence."""
LONGEST = 8192


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One file of one node, or its end: `line` and `offset` say where `data` begins in it (from 1, in bytes from 0).

    console: what torchrun and perhaps its ranks wrote; worker: one rank's stream; record: a torchelastic error file;
    system: what the kernel or the scheduler says of the node; journal: our own supervisor's, as evidence of an end.
    """

    name: str
    node_rank: int
    data: bytes
    kind: Kind = "console"
    local_rank: int | None = None
    rank: int | None = None
    attempt: int = 0
    line: int = 1
    offset: int = 0


class Line(msgspec.Struct, frozen=True):
    """One line without its marks; `shown` with them, safe to show. `place` orders the lines of a node."""

    file: str
    number: int
    offset: int
    node_rank: int
    place: int
    local_rank: int | None
    rank: int | None
    text: str
    shown: str


FEW = 3
"""Lines of a file that do not tell which marks it has."""


def marks_of(sources: Sequence[Source]) -> list[Marks]:
    """The marks of each source; a console that says next to nothing has those of the one that says most."""
    texts = [_texts(source) if source.kind == "console" else [] for source in sources]
    found = [marks(lines) for lines in texts]
    longest = max(range(len(found)), key=lambda k: len(texts[k]), default=0)
    return [found[longest] if 0 < len(lines) < FEW else own for own, lines in zip(found, texts, strict=True)]


def _texts(source: Source) -> list[str]:
    return [raw.decode("utf-8", "replace") for raw in source.data.split(b"\n") if raw.strip()]


def read(source: Source, place: int = 0, known: Marks = NONE) -> Iterator[tuple[Line, str]]:
    """The lines of a source, with the label of each; of a line that overwrites itself the last state."""
    raws = source.data.split(b"\n")
    if raws and not raws[-1]:
        raws.pop()
    offset = source.offset
    for count, raw in enumerate(raws):
        text = raw.decode("utf-8", "replace").rstrip("\r")
        if "\r" in text:
            text = text.rpartition("\r")[2]
        if len(text) > LONGEST:
            text = text[: LONGEST // 2] + " … " + text[-LONGEST // 2 :]
        if "\x1b" in text:
            text = ANSI.sub("", text)
        if "\0" in text:
            text = text.replace("\0", "")
        bare, label, local_rank, rank = unmarked(text, known)
        line = Line(
            source.name,
            source.line + count,
            offset,
            source.node_rank,
            place + count,
            source.local_rank if local_rank is None else local_rank,
            source.rank if rank is None else rank,
            bare if bare.isprintable() else clean(bare, LONGEST),
            text,
        )
        yield line, label
        offset += len(raw) + 1


STAMP = re.compile(
    r"\[?[IWEF](?P<month>\d\d)(?P<day>\d\d) (?P<clock>\d\d:\d\d:\d\d(?:\.\d+)?)"
    r"|\[?(?P<date>\d{4}-\d\d-\d\d)[ T_](?P<time>\d\d:\d\d:\d\d(?:[.,]\d+)?)"
)


def moment(text: str) -> float | None:
    """The time at the beginning of a line, in seconds since the beginning of its year; None where there is none.

    torch writes no year (glog), so that years are left out everywhere.
    """
    found = STAMP.match(text)
    if found is None:
        return None
    if found.group("date"):
        _, month, day = map(int, found.group("date").split("-"))
        clock = found.group("time").replace(",", ".")
    else:
        month, day, clock = int(found.group("month")), int(found.group("day")), found.group("clock")
    hours, minutes, seconds = clock.split(":")
    days = sum(DAYS[: month - 1]) + day if 1 <= month <= 12 else day
    return ((days * 24 + int(hours)) * 60 + int(minutes)) * 60 + float(seconds)


DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
