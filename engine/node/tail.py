"""Follow the files of one run folder by byte offset.

The reader's contract: bytes arrive in order and without gaps from the offset asked for, and a follow is `drained` only
when the supervisor's lock was seen free *before* the read that found nothing new, so the last line is never lost.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import zlib
from typing import Callable, Dict, List, Optional, Tuple

CHUNK = 256 * 1024
STEP = 4 * CHUNK  # bytes that one step reads at most
KEPT_OPEN = 200  # files, or a quarter of what the node allows; where more are followed, each is opened for each read
FINGERPRINT = 4096
STREAM = re.compile(
    r"(?:journal\.jsonl|torchrun\.log|slurm\.log|work_dir\.tar\.gz|ranks/[A-Za-z0-9][A-Za-z0-9._-]{0,200}/attempt_[0-9]{1,6}/[0-9]{1,6}/(?:stdout\.log|stderr\.log|error\.json))"
)
"""The only files that travel; the workstation checks the same pattern."""
ADOPTED = "adopted"
"""In the folder of a run that we did not start: its streams are links to the files that the job writes."""


def fingerprint(fd: int, offset: int) -> int:
    """CRC-32 of the last 4 KiB before `offset`: does the copy at the other end still belong to this file?"""
    size = min(offset, FINGERPRINT)
    return zlib.crc32(os.pread(fd, size, offset - size))


class Stream:
    """One file being followed. It may not exist yet."""

    def __init__(self, path: str, name: str, offset: int, crc: Optional[int]) -> None:
        self.path = path
        self.name = name
        self.offset = offset
        self.crc = crc
        self.fd = -1
        self.reset = False

    def open(self) -> bool:
        """OSError for a file that is there and cannot be opened: it must not pass for an empty one."""
        if self.fd < 0:
            try:
                self.fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
                    return False
                raise
            if not stat.S_ISREG(os.fstat(self.fd).st_mode):
                self.close()
                return False
        if self.crc is not None:
            if os.fstat(self.fd).st_size < self.offset or fingerprint(self.fd, self.offset) != self.crc:
                self.offset = 0
                self.reset = True
            self.crc = None
        return True

    def read(self) -> bytes:
        """What is new, at most one chunk; b"" when there is nothing. OSError when it cannot be read."""
        return os.pread(self.fd, CHUNK, self.offset) if self.open() else b""

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Follow:
    """A set of streams of one run folder. `alive` tells whether the supervisor's lock is held; `once` reads what is
    there now and waits for nothing."""

    def __init__(self, run_dir: str, alive: Callable[[], bool], once: bool) -> None:
        self.once = once
        self.run_dir = run_dir
        self.streams: Dict[str, Stream] = {}
        self.was_alive: Optional[bool] = None
        self.drained = False
        self._alive = alive
        self._kept_open = min(KEPT_OPEN, _file_limit() // 4)
        self._links = os.path.exists(os.path.join(os.path.dirname(run_dir), ADOPTED))

    def settle(self) -> None:
        """Nothing more is written: the next read that finds nothing is the last. Files are opened anew for it, which is
        when storage that several machines share shows what the others have written."""
        self._alive = lambda: False
        for stream in self.streams.values():
            stream.close()

    def add(self, name: str, offset: int, crc: Optional[int]) -> None:
        if not STREAM.fullmatch(name):
            raise ValueError("not a stream of a run: %r" % name)
        if name not in self.streams:
            path = os.path.join(self.run_dir, name)
            self.streams[name] = Stream(os.path.realpath(path) if self._links else path, name, offset, crc)
            self.drained = False

    def step(self, look: bool) -> Tuple[List[Tuple[str, int, bytes, bool]], Optional[bool]]:
        """New chunks as (stream, offset, bytes, reset), and the liveness where it changed.

        `look`: test the lock this time. A dead supervisor's files are read to their end, then `drained` is set.
        """
        alive = self._alive() if look and self.was_alive is not False else self.was_alive
        chunks: List[Tuple[str, int, bytes, bool]] = []
        size = 0
        for _ in range(len(self.streams)):
            # The one that was read goes to the end of the row, so that all have their turn.
            name = next(iter(self.streams))
            stream = self.streams[name] = self.streams.pop(name)
            data = stream.read()
            if data or stream.reset:
                chunks.append((stream.name, stream.offset, data, stream.reset))
                stream.offset += len(data)
                stream.reset = False
                size += len(data)
            if len(self.streams) > self._kept_open:
                stream.close()
            if size >= STEP:
                break
        changed = alive if alive != self.was_alive else None
        self.was_alive = alive
        if (alive is False or self.once) and not chunks:
            self.drained = True
            for stream in self.streams.values():
                stream.close()
        return chunks, changed


def _file_limit() -> int:
    """How many files this process may have open."""
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return soft if soft != resource.RLIM_INFINITY else 1 << 20
