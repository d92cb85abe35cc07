# mypy: ignore-errors
"""An mmengine Runner as anybody writes one; it says itself at the end how fast it was."""

import sys
import time

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner

STEPS, READ = int(sys.argv[1]), float(sys.argv[2])


class Points(torch.utils.data.Dataset):
    def __len__(self):
        return 4 * STEPS

    def __getitem__(self, number):
        time.sleep(READ)
        x = torch.sin(torch.arange(16.0) * (number + 1))
        return x, x.sum(0, keepdim=True)


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(16, 1)

    def forward(self, x, y, mode="loss"):
        return {"loss": torch.nn.functional.mse_loss(self.layer(x), y)}


class Clock(Hook):
    def before_train(self, runner):
        self.began, self.losses = time.perf_counter(), []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses = [*self.losses[-9:], float(outputs["loss"])]  # mmengine prints the mean of ten

    def after_train(self, runner):
        if runner.rank == 0:
            took = time.perf_counter() - self.began
            print(f"trained at {STEPS / took:.4f} steps per second; the last loss was {sum(self.losses) / 10:.6g}")


torch.distributed.init_process_group("gloo")  # mmengine's own way asks for a GPU
Runner(
    model=Line(), work_dir=sys.argv[3], launcher="pytorch",
    cfg={"model_wrapper_cfg": {"type": "MMDistributedDataParallel", "device_ids": None}},
    train_dataloader={
        "dataset": Points(), "batch_size": 2, "num_workers": 0, "sampler": {"type": "DefaultSampler", "shuffle": True},
        "collate_fn": {"type": "default_collate"},
    },
    train_cfg={"by_epoch": False, "max_iters": STEPS},
    optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.01}},
    default_hooks={"logger": {"type": "LoggerHook", "interval": 10}, "checkpoint": None}, custom_hooks=[Clock()],
).train()  # fmt: skip
