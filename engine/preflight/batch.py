"""Whether the batch arithmetic of the profile makes sense with the ranks that there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine import batch
from engine.preflight.devices import ranks_of
from engine.preflight.findings import Note, Seen, check, info, ranks_text, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

STEEP = 8
"""Goyal et al. 2017 scale the rate linearly up to 8,192 samples, 32 times their base, with five epochs of warm-up."""


@check("batch.size", needs=("gpus",), across=True)
def size(seen: Seen) -> Iterator[Note]:
    """The global batch and the learning rate are what the profile means."""
    asked = seen.profile.batch
    counts = {rank: ranks_of(node, observed) for rank, node, observed in seen.nodes()}
    if asked is None or len(counts) < len(seen.profile.nodes):
        return
    world = sum(counts.values())
    total = batch.global_batch(asked.per_device, world, asked.grad_accum)
    if asked.base_lr is None or asked.base_batch is None:
        return
    factor = total / asked.base_batch
    lr = batch.scaled_lr(asked.base_lr, asked.base_batch, total, asked.lr_scaling)
    if asked.lr_scaling == "linear" and factor >= STEEP:
        yield warning(
            None,
            f"global batch {total} is {factor:g} times base_batch: the learning rate becomes {batch.lr_text(lr)}",
            remedy="warm it up over some epochs, or scale it by the root, as Adam likes it",
            fix=["batch.lr_scaling=sqrt"],
        )


@check("batch.even", needs=("gpus",), across=True)
def even(seen: Seen) -> Iterator[Note]:
    """Every node has the same number of ranks."""
    if seen.profile.batch is None:
        return
    groups: dict[int, list[int]] = {}
    for rank, node, observed in seen.nodes():
        groups.setdefault(ranks_of(node, observed), []).append(rank)
    if len(groups) > 1:
        listed = ", ".join(f"{count} on {ranks_text(ranks)}" for count, ranks in sorted(groups.items(), reverse=True))
        yield info(
            None,
            f"the nodes have different numbers of ranks: {listed}; DDP does not mind, programs that split by node do",
        )
