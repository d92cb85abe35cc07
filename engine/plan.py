"""What will run: ranks, addresses, environment and command of every node, worked out of a profile and facts. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from engine import batch, command, placeholders
from engine.errors import RequestError
from engine.hosts import LOCAL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.profile import Node, Profile, Program


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What preflight saw on a node; the defaults say that it saw nothing.

    `gpus` counts usable GPUs; `addr` and `interface` lead to the other nodes; `torchrun_flags` are the long options of
    its torchrun, with or without dashes; `free_ports` could be bound; `cpu_count` counts logical CPUs.
    """

    gpus: int | None = None
    addr: str = ""
    interface: str = ""
    torchrun_flags: frozenset[str] = frozenset()
    free_ports: tuple[int, ...] = ()
    cpu_count: int = 0


class NodePlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One node: its ranks are first_rank .. first_rank + nproc - 1, and `bash -c script` is what it runs."""

    node_rank: int
    host: str
    user: str = ""
    port: int | None = None
    nproc: int
    first_rank: int
    script: str


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole run, decided. `global_batch` [samples/step], `sequence_length` [tokens/sample] and `lr` are None where
    the profile leaves them out.

    `texts` are the commands that a launcher writes for the run as a whole, by format.
    """

    run: str
    profile_name: str
    nodes: tuple[NodePlan, ...]
    world_size: int
    master_addr: str
    master_port: int
    global_batch: int | None = None
    grad_accum: int = 1
    sequence_length: int | None = None
    lr: float | None = None
    texts: dict[str, str] = {}
    metric_pattern: str = ""


GRACE = 35.0
"""Seconds between SIGTERM to torchrun and SIGKILL; torchrun itself gives its ranks 30."""


def job_of(plan: Plan, node_rank: int, grace: float = GRACE) -> dict[str, Any]:
    """What a node's supervisor is told, without secrets."""
    return {
        "version": 1,
        "run": plan.run,
        "node_rank": node_rank,
        "script": plan.nodes[node_rank].script,
        "grace": grace,
        "metric_pattern": plan.metric_pattern or None,
    }


def make_plan(profile: Profile, run_id: str, facts: Mapping[int, NodeFacts] | None = None) -> Plan:
    """The plan of a torchrun job; `facts` by node_rank fill in what the profile leaves to be found.

    With the static rendezvous, torchrun gives node K the ranks after those of nodes 0 .. K-1, also where
    nodes differ in their number of ranks. With c10d the order is decided when they meet: `first_rank` is a guess.
    Raises RequestError naming the node where the profile leaves something open and no fact settles it.
    """
    known = [(facts or {}).get(rank, NodeFacts()) for rank in range(len(profile.nodes))]
    if not known:
        raise RequestError("the profile has no nodes", remedy="add one under nodes: `- host: gpu01`")
    sizes = [_ranks(node, fact, rank) for rank, (node, fact) in enumerate(zip(profile.nodes, known, strict=True))]
    world_size = sum(sizes)
    addr, port = _master_addr(profile, known[0]), _master_port(profile, known[0])
    total, lr = totals(profile, world_size)
    values = placeholder_values(profile, run_id, len(profile.nodes), world_size, total, lr)
    args = arguments(profile, values)
    plans = []
    for rank, (node, fact) in enumerate(zip(profile.nodes, known, strict=True)):
        options = torchrun_options(profile, run_id, rank, sizes[rank], addr, port, fact)
        plans.append(
            NodePlan(
                node_rank=rank,
                host=node.host,
                user=node.user,
                port=node.port,
                nproc=sizes[rank],
                first_rank=sum(sizes[:rank]),
                script=_script(profile, node, _exports(profile, node, fact, values), options, args),
            )
        )
    return Plan(
        run=run_id,
        profile_name=profile.name,
        nodes=tuple(plans),
        world_size=world_size,
        master_addr=addr,
        master_port=port,
        global_batch=total,
        grad_accum=profile.batch.grad_accum if profile.batch else 1,
        sequence_length=profile.batch.sequence_length if profile.batch else None,
        lr=lr,
        metric_pattern=profile.program.metric_pattern,
    )


def torchrun_options(
    profile: Profile, run_id: str, rank: int, nproc: int, addr: str, port: int, fact: NodeFacts
) -> dict[str, str]:
    """How node `rank` joins, by torchrun's long options with underscores: the spelling that every torchrun reads."""
    literal = f"[{addr}]" if ":" in addr else addr
    options = {"nnodes": str(len(profile.nodes)), "node_rank": str(rank), "nproc_per_node": str(nproc)}
    if profile.rendezvous.backend == "c10d":
        # is_host spares node 0 the guess whether the endpoint is an address of its own.
        options |= {
            "rdzv_backend": "c10d",
            "rdzv_endpoint": f"{literal}:{port}",
            "rdzv_conf": f"is_host={int(rank == 0)}",
        }
        own_addr = profile.nodes[rank].addr or fact.addr
        if own_addr and "local_addr" in {flag.lstrip("-").replace("-", "_") for flag in fact.torchrun_flags}:
            options["local_addr"] = own_addr
    options |= {"master_addr": literal, "master_port": str(port)}
    return options | {"rdzv_id": run_id, "max_restarts": str(profile.rendezvous.max_restarts)}


def _script(profile: Profile, node: Node, exports: dict[str, str], options: dict[str, str], args: list[str]) -> str:
    program = profile.program
    exported_raw = program_path(program)
    several = options["nnodes"] != "1" or options["nproc_per_node"] != "1"
    if program.kind == "xtuner" and several:
        # XTuner starts torchrun itself, with the options it knows; torchrun takes the others from PET_ variables.
        exports = {**exports, **_xtuner_exports(options)}
        exported_raw["PET_LOG_DIR"] = command.LOG_DIR
        argv = [UNMASKED + command.words("xtuner", "train", program.path, *args)]
    else:
        argv = ["torchrun", *_flag_lines(options), f"--redirects=3 --log_dir={command.LOG_DIR}"]
        argv.append(
            xtuner_below_torchrun(program, args, UNMASKED)
            if program.kind == "xtuner"
            else command.words(*KIND_FLAGS[program.kind], program.path, *args)
        )
    return command.script(
        workdir=node.workdir or program.workdir,
        activate=node.activate or program.activate,
        exports=exports,
        exported_raw=exported_raw,
        argv=argv,
    )


def xtuner_below_torchrun(program: Program, args: list[str], unmask: str) -> str:
    """One rank, which XTuner starts without torchrun: below it, output and end are kept as any rank's are."""
    return f"--no_python {unmask}{command.words('xtuner', 'train', program.path, *args)}"


def program_path(program: Program) -> dict[str, str]:
    """How a training program of ours is found; where Rankdeck is installed, the variable is not needed."""
    if program.kind == "module" and program.path.split(".")[:2] == ["engine", "train"]:
        # The node's supervisor has it in its zip.
        return {"PYTHONPATH": '"${RANKDECK_PROGRAM:+$RANKDECK_PROGRAM:}${PYTHONPATH:-}"'}
    return {}


def _flag_lines(options: dict[str, str]) -> list[str]:
    """torchrun's options, a group a line; c10d has no use for node_rank, master_addr and master_port."""
    ignored = _STATIC_ONLY if "rdzv_backend" in options else frozenset()
    kept = [[name for name in group if name in options and name not in ignored] for group in _GROUPS]
    return [command.words(*(f"--{name}={options[name]}" for name in group)) for group in kept if group]


KIND_FLAGS: dict[str, tuple[str, ...]] = {"script": (), "module": ("-m",), "command": ("--no_python",)}
_STATIC_ONLY = frozenset({"node_rank", "master_addr", "master_port"})
_GROUPS = (
    ("nnodes", "node_rank", "nproc_per_node"),
    ("rdzv_backend", "rdzv_endpoint", "rdzv_conf", "local_addr"),
    ("master_addr", "master_port"),
    ("rdzv_id", "max_restarts"),
)


def arguments(profile: Profile, values: Mapping[str, str]) -> list[str]:
    """The program's arguments; XTuner gets `batch` as --cfg-options, where the profile's own come after and win."""
    args = [filled(arg, values) for arg in profile.program.args]
    if profile.program.kind != "xtuner" or profile.batch is None:
        return args
    pairs = [f"{key}={values[name]}" for key, name in _XTUNER_BATCH.items() if name in values]
    # Every later --cfg-options adds to the first; what is named twice is what was said last (mmengine's DictAction).
    return ["--cfg-options", *pairs, *args]


UNMASKED = '${RANKDECK_PROGRAM:+python3 -I -S "$RANKDECK_PROGRAM"} '
"""Stands before XTuner's command, which hides how a training ended: where Rankdeck runs it, its node program does."""
# From them xtuner/tools/train.py takes what it gives to DeepSpeed, too.
_XTUNER_BATCH = {
    "train_dataloader.batch_size": "per_device_batch",
    "optim_wrapper.accumulative_counts": "grad_accum",
    "optim_wrapper.optimizer.lr": "lr",
}


def _xtuner_exports(options: dict[str, str]) -> dict[str, str]:
    """The five variables of xtuner/entry_point.py, then torchrun's defaults of torch/distributed/argparse_util.py."""
    own = {variable: options[name] for variable, name in _XTUNER.items()}
    others = {f"PET_{name.upper()}": value for name, value in options.items() if name not in _XTUNER.values()}
    return {**own, **others, "PET_REDIRECTS": "3"}


_XTUNER = {
    "NNODES": "nnodes",
    "NODE_RANK": "node_rank",
    "NPROC_PER_NODE": "nproc_per_node",
    "ADDR": "master_addr",
    "PORT": "master_port",
}


DEFAULT_ENV = {"PYTHONUNBUFFERED": "1", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"}
"""What every rank gets unless the profile says otherwise: output as it is written, an end where NCCL fails."""


def _exports(profile: Profile, node: Node, fact: NodeFacts, values: Mapping[str, str]) -> dict[str, str]:
    """The user's variables, and those of ours that the user has not set."""
    ours = dict(DEFAULT_ENV)
    if interface := _interface(profile, fact):
        ours |= {"NCCL_SOCKET_IFNAME": interface, "GLOO_SOCKET_IFNAME": interface}
    if node.devices:
        ours["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, node.devices))
    return {**ours, **{name: filled(value, values) for name, value in profile.env.items()}}


def _interface(profile: Profile, fact: NodeFacts) -> str:
    wanted = profile.rendezvous.interface
    if wanted != "auto":
        return wanted
    return "" if stays_home(profile) else fact.interface


def known_ranks(node: Node, fact: NodeFacts) -> int | None:
    """The ranks of a node, or None while nobody has counted its GPUs."""
    if node.devices:
        return len(node.devices)
    if node.gpus != "auto":
        return node.gpus
    return None if fact.gpus is None else max(fact.gpus, 1)


def _ranks(node: Node, fact: NodeFacts, rank: int) -> int:
    known = known_ranks(node, fact)
    if known is None:
        raise RequestError(
            "gpus is auto, and how many GPUs this node has is not known yet",
            node=node.host,
            remedy=f"write nodes[{rank}].gpus into the profile, or let preflight count them: rankdeck check",
        )
    return known


def stays_home(profile: Profile) -> bool:
    """Whether the ranks never leave one machine."""
    return len(profile.nodes) == 1 or all(node.host == LOCAL for node in profile.nodes)


def _master_addr(profile: Profile, fact: NodeFacts) -> str:
    first = profile.nodes[0]
    chosen = profile.rendezvous.master_addr or first.addr
    if chosen:
        return chosen
    if stays_home(profile):
        return "127.0.0.1"
    if not fact.addr and first.host == LOCAL:
        raise RequestError(
            "node 0 is this machine, and the address by which the others reach it is not known yet",
            node=first.host,
            remedy="write nodes[0].addr into the profile, or let preflight find it: rankdeck check",
        )
    return fact.addr or first.host


def _master_port(profile: Profile, fact: NodeFacts) -> int:
    wanted = profile.rendezvous.master_port
    if wanted != "auto":
        return wanted
    if not fact.free_ports:
        raise RequestError(
            "rendezvous.master_port is auto, and no free port of this node is known yet",
            node=profile.nodes[0].host,
            remedy="write rendezvous.master_port into the profile, or let preflight find one: rankdeck check",
        )
    return fact.free_ports[0]


def totals(profile: Profile, world_size: int) -> tuple[int | None, float | None]:
    """(samples/step, learning rate), the latter rounded to the text that the program is given."""
    asked = profile.batch
    if asked is None:
        return None, None
    total = batch.global_batch(asked.per_device, world_size, asked.grad_accum)
    if asked.base_lr is None:
        return total, None
    lr = batch.scaled_lr(asked.base_lr, asked.base_batch or total, total, asked.lr_scaling)
    return total, float(batch.lr_text(lr))


def placeholder_values(
    profile: Profile, run_id: str, nnodes: int, world_size: int, total: int | None, lr: float | None
) -> dict[str, str]:
    """What the placeholders in arguments and environment stand for."""
    values = {"world_size": str(world_size), "nnodes": str(nnodes), "run": run_id}
    if profile.batch is not None:
        values["per_device_batch"] = str(profile.batch.per_device)
        values["grad_accum"] = str(profile.batch.grad_accum)
        values["global_batch"] = str(total)
    if lr is not None:
        values["lr"] = batch.lr_text(lr)
    return values


def filled(text: str, values: Mapping[str, str]) -> str:
    """`text` with its placeholders replaced; RequestError for one that the profile gives no value."""
    try:
        return placeholders.fill(text, values)
    except KeyError as error:
        raise RequestError(
            f"the placeholder {{{error.args[0]}}} in {text[:60]!r} has no value",
            remedy="give batch.per_device, and for {lr} batch.base_lr and batch.base_batch",
        ) from None
