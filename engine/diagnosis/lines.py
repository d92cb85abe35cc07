"""The text of a run, line by line: whose line it is, where it stands in which file, and when it was written.

Console output carries the marks of what it came through, outermost first: a container runtime's time, `srun --label`
(`3: `), pdsh (`gpu02: `), mpirun, torchrun's tee (`[default0]:`, the local rank) and torch itself (`[rank3]:`, the
global rank). Marks that could be ordinary words count only where nearly every line of the file has one.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Literal

import msgspec

from engine.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterator

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


ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
RUNTIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]{8,18}(?:Z|[+-]\d\d:\d\d) (?:std(?:out|err) [FP] )?")
LABEL = re.compile(r" {0,5}(\d{1,6}): |([A-Za-z][\w.-]{0,62})(?:: | +\| )")
MPIRUN = re.compile(r"\[\d+,(\d+)\]<std(?:out|err)>: ?")
TEE = re.compile(r"\[(?!rank\d)[A-Za-z_][A-Za-z_-]{0,30}(\d{1,5})(?:\|(\d{1,6}))?\]: ?")
TORCH = re.compile(r"\[rank(\d{1,6})\]: ?")
SPEAKERS = frozenset(
    [
        "srun",
        "sbatch",
        "salloc",
        "slurmstepd",
        "bash",
        "sh",
        "ssh",
        "torchrun",
        "usage",
        "error",
        "fatal",
        "ERROR",
        "FATAL",
        "WARNING",
        "INFO",
        "DEBUG",
    ]
)
"""Words before a colon that say who speaks, and not on which node."""
MOSTLY = 0.8
"""Share of the lines that have to carry a mark for it to be one."""


def labels(texts: list[str]) -> frozenset[str]:
    """The words that srun or pdsh put before the lines of this file; empty where lines have none."""
    found: Counter[str] = Counter()
    count = 0
    for text in texts:
        if text.strip():
            match = LABEL.match(text)
            if match and match.group(2) in SPEAKERS:
                continue
            count += 1
            if match:
                found[match.group(1) or match.group(2)] += 1
    if count < 2 or sum(found.values()) < MOSTLY * count:
        return frozenset()
    common = {word for word, times in found.items() if times >= 2 and times >= 0.01 * count}
    return frozenset(common) if sum(found[word] for word in common) >= MOSTLY * count else frozenset()


def unmarked(text: str, known: frozenset[str]) -> tuple[str, str, int | None, int | None]:
    """(text without its marks, label, local rank, global rank)."""
    label, local_rank, rank = "", None, None
    if text[:2] == "20" and (found := RUNTIME.match(text)):
        text = text[found.end() :]
    if known and (found := LABEL.match(text)) and (found.group(1) or found.group(2)) in known:
        label = found.group(1) or found.group(2)
        text = text[found.end() :]
    if text.startswith("["):
        if found := MPIRUN.match(text):
            rank, text = int(found.group(1)), text[found.end() :]
        if found := TEE.match(text):
            local_rank, text = int(found.group(1)), text[found.end() :]
            rank = int(found.group(2)) if found.group(2) else rank
        if found := TORCH.match(text):
            rank, text = int(found.group(1)), text[found.end() :]
    return text, label, local_rank, rank


def read(source: Source, place: int = 0, known: frozenset[str] | None = None) -> Iterator[tuple[Line, str]]:
    """The lines of a source, with the label of each; of a line that overwrites itself the last state."""
    raws = source.data.split(b"\n")
    if raws and not raws[-1]:
        raws.pop()
    if known is None:
        known = labels([raw.decode("utf-8", "replace") for raw in raws]) if source.kind == "console" else frozenset()
    offset = source.offset
    for count, raw in enumerate(raws):
        text = raw.decode("utf-8", "replace").rstrip("\r")
        if "\r" in text:
            text = text.rpartition("\r")[2]
        if len(text) > LONGEST:
            text = text[: LONGEST // 2] + " … " + text[-LONGEST // 2 :]
        if "\x1b" in text:
            text = ANSI.sub("", text)
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
