"""Logs for tests: bytes in memory as a source, and files written as a training job writes them."""

from __future__ import annotations

from typing import Any

LEVELS = [
    ("Traceback (most recent call last):", "error"),
    ("torch.cuda.OutOfMemoryError: CUDA out of memory.", "error"),
    ("[rank3]: RuntimeError: NCCL communicator was aborted", "error"),
    ("E1124 08:14:22.123 12 torch/distributed/elastic/multiprocessing/api.py:874] failed", "error"),
    ("KeyboardInterrupt", "error"),
    ("train.py: error: unrecognized arguments: --x", "error"),
    ("step 12 loss: nan", "error"),
    ("bash: line 1: 77 Killed", ""),
    ("Killed", "error"),
    ("2026-11-24 08:12:33 WARNING something", "warning"),
    ("UserWarning: lr_scheduler.step()", "warning"),
    ("W1124 08:14:22 x", "warning"),
    ("step 40/60 loss 2.31 0 errors", ""),
    ("ErrorFeedback enabled", ""),
]
"""Lines, and what each is."""


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
