"""Several logs as one, in the order in which they came to this workstation (`engine.arrivals`).

A source like any other: its bytes are the records' ranges, one behind the other, each of whole lines; a record that
is marked `open` gets a newline. Every `GROUP` records the place is remembered; what is between is read again from the
file when it is looked at, so that memory does not grow with what is looked at.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.arrivals import FILE, RECORD, Arrival, decode, extents, more_names
from tui.logs.source import LogFile

if TYPE_CHECKING:
    from pathlib import Path

    from tui.logs.source import Key

GROUP = 1024
AT_ONCE = 40
"""Groups of records that one look takes in, about 10 ms of work."""
REMEMBERED = 64
"""Groups, and files, that are kept at hand."""
UNFINISHED_MOST = 64
"""Streams whose unfinished lines are looked for."""
TAIL = 4096


@dataclass(frozen=True)
class Choice:
    """Which streams of a run: of a node, of one of its ranks, only what goes to stdout or stderr; None is all of them.

    torchrun's own output belongs to its node, not to a rank, and counts as stderr.
    """

    node_rank: int | None = None
    local_rank: int | None = None
    kind: str | None = None
    attempt: int | None = None

    @classmethod
    def of(cls, key: Key) -> Choice:
        """This stream alone."""
        attempt, local_rank, kind = _parts(key[1])
        return cls(key[0], local_rank, kind, attempt)

    def has(self, key: Key) -> bool:
        node_rank, stream = key
        attempt, local_rank, kind = _parts(stream)
        return (
            (self.node_rank is None or node_rank == self.node_rank)
            and (self.local_rank is None or local_rank == self.local_rank)
            and (self.kind is None or kind == self.kind)
            and (self.attempt is None or attempt == self.attempt)
        )


def _parts(stream: str) -> tuple[int, int, str]:
    """The attempt and local_rank, -1 for torchrun's own log, and stdout or stderr."""
    if stream.count("/") < 3:
        return -1, -1, "stderr"
    _, attempt, local_rank, name = stream.rsplit("/", 3)
    return int(attempt.removeprefix("attempt_")), int(local_rank), name.removesuffix(".log")


class Extent(NamedTuple):
    """One record, as bytes from `at` on of the whole."""

    at: int
    arrival: Arrival

    @property
    def end(self) -> int:
        return self.at + self.arrival.end - self.arrival.start + self.arrival.open


class Merged:
    """The streams of `choice` in the run's folder, as one source."""

    timed = True

    def __init__(self, folder: Path, choice: Choice) -> None:
        self.folder = folder
        self.choice = choice
        self.size = 0
        self.generation = 0
        self.problem = ""
        self._names: list[Key] = []
        self._named = 0
        self._newest: dict[Key, int] = {}
        self._chosen: set[int] = set()
        self._fd = -1
        self._read = 0
        self._at = array("Q")
        """Where each group of records begins, in bytes of the whole."""
        self._recorded: dict[int, int] = {}
        self._groups: OrderedDict[int, list[Extent]] = OrderedDict()
        self._files: OrderedDict[int, int] = OrderedDict()
        self.poll()

    @property
    def name(self) -> dict[str, Any]:
        return {"folder": str(self.folder), "choice": asdict(self.choice)}

    @property
    def reading(self) -> float:
        """How much of the order is known, from 0 to 1: there may be millions of records."""
        total = os.fstat(self._fd).st_size // RECORD if self._fd >= 0 else 0
        return self._read / total if total else 1.0

    def poll(self) -> bool:
        try:
            return self._poll()
        except OSError as error:
            self.problem = f"the order of arrival cannot be read: {error.strerror}"
            return False

    def _poll(self) -> bool:
        if self._fd < 0:
            try:
                self._fd = os.open(self.folder / FILE, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
        before = self.size
        for _ in range(AT_ONCE):
            first = self._read % GROUP
            data = os.pread(self._fd, (GROUP - first) * RECORD, self._read * RECORD)
            records = list(extents(data))
            if not records or not self._know(max(records)[0]):
                break
            if not first:
                self._at.append(self.size)
            self._groups.pop(len(self._at) - 1, None)
            for number, start, end, unended in records:
                if number in self._chosen:
                    self.size += end - start + unended
                    self._recorded[number] = end
            self._read += len(records)
        return self.size != before

    def _know(self, number: int) -> bool:
        """Are the streams up to this number known?"""
        if number < len(self._names):
            return True
        names, self._named = more_names(self.folder, self._named)
        anew = False
        for key in names:
            if self.choice.has(key):
                before = self._newest.get(key)
                self._newest[key] = len(self._names)
                self._chosen.add(len(self._names))
                if before is not None:
                    self._chosen.discard(before)
                    anew = True
            self._names.append(key)
        if anew:
            self._begin_anew()
        return number < len(self._names) and not anew

    def _begin_anew(self) -> None:
        """A mirror that is shown has begun anew: what was read of it means nothing any more."""
        self.generation += 1
        self.size = self._read = 0
        self._at, self._recorded = array("Q"), {}
        self._groups.clear()
        self._forget_files()

    def _extents(self, arrivals: list[Arrival], at: int) -> list[Extent]:
        found = []
        for arrival in arrivals:
            if arrival.number in self._chosen:
                found.append(Extent(at, arrival))
                at = found[-1].end
        return found

    # ---- reading --------------------------------------------------------------------------------------------------

    def read(self, offset: int, count: int) -> bytes:
        stop = min(offset + count, self.size)
        parts: list[bytes] = []
        while offset < stop:
            group = self._group(bisect_right(self._at, offset) - 1)
            for extent in group[bisect_right(group, offset, key=lambda extent: extent.at) - 1 :]:
                part = self._part(extent, offset, stop)
                parts.append(part)
                offset += len(part)
                if offset < min(extent.end, stop):
                    return b"".join(parts)
                if offset >= stop:
                    break
        return b"".join(parts)

    def extent(self, at: int) -> Extent | None:
        """The record that a byte belongs to."""
        if not 0 <= at < self.size:
            return None
        group = self._group(bisect_right(self._at, at) - 1)
        return group[bisect_right(group, at, key=lambda extent: extent.at) - 1]

    def stream(self, at: int) -> Key | None:
        """The stream that a byte belongs to."""
        found = self.extent(at)
        return self._names[found.arrival.number] if found is not None else None

    def when(self, at: int) -> float | None:
        """When a byte came, in unix seconds."""
        found = self.extent(at)
        return found.arrival.when / 1000 if found is not None else None

    def late(self, at: int) -> bool:
        """Was it waiting on its node before anyone here asked for it? Its order among others says nothing then."""
        found = self.extent(at)
        return found is not None and found.arrival.late

    def when_of(self, offset: int) -> float | None:
        """When the byte at `offset` of the only stream came, in unix seconds."""

        def start(at: int) -> int:
            found = self.extent(at)
            return found.arrival.start if found is not None else 0

        found = self.extent(bisect_right(range(self.size), offset, key=start) - 1)
        return found.arrival.when / 1000 if found is not None and offset < found.arrival.end else None

    def unfinished(self) -> list[tuple[Key, bytes]]:
        """What has no newline yet: the state of a progress bar, a question, the last words."""
        found = []
        if len(self._chosen) <= UNFINISHED_MOST:
            for number in sorted(self._chosen):
                start = self._recorded.get(number, 0)
                fd = self._file(number)
                size = os.fstat(fd).st_size if fd >= 0 else 0
                if size > start:
                    data = os.pread(fd, TAIL, max(start, size - TAIL)).rpartition(b"\n")[2]
                    if data.strip():
                        found.append((self._names[number], data))
        return found

    def close(self) -> None:
        self._forget_files()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _group(self, number: int) -> list[Extent]:
        """The chosen records of a group."""
        found = self._groups.get(number)
        if found is None:
            count = min(GROUP, self._read - number * GROUP)
            data = os.pread(self._fd, count * RECORD, number * GROUP * RECORD)
            found = self._groups[number] = self._extents(decode(data), self._at[number])
            if len(self._groups) > REMEMBERED:
                self._groups.popitem(last=False)
        self._groups.move_to_end(number)
        return found

    def _part(self, extent: Extent, offset: int, stop: int) -> bytes:
        arrival = extent.arrival
        inside = offset - extent.at
        wanted = min(stop, extent.end) - offset
        length = arrival.end - arrival.start
        fd = self._file(arrival.number)
        if fd < 0:
            return b""
        part = os.pread(fd, min(wanted, length - inside), arrival.start + inside) if inside < length else b""
        return part + b"\n" if arrival.open and len(part) == length - inside and len(part) < wanted else part

    def _file(self, number: int) -> int:
        fd = self._files.get(number)
        if fd is None:
            node_rank, stream = self._names[number]
            try:
                fd = os.open(self.folder / f"n{node_rank}" / stream, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                self.problem = f"a log cannot be read: {error.strerror}"
                return -1
            self._files[number] = fd
            if len(self._files) > REMEMBERED:
                os.close(self._files.popitem(last=False)[1])
        self._files.move_to_end(number)
        return fd

    def _forget_files(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])


class OneStream(LogFile):
    """One log, every byte of it as soon as it is here; when that was is looked up in the order of arrival."""

    timed = True

    def __init__(self, folder: Path, key: Key) -> None:
        self._folder = folder
        self._key = key
        self._order: Merged | None = None
        super().__init__(folder / f"n{key[0]}" / key[1])

    def when(self, at: int) -> float | None:
        if self._order is None:
            self._order = Merged(self._folder, Choice.of(self._key))
        self._order.poll()
        return self._order.when_of(at)

    def close(self) -> None:
        """Both files; they are opened again when they are needed."""
        super().close()
        if self._order is not None:
            self._order.close()
            self._order = None
