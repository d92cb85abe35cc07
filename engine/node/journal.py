"""The journal of one node of one run: a JSON object a line, appended by one supervisor, read by anybody from an offset.

- A record is one write(2) to an O_APPEND file. A line without its newline is torn: readers leave it alone.
- A full disk loses no record of consequence: the reserve beside the journal is given up for them, what still does not
  fit waits in memory and is written in its turn. Only metrics, which repeat, are dropped beyond a bound, and counted.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple

RESERVE_BYTES = 256 * 1024
WAITING_BYTES = 1024 * 1024
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Record = Dict[str, Any]


def again(flags: int, restart: int) -> int:
    """Flags of open(2) for a file that only the first life of a job makes new."""
    return flags & ~os.O_EXCL if restart else flags


def keep_reserve(path: str) -> None:
    """Make the file whose blocks the last records can have; OSError if the disk has no room for it."""
    fd = os.open(path, CREATE, 0o600)
    try:
        os.posix_fallocate(fd, 0, RESERVE_BYTES)
    finally:
        os.close(fd)


class Journal:
    """The writing end. FileExistsError if there is a journal already; after that no method raises for a full disk.

    `again`: the job has had a life before, and its journal goes on; a line that was torn then is ended first.
    """

    def __init__(
        self, path: str, reserve: str = "", clock: Callable[[], float] = time.time, *, again: bool = False
    ) -> None:
        flags = CREATE & ~os.O_EXCL & ~os.O_WRONLY | os.O_RDWR if again else CREATE
        self._fd = os.open(path, flags | os.O_APPEND, 0o600)
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            os.write(self._fd, b"\n")
        self._reserve = reserve
        self._clock = clock
        self._waiting: Deque[bytes] = deque()
        self._waiting_bytes = 0
        self._needed = False  # something other than a metric waits
        self._dropped = 0

    def append(self, type: str, at: Optional[float] = None, **fields: Any) -> None:
        """Write one record; `at` is its time `t` in unix seconds where that is not now."""
        record = {"t": round(self._clock() if at is None else at, 6), "type": type}
        record.update(fields)
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        if type == "metric" and self._waiting_bytes + len(line) > WAITING_BYTES:
            self._dropped += 1
            return
        self._needed = self._needed or type != "metric"
        self._waiting.append(line)
        self._waiting_bytes += len(line)
        self.flush()

    def flush(self) -> bool:
        """Write what waits, in order; False if something still waits."""
        while self._waiting:
            line = self._waiting[0]
            try:
                written = os.write(self._fd, line)
            except OSError:
                if self._needed and self._give_up_reserve():
                    continue
                return False
            self._waiting_bytes -= written
            if written < len(line):
                # The rest goes first next time, so that the two parts are one line.
                self._waiting[0] = line[written:]
            else:
                self._waiting.popleft()
        self._needed = False
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self.append("warning", text="the disk is full: %d metric records were dropped" % dropped)
        return not self._waiting

    def _give_up_reserve(self) -> bool:
        if not self._reserve:
            return False
        path, self._reserve = self._reserve, ""
        try:
            os.unlink(path)
        except OSError:
            return False
        return True

    def finish(self, patience: float = 600.0, **fields: Any) -> bool:
        """Give up the reserve, write `finished`, and bring it to the disk.

        Tries for `patience` seconds while the disk is full; False if the record did not fit.
        """
        self._give_up_reserve()
        self.append("finished", **fields)
        deadline = time.monotonic() + patience
        while not self.flush() and time.monotonic() < deadline:
            time.sleep(0.2)
        with contextlib.suppress(OSError):
            os.fsync(self._fd)
        return not self._waiting

    def close(self) -> None:
        """Close the file; what still waits is lost."""
        os.close(self._fd)


def read(path: str, offset: int = 0) -> Tuple[List[Record], int]:
    """The records from byte `offset` on and the offset to go on from; lines that are no JSON object are passed over.

    A torn last line is not read, and the offset stays before it. OSError if the file cannot be opened.
    """
    records: List[Record] = []
    with open(path, "rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                break
            offset += len(line)
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
                records.append(record)
    return records, offset
