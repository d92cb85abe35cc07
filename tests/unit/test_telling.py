"""Events in words."""

from __future__ import annotations

import pytest

from engine import events
from engine.telling import words


@pytest.mark.parametrize(
    ("code", "signal", "told"),
    [
        (0, None, ""),
        (1, None, ": rank 5 (local_rank 1) exited with code 1"),
        (None, 9, ": rank 5 (local_rank 1) was killed by SIGKILL"),
        (None, None, ": rank 5 (local_rank 1) ended"),
    ],
)
def test_the_end_of_a_rank_is_told_as_far_as_it_was_seen(code: int | None, signal: int | None, told: str) -> None:
    ended = events.WorkerExit(t=0.0, node_rank=1, attempt=0, local_rank=1, rank=5, pid=7, code=code, signal=signal)
    assert words(ended) == told
