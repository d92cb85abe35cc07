"""Slurm: a profile as an sbatch script, or as one srun command line. Pure.

style torchrun   one task a node, torchrun in it. The ranks meet on the job's first node, at a port that the job id
                 gives, so that two jobs on one node do not meet each other.
style direct     one task a rank; the program finds its place by Slurm's variables (`--launcher slurm`)

The script is whole: `sbatch` runs it as it stands, and the login shell (-l) leaves what is on the PATH to the nodes.
What a task runs stands in it once, as text for the shell on its node, where SLURM_NODEID and the like have their
values. Where Rankdeck submits the script, $RANKDECK_STEP names its supervisor, which runs the same text
(engine/node/step.py); everywhere else `env` stands in its place.

With `allocation` nothing is submitted: the same script, run where srun is, starts a step inside that job.

Sources: sbatch(1), srun(1) of 22.05 to 24.11; https://slurm.schedmd.com/heterogeneous_jobs.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from engine import command
from engine.errors import RequestError
from engine.plan import (
    DEFAULT_ENV,
    KIND_FLAGS,
    UNMASKED,
    NodePlan,
    Plan,
    arguments,
    filled,
    placeholder_values,
    program_path,
    totals,
    xtuner_below_torchrun,
)
from engine.profile import Slurm, SlurmGroup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.plan import NodeFacts
    from engine.profile import Profile

__all__ = ["FORMATS", "groups", "make_plan", "render"]

FORMATS: tuple[str, ...] = ("sbatch", "srun", "json")

FIRST_PORT, PORTS = 15000, 16384  # below the ephemeral range, as in engine/train/world.py
STEP = '"${RANKDECK_STEP:-env}"'
_FIXED_PORT = ("auto", 29500)  # the rendezvous section left as it is
_OF_STEPS = ("nodes", "gres", "gpus-per-node", "ntasks-per-node", "cpus-per-task", "nodelist", "exclude")
_SIMPLE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._,:=@%/+-[]*&|()!^~{}")


def groups(slurm: Slurm) -> tuple[SlurmGroup, ...]:
    """The kinds of nodes that are asked for: one, unless the job is a heterogeneous one."""
    if slurm.groups:
        return slurm.groups
    return (
        SlurmGroup(
            nodes=slurm.nodes,
            gpus_per_node=slurm.gpus_per_node,
            ranks_per_node=slurm.ranks_per_node,
            gpu_type=slurm.gpu_type,
        ),
    )


def ranks(group: SlurmGroup) -> int:
    """Ranks on each node of a group."""
    return group.ranks_per_node or max(group.gpus_per_node, 1)


def make_plan(profile: Profile, run_id: str, facts: Mapping[int, NodeFacts] | None = None) -> Plan:
    """The plan of a Slurm job. Hosts are for Slurm to choose: nodes are called by their rank until they run."""
    slurm = profile.slurm
    if slurm is None:
        raise RequestError("the profile has no slurm section", remedy="add `slurm: {nodes: 1, gpus_per_node: 8}`")
    sizes = [ranks(group) for group in groups(slurm) for _ in range(group.nodes)]
    world_size = sum(sizes)
    total, lr = totals(profile, world_size)
    values = placeholder_values(profile, run_id, len(sizes), world_size, total, lr)
    env = {name: filled(value, values) for name, value in profile.env.items()}
    args = arguments(profile, values)
    argv = _program(profile, slurm, sizes, args)
    unmasked = _program(profile, slurm, sizes, args, UNMASKED)
    task = _task(profile, slurm, {**DEFAULT_ENV, **_interface(profile), **env}, unmasked, sizes)
    script = _script(profile, slurm, run_id, sizes, task)
    return Plan(
        run=run_id,
        profile_name=profile.name,
        nodes=tuple(
            NodePlan(node_rank=rank, host=f"node {rank}", nproc=size, first_rank=sum(sizes[:rank]), script=task)
            for rank, size in enumerate(sizes)
        ),
        world_size=world_size,
        master_addr="",
        master_port=0,
        global_batch=total,
        grad_accum=profile.batch.grad_accum if profile.batch else 1,
        sequence_length=profile.batch.sequence_length if profile.batch else None,
        lr=lr,
        texts={"sbatch": script} | ({} if slurm.groups else {"srun": _srun_line(profile, slurm, env, argv)}),
    )


def render(plan: Plan, format: str) -> str:
    """The plan as `sbatch` (a script), `srun` (one command line) or `json`. RequestError for any other format."""
    if format == "json":
        return msgspec.json.encode(plan).decode() + "\n"
    if format in plan.texts:
        return plan.texts[format]
    why = "; nodes that differ need a script" if format == "srun" else ""
    forms = ", ".join([*plan.texts, "json"])
    raise RequestError(f"this job has no format {format!r}{why}", remedy=f"choose one of: {forms}")


# ---- what is asked of Slurm ------------------------------------------------------------------------------------------


def _request(profile: Profile, slurm: Slurm, group: SlurmGroup) -> list[tuple[str, str]]:
    """(long option, value) of one group of nodes, in the order of XTuner's manual; "" for a flag."""
    per_node = 1 if slurm.style == "torchrun" else ranks(group)
    gpus = f"{group.gpu_type}:{group.gpus_per_node}" if group.gpu_type else str(group.gpus_per_node)
    asked: list[tuple[str, str | int | None]] = [
        ("partition", group.partition or slurm.partition),
        ("job-name", profile.name),
        ("nodes", group.nodes),
        ("gres", f"gpu:{gpus}" if group.gpus_per_node and slurm.gpus_by == "gres" else ""),
        ("gpus-per-node", gpus if group.gpus_per_node and slurm.gpus_by == "gpus" else ""),
        ("ntasks-per-node", per_node),
        ("cpus-per-task", slurm.cpus_per_task),
        ("mem", slurm.mem),
        ("constraint", group.constraint or slurm.constraint),
        ("nodelist", group.nodelist or slurm.nodelist),
        ("exclude", slurm.exclude),
        ("reservation", slurm.reservation),
        ("account", slurm.account),
        ("qos", slurm.qos),
        ("time", slurm.time),
        ("signal", slurm.signal),
    ]
    found = [(name, str(value)) for name, value in asked if value not in ("", None)]
    return [*found, ("exclusive", "")] if slurm.exclusive else found


def _inside(profile: Profile, slurm: Slurm, name: str) -> list[str]:
    """What a step inside a running job is asked for: its share of what that job has got."""
    (group,) = groups(slurm)
    asked = [option for option in _request(profile, slurm, group) if option[0] in _OF_STEPS]
    return [f"--jobid={slurm.allocation}", f"--job-name={name}", *map(_long, asked)]


def _long(option: tuple[str, str]) -> str:
    name, value = option
    return f"--{name}={value}" if value else f"--{name}"


def _directive(option: str) -> str:
    """A line of options for sbatch, which takes a backslash as an escape everywhere and # as a comment."""
    if not set(option) <= _SIMPLE:
        name, equals, value = option.partition("=")
        text = (value if equals else name).replace("\\", "\\\\").replace('"', '\\"')
        option = f'{name}="{text}"' if equals else f'"{text}"'
    return f"#SBATCH {option}"


# ---- what a task runs ------------------------------------------------------------------------------------------------


def _program(profile: Profile, slurm: Slurm, sizes: Sequence[int], args: list[str], unmask: str = "") -> list[str]:
    """The program as lines of shell words; variables of Slurm and of the script are left for the node's shell.
    `unmask` stands before XTuner's command, but in a container, where our program is not."""
    program = profile.program
    prefix = f"{slurm.container.strip()} " if slurm.container.strip() else ""
    unmask = "" if prefix else unmask
    if program.kind == "xtuner" and (slurm.style == "direct" or sum(sizes) > 1):
        launcher = ("--launcher", "slurm") if slurm.style == "direct" else ()
        return [prefix + unmask + command.words("xtuner", "train", program.path, *_apart(args, launcher))]
    if slurm.style == "direct":
        start = {"script": ("python3",), "module": ("python3", "-m"), "command": ()}[program.kind]
        launcher = () if program.kind == "command" else ("--launcher", "slurm")
        return [prefix + command.words(*start, program.path, *_apart(args, launcher))]
    return [
        f"{prefix}torchrun",
        f'--nnodes={len(sizes)} --node_rank="$SLURM_NODEID" --nproc_per_node={_per_node(sizes)}',
        '--master_addr="$MASTER_ADDR" --master_port="$MASTER_PORT"',
        f'--rdzv_id="$SLURM_JOB_ID" --max_restarts={profile.rendezvous.max_restarts}',
        f"--redirects=3 --log_dir={command.LOG_DIR}",
        xtuner_below_torchrun(program, args, unmask)
        if program.kind == "xtuner"
        else command.words(*KIND_FLAGS[program.kind], program.path, *args),
    ]


def _apart(args: list[str], launcher: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments, with --launcher before them unless the profile has its own."""
    given = any(arg == "--launcher" or arg.startswith("--launcher=") for arg in args)
    return (*args,) if given else (*launcher, *args)


def _per_node(sizes: Sequence[int]) -> str:
    """nproc_per_node, by node where they differ."""
    if len(set(sizes)) == 1:
        return str(sizes[0])
    return f'"$(set -- {" ".join(map(str, sizes))}; shift "$SLURM_NODEID"; echo "$1")"'


def _task(profile: Profile, slurm: Slurm, exports: dict[str, str], argv: list[str], sizes: Sequence[int]) -> str:
    program = profile.program
    # A secret has its value from whoever submits; without one the task ends here and says so.
    raw = {name: f'"${{{name}:?}}"' for name in profile.secrets} | program_path(program)
    if program.kind == "xtuner" and slurm.style == "torchrun":
        # XTuner starts torchrun itself; what it has no variable for, torchrun reads from PET_ ones.
        raw |= {
            "NNODES": str(len(sizes)), "NODE_RANK": '"$SLURM_NODEID"', "NPROC_PER_NODE": _per_node(sizes),
            "ADDR": '"$MASTER_ADDR"', "PORT": '"$MASTER_PORT"', "PET_RDZV_ID": '"$SLURM_JOB_ID"',
            "PET_MAX_RESTARTS": str(profile.rendezvous.max_restarts), "PET_REDIRECTS": "3",
            "PET_LOG_DIR": command.LOG_DIR,
        }  # fmt: skip
    text = command.script(
        workdir=program.workdir, activate=program.activate, exports=exports, exported_raw=raw, argv=argv
    )
    if slurm.signal and slurm.style == "torchrun":
        # Slurm signals every process of a step, and torchrun would die of it; a rank that has a handler gets it.
        return f"trap '' {slurm.signal.partition('@')[0].removeprefix('SIG')} &&\n{text}"
    return text


def _interface(profile: Profile) -> dict[str, str]:
    name = profile.rendezvous.interface
    return {} if name in ("", "auto") else {"NCCL_SOCKET_IFNAME": name, "GLOO_SOCKET_IFNAME": name}


# ---- the two texts ---------------------------------------------------------------------------------------------------


def _script(profile: Profile, slurm: Slurm, run_id: str, sizes: Sequence[int], task: str) -> str:
    nodes = f"{len(sizes)} node{'s' * (len(sizes) > 1)}"
    common = [
        "#SBATCH --output=%x-%j.out",
        "#SBATCH --open-mode=append",
        *([] if slurm.requeue is None else ["#SBATCH --requeue" if slurm.requeue else "#SBATCH --no-requeue"]),
        *(_directive(option) for option in slurm.extra),
    ]
    about = f"{profile.name}: {sum(sizes)} rank{'s' * (sum(sizes) > 1)} on {nodes}"
    if slurm.allocation is not None:
        lines = ["#!/bin/bash -l", f"# {about}, inside job {slurm.allocation}.", "set -euo pipefail", ""]
        lines += [f"export SLURM_JOB_ID={slurm.allocation}"]
        lines += ['SLURM_JOB_NODELIST=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%N)']
    else:
        lines = ["#!/bin/bash -l", f"# {about}."]
        for i, group in enumerate(groups(slurm)):
            lines += ["#SBATCH hetjob"] if i else []
            lines += [_directive(_long(option)) for option in _request(profile, slurm, group)]
            lines.append(f"#SBATCH --comment={run_id}")
            lines += common if i == 0 else []
        lines += ["set -euo pipefail", ""]
    lines += [
        "# The ranks meet on the first node of the job, at a port that follows from its id.",
        f'hosts=$(scontrol show hostnames "{_node_list(slurm)}")',
        "export MASTER_ADDR=${hosts%%$'\\n'*}",
        f"export MASTER_PORT={_port(profile)}",
    ]
    if slurm.cpus_per_task is not None:
        lines += ["# srun does not take this over from the job by itself (Slurm 22.05 and later).",
                  f"export SRUN_CPUS_PER_TASK={slurm.cpus_per_task}"]  # fmt: skip
    mark = _mark(task)
    lines += ["", "# What every task runs; the shell on its node fills in the variables."]
    lines += [f"IFS= read -r -d '' task <<'{mark}' || true", *task.rstrip("\n").split("\n"), mark, ""]
    lines += ["# One task fails, all end. RANKDECK_STEP, where it is set, runs the task and keeps its output and exit."]
    options = _inside(profile, slurm, run_id) if slurm.allocation is not None else []
    options += ["--export=ALL", "--kill-on-bad-exit=1", "--output=%x-%j-%t.out"]
    options += [f"--het-group=0-{len(slurm.groups) - 1}"] if slurm.groups else []
    lines += [f"srun {command.words(*options, *slurm.srun_extra)} \\", f'  {STEP} bash -c "$task"']
    return "\n".join(lines) + "\n"


def _node_list(slurm: Slurm) -> str:
    return "$SLURM_JOB_NODELIST_HET_GROUP_0" if slurm.groups else "$SLURM_JOB_NODELIST"


def _port(profile: Profile) -> str:
    port = profile.rendezvous.master_port
    return f"$(({FIRST_PORT} + SLURM_JOB_ID % {PORTS}))" if port in _FIXED_PORT else str(port)


def _mark(task: str) -> str:
    """The word that ends the here-document; no line of the task is it."""
    mark = "TASK"
    while mark in task.split("\n"):
        mark += "_"
    return mark


def _srun_line(profile: Profile, slurm: Slurm, env: Mapping[str, str], argv: list[str]) -> str:
    """What a person types: no file, output on the terminal."""
    (group,) = groups(slurm)
    asked = _request(profile, slurm, group)
    if slurm.allocation is not None:
        options = _inside(profile, slurm, profile.name)
    else:
        options = ["-p", asked[0][1]] if asked[0][0] == "partition" else []
        options += [*(_long(option) for option in asked if option[0] != "partition"), *slurm.extra]
    options += ["--kill-on-bad-exit=1", *slurm.srun_extra]
    words = [*(f"{name}={command.quote(value)}" for name, value in env.items()), "srun", command.words(*options)]
    program = profile.program
    if program.workdir:
        words += ["-D", command.quote(program.workdir)]
    steps = [program.activate.strip()] if program.activate.strip() else []
    if slurm.style == "torchrun":
        steps += [
            f'MASTER_ADDR=$(scontrol show hostnames "{_node_list(slurm)}" | grep -m 1 .)',
            f"MASTER_PORT={_port(profile)}",
        ]
    line = " ".join(argv)
    if steps:
        line = "bash -c " + command.quote(" && ".join([*steps, f"exec {line}"]))
    return " ".join([*words, line]) + "\n"
