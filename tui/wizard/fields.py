"""Every question of the wizard as a table: one row a profile key. Pure: no Textual in here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "choice", "words", "lines", "block", "env", "names", "numbers", "flag", "hosts"]
"""How an answer is typed.

    text      one line                       words     a command line, quoted as a shell reads it
    choice    one of `choices`               lines     a list, one item a line
    block     text of several lines          names     a list of words, with spaces or commas between them
    env       NAME=VALUE a line              numbers   a list of whole numbers, likewise
    flag      "true" or ""                   hosts     a host list as `engine.hosts` reads it
"""


@dataclass(frozen=True)
class Field:
    """One question: `path` is its profile key; `default` what an empty answer means."""

    path: str
    label: str
    help: str
    kind: Kind = "text"
    choices: tuple[tuple[str, str], ...] = ()
    default: str = ""


STEP_OF = {
    "name": "launcher",
    "launcher": "launcher",
    "version": "launcher",
    "nodes": "nodes",
    "state_dir": "nodes",
    "rendezvous": "network",
    "program": "program",
    "env": "program",
    "secrets": "program",
    "batch": "batch",
    "slurm": "slurm",
}
"""The step at which the keys below each top-level key of a profile are asked."""

_ROWS = (
    Field("name", "Name", "of its file and its runs: a-z 0-9 . _ -", default="such as lab-a100"),
    Field(
        "launcher",
        "Launcher",
        "who starts the ranks",
        "choice",
        (
            ("torchrun", "torchrun over ssh: you name the machines"),
            ("slurm", "Slurm: you ask for machines, Slurm picks them"),
        ),
        "torchrun",
    ),
    Field("nodes", "Nodes", "paste anything: ranges, hostfile, nodelist", "hosts"),
    Field("state_dir", "State folder", "where a node keeps its run folders", default="~/.local/state/rankdeck"),
    Field(
        "rendezvous.backend",
        "Rendezvous",
        "how the nodes find each other",
        "choice",
        (
            ("static", "static: the order of nodes is the order of ranks"),
            ("c10d", "c10d: the order is decided when they meet; can restart"),
        ),
        "static",
    ),
    Field("rendezvous.master_addr", "Master address", "where all nodes meet", default="found by looking at node 0"),
    Field("rendezvous.master_port", "Master port", "a port of node 0, or auto: a free one", default="29500"),
    Field("rendezvous.interface", "Interface", "auto, a device such as eth0, or none", default="auto"),
    Field("rendezvous.max_restarts", "Restarts", "how often all ranks may be started anew", default="0"),
    Field(
        "program.kind",
        "Kind",
        "what every rank runs",
        "choice",
        (
            ("script", "script: a Python file"),
            ("module", "module: python -m"),
            ("xtuner", "xtuner: an XTuner config"),
            ("command", "command: any program"),
        ),
        "script",
    ),
    Field("program.path", "Path", "the file, module, config or command", default="train.py"),
    Field("program.args", "Arguments", "{lr} {per_device_batch} {run} … filled in", "words"),
    Field("program.workdir", "Working folder", "on the nodes; starts with / or ~/", default="~"),
    Field("program.activate", "Activation", "shell lines that bring up the environment", "block"),
    Field("env", "Environment", "NAME=VALUE, one a line", "env"),
    Field("secrets", "Secrets", "names only; values stay in your environment", "names"),
    Field("batch.per_device", "Per device", "samples a rank and micro-batch"),
    Field("batch.grad_accum", "Accumulation", "micro-batches a step", default="1"),
    Field("batch.base_lr", "Base rate", "the tuned learning rate, such as 2.0e-4"),
    Field("batch.base_batch", "Base batch", "samples a step that it is tuned at"),
    Field(
        "batch.lr_scaling",
        "Scaling",
        "how the learning rate follows the batch",
        "choice",
        (
            ("linear", "linear: for SGD (Goyal 2017)"),
            ("sqrt", "sqrt: for Adam (Malladi 2022)"),
            ("none", "none: as it is"),
        ),
        "linear",
    ),
    Field("batch.sequence_length", "Sequence", "tokens a sample, to tell tokens a step", default="no tokens"),
    Field("slurm.partition", "Partition", "where to run", default="the cluster's own"),
    Field("slurm.nodes", "Nodes", "how many machines", default="1"),
    Field("slurm.gpus_per_node", "GPUs per node", "0 for CPU jobs", default="1"),
    Field("slurm.time", "Time limit", "such as 1-00:00:00", default="the partition's own"),
    Field("slurm.login", "Login host", "[user@]host to submit from", default="this machine"),
    Field(
        "slurm.style",
        "Style",
        "what srun starts on a node",
        "choice",
        (("torchrun", "torchrun: one a node"), ("direct", "direct: srun starts every rank")),
        "torchrun",
    ),
    Field("slurm.account", "Account", "who pays", default="your own"),
    Field("slurm.allocation", "Allocation", "run inside this job of salloc", default="a job of its own"),
    Field("slurm.qos", "Quality", "--qos", default="the cluster's own"),
    Field("slurm.cpus_per_task", "CPUs per task", "--cpus-per-task", default="the cluster's own"),
    Field("slurm.mem", "Memory", "a node, such as 200G", default="the cluster's own"),
    Field("slurm.constraint", "Constraint", "features, such as a100", default="none"),
    Field("slurm.nodelist", "Node list", "these machines", default="any"),
    Field("slurm.exclude", "Exclude", "not these machines", default="none"),
    Field("slurm.reservation", "Reservation", "--reservation", default="none"),
    Field("slurm.exclusive", "Whole nodes", "nobody else's job beside yours", "flag"),
    Field("slurm.gpu_type", "GPU type", "as `sinfo -o %G` shows it, such as a100", default="any"),
    Field(
        "slurm.gpus_by",
        "GPUs by",
        "the option that asks for them",
        "choice",
        (("gres", "--gres=gpu:N"), ("gpus", "--gpus-per-node=N")),
        "gres",
    ),
    Field("slurm.ranks_per_node", "Ranks per node", "where it is not one a GPU", default="one a GPU"),
    Field("slurm.container", "Container", "before the program: apptainer exec --nv train.sif", default="none"),
    Field(
        "slurm.requeue",
        "Requeue",
        "after a node failure or preemption",
        "choice",
        (("", "as the cluster has it"), ("true", "yes"), ("false", "no: it ends")),
    ),
    Field("slurm.signal", "Signal", "to every rank before the time limit, such as USR1@120", default="none"),
    Field("slurm.srun_extra", "Further srun options", "an srun option a line, as --mpi=pmix", "lines"),
    Field("slurm.extra", "Further options", "an sbatch option a line, as --licenses=x", "lines"),
)

FIELDS: dict[str, Field] = {field.path: field for field in _ROWS}

NODE_FIELDS: dict[str, Field] = {
    field.path: field
    for field in (
        Field("gpus", "Ranks", "ranks on this node, or auto: one a GPU", default="auto"),
        Field("devices", "Devices", "these GPUs only, such as 0,1", "numbers", default="all"),
        Field("addr", "Address", "in the training network", default="found by looking"),
        Field("workdir", "Working folder", "where it differs from the program's", default="the program's"),
        Field("activate", "Activation", "where it differs from the program's", "block"),
    )
}
"""What may differ from node to node beside host, user and port, which the host list says."""


def field_of(path: str) -> str:
    """The question that a path of a profile belongs to: `nodes[3].host` is asked under `nodes`, `env.A` under `env`."""
    while path and path not in FIELDS:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return path
