"""torchrun's own lines: which worker it saw fail, how, and when. Texts of torch 1.9 to 2.13.

The line about the first failure comes after torchrun has ended the other workers, up to 30 s late; the summary below it
has the time of the failure itself, to the second.
"""

from __future__ import annotations

import re
import signal as signals
from typing import TYPE_CHECKING

import msgspec

from engine.diagnosis.lines import Line, moment

if TYPE_CHECKING:
    from collections.abc import Sequence


FAILED = re.compile(r"failed \(exitcode: (?P<code>-?\d+)\) local_rank: (?P<local>\d+) \(pid: (?P<pid>\d+)\)")
TASK = r"srun: error: \S+: tasks? (?P<rank>\d+)\b[^:]*"
OTHERS = (
    re.compile(r"--local_rank=(?P<local>\d+).{0,2000}\] exits with return code = (?P<code>-?\d+)"),  # deepspeed
    re.compile(r"exits with return code = (?P<code>-?\d+)"),
    re.compile(TASK + r": (?P<how>Killed|Segmentation fault|Aborted|Bus error|Terminated)"),
    re.compile(TASK + r": Exited with exit code (?P<code>\d+)"),
    re.compile(r"mpirun noticed that process rank (?P<rank>\d+) .{0,200} exited on signal (?P<signal>\d+)"),
)
"""What other launchers say, where torchrun says nothing."""
HOW = {"Killed": -9, "Segmentation fault": -11, "Aborted": -6, "Bus error": -7, "Terminated": -15}
CLOSING = re.compile(r"Sending process (?P<pid>\d+) closing signal (?:Signals\.)?(?P<name>SIG[A-Z]+)")
FORCED = re.compile(r"Unable to shutdown process (?P<pid>\d+) via")
DEATH = re.compile(r"Received (?:(?P<number>\d+)|(?:Signals\.)?(?P<name>SIG[A-Z]+)) death signal\b,? ?(?:shutting|$)")
GOT = re.compile(r"SignalException: Process \d+ got signal: (?P<number>\d+)")
ENTRY = re.compile(r"\s*(?P<key>time|host|rank|exitcode|error_file|traceback|msg)\s*: (?P<value>.*)")
RANK = re.compile(r"(?P<rank>\d+) \(local_rank: (?P<local>\d+)\)")
CODE = re.compile(r"(?P<code>-?\d+) \(pid: (?P<pid>\d+)\)")
SUMMARY = re.compile(r"Root Cause \(first observed failure\)|Root Cause:|Failures:$|Other Failures:")
ITEM = re.compile(r"\s*\[\d+\]:\s*$")


class Seen(msgspec.Struct, kw_only=True):
    """One failed worker, as torchrun tells of it. `t` in seconds since the beginning of the year."""

    line: Line
    local_rank: int | None = None
    rank: int | None = None
    code: int | None = None
    pid: int | None = None
    t: float | None = None
    first: bool = False
    summed: bool = False


class Agent(msgspec.Struct):
    """What torchrun on one node wrote. `closed` are the pids that it ended itself, by their signal."""

    failed: list[Seen]
    summary: list[Seen]
    closed: dict[int, str]
    death: tuple[int, Line] | None


def read_agent(lines: Sequence[Line]) -> Agent:
    """What the lines of a node that no rank wrote say about workers."""
    agent = Agent([], [], {}, None)
    entry: Seen | None = None
    first = False
    for line in lines:
        text = line.text
        if found := FAILED.search(text):
            agent.failed.append(
                Seen(line=line, local_rank=int(found["local"]), code=int(found["code"]), pid=int(found["pid"]))
            )
            agent.failed[-1].t = moment(text)
        elif (found := CLOSING.search(text)) or (found := FORCED.search(text)):
            named = found.groupdict().get("name") or "SIGKILL"
            agent.closed[int(found["pid"])] = named
        elif found := DEATH.search(text) or GOT.search(text):
            if agent.death is None:
                agent.death = (_signal(found), line)
        elif SUMMARY.search(text):
            first = text.lstrip().startswith("Root Cause")
            entry = None
        elif ITEM.match(text):
            entry = None
        elif found := ENTRY.match(text):
            key, value = found["key"], found["value"]
            if key == "time":
                entry = Seen(line=line, t=moment(value), first=first, summed=True)
                agent.summary.append(entry)
            elif entry is not None and key == "rank" and (pair := RANK.match(value)):
                entry.rank, entry.local_rank = int(pair["rank"]), int(pair["local"])
            elif entry is not None and key == "exitcode" and (pair := CODE.match(value)):
                entry.code, entry.pid, entry.line = int(pair["code"]), int(pair["pid"]), line
    if not agent.failed:
        agent.failed = [seen for line in lines if (seen := _other(line)) is not None]
    agent.summary = [seen for seen in agent.summary if seen.code is not None]
    return agent


def _other(line: Line) -> Seen | None:
    """A worker that another launcher says has failed."""
    for pattern in OTHERS:
        if found := pattern.search(line.text):
            groups = {"local": None, "rank": None, "code": None, "how": None, "signal": None, **found.groupdict()}
            code = HOW[groups["how"]] if groups["how"] else -int(groups["signal"]) if groups["signal"] else None
            rank = int(groups["rank"]) if groups["rank"] else None
            local = int(groups["local"]) if groups["local"] else rank
            code = int(groups["code"]) if groups["code"] else code
            return Seen(line=line, local_rank=local, rank=rank, code=code, t=moment(line.text)) if code else None
    return None


def _signal(found: re.Match[str]) -> int:
    groups = found.groupdict()
    if groups.get("number"):
        return int(groups["number"])
    return int(getattr(signals, groups["name"], 0))
