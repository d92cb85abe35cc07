"""A small DDP training that fails in the way it is asked to: `failing.py HOW [--rank R] [--step S] …`.

Run by every rank below torchrun. Real failures for the tests of the verdict, and for the recorder of its corpus.
"""

from __future__ import annotations

import argparse
import datetime
import os
import signal
import sys
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

parser = argparse.ArgumentParser()
parser.add_argument("how")
parser.add_argument("--rank", type=int, default=1)
parser.add_argument("--step", type=int, default=3)
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--pause", type=float, default=0.02)
parser.add_argument("--timeout", type=float, default=300.0)
parser.add_argument("--path", default="/nonexistent/shard-00017.bin")
asked = parser.parse_args()
rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
mine = rank == asked.rank


class Shards(torch.utils.data.Dataset[torch.Tensor]):
    """A data set with one bad sample."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> torch.Tensor:
        if mine and index == 17:
            raise ValueError(f"sample {index} of shard 3 has 0 tokens")
        return torch.randn(8)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 12 if asked.how == "models" and mine else 16)
        self.unused = nn.Linear(4, 4) if asked.how == "unused" else None
        self.last = nn.Linear(self.first.out_features, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(torch.relu(self.first(x)))
        return out


def load(step: int) -> torch.Tensor:
    """The batch of a step; where things go wrong on one rank."""
    if not (mine and step == asked.step):
        return torch.randn(4, 8)
    how = asked.how
    if how == "raise":
        raise ValueError(f"sample 1337 has 0 tokens (step {step})")
    if how == "chain":
        try:
            os.environ[f"TOKENS_{step}"]
        except KeyError:
            raise RuntimeError(f"cannot decode batch {step}")  # noqa: B904
    if how == "cause":
        try:
            open(asked.path)  # noqa: SIM115, PTH123
        except OSError as error:
            raise RuntimeError("the data set is incomplete") from error
    if how == "group":
        from exceptiongroup import ExceptionGroup as Group  # type: ignore[import-not-found,unused-ignore]

        raise Group("two shards", [ValueError("shard 3 is empty"), OSError("shard 4")])
    if how == "missing":
        open(asked.path)  # noqa: SIM115, PTH123
    if how == "denied":
        os.setuid(65534) if os.getuid() == 0 else None
        open("/root/.secret", "w")  # noqa: SIM115, PTH123
    if how == "import":
        import flash_attn_that_is_not_there  # type: ignore[import-not-found]  # noqa: F401
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "abort":
        os.abort()
    if how == "exit":
        os._exit(3)
    if how == "leave":
        os._exit(0)
    if how == "sysexit":
        sys.exit("no more data")
    if how == "hang":
        print(f"rank {rank} waits for a lock", flush=True)
        time.sleep(3600)
    if how == "shapes":
        return torch.randn(4, 9)
    if how == "memory":
        hoard = [bytearray(os.urandom(1 << 20)) * 16 for _ in range(4096)]
        print(len(hoard))
    if how == "alloc":
        torch.empty(1 << 44, dtype=torch.uint8)
    if how == "disk":
        torch.save(torch.randn(1 << 20), asked.path)
    if how == "collective":
        dist.all_reduce(torch.ones(12345))
    if how == "assert":
        assert torch.isfinite(torch.tensor(1.0)) and step < 0, "the loader lost its place"
    if how == "files":
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        kept = [open("/dev/null") for _ in range(100)]  # noqa: SIM115, PTH123
        print(len(kept))
    return torch.randn(4, 8)


def main() -> None:
    print(f"rank {rank}/{os.environ['WORLD_SIZE']} started", flush=True)
    if asked.how == "early" and mine:
        raise ValueError("unknown model: llama-9")
    if asked.how == "late" and mine:
        time.sleep(3600)
    backend = "nccl" if asked.how == "nccl" else "gloo"
    dist.init_process_group(backend, timeout=datetime.timedelta(seconds=asked.timeout))
    torch.manual_seed(0)
    if asked.how == "barrier" and not mine:
        dist.monitored_barrier(timeout=datetime.timedelta(seconds=5))
    elif asked.how == "barrier":
        time.sleep(30)
    model = DistributedDataParallel(Net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    if asked.how == "dataloader":
        for _ in torch.utils.data.DataLoader(Shards(), batch_size=4, num_workers=2):
            dist.barrier()
    for step in range(asked.steps):
        loss = model(load(step)).pow(2).mean()
        if asked.how == "nan" and step == asked.step:
            loss = loss * float("nan")
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {loss.item()} at step {step}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if rank == 0:
            print(f"step: {step} loss: {loss.item():.4f}", flush=True)
        time.sleep(asked.pause)
    dist.barrier()
    dist.destroy_process_group()
    print(f"rank {rank} is done", flush=True)


if __name__ == "__main__":
    main()
