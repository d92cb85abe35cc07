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
    """What every rank runs, in `workdir` after `activate`: a script, a module, an XTuner config or any command.

    `metric_pattern` reads its progress lines where no known format does: a regular expression with named groups, such
    as `it=(?P<step>\\d+) L=(?P<loss>\\S+)`.
    """

    kind: Literal["script", "module", "xtuner", "command"] = "script"
    path: str
    args: tuple[str, ...] = ()
    workdir: str = ""
    activate: str = ""
    metric_pattern: str = ""


class Batch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`per_device` [samples/rank], `grad_accum` [micro-batches/step]; `base_lr` suits `base_batch` [samples/step].

    `sequence_length` [tokens/sample] makes tokens/s of a program's samples/s; the program is not told.
    """

    per_device: int
    grad_accum: int = 1
    base_lr: float | None = None
    base_batch: int | None = None
    lr_scaling: Literal["linear", "sqrt", "none"] = "linear"
    sequence_length: int | None = None


class SlurmGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nodes of one kind in a job of several kinds (a heterogeneous job); "" means what the job says."""

    nodes: int = 1
    gpus_per_node: int = 1
    ranks_per_node: int | None = None
    gpu_type: str = ""
    partition: str = ""
    constraint: str = ""
    nodelist: str = ""


class Slurm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to ask Slurm for, in sbatch's own words; "" and None leave the choice to the cluster.

    what runs   `style` is what srun starts on a node: one torchrun, or every rank `direct`ly, which then gets
                `--launcher slurm`. `ranks_per_node` defaults to the GPUs, and to 1 without any. `container` is shell
                text before the program, such as `apptainer exec --nv train.sif`.
    GPUs        `gpu_type` and `gpus_per_node` (0: none) as --gres=gpu:TYPE:N, or `gpus_by: gpus` as --gpus-per-node.
                `groups` in the place of nodes and gpus_per_node: nodes that differ, as one heterogeneous job.
    the end     `requeue` after a node failure or preemption; `signal` such as USR1@120: to every rank, so many
                seconds before the time limit
    where       `login` is the [user@]host to submit from, "" for this machine; `allocation` the number of a running job
                (salloc) inside which srun starts the run, instead of a job of its own
    anything    `extra` and `srun_extra`: further options of sbatch, and of the srun in the script; a whole one each
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    time: str = ""
    nodes: int = 1
    gpus_per_node: int = 1
    gpu_type: str = ""
    gpus_by: Literal["gres", "gpus"] = "gres"
    ranks_per_node: int | None = None
    groups: tuple[SlurmGroup, ...] = ()
    style: Literal["direct", "torchrun"] = "torchrun"
    login: str = ""
    allocation: int | None = None
    cpus_per_task: int | None = None
    mem: str = ""
    constraint: str = ""
    nodelist: str = ""
    exclude: str = ""
    exclusive: bool = False
    reservation: str = ""
    container: str = ""
    requeue: bool | None = None
    signal: str = ""
    extra: tuple[str, ...] = ()
    srun_extra: tuple[str, ...] = ()


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
