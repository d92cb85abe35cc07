"""The workers of one node: found below torchrun in /proc, their streams in the run folder, their ends as they happen.

- A worker is the topmost process that carries a LOCAL_RANK and RANK which its parent has not; nothing below a worker is
  one, nor is an orphan that came to the supervisor.
- torchrun makes a folder for each worker just before it starts them: so many folders, so many workers to look for.
- The order of ends names the first failing rank. A pidfd tells within a millisecond; the exit code is then read from
  the zombie, which torchrun leaves until it next polls (a tenth of a second). If it was quicker, its log says it.
"""

from __future__ import annotations

import os
import re
import select
import signal
import time
from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple

from engine.node import proc
from engine.node.journal import Journal

LOG_WAIT_SECONDS = 2.0
LOG_TAIL_BYTES = 256 * 1024
SETTLED_LOOK_SECONDS = 1.0
LOOK_SHARE = 0.02  # of one core, while workers are still being looked for
SAVED_SECONDS = 5.0  # of that share may be left over for when it counts
SHORTEST_LOOK_SECONDS = 0.02
UNFOUNDED_LOOK_SECONDS = 0.5

_ATTEMPT = re.compile(r"attempt_(\d+)")
# torch/distributed/elastic/multiprocessing: api.py says the first failure at once, errors/__init__.py sums up all.
_FAILED = re.compile(r"failed \(exitcode: (-?\d+)\) local_rank: \d+ \(pid: (\d+)\)")
_SUMMARY = re.compile(r"rank\s*: (\d+) \(local_rank: (\d+)\)\s+exitcode\s*: (-?\d+) \(pid: (\d+)\)")


UNSEEN: proc.Ending = (None, None)


class Stream(NamedTuple):
    """One log file of one worker; `path` is relative to the run folder, `stream` is "stdout" or "stderr"."""

    path: str
    attempt: int
    local_rank: int
    stream: str


class Worker:
    """One process of one rank."""

    def __init__(self, attempt: int, local_rank: int, rank: int, pid: int, start: int) -> None:
        self.attempt = attempt
        self.local_rank = local_rank
        self.rank = rank
        self.pid = pid
        self.start = start
        self.watched = False
        self.ended_at: Optional[float] = None  # unix seconds
        self.ending = UNSEEN

    def fields(self) -> Dict[str, Any]:
        return {"attempt": self.attempt, "local_rank": self.local_rank, "rank": self.rank, "pid": self.pid}


class Poller:
    """Waits for the end of any of the watched processes."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._pids: Dict[int, int] = {}

    def watch(self, pid: int) -> bool:
        """Whether the end of this process can be waited for; False on a kernel without pidfds."""
        fd = proc.open_pidfd(pid)
        if fd is None:
            return False
        self._poll.register(fd, select.POLLIN)
        self._pids[fd] = pid
        return True

    def wait(self, seconds: float) -> List[int]:
        """Wait so long at most; the pids that have ended, each of them told once."""
        ended = []
        for fd, _ in self._poll.poll(int(seconds * 1000) + 1):
            self._poll.unregister(fd)
            os.close(fd)
            ended.append(self._pids.pop(fd))
        return ended


class Ranks:
    """Follows the workers below `child`, a direct child of this process, and journals what it sees.

    `others` are the pids that were there before the child: none of them is looked at. Attempts are counted from
    `first_attempt` on; logs that are there already are of earlier ones.
    """

    def __init__(
        self, run_dir: str, journal: Journal, poller: Poller, child: int, others: Set[int], first_attempt: int = 0
    ) -> None:
        self._run_dir = run_dir
        self._journal = journal
        self._poller = poller
        self._child = child
        self._listing = others
        self._above: Dict[int, int] = {child: os.getpid()}  # pid -> parent: torchrun, and what it may be started by
        self._below: Set[int] = set()
        self._workers: List[Worker] = []
        self._local_world_size = 0
        self._ends: List[Worker] = []  # ended, and not recorded yet
        self._first_attempt = first_attempt
        self._earlier = set(_folders(os.path.join(run_dir, "ranks"))) if first_attempt else set()
        self._folders: Dict[int, Set[int]] = {}  # attempt -> local ranks that have a folder
        self._streams: Dict[str, Stream] = {}
        self._complete: Set[str] = set()
        self._look_at = 0.0
        self._search_at = 0.0
        self._paid_at = 0.0  # when all looks so far have cost no more than their share

    @property
    def streams(self) -> List[Stream]:
        """Every stream that has appeared, oldest first."""
        return list(self._streams.values())

    def living(self) -> bool:
        """Whether a worker that was seen still runs."""
        return any(worker.ended_at is None for worker in self._workers)

    def pause(self) -> float:
        """Seconds until the next look is due, 0 if it is."""
        return max(0.0, self._look_at - time.monotonic())

    def look(self) -> None:
        """Find what is new: often while workers are missing, seldom once all are there."""
        self._end([w for w in self._workers if not w.watched and not proc.is_running(w.pid, w.start)])
        if self.pause():
            return
        worked = time.process_time()
        self._find_streams()
        # torchrun takes seconds to begin, of cores that may be few, and is done sooner when /proc is left alone until a
        # folder says that ranks are near; they are then looked for with what that has saved.
        if self._folders or time.monotonic() >= self._search_at:
            self._find_workers()
            self._search_at = time.monotonic() + UNFOUNDED_LOOK_SECONDS
        now = time.monotonic()
        self._paid_at = max(self._paid_at, now - SAVED_SECONDS) + (time.process_time() - worked) / LOOK_SHARE
        self._look_at = max(now + SHORTEST_LOOK_SECONDS, self._paid_at)
        if self._settled():
            self._look_at = now + SETTLED_LOOK_SECONDS

    def _settled(self) -> bool:
        if not self._folders:
            return False
        newest = max(self._folders)
        present = {w.local_rank for w in self._workers if w.attempt == newest and w.ended_at is None}
        return present >= self._folders[newest] and len(present) >= self._local_world_size

    # Streams

    def _find_streams(self) -> None:
        root = os.path.join(self._run_dir, "ranks")
        for rendezvous in _folders(root):
            if rendezvous in self._earlier:
                continue
            for attempt_folder in _folders(os.path.join(root, rendezvous)):
                match = _ATTEMPT.fullmatch(attempt_folder)
                if match is None:
                    continue
                for rank_folder in _folders(os.path.join(root, rendezvous, attempt_folder)):
                    if rank_folder.isdigit():
                        place = os.path.join("ranks", rendezvous, attempt_folder, rank_folder)
                        self._find_streams_of(place, self._first_attempt + int(match.group(1)), int(rank_folder))

    def _find_streams_of(self, place: str, attempt: int, local_rank: int) -> None:
        self._folders.setdefault(attempt, set()).add(local_rank)
        if place in self._complete:
            return
        for name in ("stdout", "stderr"):
            path = os.path.join(place, name + ".log")
            if path not in self._streams and os.path.lexists(os.path.join(self._run_dir, path)):
                self._streams[path] = Stream(path, attempt, local_rank, name)
                self._journal.append("stream", **self._streams[path]._asdict())
        if all(os.path.join(place, name + ".log") in self._streams for name in ("stdout", "stderr")):
            self._complete.add(place)

    # Workers

    def _find_workers(self) -> None:
        listing = set(proc.pids())
        new = {pid: found for pid in listing - self._listing for found in [proc.stat(pid)] if found is not None}
        self._listing = listing
        self._above = {pid: parent for pid, parent in self._above.items() if pid in listing}
        self._below &= listing
        progress = True
        while progress:
            progress = False
            for pid, found in list(new.items()):
                if found.ppid in self._above:
                    self._above[pid] = found.ppid
                elif found.ppid in self._below:
                    self._below.add(pid)
                else:
                    continue
                del new[pid]
                progress = True
        # A candidate is read again each time: between fork and exec it shows the environment of its parent.
        candidates = [found for found in map(proc.stat, self._above) if found is not None and not found.dead]
        for found in sorted(candidates, key=lambda found: (found.start, found.pid)):
            self._consider(found)

    def _consider(self, found: proc.Stat) -> None:
        if found.ppid == os.getpid() and found.pid != self._child:
            return  # an orphan
        values = proc.environ(found.pid)
        pair = _pair(values)
        if pair is None or (found.pid != self._child and _pair(proc.environ(found.ppid)) == pair):
            return
        attempt = values.get("TORCHELASTIC_RESTART_COUNT", "0")
        number = self._first_attempt + (int(attempt) if attempt.isdigit() else 0)
        worker = Worker(number, pair[0], pair[1], found.pid, found.start)
        if any(
            (w.attempt, w.local_rank, w.ended_at) == (worker.attempt, worker.local_rank, None) for w in self._workers
        ):
            return
        self._above.pop(found.pid)
        self._below.add(found.pid)
        self._workers.append(worker)
        size = values.get("LOCAL_WORLD_SIZE", "")
        self._local_world_size = int(size) if size.isdigit() else 0
        self._journal.append("worker", start=worker.start, **worker.fields())
        worker.watched = self._poller.watch(worker.pid)

    # Ends

    def ended(self, pids: List[int]) -> None:
        """The poller has told that these processes ended."""
        self._end([worker for worker in self._workers if worker.pid in pids])

    def _end(self, workers: List[Worker]) -> None:
        now = time.time()
        for worker in workers:
            if worker.ended_at is None:
                worker.ended_at = now
                worker.ending = proc.observed_ending(worker.pid, worker.start)
                self._ends.append(worker)
                self._look_at = 0.0
        self._record_ends()

    def reaped(self, pid: int, status: int) -> None:
        """A worker came to this process as an orphan, and has been waited for."""
        for worker in self._workers:
            if worker.pid == pid and worker.ended_at is None:
                worker.ended_at = time.time()
                worker.ending = proc.ending(status)
                self._ends.append(worker)

    def _record_ends(self, final: bool = False) -> None:
        """Record ends in their order; one that nobody saw waits a while for torchrun's log, and the others for it."""
        if any(worker.ending == UNSEEN for worker in self._ends):
            text = self._log_tail()
            codes = {int(pid): int(code) for code, pid in _FAILED.findall(text)}
            codes.update({int(pid): int(code) for _, _, code, pid in _SUMMARY.findall(text)})
            for worker in self._ends:
                if worker.ending == UNSEEN and worker.pid in codes:
                    worker.ending = _from_popen(codes[worker.pid])
        self._ends.sort(key=lambda worker: (worker.ended_at or 0.0, _consequence(worker.ending)))
        while self._ends:
            worker = self._ends[0]
            waited = time.time() - (worker.ended_at or 0.0)
            if worker.ending == UNSEEN and waited < LOG_WAIT_SECONDS and not final:
                return
            self._record_end(self._ends.pop(0))

    def _record_end(self, worker: Worker) -> None:
        code, number = worker.ending
        self._journal.append("worker_exit", at=worker.ended_at, code=code, signal=number, **worker.fields())

    def _log_tail(self) -> str:
        path = os.path.join(self._run_dir, "torchrun.log")
        try:
            with open(path, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL_BYTES))
                return file.read(LOG_TAIL_BYTES).decode("utf-8", "replace")
        except OSError:
            return ""

    def finish(self) -> None:
        """Torchrun and all below it are gone: record the last streams, the missing ends and the workers nobody saw."""
        self._find_streams()
        self._end(self._workers)
        self._record_ends(final=True)
        seen = {worker.pid for worker in self._workers}
        for rank, local_rank, code, pid in _SUMMARY.findall(self._log_tail()):
            if int(pid) not in seen:
                seen.add(int(pid))
                # It ended before the first look, so it has no start time; torchrun only sums up its last attempt.
                worker = Worker(
                    max(self._folders, default=self._first_attempt), int(local_rank), int(rank), int(pid), 0
                )
                self._journal.append("worker", start=0, **worker.fields())
                worker.ending = _from_popen(int(code))
                self._record_end(worker)


def _pair(values: Dict[str, str]) -> Optional[Tuple[int, int]]:
    local_rank, rank = values.get("LOCAL_RANK", ""), values.get("RANK", "")
    return (int(local_rank), int(rank)) if local_rank.isdigit() and rank.isdigit() else None


def _from_popen(code: int) -> proc.Ending:
    """Python's subprocess writes a signal as a negative exit code."""
    return (None, -code) if code < 0 else (code, None)


def _consequence(ending: proc.Ending) -> int:
    """The place of an end among ends seen at once: torchrun answers the first failure with SIGTERM to the others."""
    return 1 if ending == UNSEEN else 2 if ending[1] == signal.SIGTERM else 0


def _folders(path: str) -> List[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []
