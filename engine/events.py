"""Everything that can happen in a run, and its JSON-lines form.

Rules that keep this sane:
- An event is frozen and says when (`t`, unix seconds by the clock of whoever wrote it) and where (`node_rank`, or -1).
- What a node's supervisor writes into its journal is an event without `node_rank`; the reader adds it.
- What the workstation observes goes through the same codec, so a run is folded from files alone.
- A node may be newer than we are: an unknown type or a line that is junk decodes to None, an unknown field is ignored.
- What a node writes is hostile: its text is made safe to show here, once, and a stream has one of the known names.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

from engine.node.tail import STREAM
from engine.text import clean

RECORD_LIMIT = 1 << 20
"""Bytes of one record; a longer line is junk or hostile."""

Number = float | Literal["nan", "inf", "-inf"]
"""What JSON can carry of a float: the three that it lacks go as words."""


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """Base of every event: `t` in unix seconds, `node_rank` or -1 where no node is meant."""

    t: float
    node_rank: int = -1


# ---- written by the supervisor on a node ---------------------------------------------------------------------------


class Supervisor(Event, frozen=True, kw_only=True, tag="supervisor"):
    """The supervisor runs. `start` is field 22 of /proc/PID/stat, `boot` the kernel's boot id.

    Below a batch system `known_as` is its name for the job, and `restart` counts how often it began anew.
    """

    pid: int
    start: int
    boot: str = ""
    host: str = ""
    python: str = ""
    version: str = ""
    restart: int = 0
    known_as: str = ""


class Torchrun(Event, frozen=True, kw_only=True, tag="torchrun"):
    """The launch command of this node runs."""

    pid: int
    start: int


class Stream(Event, frozen=True, kw_only=True, tag="stream"):
    """A rank writes to this log file; `path` is relative to the run folder of the node."""

    path: str
    attempt: int
    local_rank: int
    stream: Literal["stdout", "stderr"]


class Worker(Event, frozen=True, kw_only=True, tag="worker"):
    """A rank runs."""

    attempt: int
    local_rank: int
    rank: int
    pid: int
    start: int


class WorkerExit(Event, frozen=True, kw_only=True, tag="worker_exit"):
    """A rank ended, with an exit code or by a signal; neither when nobody could see it."""

    attempt: int
    local_rank: int
    rank: int
    pid: int
    code: int | None = None
    signal: int | None = None


class Metric(Event, frozen=True, kw_only=True, tag="metric", gc=False):
    """The newest progress line of a rank, at most one a second. Times in seconds, memory in GiB, `mfu` in percent.

    Of a step's time, `data_time` is spent waiting for data, and `comm_time` for other ranks.
    """

    attempt: int
    local_rank: int
    step: int | None = None
    total: int | None = None
    epoch: float | None = None
    loss: Number | None = None
    lr: Number | None = None
    grad_norm: Number | None = None
    step_time: Number | None = None
    data_time: Number | None = None
    comm_time: Number | None = None
    rate: Number | None = None
    rate_unit: str = ""
    memory_gib: Number | None = None
    eta: Number | None = None
    mfu: Number | None = None
    tflops: Number | None = None
    extra: dict[str, Number] = {}


class Stop(Event, frozen=True, kw_only=True, tag="stop"):
    """The supervisor has read a request to stop; `grace` in seconds."""

    reason: str = ""
    grace: float = 0.0


class TorchrunExit(Event, frozen=True, kw_only=True, tag="torchrun_exit"):
    """The launch command ended."""

    code: int | None = None
    signal: int | None = None


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """A process of the run that could not be removed."""

    pid: int
    comm: str = ""
    state: str = ""


class Swept(Event, frozen=True, kw_only=True, tag="swept"):
    """What the sweep after the end found: processes killed, and those that would not go."""

    killed: int = 0
    left: tuple[Left, ...] = ()


class Warning(Event, frozen=True, kw_only=True, tag="warning"):
    """Something to know that changes nothing."""

    text: str


class Clue(Event, frozen=True, kw_only=True, tag="clue"):
    """What the kernel of a node says of an end; `source` is memory.events or kernel log."""

    source: str
    text: str


class Finished(Event, frozen=True, kw_only=True, tag="finished"):
    """The exit record of a node, always the last line of its journal."""

    code: int | None = None
    signal: int | None = None
    stopped: bool = False


# ---- observed by the workstation -----------------------------------------------------------------------------------


class Finding(Event, frozen=True, kw_only=True, tag="finding"):
    """One judgement of preflight."""

    check: str
    severity: str
    host: str = ""
    text: str = ""
    evidence: tuple[str, ...] = ()
    remedy: str = ""


class Reached(Event, frozen=True, kw_only=True, tag="reached"):
    """A conversation with the node is open. `clock` = node's clock minus ours, `clock_error` its bound, seconds."""

    host: str
    latency: float = 0.0
    clock: float = 0.0
    clock_error: float = 0.0


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU at a moment: `util` in percent, memory in bytes, `power` in watts, `temperature` in °C; None: unknown."""

    index: int
    name: str = ""
    util: float | None = None
    memory: float | None = None
    memory_total: float | None = None
    power: float | None = None
    temperature: float | None = None


class Sample(Event, frozen=True, kw_only=True, tag="sample"):
    """What a node does at a moment, sent while somebody watches and kept nowhere.

    `cpu` and `memory` in percent of the whole machine; network and RDMA in bytes/s, the loopback left out.
    """

    cpu: float | None = None
    memory: float | None = None
    net_in: float | None = None
    net_out: float | None = None
    rdma_in: float | None = None
    rdma_out: float | None = None
    gpus: tuple[Gpu, ...] = ()


class Unreachable(Event, frozen=True, kw_only=True, tag="unreachable"):
    """The conversation broke or cannot be opened. The job on that node may well run on."""

    host: str
    text: str = ""


class Lost(Event, frozen=True, kw_only=True, tag="lost"):
    """The node's part of the run is over without an exit record: power, reboot, or the supervisor was killed."""

    host: str
    text: str = ""


class Launched(Event, frozen=True, kw_only=True, tag="launched"):
    """The supervisor of this node answered that the launch command runs."""

    host: str


class StopSent(Event, frozen=True, kw_only=True, tag="stop_sent"):
    """We asked a node to stop."""

    host: str
    reason: str = ""
    grace: float = 0.0


class Job(Event, frozen=True, kw_only=True, tag="job"):
    """What the batch system says of the run's job; `text` in words. `starts` and `ends` in unix seconds, 0.0 unknown:
    of a job that waits, when it is expected to start. `code` or `signal` is how its script ended, where it is told."""

    id: str
    state: str
    reason: str = ""
    text: str = ""
    nodes: str = ""
    submitted: float = 0.0
    starts: float = 0.0
    ends: float = 0.0
    restarts: int = 0
    code: int | None = None
    signal: int | None = None


class Ended(Event, frozen=True, kw_only=True, tag="ended"):
    """The run is over: on every node, or because it could not be started on all of them."""

    outcome: Literal["succeeded", "failed", "stopped"]
    text: str = ""


NodeRecord = (
    Supervisor
    | Torchrun
    | Stream
    | Worker
    | WorkerExit
    | Metric
    | Stop
    | TorchrunExit
    | Swept
    | Warning
    | Clue
    | Finished
)
SessionEvent = Finding | Sample | Reached | Unreachable | Lost | Launched | StopSent | Job | Ended
AnyEvent = NodeRecord | SessionEvent

_JUNK = (msgspec.DecodeError, RecursionError, ValueError)
_any = msgspec.json.Decoder(AnyEvent)
_record = msgspec.json.Decoder(NodeRecord)


def encode(event: Event) -> bytes:
    """One line, newline included."""
    return msgspec.json.encode(event) + b"\n"


def decode(line: bytes) -> AnyEvent | None:
    """An event that we wrote; None for junk."""
    try:
        return _any.decode(line) if len(line) <= RECORD_LIMIT else None
    except _JUNK:
        return None


def decode_record(line: bytes, node_rank: int) -> NodeRecord | None:
    """A journal line of a node; None for junk. The node cannot speak for another node, nor as the workstation."""
    try:
        record: NodeRecord | None = _record.decode(line) if len(line) <= RECORD_LIMIT else None
    except _JUNK:
        return None
    if record is None or not math.isfinite(record.t):
        return None
    if isinstance(record, Stream) and not STREAM.fullmatch(record.path):
        return None
    placed: NodeRecord = msgspec.structs.replace(record, node_rank=node_rank, **_safe(record))
    return placed


def decode_sample(fields: Any, node_rank: int) -> Sample | None:
    """A node's sample out of what it sent; None for junk."""
    try:
        sample = msgspec.convert(fields, Sample)
    except msgspec.ValidationError:
        return None
    gpus = tuple(msgspec.structs.replace(gpu, name=clean(gpu.name, 64)) for gpu in sample.gpus[:64])
    numbers = (value for gpu in (sample, *gpus) for value in msgspec.structs.astuple(gpu) if isinstance(value, float))
    if not all(map(math.isfinite, numbers)):
        return None
    return msgspec.structs.replace(sample, node_rank=node_rank, gpus=gpus)


def _safe(record: NodeRecord) -> dict[str, Any]:
    """The fields of a record that hold a node's own words, made safe to show."""
    if isinstance(record, Metric):
        return {"rate_unit": clean(record.rate_unit, 32), "extra": {clean(k, 64): v for k, v in record.extra.items()}}
    if isinstance(record, Supervisor):
        return {name: clean(getattr(record, name), 256) for name in ("boot", "host", "python", "version", "known_as")}
    if isinstance(record, Stop):
        return {"reason": clean(record.reason)}
    if isinstance(record, Clue):
        return {"source": clean(record.source, 64), "text": clean(record.text)}
    if isinstance(record, Warning):
        return {"text": clean(record.text)}
    if isinstance(record, Swept):
        return {"left": tuple(safe_left(left) for left in record.left)}
    return {}


def safe_left(left: Left) -> Left:
    """A process that a node could not remove, with names that are safe to show."""
    return Left(pid=left.pid, comm=clean(left.comm, 32), state=clean(left.state, 8))
