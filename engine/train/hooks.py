"""Gradient compression for DDP: a method is one function, and one line of TABLE.

A method gets the flat gradient of a bucket and leaves in it the mean over all ranks. It may block: a Channel runs it
beside the backward pass, one bucket after the other, on a thread for CPU tensors and on a stream for CUDA. That
order matters: collectives that are chained as callbacks run in the order in which they happen to end, which differs
between ranks, and gloo's few threads deadlock when each waits in a callback for another collective.

Sources. fp16, bf16: torch's default_hooks do the same, bf16 with NCCL only. PowerSGD: Vogels et al., "PowerSGD:
Practical Low-Rank Gradient Compression for Distributed Optimization", NeurIPS 2019 (torch's own hook needs numpy).
Error feedback: Seide et al. 2014; Karimireddy et al., "Error Feedback Fixes SignSGD", ICML 2019. int8 in blocks:
Dettmers et al., "8-bit Optimizers via Block-wise Quantization", ICLR 2022.
"""

# No `from __future__ import annotations`: DDP reads the annotations of a hook.
import concurrent.futures
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from engine.train.world import lasting

BLOCK = 1024  # numbers that share a scale in int8: 4 bytes more a block
TINY = 1e-30


class Memory:
    """What a method works with: the ranks, its options, and what it keeps between steps, which a checkpoint holds."""

    def __init__(self, group: Any, *, rank: int = 4, start: int = 0) -> None:
        self.group = group
        self.ranks = dist.get_world_size(group)
        self.rank = rank  # of PowerSGD's matrices
        self.start = start  # steps that PowerSGD leaves alone
        self.step = 0
        self.kept: dict[str, torch.Tensor] = {}

    def keep(self, name: str, like: torch.Tensor) -> torch.Tensor:
        """The tensor kept under `name`: zeros like `like` at first, and again once the buckets have other shapes."""
        if name not in self.kept or self.kept[name].shape != like.shape:
            self.kept[name] = torch.zeros_like(like)
        return self.kept[name]

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over all ranks, in place."""
        dist.all_reduce(values, group=self.group)
        return values.div_(self.ranks)


Shapes = list[torch.Size]
Method = Callable[[torch.Tensor, Shapes, str, Memory], None]


def half(dtype: torch.dtype) -> Method:
    """Half the bytes. Divided before the sum, so that fp16 does not overflow in it."""

    def cast(flat: torch.Tensor, shapes: Shapes, bucket: str, memory: Memory) -> None:
        small = flat.div_(memory.ranks).to(dtype)
        dist.all_reduce(small, group=memory.group)
        flat.copy_(small)

    return cast


def int8(flat: torch.Tensor, shapes: Shapes, bucket: str, memory: Memory) -> None:
    """A quarter of the bytes: a rank averages one part of everyone's numbers, and gives it to all.

    Both ways numbers travel as int8 with a scale a block; what rounding takes is added in the next step.
    """
    length = -(-flat.numel() // (memory.ranks * BLOCK)) * BLOCK  # of a part, in whole blocks
    parts = flat.new_zeros(memory.ranks, length)
    parts.view(-1)[: flat.numel()].copy_(flat)
    parts += memory.keep(f"{bucket} sent", parts)
    message = packed(parts, memory.kept[f"{bucket} sent"])
    received = torch.empty_like(message)
    dist.all_to_all_single(received, message, group=memory.group)

    part = unpacked(received, length).mean(dim=0, keepdim=True)
    part += memory.keep(f"{bucket} given", part)
    message = packed(part, memory.kept[f"{bucket} given"])
    dist.all_gather(list(received.unbind()), message[0], group=memory.group)
    flat.copy_(unpacked(received, length).view(-1)[: flat.numel()])


def packed(values: torch.Tensor, error: torch.Tensor) -> torch.Tensor:
    """(parts, length) as bytes, a row a part: its int8 numbers, then its scales. `error` gets what rounding took."""
    blocks = values.view(len(values), -1, BLOCK)
    scales = blocks.abs().amax(dim=2, keepdim=True).div_(127).clamp_(min=TINY)
    numbers = (blocks / scales).round_().to(torch.int8)
    torch.addcmul(blocks, numbers.to(values.dtype), scales, value=-1, out=error.view_as(blocks))
    return torch.cat([part.view(torch.int8).flatten(1) for part in (numbers, scales)], dim=1)


def unpacked(message: torch.Tensor, length: int) -> torch.Tensor:
    numbers = message[:, :length].view(len(message), -1, BLOCK)
    scales = message[:, length:].contiguous().view(torch.float32).unsqueeze(2)
    return (numbers * scales).flatten(1)


def powersgd(flat: torch.Tensor, shapes: Shapes, bucket: str, memory: Memory) -> None:
    """A matrix M (n, m) travels as P (n, r) and Q (m, r); what this does not make smaller travels as it is.

    One power iteration a step: P = M Q, averaged and made orthonormal, then Q = Mᵀ P, averaged; M becomes P Qᵀ. It
    begins with the Q of the step before (warm start); what is lost is added to the next M (error feedback).
    """
    if memory.step < memory.start:
        memory.mean(flat)
        return
    matrices: list[torch.Tensor] = []
    others: list[torch.Tensor] = []
    for part, shape in zip(cut(flat, shapes), shapes, strict=True):
        matrix = part.view(shape[0] if shape else 1, -1)
        smaller = sum(matrix.shape) * memory.rank < matrix.numel()
        (matrices if smaller else others).append(matrix)
    errors = [memory.keep(f"{bucket} error {number}", matrix) for number, matrix in enumerate(matrices)]
    qs = [warm_q(f"{bucket} q {number}", matrix, memory) for number, matrix in enumerate(matrices)]
    for matrix, error in zip(matrices, errors, strict=True):
        matrix += error
        error.copy_(matrix)

    averaged = means([matrix @ q for matrix, q in zip(matrices, qs, strict=True)] + others, memory)
    ps = [torch.linalg.qr(p).Q for p in averaged[: len(matrices)]]
    for other, average in zip(others, averaged[len(matrices) :], strict=True):
        other.copy_(average)
    averaged = means([matrix.t() @ p for matrix, p in zip(matrices, ps, strict=True)], memory)
    for matrix, error, p, q, new in zip(matrices, errors, ps, qs, averaged, strict=True):
        q.copy_(new)
        torch.mm(p, q.t(), out=matrix)
        error -= matrix


def warm_q(name: str, matrix: torch.Tensor, memory: Memory) -> torch.Tensor:
    """The Q of the step before; at first a random one, the same on all ranks."""
    shape = (matrix.shape[1], min(memory.rank, *matrix.shape))
    if name not in memory.kept or memory.kept[name].shape != shape:
        seed = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        memory.kept[name] = torch.randn(shape, generator=seed).to(matrix)
    return memory.kept[name]


def means(tensors: list[torch.Tensor], memory: Memory) -> list[torch.Tensor]:
    """The means over all ranks of tensors that travel together."""
    if not tensors:
        return []
    shapes = [tensor.shape for tensor in tensors]
    flat = memory.mean(torch.cat([tensor.flatten() for tensor in tensors]))
    return [part.view(shape) for part, shape in zip(cut(flat, shapes), shapes, strict=True)]


def cut(flat: torch.Tensor, shapes: Shapes) -> Sequence[torch.Tensor]:
    return torch.split(flat, [shape.numel() for shape in shapes])


TABLE: dict[str, Method] = {
    "fp16": half(torch.float16),
    "bf16": half(torch.bfloat16),
    "int8": int8,
    "powersgd": powersgd,
}


class Channel:
    """Runs a method beside the backward pass, one bucket after the other, on a thread (CPU) or a stream (CUDA)."""

    def __init__(self, method: Method, memory: Memory, device: torch.device) -> None:
        self.method = method
        self.memory = memory
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.thread = concurrent.futures.ThreadPoolExecutor(1, "gradients") if self.stream is None else None
        self.devices: list[int | str | torch.device] = [device] if self.stream else []

    def hook(self, state: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:  # type: ignore[name-defined]
        """What DDP calls as soon as the gradients of a bucket are there."""
        done: torch.futures.Future[torch.Tensor] = torch.futures.Future(devices=self.devices)
        flat, shapes = bucket.buffer(), [gradient.shape for gradient in bucket.gradients()]
        arguments = (done, flat, shapes, str(bucket.index()), bucket.is_last())
        if self.thread:
            self.thread.submit(self.reduce, *arguments)
        elif self.stream:
            self.stream.wait_stream(torch.cuda.current_stream(flat.device))
            with torch.cuda.stream(self.stream):
                self.reduce(*arguments)
        return done

    @torch.no_grad()
    def reduce(
        self, done: "torch.futures.Future[torch.Tensor]", flat: torch.Tensor, shapes: Shapes, bucket: str, last: bool
    ) -> None:
        try:
            self.method(flat, shapes, bucket, self.memory)
            self.memory.step += last
            done.set_result(flat)
        except Exception as error:
            done.set_exception(error)  # type: ignore[arg-type]


def register(ddp: DistributedDataParallel, name: str, device: torch.device, *, rank: int, start: int) -> Memory:
    """Compresses the gradients of `ddp` by the method `name` of TABLE; what it keeps, for checkpoints.

    It has a process group of its own: its collectives run at any time, those of the loop and of DDP have their order.
    """
    memory = Memory(lasting(dist.new_group()), rank=rank, start=start)
    ddp.register_comm_hook(None, Channel(TABLE[name], memory, device).hook)
    return memory
