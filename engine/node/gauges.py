"""The newest metrics of each worker, read from its streams at a bounded cost.

Only the newest metric is of use, so a stream that has outrun its reader is taken up again near its end; and a round of
reading that took long is followed by a longer pause, so that chatty ranks slow the gauges and not the node. A pattern
of the user's that some line sends astray is given up: the supervisor has more to do than to read metrics.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, NoReturn, Optional, Protocol, Tuple

from engine.node.journal import Journal
from engine.node.ranks import Stream

ROUND_SECONDS = 1.0
LONGEST_ROUND_SECONDS = 10.0
CPU_SHARE = 0.01  # of one core
AGE_SHARE, LONGEST_AGED_SECONDS = 0.001, 5.0  # the longer a run, the sparser: a day of 8 ranks is some 25 MB of journal
FEED_BYTES = 64 * 1024
LEAST_FEED_BYTES = 8 * 1024
LONGEST_FEED = 0.5  # seconds of CPU; FEED_BYTES of ordinary lines take a hundredth of that

Metric = Dict[str, Any]


class Reader(Protocol):
    """What engine.node.metrics.MetricReader does: bytes of one stream in, the metrics of its complete lines out."""

    def feed(self, data: bytes) -> List[Metric]: ...


class _Follower:
    def __init__(self, stream: Stream, reader: Reader) -> None:
        self.stream = stream
        self.reader = reader
        self.offset = 0
        self.reach = FEED_BYTES  # how far before its end a stream that has outrun us is taken up
        self.last = False  # a newer attempt has begun: read once more, then no more


class Gauges:
    """Reads the streams that it is given and journals a worker's metric when it changes, at most once a second."""

    def __init__(self, run_dir: str, journal: Journal, pattern: Optional[str] = None) -> None:
        self._run_dir = run_dir
        self._journal = journal
        self._pattern = pattern
        self._new_reader = _reader_factory(pattern, journal)
        self._followers: Dict[str, _Follower] = {}
        self._followed = 0
        self._journaled: Dict[Tuple[int, int], Metric] = {}
        self._round_at = 0.0
        self._began = time.monotonic()

    def read(self, streams: List[Stream], final: bool = False) -> None:
        """One round over all streams, if one is due; `final` reads to the end."""
        if self._new_reader is None or (time.monotonic() < self._round_at and not final):
            return
        began = time.monotonic()
        worked = time.process_time()
        self._follow(streams[self._followed :])
        found: Dict[Tuple[int, int], Metric] = {}
        for follower in list(self._followers.values()):
            stream = follower.stream
            metric = newest(self._read(follower))
            if metric:
                # A progress bar on stderr and a log on stdout both speak of one step: the log has the last word.
                key = (stream.attempt, stream.local_rank)
                known = found.get(key, {})
                found[key] = {**metric, **known} if stream.stream == "stderr" else {**known, **metric}
            if follower.last:
                del self._followers[stream.path]
        for key, metric in found.items():
            if self._journaled.get(key) != metric:
                self._journaled[key] = metric
                self._journal.append("metric", attempt=key[0], local_rank=key[1], **metric)
        worked = time.process_time() - worked
        self._round_at = began + pause(began - self._began, worked)

    def _follow(self, new: List[Stream]) -> None:
        assert self._new_reader is not None
        self._followed += len(new)
        for stream in new:
            for follower in self._followers.values():
                old = follower.stream
                follower.last = follower.last or (old.local_rank == stream.local_rank and old.attempt < stream.attempt)
            self._followers[stream.path] = _Follower(stream, self._new_reader())

    def _read(self, follower: _Follower) -> List[Metric]:
        path = os.path.join(self._run_dir, follower.stream.path)
        try:
            size = os.stat(path).st_size
            if size <= follower.offset:
                follower.offset = min(follower.offset, size)
                return []
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                jumped = size - follower.offset > follower.reach
                start = size - follower.reach if jumped else follower.offset
                data = os.pread(fd, size - start, start)
            finally:
                os.close(fd)
            follower.offset = start + len(data)
            with _bounded():
                if not jumped:
                    return follower.reader.feed(data)
                # End the half line that the reader holds, unseen, and go on where a line begins.
                follower.reader.feed(b"\n")
                metrics = follower.reader.feed(data[_line_start(data) :])
            # A stream that speaks of its metrics often needs less of a look.
            reach = follower.reach // 2 if metrics else follower.reach * 2
            follower.reach = min(FEED_BYTES, max(LEAST_FEED_BYTES, reach))
            return metrics
        except _TooLong as error:
            if self._pattern is None:
                self._give_up(follower, error)
                return []
            text = "the metric pattern takes too long on a line of %s, and is not used any more"
            self._journal.append("warning", text=text % follower.stream.path)
            self._pattern = None
            self._new_reader = _reader_factory(None, self._journal)
            for other in self._followers.values():
                other.reader = self._new_reader() if self._new_reader is not None else other.reader
            return []
        except OSError:
            return []
        except Exception as error:  # a log line that breaks a parser must not break the job
            self._give_up(follower, error)
            return []

    def _give_up(self, follower: _Follower, error: Exception) -> None:
        del self._followers[follower.stream.path]
        follower.last = False
        self._journal.append("warning", text="no more metrics from %s: %r" % (follower.stream.path, error))


class _TooLong(Exception):
    """Reading metrics takes more CPU than it may."""


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """_TooLong after LONGEST_FEED: Python's regular expressions let a signal interrupt them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> NoReturn:
        raise _TooLong

    before = signal.signal(signal.SIGVTALRM, interrupt)
    signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST_FEED)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def pause(age: float, worked: float) -> float:
    """Seconds from one round to the next, of a run so many seconds old whose last round took so many seconds of CPU."""
    aged = min(LONGEST_AGED_SECONDS, age * AGE_SHARE)
    return min(LONGEST_ROUND_SECONDS, max(ROUND_SECONDS, aged, worked / CPU_SHARE))


def newest(metrics: List[Metric]) -> Metric:
    """The last metric, with what lines before it say of the same step; nan and inf as JSON can carry them."""
    merged: Metric = {}
    for metric in metrics:
        same = metric.get("step", merged.get("step")) == merged.get("step", metric.get("step"))
        merged = {**merged, **metric} if same else dict(metric)
    return {name: _plain(value) for name, value in merged.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def _line_start(data: bytes) -> int:
    ends = [end for end in (data.find(b"\n"), data.find(b"\r")) if end >= 0]
    return min(ends) + 1 if ends else len(data)


def _reader_factory(pattern: Optional[str], journal: Journal) -> Optional[Callable[[], Reader]]:
    try:
        from engine.node.metrics import MetricReader

        MetricReader(pattern)
    except ImportError as error:
        journal.append("warning", text="metrics are not read: %s" % error)
        return None
    except Exception as error:
        journal.append("warning", text="the metric pattern is not used: %s" % error)
        pattern = None
    return lambda: MetricReader(pattern)
