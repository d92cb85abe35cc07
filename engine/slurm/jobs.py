"""What Slurm says of a job: the texts of squeue, scontrol and sacct become one `Job`. Pure.

Order of belief: squeue while it knows the job, then accounting, then the controller's own memory. Job numbers are used
again, so a line counts only if it is about our job: by its comment, or by name and time where there is no comment.
An empty answer means "not visible yet", never "gone".

Sources: squeue(1), JOB STATE CODES; sacct(1); slurm.h of 22.05 (JobState and its flags)
"""

from __future__ import annotations

import calendar
import re
import time
from typing import TYPE_CHECKING, Any

import msgspec

from engine.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

WAITING = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
)
ACTIVE = frozenset({"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"})
GONE = "GONE"
"""Not Slurm's but ours: a job that Slurm has forgotten."""
ENDED = frozenset(
    {
        GONE,
        "COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE",
        "OUT_OF_MEMORY", "REVOKED",
    }
)  # fmt: skip
UNNAMED = "allocation"
"""What accounting calls a job for some seconds, where it hears of its end before its beginning."""
_SKEW = 120.0
"""Seconds by which the controller's clock may be behind ours."""
_PAIR = re.compile(r"([A-Za-z/:&_-]+)=(\S*)")


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job at a moment. Times in unix seconds of the controller's clock, 0.0 where unknown.

    `starts` is when it began, or while it waits, when Slurm expects it to. `by` is the user id that cancelled it.
    """

    id: str
    state: str
    reason: str = ""
    submitted: float = 0.0
    starts: float = 0.0
    ends: float = 0.0
    nodes: str = ""
    code: int | None = None
    signal: int | None = None
    restarts: int = 0
    by: str = ""

    @property
    def waiting(self) -> bool:
        return self.state in WAITING

    @property
    def ended(self) -> bool:
        return self.state in ENDED


class Sought(msgspec.Struct, frozen=True, kw_only=True):
    """The job that is meant: by its comment `run`, or without one by number, name ("" for any) and time.

    `since` is when it was submitted, in unix seconds of the controller's clock; a requeue submits it again, later.
    """

    id: str
    name: str
    since: float
    run: str = ""

    def named(self, id: str, name: str, submitted: float) -> bool:
        return id == self.id and self.name in ("", name) and submitted >= self.since - _SKEW

    def fits(self, comment: str, id: str, name: str, submitted: float) -> bool:
        return comment == self.run if self.run else self.named(id, name, submitted)


def read(said: Mapping[str, Any], sought: Sought) -> Job | None:
    """The job out of the answer of the node's `look`; None while Slurm shows nothing of it."""
    queued = _from_squeue(_text(said, "squeue"), sought)
    shown = _from_scontrol(_text(said.get("scontrol", {}), sought.id), sought)
    if queued is not None and not queued.ended:
        return msgspec.structs.replace(queued, restarts=shown.restarts) if shown is not None else queued
    accounted = _from_sacct(_text(said, "sacct"), sought)
    for known in (accounted, shown, queued):
        if known is not None and known.id == sought.id:
            return known
    return queued


def refusal(said: Mapping[str, Any]) -> str:
    """Why squeue said nothing, "" where it did."""
    squeue = said.get("squeue")
    if not isinstance(squeue, dict) or squeue.get("code") == 0:
        return ""
    return clean(str(squeue.get("err", "")), 300).strip() or "squeue failed"


def _text(said: Any, command: str) -> str:
    answer = said.get(command) if isinstance(said, dict) else None
    if not isinstance(answer, dict) or answer.get("code") != 0:
        return ""
    return str(answer.get("out", ""))


def _rows(text: str, count: int) -> Iterator[list[str]]:
    for line in text.split("\n"):
        fields = [clean(field, 200) for field in line.split("\x1f")]
        if len(fields) >= count:
            yield fields


def _job(
    id: str, state: str, reason: str, times: tuple[str, str, str], nodes: str, ended: str = "", **more: Any
) -> Job:
    """What all three say in their own order; `times` are submitted, starts, ends."""
    submitted, starts, ends = map(moment, times)
    code, signal = _exit(ended)
    return Job(
        id=id, state=state, reason="" if reason == "None" else reason, nodes="" if nodes == "(null)" else nodes,
        submitted=submitted, starts=starts, ends=ends, code=code, signal=signal, **more,
    )  # fmt: skip


def _from_squeue(text: str, sought: Sought) -> Job | None:
    """Of a heterogeneous job, its first part: the others share its fate."""
    for number, _, state, reason, comment, submitted, starts, ends, nodes, *name in _rows(text, 10):
        if sought.fits(comment, number, "\x1f".join(name), moment(submitted)):
            return _job(number, state, reason, (submitted, starts, ends), nodes)
    return None


def _from_scontrol(text: str, sought: Sought) -> Job | None:
    for line in text.split("\n"):
        pairs = {key: clean(value, 200) for key, value in _PAIR.findall(line)}
        id, state, reason, nodes = (pairs.get(key, "") for key in ("JobId", "JobState", "Reason", "NodeList"))
        times = (pairs.get("SubmitTime", ""), pairs.get("StartTime", ""), pairs.get("EndTime", ""))
        # A name is told up to its first blank.
        name = sought.name if pairs.get("JobName") == sought.name.partition(" ")[0] else ""
        if sought.fits(pairs.get("Comment", ""), id, name, moment(times[0])):
            restarts = int(pairs["Restarts"]) if pairs.get("Restarts", "").isdigit() else 0
            return _job(id, state, reason, times, nodes, pairs.get("ExitCode", ""), restarts=restarts)
    return None


def _from_sacct(text: str, sought: Sought) -> Job | None:
    """The newest line of the job: a requeue leaves one for each of its lives."""
    found = None
    for number, state, ended, submitted, starts, ends, nodes, reason, *words in _rows(text, 9):
        name = "\x1f".join(words)
        if sought.named(number, sought.name if name == UNNAMED else name, moment(submitted)):
            state, _, by = state.partition(" by ")
            found = _job(number, state, reason, (submitted, starts, ends), nodes, ended, by=by)
    return found


def _exit(text: str) -> tuple[int | None, int | None]:
    """Slurm's CODE:SIGNAL."""
    code, _, number = text.partition(":")
    if not code.isdigit():
        return None, None
    return (None, int(number)) if number.isdigit() and int(number) else (int(code), None)


def moment(text: str) -> float:
    """Slurm's time, which our program there asks for in UTC, as unix seconds; 0.0 for Unknown and N/A."""
    try:
        return float(calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        return 0.0
