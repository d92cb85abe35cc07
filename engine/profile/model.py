"""What a profile says, as frozen values."""

from __future__ import annotations

from typing import Literal

import msgspec


class Node(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One machine; its place in the list is its node_rank.

    `addr` is its address in the training network ("" = preflight finds it); `gpus` the ranks on it (nproc_per_node);
    `devices` picks GPUs by index. An empty `workdir` or `activate` means the program's.
    """

    host: str
    addr: str = ""
    user: str = ""
    port: int | None = None
    gpus: int | Literal["auto"] = "auto"
    devices: tuple[int, ...] = ()
    workdir: str = ""
    activate: str = ""


class Rendezvous(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the ranks find each other; `interface` is a device name, "auto" (what preflight finds) or "" (left alone)."""

    backend: Literal["static", "c10d"] = "static"
    master_addr: str = ""
    master_port: int | Literal["auto"] = 29500
    interface: str = "auto"
    max_restarts: int = 0


class Program(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every rank runs, in `workdir` after `activate`: a script, a module, an XTuner config or any command."""

    kind: Literal["script", "module", "xtuner", "command"] = "script"
    path: str
    args: tuple[str, ...] = ()
    workdir: str = ""
    activate: str = ""


class Batch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`per_device` [samples/rank], `grad_accum` [micro-batches/step]; `base_lr` suits `base_batch` [samples/step]."""

    per_device: int
    grad_accum: int = 1
    base_lr: float | None = None
    base_batch: int | None = None
    lr_scaling: Literal["linear", "sqrt", "none"] = "linear"


class Slurm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to ask Slurm for, in sbatch's own words; "" and None leave the choice to the cluster.

    `style` is what srun starts on a node: one torchrun, or every rank `direct`ly. `login` is the [user@]host to submit
    from, "" for this machine. `extra` holds further sbatch options, a whole option each.
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    time: str = ""
    nodes: int = 1
    gpus_per_node: int = 1
    style: Literal["direct", "torchrun"] = "torchrun"
    login: str = ""
    cpus_per_task: int | None = None
    mem: str = ""
    constraint: str = ""
    nodelist: str = ""
    exclude: str = ""
    exclusive: bool = False
    reservation: str = ""
    extra: tuple[str, ...] = ()


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One training job: where, what, and how much.

    `secrets` are names only; their values come from the user's environment at launch. `state_dir` is where
    the nodes keep their run folders ("" = the default).
    """

    version: Literal[1]
    name: str
    launcher: Literal["torchrun", "slurm"] = "torchrun"
    nodes: tuple[Node, ...] = ()
    rendezvous: Rendezvous = Rendezvous()
    program: Program
    env: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    batch: Batch | None = None
    slurm: Slurm | None = None
    state_dir: str = ""
