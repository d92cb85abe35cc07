"""How long a step's parts take, how much arithmetic it is, and how much the device could do."""

from __future__ import annotations

import contextlib
import resource
import time
from typing import TYPE_CHECKING, Any

import torch

from engine.train.build import loss_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.nn.parallel import DistributedDataParallel

# Dense TFLOP/s without sparsity, from NVIDIA's data sheets: (16 bit, TF32 or fp32 of what torch uses by default).
PEAKS = (
    ("B200", 2250.0, 80.0),
    ("H200", 989.0, 67.0),
    ("H100 PCIe", 756.0, 51.0),
    ("H100", 989.0, 67.0),
    ("H800", 989.0, 67.0),
    ("A100", 312.0, 19.5),
    ("A800", 312.0, 19.5),
    ("L40S", 362.0, 91.6),
    ("A40", 149.7, 37.4),
    ("A10G", 70.0, 31.2),
    ("RTX 4090", 165.2, 82.6),
    ("RTX 3090", 71.0, 35.6),
    ("V100", 125.0, 15.7),
    ("T4", 65.0, 8.1),
)


def peak_flops(device: torch.device, precision: str) -> float:
    """FLOP/s that the device is sold for; 0 where that is not known, as for CPUs."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    for part, half, single in PEAKS:
        if part in name:
            return (single if precision == "fp32" else half) * 1e12
    return 0.0


def flops_of(model: torch.nn.Module, batch: Any) -> int:
    """FLOPs of one forward and backward pass, counted in its matrix products (attention as if it were not causal).

    Chowdhery et al. 2022, "PaLM", appendix B, counts the same by hand: 6 N + 12 L H Q T a token.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):  # fused attention kernels are not counted on every device
        loss_of(model, batch).backward()  # type: ignore[no-untyped-call]
    model.zero_grad(set_to_none=True)
    return counter.get_total_flops()


Mark = Any  # a time of the host, or an event of the GPU


class Stopwatch:
    """Marks the time on the host, or on the GPU, where work happens later than it is asked for."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.data = 0.0  # seconds of the step that were spent waiting for data

    def mark(self) -> Mark:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def between(self, first: Mark, second: Mark) -> float:
        """Seconds between two marks; waits for the second."""
        if not self.cuda:
            return float(second - first)
        second.synchronize()
        return float(first.elapsed_time(second)) / 1e3

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.data += time.perf_counter() - began


def exposed_seconds(ddp: DistributedDataParallel, *, last: bool) -> float:
    """Seconds for which the backward pass had nothing left to compute and waited for gradients, by DDP's own clock.

    DDP tells of a step when the next one's forward pass begins; `last`: there is no next one.
    """
    if last and ddp.logger:
        ddp.logger.set_runtime_stats_and_log()
    said: dict[str, int] = ddp._get_ddp_logging_data()  # type: ignore[no-untyped-call]
    waited = said.get("backward_comm_time", 0) - said.get("backward_compute_comm_overlap_time", 0)
    return max(0, waited) / 1e9


def memory_gib(device: torch.device) -> float:
    """The most memory so far: of the GPU as torch allocates it, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
