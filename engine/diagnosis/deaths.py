"""Who ended badly: out of the logs of all nodes, and out of what a journal knows for certain.

A death is one process with the lines that it wrote. Where no journal says which processes failed, torchrun's own lines
do, and where those are missing (folders of --log_dir), what a process writes last when it dies of an exception or in
C++. A traceback that a program only logged, and went on, is none.
"""

from __future__ import annotations

import json
import re
import signal as signals
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from engine.diagnosis.lines import Line, moment
from engine.diagnosis.nodes import Node, progress
from engine.diagnosis.traces import Trace, traces

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from engine.diagnosis.agent import Seen


class Failure(msgspec.Struct, frozen=True):
    """Something that ended badly. `t` in seconds, on one clock for all nodes; `tail` the last lines it wrote.

    `after_stop`: its own node was being stopped already, or its torchrun was gone.
    """

    kind: Literal["worker", "torchrun", "lost"]
    t: float
    node_rank: int
    host: str = ""
    attempt: int = 0
    local_rank: int | None = None
    rank: int | None = None
    code: int | None = None
    signal: int | None = None
    after_stop: bool = False
    tail: tuple[str, ...] = ()


class Death(msgspec.Struct):
    """A failure and what its process wrote. `seen` is torchrun's line about it."""

    failure: Failure
    lines: list[Line]
    traces: list[Trace]
    seen: Line | None = None
    timed: bool = True


NATIVE = re.compile(
    r"Fatal Python error: |terminate called (?:after throwing|without an active)"
    r"|\*\*\* (?:Process received signal|stack smashing)"
    r"|(?:double free|malloc|free\(\)|corrupted|munmap_chunk)\S{0,40}(?:\(\))?: (?:invalid|corrupt|memory)"
    r"|(?P<shell>^(?:Segmentation fault|Bus error|Aborted|Killed|Illegal instruction|Floating point exception)"
    r"(?:\s+\(core dumped\)|\s*$)"
    r"|^\S{1,200}: line \d+:\s+\d+ (?:Segmentation fault|Bus error|Aborted|Killed|Illegal instruction|Floating point))"
)
NEAR_END = 2000
"""Lines at the end of a worker's log among which it says that it crashed: dumps of many threads are long."""
UNMATCHED = -1


def deaths_of(nodes: Mapping[int, Node], failures: Iterable[Failure] | None) -> list[Death]:
    """Every death, whether a journal knows of it or the text alone."""
    if failures is not None:
        return [_known(nodes.get(failure.node_rank), failure) for failure in _consequences(nodes, list(failures))]
    found = [death for node in nodes.values() for death in _told(node)]
    return sorted(found, key=lambda death: (death.failure.t, death.failure.node_rank))


def _consequences(nodes: Mapping[int, Node], failures: list[Failure]) -> list[Failure]:
    """Failures, with those told apart that torchrun brought about: it ends a rank's siblings, and all when told to.

    A journal knows by which signal a rank ended, and not by whom it was sent.
    """
    placed = []
    for failure in failures:
        node = nodes.get(failure.node_rank)
        told = node is not None and _told_from_outside(node)
        siblings = [f for f in failures if f.kind == "worker" and f.node_rank == failure.node_rank]
        if failure.kind == "worker" and failure.signal in (signals.SIGTERM, signals.SIGKILL):
            delay = FORCED_AFTER if failure.signal == signals.SIGKILL else 0.0
            before = [
                one
                for one in siblings
                if one.attempt == failure.attempt and one.signal != failure.signal and one.t <= failure.t - delay
            ]
            if before or (told and failure.signal == signals.SIGTERM):
                failure = msgspec.structs.replace(failure, after_stop=True)
        elif failure.kind == "torchrun" and told and node is not None and node.agent.death is not None:
            first = min([failure.t, *(one.t for one in siblings)])
            failure = msgspec.structs.replace(failure, signal=node.agent.death[0], t=first, after_stop=False)
        placed.append(failure)
    return placed


def _told_from_outside(node: Node) -> bool:
    """Has torchrun got a signal that was not our own stop? By the order of its line and of the journal's records."""
    if node.agent.death is None:
        return False
    asked = next((_time_of(line.text) for line in node.journal if '"type":"stop"' in line.text), None)
    died = moment(node.agent.death[1].text)
    if asked is None or died is None:
        return asked is None
    # One clock, and times of day that may differ by a time zone: what counts is the difference within a quarter hour.
    return (died - asked + QUARTER / 2) % QUARTER - QUARTER / 2 < -STAMPED


QUARTER = 900.0
STAMPED = 0.01
"""Seconds: torch writes a time without what is below a millisecond."""
FORCED_AFTER = 20.0
"""Seconds that torchrun gives a rank, at least, between SIGTERM and SIGKILL."""


def _known(node: Node | None, failure: Failure) -> Death:
    """A failure that a journal knows, with what the logs say of it."""
    tail = failure.tail if failure.kind != "lost" else ()
    own = [
        Line("stderr", count + 1, 0, failure.node_rank, count, failure.local_rank, failure.rank, *_tail_line(text))
        for count, text in enumerate(tail)
    ]
    if node is None:
        return Death(failure, own, traces(own))
    if failure.kind != "worker":
        lines = node.shared or own
        ended = [line for line in node.journal if '"torchrun_exit"' in line.text and failure.kind == "torchrun"]
        return Death(failure, lines, traces(lines), ended[-1] if ended else None)
    key = (failure.attempt, failure.local_rank if failure.local_rank is not None else UNMATCHED)
    lines = node.workers.get(key) or own
    told = traces(lines) or traces(node.records.get(key, [])) or _summed(node, failure)
    seen = [one.line for one in (*node.agent.failed, *node.agent.summary) if one.local_rank == failure.local_rank]
    seen += [line for line in node.journal if _records(line.text, failure)]
    return Death(failure, lines, told, seen[0] if seen else None)


def _records(text: str, failure: Failure) -> bool:
    """Is it the journal's record of this end?"""
    record = _fields(text) if '"worker_exit"' in text else {}
    return (record.get("attempt"), record.get("local_rank")) == (failure.attempt, failure.local_rank)


def _time_of(text: str) -> float | None:
    t = _fields(text).get("t")
    return float(t) if isinstance(t, (int, float)) else None


def _fields(text: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _tail_line(text: str) -> tuple[str, str]:
    return re.sub(r"^\[rank\d+\]:\s?", "", text), text


def _told(node: Node) -> list[Death]:
    """The deaths on one node, by its text."""
    pool = traces(node.shared)
    found: dict[tuple[int, int], Death] = {}
    newest = max(0, len(node.agent.failed) - 1)
    latest = max((attempt for attempt, _ in node.workers), default=0)
    survived = _survived(node)
    for attempt, seen in enumerate(node.agent.failed if survived is None else ()):
        _add(node, found, attempt, seen)
    for seen in node.agent.summary:
        _add(node, found, newest if node.agent.failed else max((a for a, _ in node.workers), default=0), seen)
    summed = [trace for trace in pool if "traceback :" in trace.head.text]
    loose = [trace for trace in pool if trace not in summed and not trace.agents]
    for (attempt, local), lines in node.workers.items():
        own = traces(lines) or traces(node.records.get((attempt, local), []))
        if (attempt, local) in found:
            found[attempt, local].traces = own
        elif attempt < latest or (survived is not None and own and own[-1].end.place < survived.place):
            continue
        elif (native := _native(lines)) or (
            own and not own[-1].aside and fatal(own[-1], lines, (attempt, local) in node.records)
        ):
            failure = Failure("worker", 0.0, node.node_rank, "", attempt, local, node.rank(local), None, None)
            at = native or own[-1].end
            found[attempt, local] = Death(failure, lines, own, timed=False)
            if (attempt, local) in node.stamps:
                found[attempt, local].failure = msgspec.structs.replace(failure, t=node.stamps[attempt, local])
                found[attempt, local].timed = not node.agent.failed and not node.agent.summary
            elif (t := moment(at.text)) is not None:
                found[attempt, local].failure, found[attempt, local].timed = msgspec.structs.replace(failure, t=t), True
    for death in found.values():
        if not death.traces:
            death.traces = _summed(node, death.failure) or ([] if death.lines else loose[-1:])
        if not death.lines:
            key = (death.failure.attempt, death.failure.local_rank or 0)
            death.lines = node.workers.get(key) or _unlabelled(node, death.failure.attempt)
    deaths = list(found.values())
    own_end = [trace for trace in pool if trace.agents and not trace.raised[-1].type.endswith("ChildFailedError")]
    if own_end or node.agent.death:
        deaths.append(_agents(node, own_end))
    elif loose and not found and not loose[-1].aside and fatal(loose[-1], node.shared):
        deaths.append(Death(Failure("worker", 0.0, node.node_rank, code=1), node.shared, loose, timed=False))
    elif not found and survived is None and (native := _native(node.shared)) and not progress(node.shared, native):
        deaths.append(Death(Failure("worker", 0.0, node.node_rank), node.shared, [], native, timed=False))
    return deaths


def _unlabelled(node: Node, attempt: int) -> list[Line]:
    """What the ranks of an attempt wrote without a mark: what stands before torchrun's line about its failure."""
    borders = [-1, *(seen.line.place for seen in node.agent.failed)]
    if attempt + 1 >= len(borders):
        return node.shared
    return [line for line in node.shared if borders[attempt] < line.place < borders[attempt + 1]]


def _survived(node: Node) -> Line | None:
    """torchrun's word of the last failure, where it restarted its workers (--max-restarts) and they went on."""
    if not node.agent.failed or node.agent.summary:
        return None
    last = node.agent.failed[-1].line
    after = [line for line in node.shared if line.place > last.place and line.text.strip()]
    ended = bool(after) and ("Traceback" in after[0].text or any("ChildFailedError" in line.text for line in after))
    said = [line for lines in node.workers.values() for line in lines if line.place > last.place] or after
    again = max((attempt for attempt, _ in node.workers), default=0) >= len(node.agent.failed)
    return last if not ended and (again or any(line.file == last.file for line in said)) else None


def _add(node: Node, found: dict[tuple[int, int], Death], attempt: int, seen: Seen) -> None:
    """One worker that torchrun says has failed, by its line or by its summary: the two are put together."""
    local = seen.local_rank
    assert seen.code is not None
    if local is None:
        return
    code, number = (seen.code, None) if seen.code >= 0 else (None, -seen.code)
    closed = seen.pid is not None and seen.pid in node.agent.closed
    stopped = number is not None and (closed or (number == signals.SIGTERM and seen.summed and not seen.first))
    # Told to end, and ended in its own way: unless it says why, because it was told.
    stopped = stopped or (closed and not traces(node.workers.get((attempt, local), [])))
    known = found.get((attempt, local))
    t = seen.t
    if known is not None and known.timed and t is not None:
        # The summary knows the second of the failure, the line a moment after it.
        t = min(known.failure.t, t + 0.999)
    rank = seen.rank if seen.rank is not None else node.rank(local)
    failure = Failure("worker", t or 0.0, node.node_rank, "", attempt, local, rank, code, number, stopped)
    lines = node.workers.get((attempt, local), [])
    line = known.seen if known is not None else seen.line
    found[attempt, local] = Death(failure, lines, [], line, timed=t is not None)


def _agents(node: Node, own_end: Sequence[Trace]) -> Death:
    """torchrun's own end: by an exception that is not about its workers, or by a signal."""
    t, number = None, None
    line: Line | None = None
    if node.agent.death is not None:
        number, line = node.agent.death
        t = moment(line.text)
    kept = list(own_end)
    if t is None and kept:
        before = [moment(one.text) for one in node.shared if one.place < kept[-1].end.place]
        t = next((stamp for stamp in reversed(before) if stamp is not None), None)
    failure = Failure("torchrun", t or 0.0, node.node_rank, code=None if number else 1, signal=number)
    return Death(failure, node.shared, kept, line, timed=t is not None)


def _summed(node: Node, failure: Failure) -> list[Trace]:
    """The traceback in torchrun's summary of this worker."""
    entries = [seen for seen in node.agent.summary if seen.local_rank == failure.local_rank]
    ends = [seen.line.place for seen in node.agent.summary]
    for entry in entries:
        after = min((place for place in ends if place > entry.line.place), default=1 << 62)
        lines = [line for line in node.shared if entry.line.place <= line.place < after]
        told = [trace for trace in traces(lines) if "traceback :" in trace.head.text]
        if told:
            return told[:1]
    return []


def _native(lines: Sequence[Line]) -> Line | None:
    """Where the process says that it crashed; of words that anybody may write, unless it went on after them."""
    near = lines[-NEAR_END:]
    for line in reversed(near):
        if (found := NATIVE.search(line.text)) and not (found["shell"] and progress(near, line)):
            return line
    return None


def fatal(trace: Trace, lines: Sequence[Line], recorded: bool = False) -> bool:
    """Did the process die of it? torch marks what nobody caught; else nothing that follows may tell of going on."""
    if recorded or trace.head.rank is not None:
        return True
    after = [line.text for line in lines if line.place > trace.raised[-1].line.place]
    return not any(GOES_ON.search(text) for text in after)


GOES_ON = re.compile(
    r"(?i:\b(?:step|epoch|iter(?:ation)?|loss|train(?:ing)?|it/s|batch|eval\w*|finished|done|completed?|saved|saving|continu\w+"
    r"|retry\w*|resum\w+|succe\w+)\b)"
)
