"""What the ranks tell each other about a step, while the next one is computed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.distributed as dist

from engine.train.speed import exposed_seconds, memory_gib

if TYPE_CHECKING:
    from torch.nn.parallel import DistributedDataParallel

    from engine.train.record import Step
    from engine.train.speed import Mark, Stopwatch


class Marks(NamedTuple):
    """When a step began, had its gradients, and ended."""

    began: Mark
    backward: Mark
    ended: Mark


class News:
    """Of some steps in a row the mean loss, and whether a rank wishes to stop or to save, so that all do it together.

    One small all-reduce for all of them; nobody waits for it, nor for the GPU, until `read` a step later.
    """

    def __init__(self) -> None:
        self.steps: list[tuple[Step, torch.Tensor, torch.Tensor, Marks]] = []
        self.began = time.perf_counter()

    def add(self, step: Step, loss: torch.Tensor, norm: torch.Tensor, marks: Marks) -> None:
        self.steps.append((step, loss, norm, marks))

    def send(self, wishes: list[bool]) -> News:
        each = (time.perf_counter() - self.began) / len(self.steps)
        losses = torch.stack([loss for _, loss, _, _ in self.steps]).float()
        self.shared = torch.cat([losses, torch.tensor([each, *wishes], dtype=torch.float32).to(losses.device)])
        self.work = dist.all_reduce(self.shared, async_op=True)
        return self

    def read(
        self, watch: Stopwatch, ddp: DistributedDataParallel, *, last: bool
    ) -> tuple[list[Step], float, list[bool]]:
        """The steps with all that is known of them, the seconds of one, and which wishes any rank has: the latter two
        are the same on all ranks."""
        self.work.wait()
        ranks = dist.get_world_size()
        said = self.shared.tolist()
        exposed, memory = exposed_seconds(ddp, last=last), memory_gib(self.shared.device)
        for loss, (step, _, norm, marks) in zip(said, self.steps, strict=False):
            step.loss = loss / ranks
            step.grad_norm = norm.item()
            step.step_time = watch.between(marks.began, marks.ended)
            step.optimizer_time = watch.between(marks.backward, marks.ended)
            step.comm_time = exposed
            step.compute_time = max(0.0, watch.between(marks.began, marks.backward) - step.data_time - step.comm_time)
            step.memory_gib = memory
        each, *wishes = said[len(self.steps) :]
        return [step for step, *_ in self.steps], each / ranks, [wish > 0 for wish in wishes]
