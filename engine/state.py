"""What a run looks like now, folded from its events. Pure: no clock, no I/O; the same events give the same state.

Rules:
- A worker is (attempt, node_rank, local_rank); RANK is a label.
- UNREACHABLE is not FAILED: a node's job state changes only by what its journal says, or when it is declared lost.
- Success needs an exit record 0 from every node, and no rank of the last attempt that failed: some launch commands
  (XTuner's) return 0 even then.
"""

from __future__ import annotations

import math
import re
from collections import deque
from typing import TYPE_CHECKING, Literal, NoReturn

import msgspec

from engine import diagnosis, events
from engine.alarms import BASELINE, WARM_UP, Alarm, Beat, alarms
from engine.diagnosis import Failure, Kind, Source, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from engine.plan import Plan

ERROR_FILE = "error.json"
"""The name of the file in which torchelastic keeps how a rank failed, beside the rank's streams."""
KINDS: dict[str, Kind] = {ERROR_FILE: "record", "journal.jsonl": "journal"}
BEATS, FEW_BEATS, MANY = 64, 16, 128
"""Steps kept of a rank for the alarms; of many ranks the first and the last, one of which prints, keep more."""
FIRST_BEATS = WARM_UP + BASELINE
"""And so many of its first ones: what a throughput falls from."""
BUSY = 90.0
"""Percent of a node's processors in use that tell why a rank there is late."""
MEASURED = tuple(field.name for field in msgspec.structs.fields(events.Metric) if field.default is None)
ALARMS_EVERY = 5.0
PLACE = re.compile(r"attempt_(\d+)/(\d+)/")

WorkerKey = tuple[int, int, int]
JOB_FAILED = frozenset({"TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE"})
"""States of a batch system's job in which not the user has stopped it."""
Outcome = Literal["running", "succeeded", "failed", "stopped"]


class WorkerState(msgspec.Struct):
    """One rank: `ended` in unix seconds of its node's clock."""

    key: WorkerKey
    rank: int
    pid: int = 0
    started: float = 0.0
    ended: float | None = None
    code: int | None = None
    signal: int | None = None
    metric: events.Metric | None = None
    measured: tuple[bool, ...] = ()
    """Which fields of `metric` are known; see `_measured`."""
    beats: deque[Beat] | None = None

    @property
    def failed(self) -> bool:
        """Seen to end badly; of an end that nobody could see, the launch command's own tells more."""
        return self.ended is not None and (self.signal is not None or self.code not in (None, 0))


class NodeState(msgspec.Struct):
    """One node: `link` is our conversation with it, `job` what is known of its part of the run."""

    node_rank: int
    host: str
    link: Literal["none", "open", "broken"] = "none"
    link_text: str = ""
    clock: float = 0.0
    supervisor: events.Supervisor | None = None
    torchrun_exit: events.TorchrunExit | None = None
    stopping: float | None = None
    finished: events.Finished | None = None
    lost: str = ""
    lost_at: float = 0.0
    swept: events.Swept | None = None
    streams: dict[str, events.Stream] = {}
    warnings: list[str] = []
    clues: list[events.Clue] = []
    sample: events.Sample | None = None

    @property
    def over(self) -> bool:
        return self.finished is not None or bool(self.lost)


class RunState:
    """The fold. `logs` are the ends of what torchrun and the ranks wrote, by (node_rank, stream); see `hear`."""

    def __init__(self, plan: Plan, max_restarts: int = 0) -> None:
        self.plan = plan
        self.max_restarts = max_restarts
        self.nodes = {n.node_rank: NodeState(n.node_rank, n.host) for n in plan.nodes}
        self.workers: dict[WorkerKey, WorkerState] = {}
        self.attempt = 0
        self.findings: list[events.Finding] = []
        self.stop_reason: str | None = None
        self.started: float | None = None
        self.metric: events.Metric | None = None
        self.ended: events.Ended | None = None
        self.job: events.Job | None = None
        self.logs: dict[tuple[int, str], Source] = {}
        self._beats: dict[int | None, deque[Beat]] = {}
        self._first_beats: dict[int | None, list[Beat]] = {}
        self._alarms: tuple[float, bool, list[Alarm]] = (-math.inf, False, [])
        self._judged: Verdict | None = None
        self._judge = False

    def apply(self, event: events.AnyEvent) -> None:
        """Fold one event in. Events of one node come in the order of its journal; nodes may interleave in any way."""
        if isinstance(event, events.Metric):  # first: of thousands of ranks there are thousands a second
            self._progress(event)
            return
        self._judge = True
        node = self.nodes.get(event.node_rank)
        if node is None:
            if isinstance(event, events.Finding):
                self.findings.append(event)
            elif isinstance(event, events.Ended):
                self.ended = event
            elif isinstance(event, events.Job):
                self.job = event
            return
        match event:
            case events.Finding():
                self.findings.append(event)
            case events.Reached():
                node.link, node.link_text, node.clock = "open", "", event.clock
            case events.Unreachable():
                node.link, node.link_text = "broken", event.text
            case events.Lost():
                if node.finished is None:
                    node.lost, node.lost_at = event.text or "lost", event.t
            case events.Sample():
                node.sample = event
            case events.Launched() | events.Ended() | events.Job() | events.Torchrun():
                pass
            case events.StopSent():
                self.stop_reason = self.stop_reason or event.reason
            case events.Supervisor():
                node.supervisor = event
                node.host = node.host if node.host in ("", event.host) or not event.known_as else event.host
                if event.restart:
                    # The batch system has started the job anew: what ended before is an attempt, and not the run.
                    node.finished = node.torchrun_exit = node.stopping = None
                    node.lost = ""
                    self.ended = None
                began = event.t - node.clock
                self.started = min(self.started or began, began)
            case events.Stream():
                node.streams[event.path] = event
            case events.Worker():
                key = (event.attempt, event.node_rank, event.local_rank)
                self.workers[key] = WorkerState(key, event.rank, event.pid, event.t)
                self.attempt = max(self.attempt, event.attempt)
            case events.WorkerExit():
                worker = self._worker(event.attempt, event.node_rank, event.local_rank, event.rank)
                worker.ended, worker.code, worker.signal = event.t, event.code, event.signal
            case events.Stop():
                node.stopping = event.t
                self.stop_reason = self.stop_reason or event.reason
            case events.TorchrunExit():
                node.torchrun_exit = event
            case events.Swept():
                node.swept = event
            case events.Warning():
                node.warnings.append(event.text)
            case events.Clue():
                node.clues.append(event)
            case events.Finished():
                node.finished, node.lost = event, ""
            case _:
                _unhandled(event)

    def fold(self, history: Iterable[events.AnyEvent]) -> RunState:
        for event in history:
            self.apply(event)
        return self

    @property
    def over(self) -> bool:
        return all(node.over for node in self.nodes.values())

    @property
    def over_at(self) -> float | None:
        """When the last node was over, in unix seconds on the workstation's clock; None while one is not."""
        ends = [n.finished.t - n.clock if n.finished else n.lost_at for n in self.nodes.values()]
        return max(ends) if self.over else None

    @property
    def outcome(self) -> Outcome:
        """`failed` when something failed before any stop; `stopped` when a stop came first."""
        if not self.over:
            return self.ended.outcome if self.ended is not None else "running"
        if all(n.finished is not None and n.finished.code == 0 for n in self.nodes.values()) and not self._broken:
            return "succeeded"
        if self.job is not None and self.job.state in JOB_FAILED:
            return "failed"
        stops = [n.stopping - n.clock for n in self.nodes.values() if n.stopping is not None]
        # Where a rank fails first, Slurm calls the job failed; what cancels it may reach a rank before its supervisor.
        by_itself = any(worker.failed and worker.signal is None for worker in self.workers.values())
        if self.job is not None and self.job.state == "CANCELLED" and not by_itself:
            return "stopped"
        root = self.verdict()
        if stops and (root is None or root.t >= min(stops)):
            return "stopped"
        return "failed"

    @property
    def final_failure(self) -> Failure | None:
        """A failure that no restart mends: the run as a whole cannot succeed any more."""
        for failure in self.failures():
            if failure.kind != "worker" or failure.attempt >= self.max_restarts:
                return failure
        return None

    def verdict(self) -> Verdict | None:
        """The first real failure over all nodes; judged again only when something new is known."""
        if self._judge:
            self._judge = False
            hosts = {node.node_rank: node.host for node in self.nodes.values()}
            failures = self.failures()
            logs = [*self.logs.values(), *self._clues()] if failures else []
            self._judged = diagnosis.diagnose(logs, failures, hosts, self.plan.run)
        return self._judged

    def _progress(self, event: events.Metric) -> None:
        worker = self.workers.get((event.attempt, event.node_rank, event.local_rank))
        if worker is None:
            if event.node_rank not in self.nodes:
                return
            worker = self._worker(event.attempt, event.node_rank, event.local_rank, -1)
        old, measured, step = worker.metric, _measured(event), event.step
        if step is not None and (old is None or old.step != step):
            self._beat(worker, event)
        if old is not None and (measured != worker.measured or old.extra or event.extra):
            event = _merged(old, event)
            measured = _measured(event)
        worker.metric, worker.measured = event, measured
        if self.metric is None or _newer(event, self.metric):
            self.metric = event

    def _beat(self, worker: WorkerState, metric: events.Metric) -> None:
        beats = worker.beats
        if beats is None:
            ends = min(worker.rank, self.plan.world_size - 1 - worker.rank)
            new: deque[Beat] = deque(maxlen=BEATS if ends < MANY else FEW_BEATS)
            beats = worker.beats = self._beats.setdefault(worker.rank, new)
        if len(beats) == BEATS and len(first := self._first_beats.setdefault(worker.rank, [])) < FIRST_BEATS:
            first.append(beats[0])
        beats.append(
            Beat(
                step=metric.step,
                loss=_number(metric.loss),
                rate=_number(metric.rate),
                unit=metric.rate_unit,
                step_time=_number(metric.step_time),
                data_time=_number(metric.data_time),
                comm_time=_number(metric.comm_time),
                t=metric.t - self.nodes[metric.node_rank].clock,
            )
        )

    def alarms(self, now: float) -> list[Alarm]:
        """What the ranks' progress says; `now` in unix seconds. Judged again after ALARMS_EVERY, and at the end."""
        judged, was_over, found = self._alarms
        if self.over != was_over or not 0 <= now - judged < ALARMS_EVERY:
            ranks = {rank: [*self._first_beats.get(rank, ()), *beats] for rank, beats in self._beats.items()}
            going_on = not self.failures() and any(worker.ended is None for worker in self.workers.values())
            found = alarms(ranks, now if going_on and not self.over else None)
            found = [self._with_more(one) for one in found]
            self._alarms = (now, self.over, found)
        return found

    def _with_more(self, alarm: Alarm) -> Alarm:
        """A stall with the way to a stack, a straggler with what its host is busy with."""
        if alarm.kind == "stall":
            return self._with_stack(alarm)
        if alarm.kind != "straggler":
            return alarm
        places = {worker.key[1] for worker in self.workers.values() if worker.rank == alarm.rank}
        samples = {rank: node.sample.cpu for rank, node in self.nodes.items() if node.sample and node.sample.cpu}
        busy = max((samples.get(place, 0.0) for place in places), default=0.0)
        others = [cpu for place, cpu in samples.items() if place not in places]
        if busy < BUSY or (others and busy < 1.2 * max(others)):
            return alarm
        host = self.nodes[min(places)].host
        return msgspec.structs.replace(alarm, text=f"{alarm.text}; the processors of {host} are {busy:.0f}% busy")

    def _with_stack(self, stall: Alarm) -> Alarm:
        """A stall with the command that shows where the rank stands."""
        workers = [w for w in self.workers.values() if w.ended is None and w.pid and stall.rank in (None, w.rank)]
        if not workers:
            return stall
        host, pid = self.nodes[workers[0].key[1]].host, workers[0].pid
        text = (
            f"{stall.text}; where rank {workers[0].rank} stands, if py-spy is there: ssh {host} py-spy dump --pid {pid}"
        )
        return msgspec.structs.replace(stall, text=text)

    def _clues(self) -> Iterator[Source]:
        """What the kernels said, as logs of their own."""
        for node in self.nodes.values():
            for source in sorted({clue.source for clue in node.clues}):
                text = "\n".join(clue.text for clue in node.clues if clue.source == source)
                yield Source(name=f"{node.host}: {source}", node_rank=node.node_rank, data=text.encode(), kind="system")

    def hear(self, node_rank: int, stream: str, data: bytes, line: int = 1, offset: int = 0) -> None:
        """Take the end of a log for the verdict: `data` begins at this line (from 1) and byte of the stream."""
        about = self.nodes[node_rank].streams.get(stream)
        found = PLACE.search(stream)
        self._judge = True
        self.logs[node_rank, stream] = Source(
            name=f"n{node_rank}/{stream}",
            node_rank=node_rank,
            data=data,
            kind=KINDS.get(stream.rpartition("/")[2], "worker" if found else "console"),
            local_rank=int(found[2]) if found else None,
            rank=self.rank_of(node_rank, about) if about is not None else None,
            attempt=int(found[1]) if found else 0,
            line=line,
            offset=offset,
        )

    def failures(self) -> list[Failure]:
        """Every failure, on the workstation's clock."""
        found = []
        for worker in self.workers.values():
            attempt, node_rank, local_rank = worker.key
            if worker.failed and worker.ended is not None:
                node = self.nodes[node_rank]
                found.append(
                    Failure(
                        kind="worker",
                        t=worker.ended - node.clock,
                        node_rank=node_rank,
                        host=node.host,
                        attempt=attempt,
                        local_rank=local_rank,
                        rank=worker.rank,
                        code=worker.code,
                        signal=worker.signal,
                        after_stop=self._after(node, worker.ended),
                    )
                )
        for node in self.nodes.values():
            if node.lost:
                kind: Literal["lost", "torchrun"] = "lost"
                found.append(Failure(kind, node.lost_at, node.node_rank, node.host, tail=(node.lost,)))
                continue
            ended = node.torchrun_exit or node.finished
            if ended is not None and ended.code != 0:
                found.append(
                    Failure(
                        kind="torchrun",
                        t=ended.t - node.clock,
                        node_rank=node.node_rank,
                        host=node.host,
                        attempt=self.max_restarts,
                        code=ended.code,
                        signal=ended.signal,
                        after_stop=node.stopping is not None and ended.t >= node.stopping,
                    )
                )
        return sorted(found, key=lambda f: (f.t, f.node_rank, f.kind != "worker", f.attempt, f.local_rank or 0))

    @property
    def _broken(self) -> bool:
        """Did a rank fail in the last attempt of its node, by itself?"""
        last: dict[int, int] = {}
        for attempt, node_rank, _ in self.workers:
            last[node_rank] = max(attempt, last.get(node_rank, 0))
        return any(worker.failed and worker.key[0] == last[worker.key[1]] for worker in self.workers.values())

    def stderr_stream(self, node_rank: int, attempt: int, local_rank: int) -> str | None:
        """The name of the stream a worker writes its errors to."""
        for path, stream in self.nodes[node_rank].streams.items():
            if (stream.attempt, stream.local_rank, stream.stream) == (attempt, local_rank, "stderr"):
                return path
        return None

    def rank_of(self, node_rank: int, stream: events.Stream) -> int:
        """RANK of the worker behind a stream; by the plan until the worker has been seen."""
        worker = self.workers.get((stream.attempt, node_rank, stream.local_rank))
        if worker is not None and worker.rank >= 0:
            return worker.rank
        return self.plan.nodes[node_rank].first_rank + stream.local_rank

    def _after(self, node: NodeState, t: float) -> bool:
        """Did it end because its own node was being stopped, or because torchrun there was gone already?"""
        gone = node.torchrun_exit
        return (node.stopping is not None and t >= node.stopping) or (gone is not None and t >= gone.t)

    def _worker(self, attempt: int, node_rank: int, local_rank: int, rank: int) -> WorkerState:
        key = (attempt, node_rank, local_rank)
        worker = self.workers.get(key)
        if worker is None:
            worker = self.workers[key] = WorkerState(key, rank)
        return worker


def _newer(metric: events.Metric, than: events.Metric) -> bool:
    """The run's progress is that of the rank that reports a step, of the newest attempt, furthest on."""
    step, furthest = metric.step, than.step
    if metric.attempt != than.attempt:
        return metric.attempt > than.attempt
    if step != furthest:
        return furthest is None or (step is not None and step > furthest)
    return metric.loss is not None or than.loss is None


def _measured(m: events.Metric) -> tuple[bool, ...]:
    """Which of MEASURED a metric has; written out, at a third of the cost of asking for each by its name."""
    return (
        m.step is not None,
        m.total is not None,
        m.epoch is not None,
        m.loss is not None,
        m.lr is not None,
        m.grad_norm is not None,
        m.step_time is not None,
        m.data_time is not None,
        m.comm_time is not None,
        m.rate is not None,
        m.memory_gib is not None,
        m.eta is not None,
        m.mfu is not None,
        m.tflops is not None,
    )


def _merged(old: events.Metric, new: events.Metric) -> events.Metric:
    """What is known of a rank after its newest line: lines speak of different things, and each says its own newest."""
    kept = {
        name: value for name in MEASURED if getattr(new, name) is None and (value := getattr(old, name)) is not None
    }
    if not kept and old.extra.keys() <= new.extra.keys():
        return new
    if "rate" in kept:
        kept["rate_unit"] = old.rate_unit
    return msgspec.structs.replace(new, **kept, extra={**old.extra, **new.extra})


def _number(value: float | str | None) -> float | None:
    return value if value is None or value.__class__ is float else float(value)


def _unhandled(event: NoReturn) -> NoReturn:
    raise AssertionError(event)
