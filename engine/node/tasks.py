"""The ranks of one node as Slurm's tasks: each writes down its start and its end, and this reads and journals them.

ranks/<job>_<restart>/attempt_<n>/<local_rank>/
    stdout.log, stderr.log    what the rank writes
    task.jsonl                {"pid", "start", "rank", "t"} and at its end {"code", "signal", "t"}
The same names as below torchrun, so that whoever reads logs need not know who started the ranks.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, Dict, List, Optional

from engine.node import proc
from engine.node.journal import Journal
from engine.node.ranks import UNSEEN, Poller, Stream, Worker
from engine.node.supervise import Life

LOOK_SECONDS = 0.1
SETTLED_LOOK_SECONDS = 1.0
WRITE_SECONDS = 2.0
"""Seconds after the end of a rank within which its task has written how it ended."""


def task_folder(life: Life) -> str:
    """The folder of one life of the job, relative to the run folder."""
    return os.path.join("ranks", "%s_%d" % (life.known_as, life.restart), "attempt_%d" % life.first_attempt)


def write_down(folder: str, **fields: Any) -> None:
    """Append one record to a task's file in one write; a full disk is no reason to end the rank."""
    try:
        fd = os.open(os.path.join(folder, "task.jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, json.dumps(dict(fields, t=time.time())).encode() + b"\n")
        finally:
            os.close(fd)
    except OSError:
        pass


class Tasks:
    """Follows the ranks of this node; to a supervisor it is what `engine.node.ranks.Ranks` is below torchrun."""

    def __init__(self, run_dir: str, journal: Journal, poller: Poller, life: Life, count: int) -> None:
        self._run_dir = run_dir
        self._journal = journal
        self._poller = poller
        self._folder = task_folder(life)
        self._attempt = life.first_attempt
        self._count = count
        self._workers: Dict[int, Worker] = {}  # by local rank
        self._recorded: Dict[int, bool] = {}  # local rank -> its end is in the journal
        self._streams: Dict[str, Stream] = {}
        self._look_at = 0.0

    @property
    def streams(self) -> List[Stream]:
        """Every stream that has appeared, oldest first."""
        return list(self._streams.values())

    def workers(self) -> List[Worker]:
        return list(self._workers.values())

    def living(self) -> bool:
        """Whether a rank that was seen still runs."""
        return any(local not in self._recorded for local in self._workers)

    @property
    def over(self) -> bool:
        """Whether every rank of this node has come and gone."""
        return len(self._recorded) == self._count

    @property
    def failed(self) -> bool:
        return any(self._workers[local].ending[0] != 0 for local in self._recorded)

    @property
    def worst(self) -> proc.Ending:
        """How the first rank that failed ended; (0, None) where none did, and where some never came, nobody knows."""
        bad = [self._workers[local] for local in self._recorded if self._workers[local].ending[0] != 0]
        if bad:
            return min(bad, key=lambda worker: worker.ended_at or 0.0).ending
        return (0, None) if self.over else UNSEEN

    def pause(self) -> float:
        """Seconds until the next look is due, 0 if it is."""
        return max(0.0, self._look_at - time.monotonic())

    def look(self) -> None:
        """Read what the tasks have written since: often while some are missing or ending, seldom otherwise."""
        if self.pause():
            return
        for local in range(self._count):
            if local not in self._recorded:
                self._read(local)
        settled = len(self._workers) == self._count and not any(
            worker.ended_at is not None and local not in self._recorded for local, worker in self._workers.items()
        )
        self._look_at = time.monotonic() + (SETTLED_LOOK_SECONDS if settled else LOOK_SECONDS)

    def ended(self, pids: List[int]) -> None:
        """The poller has told that these processes ended: their tasks write down how, in a moment."""
        for worker in self._workers.values():
            if worker.pid in pids and worker.ended_at is None:
                worker.ended_at = time.time()
                self._look_at = 0.0

    def reaped(self, pid: int, status: int) -> None:
        """An orphan of the supervisor; no rank is one."""

    def finish(self) -> None:
        """All is over: what has not been written down by now never will be."""
        for local, worker in self._workers.items():
            if local not in self._recorded:
                self._read(local)
            if local not in self._recorded:
                self._end(local, worker, worker.ended_at or time.time(), UNSEEN)

    def _read(self, local: int) -> None:
        folder = os.path.join(self._folder, str(local))
        for name in ("stdout", "stderr"):
            path = os.path.join(folder, name + ".log")
            if path not in self._streams and os.path.lexists(os.path.join(self._run_dir, path)):
                self._streams[path] = Stream(path, self._attempt, local, name)
                self._journal.append("stream", **self._streams[path]._asdict())
        records = _records(os.path.join(self._run_dir, folder, "task.jsonl"))
        for record in records:
            if "pid" in record and local not in self._workers:
                worker = Worker(self._attempt, local, record["rank"], record["pid"], record["start"])
                self._workers[local] = worker
                self._journal.append("worker", at=record["t"], start=worker.start, **worker.fields())
                worker.watched = self._poller.watch(worker.pid)
            elif "code" in record and local in self._workers and local not in self._recorded:
                self._end(local, self._workers[local], record["t"], (record["code"], record["signal"]))
        known: Optional[Worker] = self._workers.get(local)
        if known is None or local in self._recorded:
            return
        if known.ended_at is None and not known.watched and not proc.is_running(known.pid, known.start):
            known.ended_at = time.time()
        if known.ended_at is not None and time.time() - known.ended_at > WRITE_SECONDS:
            self._end(local, known, known.ended_at, UNSEEN)

    def _end(self, local: int, worker: Worker, at: float, ending: proc.Ending) -> None:
        worker.ended_at, worker.ending = at, ending
        self._recorded[local] = True
        self._journal.append("worker_exit", at=at, code=ending[0], signal=ending[1], **worker.fields())


def _records(path: str) -> List[Dict[str, Any]]:
    """The whole lines of a task's file; [] while there is none."""
    try:
        data = proc.read(path)
    except OSError:
        return []
    return [json.loads(line) for line in data.split(b"\n")[:-1]]
