"""Trains a model with DDP, by default a small byte-level GPT; start it with

torchrun --nproc-per-node 2 -m engine.train CONFIG --set steps=60
srun --ntasks-per-node 2 python -m engine.train CONFIG --launcher slurm
python -m engine.train
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
import zlib
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from engine.batch import learning_rate
from engine.train import network
from engine.train.checkpoint import Checkpoints
from engine.train.data import memory_of
from engine.train.feed import batches
from engine.train.news import Marks, News
from engine.train.ranks import gathered, together
from engine.train.record import Recorder, Step, note
from engine.train.setup import restore, set_up, state_of
from engine.train.speed import Stopwatch
from engine.train.world import World, choose_device, host, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine.train.config import Config
    from engine.train.setup import Parts
NEWS_S = 1.0  # the ranks exchange news at least so often, and with log_every more rarely than every step
STOPPED = 128 + signal.SIGTERM  # exit status of a run that SIGTERM ended


def train(config: Config, world: World, resume: str | None = None) -> int:
    """Runs `config` as rank `world.rank`; exit status 0, 1 (ranks ended with different parameters) or 143 (SIGTERM)."""
    device = choose_device(config.device, world.local_rank)
    with joined(world, device, config.timeout_s), stop_on_sigterm() as asked_to_stop:
        parts = set_up(config, world, device)
        checkpoints = Checkpoints(config.out, world, device, config.keep, note)
        loaded = checkpoints.resume(resume)
        with together(device):
            first = restore(parts, loaded, world) if loaded else 0
        introduce(config, world, device, parts, first)
        return run(config, world, device, parts, checkpoints, first, asked_to_stop)


def run(
    config: Config,
    world: World,
    device: torch.device,
    parts: Parts,
    checkpoints: Checkpoints,
    first: int,
    asked_to_stop: Callable[[], bool],
) -> int:
    ddp, optimizer, scaler, deal = parts.ddp, parts.optimizer, parts.scaler, parts.deal
    with together(device):
        recorder = Recorder(config, world, tokens=parts.tokens, flops=parts.flops, peak=parts.peak)
    feed = batches(parts.data, deal, first, device, config.workers)
    watch = Stopwatch(device)
    began = saved = time.monotonic()
    ended = watch.mark()
    step, loss, stop = first, math.nan, False
    news, sent, every = News(), None, 1
    parameters = list(ddp.parameters())

    while step < config.steps and not stop:
        started, waited = ended, watch.data
        lr = learning_rate(step, config.steps, parts.peak_lr, warmup=config.warmup_steps, min_ratio=config.min_lr_ratio)
        for group in optimizer.param_groups:
            group["lr"] = lr

        shares = deal.step(step)
        losses = []
        for number, share in enumerate(shares, 1):
            with watch.loading():
                batch = next(feed)
            with contextlib.nullcontext() if number == len(shares) else ddp.no_sync():
                weighed = parts.forward(batch)
                if share.weight != 1:
                    weighed = weighed * share.weight
                scaler.scale(weighed).backward()  # type: ignore[no-untyped-call]
            losses.append(weighed.detach())
        backward = watch.mark()

        scaler.unscale_(optimizer)
        norm = clipped([p.grad for p in parameters if p.grad is not None], config.grad_clip)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        ended = watch.mark()
        step += 1

        record = Step(
            step=step, epoch=step / deal.steps, lr=lr, samples=deal.size(step - 1), data_time=watch.data - waited
        )
        news.add(record, sum(losses[1:], losses[0]), norm, Marks(started, backward, ended))
        before, sent, save = sent, None, False
        if len(news.steps) >= every:
            overdue = 0 < config.checkpoint_minutes < (time.monotonic() - saved) / 60
            news, sent = News(), news.send([asked_to_stop(), overdue])
        if before:
            told, each, (stop, save) = before.read(watch, ddp, last=False)
            recorder.write(told)
            every = max(1, min(config.log_every, int(NEWS_S / each)))
        if config.out and (stop or save or (config.checkpoint_every and step % config.checkpoint_every == 0)):
            checkpoints.save(step, *state_of(parts, step, config, world))
            saved = time.monotonic()

    for rest in (sent, news.send([]) if news.steps else None):
        if rest:
            told, *_ = rest.read(watch, ddp, last=True)
            recorder.write(told)
            loss = told[-1].loss
    recorder.close()

    # the end: replicas that drifted apart are a failure, whatever the loss
    checksums = [crc for (crc,) in gathered((checksum(parts.model),), device)]
    same = len(set(checksums)) == 1
    if world.rank == 0:
        tokens = f"{(step - first) * deal.total * parts.tokens:,} tokens in " if parts.tokens else ""
        note(
            f"{'stopped' if stop else 'done'}: {step} steps  final loss {loss:.4f}  "
            f"{tokens}{time.monotonic() - began:.1f}s  checksum {checksums[0]:08x} on {world.ranks} ranks"
        )
        note(f"time: {recorder.split()}")
        if not same:
            note(f"error: the ranks hold different parameters: {' '.join(f'{c:08x}' for c in checksums)}")
    if stop and step < config.steps:
        return STOPPED
    return 0 if same else 1


def introduce(config: Config, world: World, device: torch.device, parts: Parts, first: int) -> None:
    """Who this rank is; on rank 0 also what is about to run."""
    deal = parts.deal
    note(
        f"start: rank {world.rank}/{world.ranks}  local_rank {world.local_rank}  host {host()}  device {device}  "
        f"backend {dist.get_backend()}  timeout {config.timeout_s:g}s  steps {deal.steps} an epoch"
    )
    if world.local_rank == 0:
        note(network.described(device))
    if world.rank == 0:
        count = sum(parameter.numel() for parameter in parts.model.parameters())
        tokens = f", {deal.total * parts.tokens:,} tokens" if parts.tokens else ""
        note(
            f"model: {count:,} parameters  batch: {config.per_device_batch} x {world.ranks} ranks x "
            f"{config.grad_accum} = {deal.total} samples{tokens}  precision {config.precision}  "
            f"gradients {config.hook}  torch {torch.__version__}"
        )
        note(
            f"lr: {config.base_lr:g} at batch {config.base_batch}, {config.lr_scaling} scaling: peak "
            f"{parts.peak_lr:.2e}, {config.warmup_steps} steps of warm-up, cosine to "
            f"{parts.peak_lr * config.min_lr_ratio:.2e} at step {config.steps}"
        )
        if first:
            note(f"resumed: from step {first}")


def clipped(gradients: list[torch.Tensor], most: float) -> torch.Tensor:
    """Scales the gradients down to a norm of `most` (0: leaves them) and gives the norm that they had.

    As torch.nn.utils.clip_grad_norm_, for dense gradients of one device: a tenth of a small step is spent in there.
    """
    norm: torch.Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if most:
        torch._foreach_mul_(gradients, torch.clamp(most / (norm + 1e-6), max=1.0))
    return norm


def checksum(model: torch.nn.Module) -> int:
    """CRC-32 over the bytes of all parameters, in order."""
    crc = 0
    for parameter in model.parameters():
        crc = zlib.crc32(memory_of(parameter.detach().cpu().contiguous()), crc)
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
