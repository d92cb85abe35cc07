"""What one death means: the rule that fits what the process wrote, or how it ended where it wrote nothing.

An exception speaks first, then what it was raised from; a mere context (“During handling …”) only where neither says
anything. Lines of a log are asked where there is no exception, or one that says no more than “NCCL failed”.
"""

from __future__ import annotations

import itertools
import re
import signal as signals
from typing import TYPE_CHECKING

import msgspec

from engine.diagnosis.deaths import NATIVE, NEAR_END, Death
from engine.diagnosis.lines import Line
from engine.diagnosis.rules import NOISE, RULES, SURE, Rule, compiled
from engine.diagnosis.rules.ends import (
    BY_SIGNAL,
    EXCEPTION,
    EXIT,
    KNOWN_CODES,
    NODE_LOST,
    OTHER_SIGNAL,
    STOPPED,
    TORCHRUN_KILLED,
    VANISHED,
)
from engine.diagnosis.traces import Frame, Raised

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engine.diagnosis.deaths import Failure
    from engine.diagnosis.traces import Trace

DUMPED = frozenset({"segfault", "aborted", "bus-error", "illegal-instruction", "arithmetic", "collective-mismatch"})
LOOK_BACK = 400
"""Lines before the end that are asked."""


class Incident(msgspec.Struct):
    """A death, explained. `groups` are the values for the rule's words, `key` the line that decided it."""

    death: Death
    rule: Rule
    groups: dict[str, str]
    key: Line | None
    raised: Raised | None = None

    @property
    def root(self) -> bool:
        return self.rule.role == "root" and not self.death.failure.after_stop

    @property
    def place(self) -> Frame | None:
        """Where in the program: of an exception, or of what faulthandler dumped."""
        if self.raised is not None:
            return self.raised.place
        frames = [
            Frame(found["file"], int(found["line"]), found["function"], line)
            for line in (self.death.lines[-LOOK_BACK:] if self.rule.id in DUMPED else ())
            if (found := FAULT.match(line.text))
        ]
        own = [frame for frame in frames if frame.own]
        return own[0] if own else frames[0] if frames else None

    @property
    def at(self) -> str:
        """`, in load_batch (/data/exp/t.py:8)`; "" where it is not the user's own code."""
        place = self.place
        return f", in {place.function} ({place.file}:{place.number})" if place is not None and place.own else ""

    @property
    def suspect(self) -> int | None:
        """The rank that the text itself accuses."""
        named = [value for name, value in self.groups.items() if name.startswith("suspect") and value]
        return int(named[0]) if named else None


BY_NATIVE = (
    (re.compile(r"Segmentation fault"), signals.SIGSEGV),
    (re.compile(r"Bus error"), signals.SIGBUS),
    (re.compile(r"Illegal instruction"), signals.SIGILL),
    (re.compile(r"Floating point exception"), signals.SIGFPE),
    (re.compile(r"^Killed$|^\S{1,200}: line \d+:\s+\d+ Killed"), signals.SIGKILL),
    (re.compile(r"."), signals.SIGABRT),
)
FAULT = re.compile(r'\s{0,80}File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<function>\S+)')
BY_ID = {rule.id: rule for rule in RULES}
BY_REQUEST = {
    signals.SIGTERM: BY_ID["terminated"],
    signals.SIGINT: BY_ID["interrupted"],
    signals.SIGHUP: BY_ID["hangup"],
}
NOT_NOISE = frozenset({"name-unresolved", "port-in-use"})
"""Rules about lines that are noise where nothing failed."""


def explain(death: Death) -> Incident:
    """The rule that fits a death."""
    failure = death.failure
    if failure.after_stop:
        return Incident(death, STOPPED, {}, death.seen)
    if failure.kind == "lost":
        return Incident(death, NODE_LOST, {"text": failure.tail[0] if failure.tail else "was lost"}, None)
    trace = _terminal(death)
    found: Incident | None = None
    if trace is not None:
        if trace.raised[-1].type.endswith("SignalException") and failure.kind == "torchrun":
            return _by_signal(death)
        found = _match([(one.text, one.line, one) for one in trace.final[::-1]][::-1], death, "raised")
        whole = [(one.text, one.line, one) for one in trace.raised]
        if found is None:
            # What it was handling counts only where that alone is a reason to end.
            found = _match(whole, death, "raised", roots=True)
            found = found if found is not None and found.rule.weight >= SURE else None
        elif (fuller := _match(whole, death, "raised")) and fuller.rule is found.rule:
            # What it was handling may tell more of the same: which signal, which file.
            found.groups = {**fuller.groups, **found.groups}
    native = [line for line in death.lines[-NEAR_END:] if NATIVE.search(line.text) and _may_be_of(line, failure)]
    if found is None and native:
        said = [line for line in death.lines if line.place >= native[0].place][:40]
        before = [line for line in death.lines if line.place < native[0].place][-40:]
        found = _match([(line.text, line, None) for line in [*said, *before]], death, "raised")
    unclear = found is None and trace is None and failure.signal in (None, signals.SIGABRT)
    weight = found.rule.weight if found is not None else 0
    tail = [(line.text, line, None) for line in death.lines[-LOOK_BACK:]]
    if found is not None and found.rule.role == "victim":
        # NCCL calls a broken network a peer that has gone; its own warnings know better.
        joining = "RendezvousConnectionError" in found.groups["match"]
        tail = [one for one in tail if "NCCL WARN" in one[0] or joining]
    if unclear or (found is not None and weight < SURE):
        better = _match(tail, death, "line", roots=not unclear)
        if better is not None and better.rule.weight > weight and not (native and better.rule.role == "root"):
            better.raised = better.raised or (found.raised if found is not None else None)
            found = better
    if found is not None:
        return found
    if trace is not None:
        return Incident(death, EXCEPTION, {}, trace.last.line, trace.last)
    if native and failure.signal is None:
        number = next(number for pattern, number in BY_NATIVE if pattern.search(native[-1].text))
        return Incident(death, BY_SIGNAL[number], {}, native[-1])
    return _by_end(death, native[-1] if native else None)


def _may_be_of(line: Line, failure: Failure) -> bool:
    """May a crash in C++ have ended so? One that left by itself has not crashed: an unmarked line is a neighbour's."""
    left = failure.code is not None and 0 < failure.code < 128
    return not left or (failure.code == 1 and (line.rank, line.local_rank) != (None, None))


def _by_signal(death: Death) -> Incident:
    number = death.failure.signal
    rule = BY_REQUEST.get(number) if number is not None else None  # type: ignore[call-overload]
    return Incident(
        death, rule or BY_ID["terminated"], {}, death.seen or (death.traces[-1].end if death.traces else None)
    )


def _by_end(death: Death, native: Line | None) -> Incident:
    """By signal or exit code alone."""
    failure = death.failure
    number, code = failure.signal, failure.code
    if code is not None and code > 128 and code - 128 in {*BY_SIGNAL, *BY_REQUEST}:
        number = code - 128
    if failure.kind == "torchrun":
        if number in BY_REQUEST:
            return _by_signal(death)
        if number is not None:
            return Incident(death, TORCHRUN_KILLED, {"signal": signal_name(number)}, native or death.seen)
    if number in BY_SIGNAL:
        return Incident(death, BY_SIGNAL[signals.Signals(number)], {}, native or death.seen)
    if number in BY_REQUEST:
        return Incident(death, BY_REQUEST[signals.Signals(number)], {}, death.seen)
    if number is not None:
        return Incident(death, OTHER_SIGNAL, {"signal": signal_name(number)}, native or death.seen)
    if code is None:
        return Incident(death, VANISHED, {}, native or death.seen)
    words = f"{code} ({KNOWN_CODES[code]})" if code in KNOWN_CODES else str(code)
    return Incident(death, EXIT, {"code": words}, death.seen)


def signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _terminal(death: Death) -> Trace | None:
    """The traceback that the process died of: the last that torch marked, else the last."""
    marked = [trace for trace in death.traces if trace.head.rank is not None]
    kept = marked or death.traces
    if death.failure.kind == "torchrun":
        kept = [t for t in kept if not t.raised[-1].type.endswith("ChildFailedError")]
    return kept[-1] if kept else None


def _match(
    texts: Sequence[tuple[str, Line, Raised | None]], death: Death, where: str, roots: bool = False
) -> Incident | None:
    """The first rule of the table, roots before victims, that fits one of the texts."""
    victim: Incident | None = None
    for rule in RULES:
        if where not in rule.where or rule.role == "advice" or (victim is not None and rule.role == "victim"):
            continue
        if roots and rule.role != "root":
            continue
        for pattern, (text, line, raised) in itertools.product(rule.texts, texts):
            found = compiled(pattern).search(text)
            if found is None:
                continue
            if where == "line" and NOISE.search(text) and rule.id not in NOT_NOISE:
                continue
            if rule.unless and any(compiled(rule.unless).search(other) for other, _, _ in texts):
                break
            groups = {name: value for name, value in found.groupdict().items() if value is not None}
            incident = Incident(death, rule, {**groups, "match": found[0]}, line, raised)
            if rule.role == "root":
                return incident
            victim = incident
            break
    return victim


def asked_of(death: Death) -> Incident | None:
    """What the lines of a rank say that nobody reported: a root, or nothing."""
    return _match([(line.text, line, None) for line in death.lines[-LOOK_BACK:]], death, "line", roots=True)


def lines_of_node(lines: Iterable[Line]) -> list[tuple[Rule, Line, dict[str, str]]]:
    """Lines that end what runs on a node, whoever wrote them: the kernel's, Slurm's, the shell's, ssh's."""
    found = []
    rules = [rule for rule in RULES if "node" in rule.where]
    for line in lines:
        if NOISE.search(line.text):
            continue
        for rule in rules:
            match = rule.search(line.text)
            if match is not None:
                groups = {name: value for name, value in match.groupdict().items() if value is not None}
                found.append((rule, line, {**groups, "match": match[0]}))
                break
    return found
