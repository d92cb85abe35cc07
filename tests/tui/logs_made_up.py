"""Logs for tests: bytes in memory as a source, and files written as a training job writes them."""

from __future__ import annotations

from typing import Any


class BytesSource:
    """A source that holds its bytes; `data` may be set to more of them. Stands in for a file."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self.size = len(data)
        self.generation = 0

    @property
    def name(self) -> dict[str, Any]:
        return {}

    def poll(self) -> bool:
        grown = len(self.data) != self.size
        self.size = len(self.data)
        return grown

    def read(self, offset: int, count: int) -> bytes:
        return self.data[: self.size][offset : offset + count]

    timed = False

    def when(self, at: int) -> float | None:
        return None

    def late(self, at: int) -> bool:
        return False

    def stream(self, at: int) -> tuple[int, str] | None:
        return None

    def unfinished(self) -> list[tuple[tuple[int, str], bytes]]:
        return []

    def close(self) -> None:
        pass
