"""How fast do these ranks all-reduce, and if they do not at all: which of them never came?

    torchrun --nnodes 2 --nproc-per-node 8 … -m engine.train.allreduce --json
    python -m engine.train.allreduce --launcher none|pytorch|slurm

It needs no torchrun: any RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT will do (launcher pytorch).

    --sizes 8,64K,1M,16M   bytes of float32 a rank gives, each a measurement; K, M and G are powers of 1024
    --rounds N             at most so many timed rounds a size, of which the median counts (default 20)
    --backend NAME         auto (nccl with a GPU, else gloo) | gloo | nccl
    --timeout S            the whole command ends within so many seconds, whatever hangs (default 60)

Rank 0 writes one line a size; a rank that gives up writes why. With --json each line is an object with a `type` and a
`text` for people:

    start  {ranks, backend, device, host}                  from rank 0, once all ranks have joined
    size   {bytes, time_s, algbw, busbw, rounds, right}    from rank 0; GB/s of 1e9 bytes, as nccl-tests defines them:
                                                           algbw = bytes / time, busbw = algbw × 2(n - 1)/n;
                                                           right: the sum is what it has to be
    end    {seconds}                                       from rank 0, last
    stuck  {rank, host, stage, missing, late, unreachable} from any rank that waited in vain. Stages in order: store,
                                                           group, 8 bytes, 65536 bytes, …; `missing` ranks never came,
                                                           `late` ones came and are at an earlier stage, both lists
                                                           empty: all ranks are in this stage and it does not end;
                                                           unreachable: rank 0's store itself does not answer
    error  {rank, host, stage}                             from any rank on which a stage failed at once

Exit status: 0 measured, and every sum right; 1 stuck, failed, or a sum is wrong; 2 the request is wrong.
Source: nccl-tests, doc/PERFORMANCE.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

from engine.train.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from engine.train.meeting import Meeting
    from engine.train.world import World

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
SECONDS_A_SIZE = 2.0  # no size is timed much longer, however many rounds are asked for


def main() -> int:
    began = time.monotonic()
    asked = read_arguments()
    try:
        sizes = read_sizes(asked.sizes)
        if asked.rounds < 1 or asked.timeout < 10:
            raise ConfigError("--rounds is at least 1, and --timeout at least 10 (torch alone takes seconds to start)")
        # torch is imported after the request is known to be right.
        from engine.train.world import choose_device, default_launcher, from_launcher

        world = from_launcher(asked.launcher or default_launcher(os.environ), os.environ)
        device = choose_device({"gloo": "cpu", "nccl": "cuda"}.get(asked.backend, "auto"), world.local_rank)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    left = asked.timeout - (time.monotonic() - began)
    code = Benchmark(world, device, Lines(asked.json)).run(sizes, asked.rounds, left)
    os._exit(code)  # the threads of a group that is stuck would keep the process


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m engine.train.allreduce", description="Measures all-reduce over all ranks.", allow_abbrev=False
    )
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm"))
    parser.add_argument("--backend", choices=("auto", "gloo", "nccl"), default="auto")
    parser.add_argument("--sizes", default="8,64K,1M,16M", metavar="BYTES,…")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def read_sizes(text: str) -> list[int]:
    """`8,64K,1M` in bytes, whole float32 numbers; ConfigError says what is wrong."""
    sizes = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)([KMG]?)", part.strip().upper())
        size = int(found.group(1)) * UNITS[found.group(2)] if found else 0
        if size < 4 or size % 4:
            raise ConfigError(f"--sizes {part.strip()!r}: bytes, a multiple of 4, like 8,64K,16M")
        sizes.append(size)
    return sizes


class Lines:
    """Lines on stdout, one write each, for people or as objects."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def __call__(self, kind: str, text: str, **fields: Any) -> None:
        line = json.dumps({"type": kind, **fields, "text": text}) if self.as_json else text
        os.write(1, (line + "\n").encode())


class Benchmark:
    """One rank's part in the measurement, which ends in time whatever the others do."""

    def __init__(self, world: World, device: torch.device, say: Lines) -> None:
        from engine.train.world import host

        self.world = world
        self.device = device
        self.say = say
        self.who = {"rank": world.rank, "host": host()}
        self.meeting: Meeting | None = None

    def run(self, sizes: list[int], rounds: int, timeout_s: float) -> int:
        """Meets, joins, measures every size; the exit status."""
        import torch.distributed as dist

        from engine.train.meeting import LAST_WORDS_S, Deadline, Meeting
        from engine.train.world import join

        began = time.monotonic()
        right = True
        with Deadline(timeout_s - 2 * LAST_WORDS_S, self.report_stuck):
            try:
                self.meeting = Meeting(self.world, timeout_s)
                self.meeting.reach("group")
                backend = join(self.world, self.device, self.meeting.store, timeout_s)
                self.rank_0_says(
                    "start", f"ranks {self.world.ranks}  backend {backend}  device {self.device.type}",
                    ranks=self.world.ranks, backend=backend, device=self.device.type, host=self.who["host"],
                )  # fmt: skip
                for size in sizes:
                    self.meeting.reach(f"{size} bytes")
                    right = self.measure(size, rounds) and right
                dist.destroy_process_group()
            except RuntimeError as error:
                self.report_error(error)
                return 1
        seconds = time.monotonic() - began
        self.rank_0_says("end", f"{seconds:.1f} s", seconds=seconds)
        return 0 if right else 1

    def measure(self, size: int, rounds: int) -> bool:
        """Measures `size` bytes and says so; whether the sum is right."""
        import torch
        import torch.distributed as dist

        ranks = self.world.ranks
        buffer = torch.full((size // 4,), float(self.world.rank + 1), device=self.device)
        self.timed(buffer)
        right = bool((buffer == ranks * (ranks + 1) / 2).all())
        buffer.zero_()
        pace = torch.tensor([self.timed(buffer)], dtype=torch.float64, device=self.device)
        dist.all_reduce(pace, dist.ReduceOp.MAX)  # every rank has to choose the same number of rounds
        rounds = max(1, min(rounds, int(SECONDS_A_SIZE / pace.item())))
        times = [self.timed(buffer) for _ in range(rounds)]
        seconds = statistics.median(times)
        algbw = size / seconds / 1e9
        busbw = algbw * 2 * (ranks - 1) / ranks
        self.rank_0_says(
            "size", f"{size:>13,} bytes {seconds * 1e6:>13,.1f} us  algbw {algbw:.3f} GB/s  busbw {busbw:.3f} GB/s"
            + ("" if right else "  WRONG SUM"),
            bytes=size, time_s=seconds, algbw=algbw, busbw=busbw, rounds=rounds, right=right,
        )  # fmt: skip
        return right

    def timed(self, buffer: torch.Tensor) -> float:
        """Seconds of one all-reduce, until its result is there."""
        import torch
        import torch.distributed as dist

        began = time.perf_counter()
        dist.all_reduce(buffer)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - began

    def rank_0_says(self, kind: str, text: str, **fields: Any) -> None:
        if self.world.rank == 0:
            self.say(kind, text, **fields)

    def report_error(self, error: RuntimeError) -> None:
        stage = self.meeting.stages[-1] if self.meeting else "store"
        self.say("error", f"rank {self.who['rank']} on {self.who['host']}, {stage}: {error}", **self.who, stage=stage)

    def report_stuck(self) -> None:
        from engine.train.meeting import LAST_WORDS_S, Behind

        behind = self.meeting.behind() if self.meeting else Behind("store", (), (), unreachable=True)
        text = f"rank {self.who['rank']} on {self.who['host']}: {behind} ({self.world.address}:{self.world.port})"
        self.say("stuck", text, **self.who, **behind._asdict())
        if self.world.rank == 0:
            time.sleep(LAST_WORDS_S)  # the store may live in this process, and the others are about to ask it


if __name__ == "__main__":
    sys.exit(main())
