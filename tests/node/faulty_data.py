"""Data for the tests of interrupted runs: the engine's made-up samples, and a signal to rank 1 while it reads them."""

from __future__ import annotations

import os
from pathlib import Path

from engine.train.config import load
from engine.train.data import Tokens, open_data
from tests.node.training import SMALL


class Faulty:
    """The samples of `data`. When rank 1 reads its batch number `batch` it gets `signal`, once for each `mark`, a file
    that this leaves behind."""

    def __init__(self, data: Tokens, batch: int, signal: int, mark: str) -> None:
        self.data = data
        self.batch = batch
        self.signal = signal
        self.mark = Path(mark)
        self.read = 0

    def __len__(self) -> int:
        return len(self.data)

    def __getitems__(self, numbers: list[int]) -> object:
        self.read += 1
        if os.environ["RANK"] == "1" and self.read == self.batch and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), self.signal)
        return self.data.__getitems__(numbers)


def build(batch: int, signal: int, mark: str) -> Faulty:
    data = open_data(load(None, [*SMALL, "data=synthetic"]))
    assert isinstance(data, Tokens)
    return Faulty(data, batch, signal, mark)
