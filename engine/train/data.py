"""Real text as bytes, cut into samples and dealt out evenly to the ranks."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from engine.train.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator


def read_text(folder: str, glob: str, limit: int) -> bytearray:
    """The first `limit` bytes of the files under `folder` (empty: this Python's standard library), in sorted order."""
    root = Path(folder or sysconfig.get_paths()["stdlib"])
    text = bytearray()
    for path in sorted(root.rglob(glob)):
        if "site-packages" in path.parts or not path.is_file():
            continue
        text += path.read_bytes()
        if len(text) >= limit:
            break
    if not text:
        raise ConfigError(
            f"no text: nothing under {root} matches {glob!r}; set data to a folder and data_glob to its files"
        )
    return text[:limit]


class Samples:
    """Samples of `context` + 1 bytes that do not overlap; the last bytes that fill no sample are left out."""

    def __init__(self, text: bytearray, context: int) -> None:
        count = len(text) // (context + 1)
        used = torch.frombuffer(text, dtype=torch.uint8)[: count * (context + 1)]
        self.rows = used.view(count, context + 1)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and their successors, int64, each (len(indices), context)."""
        rows = self.rows[indices].long()
        return rows[:, :-1], rows[:, 1:]


class Shares:
    """The deal: in every epoch a seeded shuffle, then sample i to rank i mod ranks.

    Every rank gets the same number of batches, no two ranks share a sample, and no sample comes twice in an epoch. What
    fills no whole optimizer step (less than one total batch) waits for another epoch's shuffle. Interleaving makes
    the total batch of a step the same set of samples for every number of ranks.
    """

    def __init__(self, samples: int, *, rank: int, ranks: int, batch: int, grad_accum: int, seed: int) -> None:
        total = batch * ranks * grad_accum
        if samples < total:
            raise ConfigError(
                f"{samples} samples do not fill one total batch of {total}; "
                "lower per_device_batch, grad_accum or context, or raise data_bytes"
            )
        self.samples = samples
        self.rank = rank
        self.ranks = ranks
        self.batch = batch
        self.seed = seed
        self.used = samples - samples % total
        self.batches = self.used // (ranks * batch)  # a rank and epoch

    def epoch(self, epoch: int) -> torch.Tensor:
        """This rank's sample numbers in epoch `epoch`, in order."""
        order = torch.randperm(self.samples, generator=torch.Generator().manual_seed(self.seed + epoch))
        return order[: self.used][self.rank :: self.ranks]

    def __iter__(self) -> Iterator[torch.Tensor]:
        """The sample numbers of one batch after the other, epoch after epoch, without end."""
        epoch = 0
        while True:
            numbers = self.epoch(epoch)
            for first in range(0, len(numbers), self.batch):
                yield numbers[first : first + self.batch]
            epoch += 1
