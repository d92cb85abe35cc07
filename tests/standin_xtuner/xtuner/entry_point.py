"""The command `xtuner`, as xtuner/entry_point.py of 0.2.0 behaves: which program it starts, with which words and
variables, and that it returns 0 whatever becomes of it, also where it cannot start any."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path


def cli() -> None:
    if sys.argv[1:2] != ["train"]:
        print("WARNING: command error!", file=sys.stderr)
        return
    args = sys.argv[2:]
    try:
        if os.environ.get("STANDIN_XTUNER_BROKEN"):
            raise ImportError("libcudart.so.12: cannot open shared object file")
        program = str(Path(__file__).with_name("tools") / "train.py")
        at = args.index("--launcher") if "--launcher" in args else len(args)
        nnodes, nproc = int(os.environ.get("NNODES", 1)), int(os.environ.get("NPROC_PER_NODE", 1))
        if args[at + 1 : at + 2] == ["slurm"] or (nnodes == 1 and nproc == 1):
            subprocess.run(["python", program, *args])
            return
        options = {
            "nnodes": nnodes, "node_rank": os.environ.get("NODE_RANK", 0), "nproc_per_node": nproc,
            "master_addr": os.environ.get("ADDR", "127.0.0.1"),
            "master_port": os.environ.get("PORT") or random.randint(20000, 29999),
        }  # fmt: skip
        words = [f"--{name}={value}" for name, value in options.items()]
        subprocess.run(["torchrun", *words, program, *args, "--launcher", "pytorch"])
    except Exception as error:
        print(f"WARNING: command error: '{error}'!", file=sys.stderr)
