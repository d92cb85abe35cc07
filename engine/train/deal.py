"""Which rank sees which sample when: every sample once an epoch, evenly, the same for every number of ranks."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch

from engine.batch import global_batch
from engine.train.errors import ConfigError


class Share(NamedTuple):
    """Sample numbers of one micro-step of a rank, and what its mean loss counts in the step's mean over all ranks."""

    samples: list[int]
    weight: float


class Deal:
    """In every epoch a seeded shuffle, cut into total batches; of each, sample i goes to rank i mod ranks.

    No sample comes twice in an epoch and none is left out: its last total batch is what remains, divided as evenly as
    it goes. A rank then weighs its loss by its number of samples, so that the gradient is the mean over all of them; a
    rank that goes without computes one sample for nothing, because the others wait for it. A total batch is the same
    set of samples for every number of ranks, so where a run stands is one number: its optimizer step.
    """

    def __init__(self, samples: int, *, rank: int, ranks: int, batch: int, grad_accum: int, seed: int) -> None:
        self.total = global_batch(batch, ranks, grad_accum)
        if samples < self.total:
            raise ConfigError(
                f"{samples} samples do not fill one total batch of {self.total}; "
                "lower per_device_batch, grad_accum or context, or give more data (data_bytes limits text)"
            )
        self.samples = samples
        self.rank = rank
        self.ranks = ranks
        self.batch = batch
        self.seed = seed
        self.steps = math.ceil(samples / self.total)  # an epoch
        self.order = functools.lru_cache(maxsize=1)(self._order)

    def _order(self, epoch: int) -> torch.Tensor:
        return torch.randperm(self.samples, generator=torch.Generator().manual_seed(self.seed + epoch))

    def size(self, step: int) -> int:
        """Samples of all ranks in optimizer step `step`."""
        return min(self.total, self.samples - step % self.steps * self.total)

    def step(self, step: int) -> list[Share]:
        """This rank's micro-steps in optimizer step `step`, counted from 0 over all epochs."""
        epoch, number = divmod(step, self.steps)
        dealt = self.order(epoch)[number * self.total : (number + 1) * self.total]
        mine: list[int] = dealt[self.rank :: self.ranks].tolist()
        if not mine:
            return [Share(dealt[:1].tolist(), 0.0)]
        parts = [mine[first : first + self.batch] for first in range(0, len(mine), self.batch)]
        return [Share(part, len(part) * self.ranks / len(dealt)) for part in parts]
