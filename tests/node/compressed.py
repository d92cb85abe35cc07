"""A program that the tests of gradient compression start as ranks: every method against the plain mean, and training
with each.

    python -m tests.node.compressed METHOD:PORT:PORT…

For each method (none among them) rank 0 prints `method NAME`, the steps of a training as the engine prints them, and,
but for none, one JSON object with what it found by reducing one bucket thirty times.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import Any

import torch
import torch.distributed as dist

from engine.train import hooks
from engine.train.config import load
from engine.train.loop import train
from engine.train.world import from_launcher, joined
from tests.node.training import SMALL

SHAPES = [torch.Size(shape) for shape in ((64, 32), (64,), (3,), (8, 4, 5), ())]
SIZE = sum(shape.numel() for shape in SHAPES)
# Two micro-steps of two samples on each of two ranks; the text is short, so that there are uneven last steps.
WORK = [*SMALL, "steps=40", "per_device_batch=2", "grad_accum=2", "data_bytes=8000", "powersgd_start=5"]


def reduce_often(name: str) -> dict[str, Any]:
    """How far the first reduction is from the plain mean, and the sum of all from the sum of the means."""
    memory = hooks.Memory(None, rank=4, start=0)
    total, wanted, first = torch.zeros(SIZE), torch.zeros(SIZE), 0.0
    for step in range(30):
        noise = torch.Generator().manual_seed(1000 * step + dist.get_rank())
        flat = torch.linspace(-1, 1, SIZE) + 0.1 * torch.randn(SIZE, generator=noise)
        plain = memory.mean(flat.clone())
        hooks.TABLE[name](flat, SHAPES, "0", memory)
        first = first or ((flat - plain).norm() / plain.norm()).item()
        total, wanted = total + flat, wanted + plain
    totals = [torch.zeros_like(total) for _ in range(memory.ranks)]
    dist.all_gather(totals, total)
    return {
        "first": first,
        "sum": ((total - wanted).norm() / wanted.norm()).item(),
        "same": all(torch.equal(other, total) for other in totals),
        "kept": sorted(memory.kept),
    }


def main() -> None:
    world = from_launcher("pytorch", os.environ)
    for argument in sys.argv[1:]:
        name, *ports = argument.split(":")
        there, again = (dataclasses.replace(world, port=int(port)) for port in ports)
        if world.rank == 0:
            print(f"method {name}", flush=True)
        assert train(load(None, [*WORK, f"hook={name}"]), there) == 0
        if name != "none":
            with joined(again, torch.device("cpu"), 60):
                found = reduce_often(name)
            if world.rank == 0:
                print(json.dumps(found), flush=True)


main()
