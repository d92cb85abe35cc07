"""The same training by other loops than ours: the same model, data, optimizer, batch and number of ranks.

    python -m tests.bench.loops KIND WARM KEY=VALUE…      as each rank, with torchrun's variables

Rank 0 prints one JSON object: samples/s of all ranks over the steps after the first WARM. Every loop clips gradients to
1, follows a learning rate that changes every step, and logs its loss every tenth step, as ours does.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import sys
import tempfile
import time
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from engine.train.build import parameter_groups
from engine.train.config import Config, load
from engine.train.data import open_data
from engine.train.model import GPT

WORK = ["data=synthetic", "log_every=10", "warmup_steps=10"]  # the engine's own model: two layers of width 128
LEARNING_RATE = 1e-3


class Samples(Dataset[dict[str, torch.Tensor]]):
    """The engine's made-up tokens, one sample at a time, as these loops want them."""

    def __init__(self, config: Config) -> None:
        self.data = open_data(config)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        tokens, targets = self.data.__getitems__([number])
        return {"tokens": tokens[0], "targets": targets[0]}


class Whole(torch.nn.Module):
    """The engine's model, with its loss in the dict that these loops look for."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gpt = GPT(config.layers, config.heads, config.width, config.context, config.vocabulary)

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        return {"loss": self.gpt(tokens, targets)}


def adamw(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameter_groups(model, 0.1), lr=LEARNING_RATE, betas=(0.9, 0.95), fused=True)


def rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / 10) * (1 + math.cos(math.pi * step / steps)) / 2


def bare(config: Config, steps: int, ended: list[float]) -> None:
    """What one writes by hand after the DDP tutorial; it gets whole batches from the data, as ours does."""
    dist.init_process_group("gloo")
    torch.manual_seed(1)
    gpt = GPT(config.layers, config.heads, config.width, config.context, config.vocabulary)
    model = DistributedDataParallel(gpt, gradient_as_bucket_view=True)
    optimizer = adamw(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    data = open_data(config)
    sampler: Any = DistributedSampler(data, seed=1)
    loader = DataLoader(data, batch_size=config.per_device_batch, sampler=sampler, collate_fn=tuple)
    for tokens, targets in loader:
        loss = model(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        ended.append(time.perf_counter())
        if len(ended) % 10 == 0:
            dist.all_reduce(loss.detach())
            print(f"step {len(ended)} loss {loss.item() / dist.get_world_size():.4f}", flush=True)
        if len(ended) == steps:
            break
    dist.destroy_process_group()


def transformers(config: Config, steps: int, ended: list[float]) -> None:
    hf = importlib.import_module("transformers")

    class Watch(hf.TrainerCallback):  # type: ignore[misc, name-defined]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ended.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        asked = hf.TrainingArguments(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=config.per_device_batch,
            learning_rate=LEARNING_RATE, lr_scheduler_type="cosine", warmup_steps=10, max_grad_norm=1.0,
            weight_decay=0.1, logging_steps=10, report_to=[], save_strategy="no", use_cpu=True, ddp_backend="gloo",
            disable_tqdm=True, remove_unused_columns=False, optim="adamw_torch_fused",
        )  # fmt: skip
        hf.Trainer(model=Whole(config), args=asked, train_dataset=Samples(config), callbacks=[Watch()]).train()


def lightning(config: Config, steps: int, ended: list[float]) -> None:
    pl = importlib.import_module("lightning.pytorch")
    strategies = importlib.import_module("lightning.pytorch.strategies")

    class Module(pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.whole = Whole(config)

        def training_step(self, batch: dict[str, torch.Tensor], number: int) -> torch.Tensor:
            loss = self.whole(**batch)["loss"]
            if number % 10 == 0:
                self.log("loss", loss, sync_dist=True)
            return loss  # type: ignore[no-any-return]

        def configure_optimizers(self) -> Any:
            optimizer = adamw(self)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

        def on_train_batch_end(self, *_: Any) -> None:
            ended.append(time.perf_counter())

    trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", devices=int(os.environ["WORLD_SIZE"]), gradient_clip_val=1.0,
        strategy=strategies.DDPStrategy(process_group_backend="gloo", gradient_as_bucket_view=True), logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(Samples(config), batch_size=config.per_device_batch, shuffle=True))


def mmengine(config: Config, steps: int, ended: list[float]) -> None:
    runner = importlib.import_module("mmengine.runner")
    models = importlib.import_module("mmengine.model")
    hooks = importlib.import_module("mmengine.hooks")

    class Model(models.BaseModel):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.whole = Whole(config)

        def forward(self, tokens: torch.Tensor, targets: torch.Tensor, mode: str = "loss") -> Any:
            return self.whole(tokens, targets)

    class Watch(hooks.Hook):  # type: ignore[misc, name-defined]
        def after_train_iter(self, *_: Any, **__: Any) -> None:
            ended.append(time.perf_counter())

    dist.init_process_group("gloo")  # mmengine's own way asks for a GPU
    model = Model()
    with tempfile.TemporaryDirectory() as folder:
        runner.Runner(
            model=model, work_dir=folder, launcher="pytorch",
            cfg={"model_wrapper_cfg": {"type": "MMDistributedDataParallel", "device_ids": None}},
            train_dataloader={
                "dataset": Samples(config), "batch_size": config.per_device_batch, "num_workers": 0,
                "sampler": {"type": "DefaultSampler", "shuffle": True}, "collate_fn": {"type": "default_collate"},
            },
            train_cfg={"by_epoch": False, "max_iters": steps},
            optim_wrapper={"optimizer": adamw(model), "clip_grad": {"max_norm": 1.0}},
            param_scheduler={"type": "CosineAnnealingLR", "by_epoch": False, "T_max": steps},
            default_hooks={"logger": {"type": "LoggerHook", "interval": 10}, "checkpoint": None},
            custom_hooks=[Watch()], log_level="WARNING",
        ).train()  # fmt: skip


KINDS = {"bare": bare, "transformers": transformers, "lightning": lightning, "mmengine": mmengine}


def main() -> None:
    kind, warm = sys.argv[1], int(sys.argv[2])
    config = load(None, sys.argv[3:])
    steps = config.steps
    ended: list[float] = []
    with contextlib.redirect_stdout(sys.stderr):
        KINDS[kind](config, steps, ended)
    samples = config.per_device_batch * int(os.environ["WORLD_SIZE"]) * (steps - warm)
    if os.environ["RANK"] == "0":
        print(json.dumps({"samples_per_s": samples / (ended[steps - 1] - ended[warm - 1])}))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
