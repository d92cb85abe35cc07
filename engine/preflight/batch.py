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


@check("batch.data", needs=("gpus", "program"), across=True)
def data(seen: Seen) -> Iterator[Note]:
    """The data fills at least one step of all ranks."""
    counts = {rank: ranks_of(node, observed) for rank, node, observed in seen.nodes()}
    asked, world = seen.profile.batch, sum(counts.values())
    told: set[str] = set()
    for rank, _, observed in seen.nodes():
        fed = observed.program.fed
        share = fed.share or (asked.per_device * asked.grad_accum if asked is not None else 0)
        total = share * world
        if fed.samples is None or fed.samples >= total or len(counts) < len(seen.profile.nodes) or fed.data in told:
            continue
        told.add(fed.data)
        most = max(1, fed.samples // world)
        fits = asked is not None and not fed.share and fed.samples >= world
        yield warning(
            rank,
            f"{fed.data} has {fed.samples} samples, and one step of {world} ranks takes {total}",
            fix=[f"batch.per_device={min(most, asked.per_device)}", "batch.grad_accum=1"] if asked and fits else [],
            remedy="" if fits else "use fewer ranks, smaller batches, or more data",
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
