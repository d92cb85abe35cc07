"""What all ranks do together beside training: exchange small things, and end at once when one of them cannot go on."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from engine.train.errors import RanksError
from engine.train.meeting import ranks_text

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 64 << 20  # bytes of a broadcast at once: with NCCL they go through the GPU's memory


def gathered(mine: tuple[int, ...], device: torch.device) -> list[tuple[int, ...]]:
    """Every rank's whole numbers, by rank; gathering objects would need numpy."""
    own = torch.tensor(mine, dtype=torch.int64, device=device)
    rows = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, own)
    return [tuple(row.tolist()) for row in rows]


@contextlib.contextmanager
def together(device: torch.device) -> Iterator[None]:
    """All ranks get to the end of the body, or none goes on: those that are well raise RanksError.

    Without it a rank that fails before the first collective leaves the others waiting for it until the timeout.
    """
    problem: BaseException | None = None
    try:
        yield
    except Exception as error:
        problem = error
    failed = tuple(rank for rank, (bad,) in enumerate(gathered((problem is not None,), device)) if bad)
    if problem:
        raise problem
    if failed:
        raise RanksError(f"{ranks_text(failed)} cannot go on, so this one ends too")


def broadcast(data: bytes | None, device: torch.device) -> bytes | None:
    """Rank 0's bytes, on all ranks; None where it has none."""
    if dist.get_world_size() == 1:
        return data
    (size,) = gathered((-1 if data is None else len(data),), device)[0]
    if size < 0:
        return None
    whole = torch.frombuffer(bytearray(data or size), dtype=torch.uint8) if size else torch.empty(0, dtype=torch.uint8)
    for chunk in torch.split(whole, CHUNK):
        travelling = chunk.to(device)
        dist.broadcast(travelling, 0)
        chunk.copy_(travelling)
    return bytes(whole.untyped_storage())
