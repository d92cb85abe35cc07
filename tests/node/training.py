"""The training engine as processes: started with torchrun, with Slurm's variables or alone, and what they said."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from engine.node.metrics import MetricReader

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["context=32", "width=64", "data_bytes=200000", "base_batch=8", "log_every=1"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--master-addr", "127.0.0.1", "--master-port"]


class Ended(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def losses(self) -> list[float]:
        metrics = MetricReader().feed(self.out.encode())
        return [metric["loss"] for metric in metrics if "loss" in metric]

    @property
    def checksum(self) -> str:
        found = re.search(r"checksum (\w+)", self.out)
        return found.group(1) if found else ""


def environment(path: Path, **more: str) -> dict[str, str]:
    ours = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    kept = {k: v for k, v in os.environ.items() if k not in ours and not k.startswith("SLURM_")}
    return {**kept, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1", **more}


def settings(*pairs: str) -> list[str]:
    return [word for pair in (*SMALL, *pairs) for word in ("--set", pair)]


def start(command: list[str], env: dict[str, str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, env=env, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def end(process: subprocess.Popen[str]) -> Ended:
    try:
        out, err = process.communicate(timeout=200)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return Ended(process.returncode, out, err)


def free_port() -> str:
    """A port below those that the kernel gives away, so that no connection made meanwhile takes it."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return str(port)


def ranks(program: list[str], here: range, world: int, port: str) -> list[Ended]:
    """Starts the ranks `here` of a world directly, without torchrun; what became of each."""
    env = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-m", *program]
    started = [start(command, environment(ROOT, **env, RANK=str(r), LOCAL_RANK=str(r)), ROOT) for r in here]
    return [end(process) for process in started]
