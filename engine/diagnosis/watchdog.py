"""NCCL's watchdogs, compared over all ranks: who did not come to the collective at which the others waited?

Each rank that waits too long says which collective it waits in (sequence number, operation, size), and which was the
last that it enqueued and completed. The rank that says nothing, or is behind, or runs another operation is the suspect.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from engine.diagnosis.lines import Line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


CAUGHT = re.compile(
    r"[Ww]atchdog caught collective operation timeout: WorkNCCL\((?:SeqNum|WorkSeqNum)=(?P<seq>\d+), OpType=(?P<op>\w+)"
    r"(?:, (?:NumelIn=(?P<numel>\d+)|TensorShape=\[(?P<shape>[^\]]*)\]))?"
)
GROUP = re.compile(r"PG (?:ID )?(?P<pg>\d+)")
WORK = re.compile(
    r"last enqueued (?:NCCL )?work: (?P<enqueued>-?\d+), last completed (?:NCCL )?work: (?P<completed>-?\d+)"
)
INSIDE = re.compile(r"\[(?:PG [^\]]{0,200})?[Rr]ank (?P<rank>\d+)\]")


class Watchdog(msgspec.Struct):
    """What one rank's watchdog said. `enqueued` and `completed` are sequence numbers; -1: none yet."""

    rank: int
    line: Line
    group: str = ""
    seq: int | None = None
    op: str = ""
    size: str = ""
    enqueued: int | None = None
    completed: int | None = None


class Finding(msgspec.Struct, frozen=True):
    """The suspects, in words; `kind` silent, behind, differs or together (nobody stands out)."""

    kind: str
    ranks: tuple[int, ...]
    says: str
    lines: tuple[Line, ...]
    sure: float


def watchdogs(lines: Iterable[tuple[int | None, Line]]) -> dict[int, Watchdog]:
    """By global rank, the first collective that its watchdog gave up on. `lines` come with the rank that wrote them."""
    found: dict[int, Watchdog] = {}
    for writer, line in lines:
        if "atchdog" not in line.text and "last enqueued" not in line.text:
            continue
        caught, work = CAUGHT.search(line.text), WORK.search(line.text)
        if not caught and not work:
            continue
        rank = line.rank if line.rank is not None else writer
        if rank is None and (inside := INSIDE.search(line.text)):
            rank = int(inside["rank"])
        if rank is None:
            continue
        group = GROUP.search(line.text)
        said = found.setdefault(rank, Watchdog(rank, line, group["pg"] if group else ""))
        if caught and said.seq is None:
            said.seq, said.op, said.line = int(caught["seq"]), caught["op"], line
            said.size = caught["numel"] or caught["shape"] or ""
        if work and said.enqueued is None:
            said.enqueued, said.completed = int(work["enqueued"]), int(work["completed"])
    return {rank: said for rank, said in found.items() if said.seq is not None}


def compare(said: Mapping[int, Watchdog], ranks: Iterable[int]) -> Finding | None:
    """The suspects among `ranks`, all ranks of the run as far as they are known; None without a watchdog's word."""
    if not said:
        return None
    everyone = sorted(said)
    first = said[everyone[0]]
    what = f"{first.op} {first.seq}"
    lines = tuple(said[rank].line for rank in everyone[:2])
    silent = tuple(sorted(set(ranks) - set(said)))
    if silent and len(silent) <= max(1, len(said)):
        return Finding(
            "silent", silent, f"did not come to the collective ({what}) at which the others waited", lines, 0.75
        )
    seqs = Counter(one.seq for one in said.values() if one.seq is not None)
    lowest = min(seqs)
    if len(seqs) > 1:
        behind = tuple(rank for rank in everyone if said[rank].seq == lowest)
        if len(behind) <= len(everyone) // 2:
            at = said[behind[0]]
            words = f"is behind: it waits in {at.op} {lowest}, the others in collective {max(seqs)}"
            return Finding("behind", behind, words, (at.line, *lines), 0.75)
    works = Counter((one.op, one.size) for one in said.values())
    if len(works) > 1 and len(seqs) == 1:
        usual, rare = works.most_common(1)[0][0], works.most_common()[-1][0]
        odd = tuple(rank for rank in everyone if (said[rank].op, said[rank].size) == rare)
        here, there = f"{rare[0]} of {rare[1] or '?'} elements", f"{usual[0]} of {usual[1] or '?'}"
        words = f"runs {here} as collective {lowest}, the others {there}"
        return Finding("differs", odd, words, (said[odd[0]].line, *lines), 0.8)
    for field, verb in (("enqueued", "has enqueued"), ("completed", "has completed")):
        counts = {rank: getattr(said[rank], field) for rank in everyone if getattr(said[rank], field) is not None}
        if len(set(counts.values())) > 1:
            least = min(counts.values())
            behind = tuple(rank for rank, count in counts.items() if count == least)
            if len(behind) <= max(1, len(counts) // 2):
                words = f"is behind: it {verb} collective {least}, others {max(counts.values())}"
                return Finding("behind", behind, words, (said[behind[0]].line, *lines), 0.65)
    never = lowest == 1 or all(one.completed in (-1, 0) for one in said.values() if one.completed is not None)
    if (never and any(one.completed is not None for one in said.values())) or lowest == 1:
        words = f"and all others waited in the very first collective ({what}): they have never communicated"
    else:
        words = f"and all others waited in the same collective ({what}) until the watchdog gave up"
    return Finding("together", tuple(everyone), words, lines, 0.5)
