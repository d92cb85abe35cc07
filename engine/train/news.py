"""What the ranks tell each other about a step, while the next one is computed."""

from __future__ import annotations

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
    """The mean loss, and whether a rank wishes to stop or to save, so that all do it after the same step.

    One small all-reduce; nobody waits for it, nor for the GPU, until `read` a step later.
    """

    def __init__(self, step: Step, loss: torch.Tensor, norm: torch.Tensor, marks: Marks, wishes: list[bool]) -> None:
        self.step = step
        self.norm = norm
        self.marks = marks
        self.shared = torch.cat([loss.view(1).float(), torch.tensor(wishes, dtype=torch.float32).to(loss.device)])
        self.work = dist.all_reduce(self.shared, async_op=True)

    def read(self, watch: Stopwatch, ddp: DistributedDataParallel, *, last: bool) -> tuple[Step, list[bool]]:
        """The step with all that is known of it, and which wishes any rank has."""
        self.work.wait()
        loss, *wishes = self.shared.tolist()
        step, marks = self.step, self.marks
        step.loss = loss / dist.get_world_size()
        step.grad_norm = self.norm.item()
        step.step_time = watch.between(marks.began, marks.ended)
        step.optimizer_time = watch.between(marks.backward, marks.ended)
        step.comm_time = exposed_seconds(ddp, last=last)
        step.compute_time = max(0.0, watch.between(marks.began, marks.backward) - step.data_time - step.comm_time)
        step.memory_gib = memory_gib(self.shared.device)
        return step, [wish > 0 for wish in wishes]
