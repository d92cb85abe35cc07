"""Who this process is among the ranks, and the process group that joins them."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import re
import socket
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from engine.train.errors import ConfigError, RanksError
from engine.train.meeting import Meeting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch.distributed import Store  # type: ignore[attr-defined]

FIRST_PORT = 15000  # with 16,384 ports from here, a port derived from a job id stays below the ephemeral range
PORTS = 16384
LASTING: list[Any] = []


@dataclasses.dataclass(frozen=True)
class World:
    """rank and ranks over all nodes, local_rank on this node; address and port of rank 0 ("" and 0 for one process)."""

    rank: int = 0
    local_rank: int = 0
    ranks: int = 1
    address: str = ""
    port: int = 0


def from_launcher(launcher: str, env: Mapping[str, str]) -> World:
    """What `launcher` (none, pytorch, slurm) says in the environment; ConfigError names the missing variable."""
    try:
        return LAUNCHERS[launcher](env)
    except KeyError as missing:
        started = {"pytorch": "torchrun", "slurm": "srun"}[launcher]
        raise ConfigError(
            f"--launcher {launcher} needs {missing.args[0]} in the environment, and it is not set: start with {started}"
        ) from None
    except ValueError as error:
        raise ConfigError(f"--launcher {launcher}: a variable is not a number: {error}") from None


def from_none(env: Mapping[str, str]) -> World:
    return World()


def from_pytorch(env: Mapping[str, str]) -> World:
    return World(
        rank=int(env["RANK"]),
        local_rank=int(env["LOCAL_RANK"]),
        ranks=int(env["WORLD_SIZE"]),
        address=env["MASTER_ADDR"],
        port=int(env["MASTER_PORT"]),
    )


def from_slurm(env: Mapping[str, str]) -> World:
    """Address: the first host of the step's (or job's) node list. Port: from the job id, the same in all tasks."""
    hosts = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST") or env["SLURM_NODELIST"]
    return World(
        rank=int(env["SLURM_PROCID"]),
        local_rank=int(env["SLURM_LOCALID"]),
        ranks=int(env["SLURM_NTASKS"]),
        address=env.get("MASTER_ADDR") or first_host(hosts),
        port=int(env.get("MASTER_PORT") or FIRST_PORT + int(env["SLURM_JOB_ID"]) % PORTS),
    )


LAUNCHERS = {"none": from_none, "pytorch": from_pytorch, "slurm": from_slurm}


def default_launcher(env: Mapping[str, str]) -> str:
    """pytorch where torchrun's variables are set, else none; slurm is only ever asked for by name."""
    return "pytorch" if "RANK" in env and "WORLD_SIZE" in env else "none"


def first_host(node_list: str) -> str:
    """The first host of Slurm's compressed list: `gpu[03-04,07]-ib,cpu1` -> `gpu03-ib`."""
    first = re.match(r"[^,\[]*(?:\[[^\]]*\][^,\[]*)*", node_list.strip())
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first.group() if first else node_list)


def choose_device(wanted: str, local_rank: int) -> torch.device:
    """cuda by local_rank where there is any (`auto`), else cpu."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("device is cuda, and torch finds no GPU here; check nvidia-smi and torch.version.cuda")
    # Slurm's --gpus-per-task=1 shows one device to every task, whatever its local rank.
    return torch.device("cuda", local_rank % torch.cuda.device_count())


def join(world: World, device: torch.device, store: Store, timeout_s: float) -> str:
    """Joins the process group over `store`; the name of its backend. Whoever joins calls destroy_process_group."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    timeout = datetime.timedelta(seconds=timeout_s)
    dist.init_process_group(backend, store=store, rank=world.rank, world_size=world.ranks, timeout=timeout)
    lasting(dist.group.WORLD)
    return backend


def lasting(group: Any) -> Any:
    """`group`, which stays in memory until the process ends.

    torch joins gloo's threads when the last reference goes, with Python's lock held; a thread that is just giving back
    the tensors of the last collective waits for that lock, and the process hangs (seen with torch 2.13).
    """
    LASTING.append(group)
    return group


@contextlib.contextmanager
def joined(world: World, device: torch.device, timeout_s: float) -> Iterator[str]:
    """Joins the process group, gives the name of the backend, and leaves the group however the body ends."""
    meeting = None
    try:
        meeting = Meeting(world, timeout_s)
        meeting.reach("group")
        backend = join(world, device, meeting.store, timeout_s)
    except RuntimeError as error:
        where = meeting.behind() if meeting else f"nothing answers at {world.address}:{world.port}"
        raise RanksError(f"rank {world.rank} on {host()} cannot join the others: {where} ({error})") from error
    _kept.append(dist.group.WORLD)
    try:
        yield backend
    finally:
        dist.destroy_process_group()


_kept: list[object] = []
"""Groups, kept until the process ends. Otherwise DDP's reducer has the last reference and drops it with Python's lock
held, while it waits for a thread of gloo that needs this lock to let go of a tensor: a training may never end.
"""


def host() -> str:
    return socket.gethostname()
