"""A job that came about without Rankdeck, watched by its number: its output, metrics, nodes and end.

None of our supervisors is there. What they would have journaled comes from Slurm (that it runs, and how it ended) and
from the job's own output, read here for metrics; its script counts as one rank, on the job's first node.
"""

from __future__ import annotations

import math
import re
import time
from typing import TYPE_CHECKING, Any

import msgspec

from engine import events
from engine.node.metrics import MetricReader
from engine.plan import NodePlan, Plan
from engine.profile import Profile, Program, Slurm
from engine.runs import Record
from engine.slurm import jobs
from engine.slurm.session import JobSession
from engine.text import clean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.state import RunState

OUTPUT = {name: f"ranks/job/attempt_0/0/{name}.log" for name in ("stdout", "stderr")}
HEARD = 64 * 1024
"""Bytes at the end of what is here already from which metrics are read again."""


def record_of(said: Mapping[str, Any], login: str, state_dir: str) -> Record | None:
    """The record of a job out of the answer of the node's `adopt`; None where it makes no sense."""
    shown = str(said.get("shown", ""))
    told = dict(re.findall(r"(\w+)=(\S+)", shown))
    name = re.search(r"^JobId=.* JobName=(.*)$", shown, re.MULTILINE)
    if name is None:
        return None
    hosts = [clean(str(host), 200) for host in said.get("hosts", ())]
    count = int(told["NumNodes"]) if told.get("NumNodes", "").isdigit() else 1
    hosts = hosts or [f"node {rank}" for rank in range(min(count, 10_000))]
    called = clean(name[1], 200)
    return Record(
        run=str(said.get("run", "")),
        created=jobs.moment(told.get("SubmitTime", "")),
        profile=Profile(
            version=1, name=called, launcher="slurm", program=Program(path="-"),
            slurm=Slurm(login=login, nodes=len(hosts)), state_dir=state_dir,
        ),
        plan=Plan(
            run=str(said.get("run", "")), profile_name=called, master_addr="", master_port=0, world_size=len(hosts),
            nodes=tuple(NodePlan(node_rank=i, host=h, nproc=1, first_rank=i, script="") for i, h in enumerate(hosts)),
        ),
    )  # fmt: skip


class AdoptedSession(JobSession):
    """Watch a job whose record has no script of ours; stop it."""

    async def watch(self, *args: Any, **more: Any) -> RunState:
        self._readers = {path: MetricReader() for path in OUTPUT.values()}
        for name, path in OUTPUT.items():
            self._take(events.Stream(t=0.0, node_rank=0, path=path, attempt=0, local_rank=0, stream=name))  # type: ignore[arg-type]
            mirror = self.folder.mirror(0, path)
            self._read(path, mirror.read(max(0, mirror.size - HEARD), HEARD))
            mirror.close()
        return await super().watch(*args, **more)

    def _sought(self, number: str, clock: float) -> jobs.Sought:
        return jobs.Sought(id=number, name=self.record.profile.name, since=self.record.created)

    def _evidence(self, rank: int) -> set[str]:
        """The output comes here whoever looks, for its metrics."""
        return set(OUTPUT.values()) if rank == 0 else set()

    def _show(self, node_rank: int, stream: str, data: bytes) -> None:
        super()._show(node_rank, stream, data)
        self._read(stream, data)

    def _read(self, stream: str, data: bytes) -> None:
        reader = self._readers.get(stream)
        for fields in reader.feed(data) if reader is not None else ():
            known = {name: _plain(value) for name, value in fields.items()}
            try:
                metric = msgspec.convert({"t": time.time(), "attempt": 0, "local_rank": 0, **known}, events.Metric)
            except msgspec.ValidationError:
                continue
            self._take(msgspec.structs.replace(metric, node_rank=0))

    def _take(self, event: events.AnyEvent) -> None:
        super()._take(event)
        if isinstance(event, events.Job) and event.starts and event.state not in jobs.WAITING:
            self._began(event.starts)

    def _began(self, t: float) -> None:
        """Slurm says that it runs, and since when: as the supervisors of the nodes would."""
        for rank, node in self.state.nodes.items():
            if node.supervisor is None:
                self._take(events.Supervisor(t=t, node_rank=rank, pid=0, start=0, host=node.host))
        if not self.state.workers:
            self._take(events.Worker(t=t, node_rank=0, attempt=0, local_rank=0, rank=0, pid=0, start=0))

    def _node_ended(self, rank: int) -> None:
        """All is read. A script that came to its end has left its exit with Slurm; others are lost with their node."""
        job = self.state.job
        if job is not None and job.state in ("COMPLETED", "FAILED"):
            code = 0 if job.state == "COMPLETED" else job.code
            ended: dict[str, Any] = {"t": job.ends, "node_rank": rank, "code": code, "signal": job.signal}
            if rank == 0:
                self._take(events.WorkerExit(**ended, attempt=0, local_rank=0, rank=0, pid=0))
            self._take(events.Finished(**ended))
        super()._node_ended(rank)


def _plain(value: Any) -> Any:
    """nan and inf as events carry them."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value
