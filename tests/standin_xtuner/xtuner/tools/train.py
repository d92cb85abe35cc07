"""What the command starts as every rank: the arguments of xtuner/tools/train.py of 0.2.0, mmengine's lines, and its
folder (WORK_DIR/TIME/TIME.log, WORK_DIR/iter_N.pth, WORK_DIR/last_checkpoint). The training itself is a count.

CONFIG is JSON in dots, over which --cfg-options come: {"iters": 20, "pause": 0.02, "fails": RANK, "saves": 5}.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any


class Pairs(argparse.Action):
    """As mmengine's DictAction: every --cfg-options adds to those before."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        given = dict(getattr(namespace, self.dest) or {})
        given.update(value.split("=", 1) for value in values)
        setattr(namespace, self.dest, given)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("--work-dir", default="work_dirs/standin")
    parser.add_argument("--resume")
    parser.add_argument("--cfg-options", nargs="+", action=Pairs)
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    args = parser.parse_args()
    config: dict[str, Any] = {**json.loads(Path(args.config).read_text()), **(args.cfg_options or {})}
    names = {"pytorch": ("RANK", "WORLD_SIZE"), "slurm": ("SLURM_PROCID", "SLURM_NTASKS"), "none": ("", "")}
    rank, ranks = (int(os.environ.get(name, default)) for name, default in zip(names[args.launcher], "01", strict=True))
    work = Path(args.work_dir)
    work.mkdir(parents=True, exist_ok=True)
    last = work / "last_checkpoint"
    done = 0
    found = args.resume or (last.read_text() if config.get("resume") == "True" and last.exists() else "")
    if found:
        done = int(Path(found).stem.removeprefix("iter_"))
    if rank == 0:
        say(work, f"{ranks} ranks, launcher {args.launcher}, resumed from {found or 'nothing'}, {json.dumps(config)}")
    for step in range(done + 1, int(config["iters"]) + 1):
        time.sleep(float(config.get("pause", 0.02)))
        if rank == 0:
            total = config["iters"]
            say(work, f"Iter(train) [{step:>4}/{total}]  lr: 2.0e-04  eta: 0:00:01  time: 0.02  loss: {9 / step:.4f}")
            if step % int(config.get("saves", 5)) == 0:
                (work / f"iter_{step}.pth").touch()
                last.write_text(str(work / f"iter_{step}.pth"))
        if str(config.get("fails")) == str(rank) and step == done + 3:
            raise ValueError(f"the data of rank {rank} is damaged")


def say(work: Path, text: str) -> None:
    line = f"{time.strftime('%m/%d %H:%M:%S')} - mmengine - INFO - {text}\n"
    os.write(1, line.encode())
    with (work / "standin.log").open("a") as log:
        log.write(line)


if __name__ == "__main__":
    main()
