"""What a run says of its steps: lines for people, JSON lines beside them for every rank, TensorBoard where it is."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.train.errors import ConfigError

if TYPE_CHECKING:
    from engine.train.config import Config
    from engine.train.world import World

OTHERS = 10  # the other ranks write a line where rank 0 writes this many
DATA_BOUND = 0.2  # a run that waits for data longer than this share of its time is told so
ENOUGH = 20  # steps, before that is judged


def note(line: str) -> None:
    """One whole line in one write, so that ranks that share a stream do not cut each other's lines."""
    sys.stdout.flush()
    os.write(1, (line + "\n").encode())


@dataclasses.dataclass
class Step:
    """One optimizer step as a rank saw it; loss is the mean over all ranks and samples, times are seconds."""

    step: int
    epoch: float
    lr: float
    samples: int  # of all ranks
    loss: float = 0.0
    grad_norm: float = 0.0
    step_time: float = 0.0  # from the end of the step before to the end of this
    data_time: float = 0.0  # waiting for batches
    compute_time: float = 0.0  # forward and backward
    comm_time: float = 0.0  # waiting for gradients with nothing left to compute
    optimizer_time: float = 0.0  # clipping included
    memory_gib: float = 0.0


class Recorder:
    """Writes steps, and knows where the time of all of them went."""

    def __init__(self, config: Config, world: World, *, tokens: int, flops: float, peak: float) -> None:
        """`tokens` of a sample (0: it is not made of tokens), `flops` of a sample forward and backward, `peak` FLOP/s
        of the device (0: not known)."""
        self.config = config
        self.world = world
        self.tokens = tokens
        self.flops = flops
        self.peak = peak
        self.steps = 0
        self.spent = dict.fromkeys(("step_time", "data_time", "compute_time", "comm_time", "optimizer_time"), 0.0)
        self.told = False
        self.lines = None
        self.board: Any = None
        if config.out:
            folder = Path(config.out).expanduser()
            folder.joinpath("metrics").mkdir(parents=True, exist_ok=True)
            # After a resume some steps are in it twice; the later line counts.
            self.lines = folder.joinpath("metrics", f"rank{world.rank}.jsonl").open("a", encoding="utf-8")
        if config.tensorboard and world.rank == 0:
            self.board = board(Path(config.out).expanduser() / "tensorboard")

    def write(self, steps: list[Step]) -> None:
        """Steps in a row: one write for all of them, and a line for people where it is time for one."""
        told = [(step, self.values(step)) for step in steps]
        self.steps += len(steps)
        if self.lines:
            stamp = {"t": round(time.time(), 3), "rank": self.world.rank}
            self.lines.write("".join(json.dumps({**stamp, **values}) + "\n" for _, values in told))
            self.lines.flush()
        pace = self.config.log_every * (1 if self.world.rank == 0 else OTHERS)
        for step, values in told:
            for name in self.spent:
                self.spent[name] += values[name]
            if self.board:
                for name, value in values.items():
                    self.board.add_scalar(name, value, step.step)
            if step.step % pace == 0 or step.step == self.config.steps:
                note(self.line(values))
        if not self.told and self.steps >= ENOUGH and self.share("data_time") > DATA_BOUND:
            self.told = True
            note(
                f"data-bound: rank {self.world.rank} waits for data {self.share('data_time'):.0%} of its time; "
                "raise workers, or put the data on a faster disk"
            )

    def values(self, step: Step) -> dict[str, Any]:
        """The step's fields, and what follows from them."""
        rate = step.samples / step.step_time
        values = {**dataclasses.asdict(step), "total": self.config.steps, "samples_per_s": rate}
        if self.tokens:
            values["tokens_per_s"] = rate * self.tokens
            values["tokens_per_s_device"] = rate * self.tokens / self.world.ranks
        if self.peak:
            values["mfu"] = 100 * rate * self.flops / self.world.ranks / self.peak
        return values

    def line(self, values: dict[str, Any]) -> str:
        times = "  ".join(f"{name} {values[name]:.4f}s" for name in ("step_time", "data_time", "comm_time"))
        if self.world.rank:
            return f"step {values['step']}/{values['total']}  {times}  rank {self.world.rank}"
        rate = f"tokens/s {values['tokens_per_s']:,.0f}" if self.tokens else f"samples/s {values['samples_per_s']:,.1f}"
        mfu = f"  mfu {values['mfu']:.1f}%" if self.peak else ""
        return (
            f"step {values['step']}/{values['total']}  loss {values['loss']:.4f}  lr {values['lr']:.2e}  {times}  "
            f"{rate}  grad_norm {values['grad_norm']:.2f}  memory {values['memory_gib']:.2f}GiB{mfu}"
        )

    def share(self, name: str) -> float:
        return self.spent[name] / (self.spent["step_time"] or 1.0)

    def split(self) -> str:
        """Where the time went, of this rank's steps."""
        names = {"compute_time": "compute", "comm_time": "exposed communication", "data_time": "data"}
        parts = [f"{text} {self.share(name):.0%}" for name, text in names.items()]
        return ", ".join([*parts, f"optimizer {self.share('optimizer_time'):.0%}"])

    def close(self) -> None:
        if self.lines:
            self.lines.close()
        if self.board:
            self.board.close()


def board(folder: Path) -> Any:
    try:
        return importlib.import_module("torch.utils.tensorboard").SummaryWriter(folder)
    except ImportError as error:
        raise ConfigError(
            f"tensorboard is true, and it cannot be imported ({error}): pip install tensorboard"
        ) from None
