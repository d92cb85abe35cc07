"""Trains a small byte-level GPT with DDP; start it with

torchrun --nproc-per-node 2 -m engine.train --set steps=60
srun --ntasks-per-node 2 python -m engine.train --launcher slurm
python -m engine.train
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import sys
import time
import zlib
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from engine.batch import global_batch, scaled_lr
from engine.train.data import Samples, Shares, read_text
from engine.train.model import GPT, parameter_groups
from engine.train.world import World, choose_device, host, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine.train.config import Config

OTHERS = 10  # the other ranks write a line where rank 0 writes this many
STOPPED = 128 + signal.SIGTERM  # exit status of a run that SIGTERM ended


def train(config: Config, world: World) -> int:
    """Runs `config` as rank `world.rank`; exit status 0, 1 (ranks ended with different parameters) or 143 (SIGTERM)."""
    device = choose_device(config.device, world.local_rank)
    with joined(world, device, config.timeout_s) as backend, stop_on_sigterm() as asked_to_stop:
        return run(config, world, device, backend, asked_to_stop)


def run(config: Config, world: World, device: torch.device, backend: str, asked_to_stop: Callable[[], bool]) -> int:
    # data: nodes with different Python versions hold different text, and every rank has to deal the same deck
    text = read_text(config.data, config.data_glob, config.data_bytes)
    samples = Samples(text, config.context)
    decks = gathered((len(samples), zlib.crc32(text)), world.ranks, device)
    if len(set(decks)) > 1 and world.rank == 0:
        note("warning: the ranks read different text; each uses its own, cut to the shortest")
    shares = Shares(
        min(count for count, _ in decks),
        rank=world.rank,
        ranks=world.ranks,
        batch=config.per_device_batch,
        grad_accum=config.grad_accum,
        seed=config.seed,
    )
    batches = iter(shares)

    # model and optimizer
    torch.manual_seed(config.seed)
    model = GPT(config.layers, config.heads, config.width, config.context).to(device)
    ddp = DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)
    optimizer = torch.optim.AdamW(parameter_groups(model, config.weight_decay), betas=(0.9, 0.95))
    batch = global_batch(config.per_device_batch, world.ranks, config.grad_accum)
    peak_lr = scaled_lr(config.base_lr, config.base_batch, batch, config.lr_scaling)
    tokens_per_step = batch * config.context

    note(
        f"start: rank {world.rank}/{world.ranks}  local_rank {world.local_rank}  host {host()}  device {device}  "
        f"backend {backend}  timeout {config.timeout_s:g}s  batches {shares.batches} an epoch"
    )
    if world.rank == 0:
        note(
            f"model: {sum(p.numel() for p in model.parameters()):,} parameters  "
            f"batch: {config.per_device_batch} x {world.ranks} ranks x {config.grad_accum} = {batch} samples, "
            f"{tokens_per_step:,} tokens  peak lr {peak_lr:.2e}  torch {torch.__version__}"
        )

    # training
    began = time.perf_counter()
    step = 0
    loss = math.nan
    stopped = False
    while step < config.steps and not stopped:
        step_began = time.perf_counter()
        lr = learning_rate(step, config, peak_lr)
        for group in optimizer.param_groups:
            group["lr"] = lr

        data_time = 0.0
        local_loss = torch.zeros((), device=device)
        for micro in range(config.grad_accum):
            data_began = time.perf_counter()
            tokens, targets = (t.to(device, non_blocking=True) for t in samples.batch(next(batches)))
            data_time += time.perf_counter() - data_began
            last = micro == config.grad_accum - 1
            with contextlib.nullcontext() if last else ddp.no_sync():
                micro_loss = ddp(tokens, targets) / config.grad_accum
                micro_loss.backward()
            local_loss += micro_loss.detach()
        grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip or math.inf)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1

        # One small all-reduce carries the loss and the wish to stop, so that all ranks leave at the same step.
        shared = torch.stack([local_loss, torch.tensor(float(asked_to_stop()), device=device)])
        dist.all_reduce(shared)
        loss = shared[0].item() / world.ranks
        stopped = shared[1].item() > 0

        step_time = time.perf_counter() - step_began
        pace = config.log_every * (1 if world.rank == 0 else OTHERS)
        if step % pace == 0 or step == config.steps or stopped:
            times = f"step_time {step_time:.4f}s  data_time {data_time:.4f}s"
            if world.rank == 0:
                note(
                    f"step {step}/{config.steps}  loss {loss:.4f}  lr {lr:.2e}  {times}  "
                    f"tokens/s {tokens_per_step / step_time:,.0f}  grad_norm {grad_norm.item():.2f}"
                )
            else:
                note(f"step {step}/{config.steps}  {times}  rank {world.rank}")

    # the end: replicas that drifted apart are a failure, whatever the loss
    checksums = [crc for (crc,) in gathered((checksum(model),), world.ranks, device)]
    same = len(set(checksums)) == 1
    if world.rank == 0:
        wall = time.perf_counter() - began
        note(
            f"{'stopped' if stopped else 'done'}: {step} steps  final loss {loss:.4f}  "
            f"{step * tokens_per_step:,} tokens in {wall:.1f}s  checksum {checksums[0]:08x} on {world.ranks} ranks"
        )
        if not same:
            note(f"error: the ranks hold different parameters: {' '.join(f'{c:08x}' for c in checksums)}")
    if stopped:
        return STOPPED
    return 0 if same else 1


def learning_rate(step: int, config: Config, peak: float) -> float:
    """Linear warm-up to `peak`, then a cosine down to `min_lr_ratio` of it (Goyal et al. 2017; Loshchilov 2017)."""
    if step < config.warmup_steps:
        return peak * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return peak * (config.min_lr_ratio + (1 - config.min_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2)


def gathered(mine: tuple[int, ...], ranks: int, device: torch.device) -> list[tuple[int, ...]]:
    """Every rank's whole numbers, by rank; gathering objects would need numpy."""
    own = torch.tensor(mine, dtype=torch.int64, device=device)
    rows = [torch.empty_like(own) for _ in range(ranks)]
    dist.all_gather(rows, own)
    return [tuple(row.tolist()) for row in rows]


def checksum(model: torch.nn.Module) -> int:
    """CRC-32 over the bytes of all parameters, in order."""
    crc = 0
    for parameter in model.parameters():
        values = parameter.detach().cpu().contiguous()
        # torch runs without numpy, and then has no other quick way from a tensor to its bytes.
        crc = zlib.crc32(ctypes.string_at(values.data_ptr(), values.numel() * values.element_size()), crc)
    return crc


@contextlib.contextmanager
def stop_on_sigterm() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether SIGTERM has come; the step under way is finished first."""
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGTERM, before)


def note(line: str) -> None:
    """One whole line in one write, so that ranks that share a stream do not cut each other's lines."""
    sys.stdout.flush()
    os.write(1, (line + "\n").encode())
