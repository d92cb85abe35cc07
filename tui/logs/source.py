"""Where the bytes of a log come from: a file that may grow while it is looked at."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path


Key = tuple[int, str]
"""node_rank, and the name of a stream in the node's run folder."""


class Source(Protocol):
    """Bytes that only ever grow at their end, `size` of them as of the last `poll`.

    `generation` changes when they turn out to be other bytes: positions from before mean nothing then.
    """

    size: int
    generation: int

    @property
    def name(self) -> dict[str, Any]:
        """What `open_source` takes to open it again, in another process."""

    def poll(self) -> bool:
        """Look again; is anything new?"""

    def read(self, offset: int, count: int) -> bytes:
        """At most `count` bytes from `offset`, none of them beyond `size`; less only at the end, or after an error."""

    def close(self) -> None: ...

    @property
    def timed(self) -> bool:
        """Does it know when its bytes came?"""

    def when(self, at: int) -> float | None:
        """When a byte came, in unix seconds."""

    def late(self, at: int) -> bool:
        """Is its place among the others unknown, because it was waiting somewhere before it came?"""

    def stream(self, at: int) -> Key | None:
        """The stream that a byte belongs to, where there are several."""

    def unfinished(self) -> list[tuple[Key, bytes]]:
        """What was written to a stream and is no line of this source yet, because it has no end."""


class LogFile:
    """A file, which need not exist yet. `problem` says in words why it cannot be read, "" if it can."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.generation = 0
        self.problem = ""
        self._fd = -1
        self._identity: tuple[int, int] | None = None
        self.poll()

    @property
    def name(self) -> dict[str, Any]:
        return {"file": str(self.path)}

    def poll(self) -> bool:
        try:
            found = self.path.stat()
            identity = (found.st_dev, found.st_ino)
            if identity != self._identity or found.st_size < self.size:
                return self._open(identity)
        except FileNotFoundError:
            # A mirror that is set aside has a successor in a moment; until then what is open stays in view.
            return False
        except OSError as error:
            return self._fail(error)
        grown = found.st_size > self.size
        self.size = found.st_size
        return grown

    def _open(self, identity: tuple[int, int]) -> bool:
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self.close()
        self._fd, self.problem = fd, ""
        self.generation += self._identity is not None
        self._identity = identity
        self.size = os.fstat(fd).st_size
        return True

    def _fail(self, error: OSError) -> bool:
        before, self.problem = self.problem, f"{self.path} cannot be read: {error.strerror}"
        return self.problem != before

    def read(self, offset: int, count: int) -> bytes:
        count = min(count, self.size - offset)
        if count <= 0 or self._fd < 0:
            return b""
        try:
            return os.pread(self._fd, count, offset)
        except OSError as error:
            self._fail(error)
            return b""

    timed = False

    def when(self, at: int) -> float | None:
        return None

    def late(self, at: int) -> bool:
        return False

    def stream(self, at: int) -> Key | None:
        return None

    def unfinished(self) -> list[tuple[Key, bytes]]:
        return []

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
