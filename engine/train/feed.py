"""Batches on the device, in time: loaded by workers, pinned, and copied while the step before is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.train.deal import Deal

AHEAD = 4  # batches that a worker loads before they are wanted


class Numbers:
    """The sample numbers of one micro-step after the other, from optimizer step `first` on, without end."""

    def __init__(self, deal: Deal, first: int) -> None:
        self.deal = deal
        self.first = first

    def __iter__(self) -> Iterator[list[int]]:
        step = self.first
        while True:
            for share in self.deal.step(step):
                yield share.samples
            step += 1


def batches(data: Any, deal: Deal, first: int, device: torch.device, workers: int) -> Iterator[Any]:
    """One batch after the other, on `device`, from optimizer step `first` on."""
    loader: Iterator[Any] = iter(
        DataLoader(
            data,
            batch_sampler=Numbers(deal, first),
            collate_fn=as_it_is if hasattr(data, "__getitems__") else None,
            num_workers=workers,
            prefetch_factor=AHEAD if workers else None,
            pin_memory=device.type == "cuda",
        )
    )
    return copied(loader, device) if device.type == "cuda" else loader


def as_it_is(batch: Any) -> Any:
    return batch


def copied(loaded: Iterator[Any], device: torch.device) -> Iterator[Any]:
    """Each batch is copied on a stream of its own, so that the copy runs while the step before is still computed."""
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for batch in loaded:
        with torch.cuda.stream(side):
            here = moved(batch, device)
        main = torch.cuda.current_stream(device)
        main.wait_stream(side)
        for tensor in tensors_of(here):
            tensor.record_stream(main)  # or its memory might be given to the next copy while it is still read
        yield here


def moved(batch: Any, device: torch.device) -> Any:
    """The tensors in a tensor, tuple, list or dict, on the device."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: moved(value, device) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return [moved(value, device) for value in batch]
    return batch


def tensors_of(batch: Any) -> Iterator[torch.Tensor]:
    if isinstance(batch, torch.Tensor):
        yield batch
    elif isinstance(batch, (dict, tuple, list)):
        for value in batch.values() if isinstance(batch, dict) else batch:
            yield from tensors_of(value)
