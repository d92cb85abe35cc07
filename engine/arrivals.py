"""In which order the logs of a run came to this workstation: the one clock that all its ranks share.

    <run folder>/arrivals          records of 24 bytes, append-only: when, which stream, from which byte to which
    <run folder>/arrivals.names    which streams: [node_rank, stream] as JSON, one a line; their number is the line's

Rules:
- A record covers whole lines. What has no newline yet waits for it, but for a long line (a progress bar) or a stream
  that is over: such a record is marked `open`.
- The records of a stream follow each other without a gap: together they cover its mirror, as far as they go.
- What was waiting on the node before it was asked for is marked `late`: its order among other ranks says nothing.
- One viewer at a time writes, under a lock; another one takes over where it stopped.
- A mirror that begins anew gets a new number; records of the old one mean nothing any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import time
from array import array
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FILE = "arrivals"
NAMES = "arrivals.names"
JOURNAL = "journal.jsonl"
RECORD = 24
EVERY = 0.1
"""Seconds between records of one stream, at least."""
LONG = 16 * 1024
"""Bytes without a newline that are recorded all the same."""
NUMBERS = 1 << 20
FLAGS = os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_OPEN, _LATE = 1 << 63, 1 << 62
_END = _LATE - 1
_SCAN = 1 << 20


class Arrival(NamedTuple):
    """Bytes `start` to `end` of stream `number` came at `when`, in milliseconds of unix time."""

    when: int
    number: int
    start: int
    end: int
    open: bool
    late: bool


def decode(data: bytes) -> list[Arrival]:
    """The whole records in `data`."""
    return [
        Arrival(a // NUMBERS, a % NUMBERS, b, c & _END, bool(c & _OPEN), bool(c & _LATE)) for a, b, c in _words(data)
    ]


def extents(data: bytes) -> Iterator[tuple[int, int, int, bool]]:
    """Of the whole records in `data` only (number, start, end, open), five times as fast."""
    return ((a % NUMBERS, b, c & _END, c >= _OPEN) for a, b, c in _words(data))


def _words(data: bytes) -> Iterator[tuple[int, int, int]]:
    words = array("Q")
    words.frombytes(data[: len(data) // RECORD * RECORD])
    return zip(words[::3], words[1::3], words[2::3], strict=True)


def encode(arrival: Arrival) -> bytes:
    flags = (_OPEN if arrival.open else 0) | (_LATE if arrival.late else 0)
    return array("Q", (arrival.when * NUMBERS + arrival.number, arrival.start, arrival.end | flags)).tobytes()


class _Waiting:
    """Bytes of a stream that are here and not recorded: whole lines up to `lines`, all up to `size`."""

    def __init__(self) -> None:
        self.lines = 0
        self.size = 0
        self.late = False
        self.over = False


Key = tuple[int, str]


class Arrivals:
    """Writes down what comes. Where that is impossible (a full disk), it is left out: the logs are worth more."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: dict[Key, _Waiting] = {}
        self._numbers: dict[Key, int] = {}
        self._recorded: dict[int, int] = {}
        self._fd = -1
        self._scanned = 0
        self._anew: set[Key] = set()
        self._writing = False
        self._timer: asyncio.TimerHandle | None = None

    def came(self, node_rank: int, stream: str, offset: int, data: bytes, late: bool) -> None:
        """These bytes are in the mirror now."""
        waiting = self._waiting.setdefault((node_rank, stream), _Waiting())
        newline = data.rfind(b"\n")
        if newline >= 0:
            waiting.lines = offset + newline + 1
        waiting.size = offset + len(data)
        waiting.late = waiting.late or late
        self._soon()

    def over(self, node_rank: int, streams: Mapping[str, int]) -> None:
        """These streams will not grow any more; their sizes in bytes. What nobody has recorded came at some time."""
        for stream, size in streams.items():
            if stream == JOURNAL:
                continue
            key = (node_rank, stream)
            if key not in self._waiting:
                self._waiting[key] = _Waiting()
                self._waiting[key].late = True
            self._waiting[key].size, self._waiting[key].over = size, True
        self._soon()

    def restart(self, node_rank: int, stream: str) -> None:
        """The mirror begins anew."""
        self._waiting.pop((node_rank, stream), None)
        self._anew.add((node_rank, stream))

    def flush(self) -> None:
        """Write what waits."""
        self._timer = None
        try:
            if self._begin():
                self._write()
            else:
                self._soon()
        except OSError:
            self._waiting.clear()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            with contextlib.suppress(OSError):
                while self._lock() and not self._begin():
                    pass
                if self._writing:
                    self._write()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self) -> None:
        now = int(time.time() * 1000)
        records = [record for key, waiting in self._waiting.items() for record in self._records(key, waiting, now)]
        if records:
            os.write(self._fd, b"".join(map(encode, records)))
        self._waiting = {key: w for key, w in self._waiting.items() if w.size > self._recorded[self._numbers[key]]}

    def _soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY, self.flush)

    def _records(self, key: Key, waiting: _Waiting, now: int) -> list[Arrival]:
        if key in self._anew or key not in self._numbers:
            self._anew.discard(key)
            self._name(key)
        number = self._numbers[key]
        start = self._recorded[number]
        found = []
        if waiting.lines > start:
            found.append(Arrival(now, number, start, waiting.lines, False, waiting.late))
            start = waiting.lines
        if waiting.size > start and (waiting.over or waiting.size - start >= LONG):
            found.append(Arrival(now, number, start, waiting.size, self._unended(key, waiting.size), waiting.late))
            start = waiting.size
        self._recorded[number] = start
        waiting.late = False
        return found

    def _unended(self, key: Key, size: int) -> bool:
        """Has the last line of a mirror of this size no newline?"""
        try:
            with (self._folder / f"n{key[0]}" / key[1]).open("rb") as file:
                file.seek(size - 1)
                return file.read(1) != b"\n"
        except OSError:
            return True

    def _begin(self) -> bool:
        """Are we the one who writes, and is all known that others have written? Reads on a piece if not."""
        if self._writing:
            return True
        if not self._lock():
            return False
        size = os.fstat(self._fd).st_size // RECORD * RECORD
        data = os.pread(self._fd, min(_SCAN // RECORD * RECORD, size - self._scanned), self._scanned)
        self._recorded.update((number, end) for number, _, end, _ in extents(data))
        self._scanned += len(data)
        if self._scanned < size:
            return False
        # What a killed viewer left torn.
        os.ftruncate(self._fd, size)
        names = read_names(self._folder)
        with contextlib.suppress(FileNotFoundError):
            os.truncate(self._folder / NAMES, (self._folder / NAMES).read_bytes().rfind(b"\n") + 1)
        self._numbers.update((key, number) for number, key in enumerate(names))
        self._recorded = {number: self._recorded.get(number, 0) for number in range(len(names))}
        self._writing = True
        return True

    def _lock(self) -> bool:
        if self._fd < 0:
            self._fd = os.open(self._folder / FILE, FLAGS | os.O_RDWR, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _name(self, key: Key) -> None:
        """Give a stream the next number."""
        fd = os.open(self._folder / NAMES, FLAGS | os.O_WRONLY, 0o600)
        try:
            os.write(fd, json.dumps(key).encode() + b"\n")
        finally:
            os.close(fd)
        self._numbers[key] = len(self._recorded)
        self._recorded[len(self._recorded)] = 0


def read_names(folder: Path) -> list[Key]:
    """The streams by their numbers."""
    return more_names(folder, 0)[0]


def more_names(folder: Path, offset: int) -> tuple[list[Key], int]:
    """The streams that are named from a byte of the file on, and where to go on; a torn last line is none."""
    try:
        with (folder / NAMES).open("rb") as file:
            file.seek(offset)
            whole = file.read().rpartition(b"\n")[0]
    except FileNotFoundError:
        return [], offset
    names: list[Key] = []
    for line in whole.split(b"\n") if whole else ():
        node_rank, stream = json.loads(line)
        names.append((int(node_rank), str(stream)))
    return names, offset + len(whole) + bool(whole)
