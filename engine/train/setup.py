"""Everything that a run needs before its first step, the same on all ranks or none of them starts."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import zlib
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parallel import DistributedDataParallel

from engine.batch import scaled_lr
from engine.train import hooks
from engine.train.build import build_model, build_optimizer, loss_of
from engine.train.data import open_data
from engine.train.deal import Deal
from engine.train.errors import ConfigError
from engine.train.feed import batches
from engine.train.ranks import gathered, together
from engine.train.record import note
from engine.train.speed import flops_of, peak_flops
from engine.train.world import host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine.train.checkpoint import Loaded
    from engine.train.config import Config
    from engine.train.world import World

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclasses.dataclass
class Parts:
    """What trains: `forward` takes a batch under autocast and gives its loss; `ddp` is the replica of `model`."""

    data: Any
    deal: Deal
    model: torch.nn.Module
    ddp: DistributedDataParallel
    forward: Callable[[Any], torch.Tensor]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    memory: hooks.Memory | None  # of the gradient hook
    peak_lr: float
    tokens: int  # of a sample; 0: it is not made of tokens
    flops: float  # of a sample, forward and backward; 0: not counted
    peak: float  # FLOP/s of the device; 0: not known


def set_up(config: Config, world: World, device: torch.device) -> Parts:
    """Reads, builds, wraps; ConfigError on the ranks where that fails, RanksError on the others."""
    asked = {key: value for key, value in dataclasses.asdict(config).items() if key != "out"}  # a path of the node
    same_everywhere("configuration", repr(asked), world, device)
    with together(device):
        data = open_data(config)
    decks = gathered((len(data), getattr(data, "fingerprint", 0)), device)
    if len(set(decks)) > 1 and world.rank == 0:
        note("warning: the ranks read different data; each uses its own, cut to the shortest")
    with together(device):
        deal = Deal(
            min(count for count, _ in decks),
            rank=world.rank,
            ranks=world.ranks,
            batch=config.per_device_batch,
            grad_accum=config.grad_accum,
            seed=config.seed,
        )
        batch = next(batches(data, deal, 0, device, workers=0))
        torch.manual_seed(config.seed)
        model = build_model(config).to(device)
        peak_lr = scaled_lr(config.base_lr, config.base_batch, deal.total, config.lr_scaling)
        optimizer = build_optimizer(config, model, peak_lr)
    shapes = [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
    same_everywhere("model", repr(shapes), world, device)

    ddp = DistributedDataParallel(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        bucket_cap_mb=config.bucket_mb,
        gradient_as_bucket_view=True,
        static_graph=config.static_graph,
        find_unused_parameters=config.find_unused_parameters,
    )
    ddp._set_ddp_runtime_logging_sample_rate(config.log_every)  # type: ignore[no-untyped-call]
    called = torch.compile(ddp, backend=config.compile) if config.compile else ddp
    mixed = config.precision != "fp32"

    def forward(batch: Any) -> torch.Tensor:
        if not mixed:
            return loss_of(called, batch)
        with torch.autocast(device.type, DTYPES[config.precision]):
            return loss_of(called, batch)

    peak = config.peak_tflops * 1e12 or peak_flops(device, config.precision)
    samples = len(deal.step(0)[0].samples)
    with undisturbed(model, device):
        flops = flops_of(model, batch) / samples if peak else 0.0
        # DDP settles on its buckets after the first backward pass, or the second. A resumed run must sum in the same
        # order as one that never ended, and what a hook keeps belongs to its bucket: so it settles before any step.
        for _ in range(2):
            (forward(batch) * 0).backward()  # type: ignore[no-untyped-call]
    memory = None
    if config.hook != "none" and world.ranks > 1:
        memory = hooks.register(ddp, config.hook, device, rank=config.powersgd_rank, start=config.powersgd_start)
    torch.manual_seed(config.seed + world.rank)  # dropout and the like differ between ranks
    return Parts(
        data=data,
        deal=deal,
        model=model,
        ddp=ddp,
        forward=forward,
        optimizer=optimizer,
        scaler=torch.amp.GradScaler(device.type, enabled=config.precision == "fp16"),
        memory=memory,
        peak_lr=peak_lr,
        tokens=tokens_of(batch),
        flops=flops,
        peak=peak,
    )


def same_everywhere(what: str, mine: str, world: World, device: torch.device) -> None:
    """ConfigError on the ranks whose `what` is another than most ranks', RanksError on the others."""
    said = gathered((zlib.crc32(mine.encode()),), device)
    usual, count = collections.Counter(said).most_common(1)[0]
    with together(device):
        if said[world.rank] != usual:
            raise ConfigError(
                f"rank {world.rank} on {host()} has another {what} than {count} of the {world.ranks} ranks: "
                f"{mine[:500]}; are code, files and packages the same on all nodes?"
            )


@contextlib.contextmanager
def undisturbed(model: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """What runs in here leaves no trace in the random state, the buffers and the gradients."""
    before = [buffer.clone() for buffer in model.buffers()]
    with torch.random.fork_rng([device.index] if device.type == "cuda" else []):
        yield
    with torch.no_grad():
        for buffer, value in zip(model.buffers(), before, strict=True):
            buffer.copy_(value)
    model.zero_grad(set_to_none=True)


def tokens_of(batch: Any) -> int:
    """The length of a sample that is a sequence of whole numbers, else 0."""
    first = batch[0] if isinstance(batch, (tuple, list)) else None
    sequence = isinstance(first, torch.Tensor) and first.dim() == 2 and first.dtype == torch.int64
    return first.shape[1] if sequence and first is not None else 0


def state_of(parts: Parts, step: int, config: Config, world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a checkpoint holds after `step` steps: the same for all ranks, and of this rank."""
    main = {
        "step": step,
        "ranks": world.ranks,
        "batch": parts.deal.total,
        "samples": parts.deal.samples,
        "config": dataclasses.asdict(config),
        "model": parts.model.state_dict(),
        "optimizer": parts.optimizer.state_dict(),
        "optimizer_kind": type(parts.optimizer).__name__,
        "scaler": parts.scaler.state_dict(),
    }
    own: dict[str, Any] = {"random": torch.get_rng_state()}
    if torch.cuda.is_available():
        own["random_cuda"] = torch.cuda.get_rng_state()
    if parts.memory:
        own["hook"] = {"step": parts.memory.step, "kept": parts.memory.kept}
    return main, own


def restore(parts: Parts, loaded: Loaded, world: World) -> int:
    """Puts a checkpoint into the parts; the step to go on with. ConfigError where it belongs to another run."""
    main, own = loaded
    if main["batch"] != parts.deal.total:
        raise ConfigError(
            f"the checkpoint has {main['batch']} samples a step ({main['ranks']} ranks), this run {parts.deal.total} "
            f"({world.ranks} ranks): set per_device_batch x grad_accum to {main['batch'] / world.ranks:g}"
        )
    if main["samples"] != parts.deal.samples:
        raise ConfigError(f"the checkpoint saw {main['samples']} samples an epoch, and data has {parts.deal.samples}")
    if main["optimizer_kind"] != (kind := type(parts.optimizer).__name__):
        raise ConfigError(f"the checkpoint is of another optimizer: {main['optimizer_kind']}, and this run has {kind}")
    try:
        parts.model.load_state_dict(main["model"])
        parts.optimizer.load_state_dict(main["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise ConfigError(f"the checkpoint is of another model or optimizer: {error}") from error
    parts.scaler.load_state_dict(main["scaler"])
    if parts.memory:
        parts.memory.step = main["step"]
    if own:
        torch.set_rng_state(own["random"])
        if torch.cuda.is_available() and "random_cuda" in own:
            torch.cuda.set_rng_state(own["random_cuda"])
        if parts.memory and "hook" in own:
            parts.memory.step = own["hook"]["step"]
            device = next(parts.model.parameters()).device
            parts.memory.kept = {name: tensor.to(device) for name, tensor in own["hook"]["kept"].items()}
    else:
        torch.manual_seed(hash((torch.initial_seed(), main["step"])) % 2**63)
    step: int = main["step"]
    return step
