"""What a cluster has to offer: partitions with their limits, machines and GPUs, and what is free now. Pure.

Sources: sinfo(1) -o, scontrol(1) show partition -o, sacctmgr(1) show assoc -P
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from engine.text import clean

if TYPE_CHECKING:
    from collections.abc import Mapping

_GRES = re.compile(r"gpu(?::([A-Za-z0-9_.-]+?))?:(\d+)(?:\(|$|,)")
_TRACK = re.compile(r"^ProctrackType\s*=\s*(\S+)", re.MULTILINE)
_PAIR = re.compile(r"([A-Za-z]+)=(\S*)")
FREE = ("idle",)


class Machines(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes of a partition that are alike: `count` of them in `state`, each with `cpus`, `memory` MB and `gpus`."""

    count: int
    state: str
    cpus: int
    memory: int
    gpus: int
    gpu_type: str = ""
    features: tuple[str, ...] = ()

    @property
    def free(self) -> bool:
        return self.state.rstrip("*~#!%$@^-+").lower() in FREE


class Partition(msgspec.Struct, frozen=True, kw_only=True):
    """`max_time` in seconds and `max_nodes`, None without a limit."""

    name: str
    default: bool = False
    up: bool = True
    max_time: int | None = None
    max_nodes: int | None = None
    machines: tuple[Machines, ...] = ()

    @property
    def nodes(self) -> int:
        return sum(machine.count for machine in self.machines)

    @property
    def free(self) -> int:
        """Nodes on which nothing runs now."""
        return sum(machine.count for machine in self.machines if machine.free)

    @property
    def gpus(self) -> int:
        """The most GPUs that one node has."""
        return max((machine.gpus for machine in self.machines), default=0)


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """An account of the user; `partition` "" where it holds for all."""

    account: str
    partition: str = ""
    qos: tuple[str, ...] = ()


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """`proctrack` is how Slurm tells the processes of a job, "" where that is not known."""

    partitions: tuple[Partition, ...] = ()
    accounts: tuple[Account, ...] = ()
    proctrack: str = ""

    def partition(self, name: str) -> Partition | None:
        """The one of that name, or without a name the default one."""
        return next((p for p in self.partitions if (p.name == name if name else p.default)), None)


def read(said: Mapping[str, Any]) -> Cluster:
    """The answer of the node's `cluster`; what Slurm did not say is left out."""
    machines: dict[str, list[Machines]] = {}
    for line in _text(said, "sinfo").split("\n"):
        fields = [clean(field, 200) for field in line.split("\x1f")]
        if len(fields) == 9:
            name, _, _, count, state, cpus, memory, gres, features = fields
            gpus = _GRES.search(gres)
            machines.setdefault(name, []).append(
                Machines(
                    count=_number(count),
                    state=state,
                    cpus=_number(cpus),
                    memory=_number(memory),
                    gpus=int(gpus[2]) if gpus else 0,
                    gpu_type=gpus[1] or "" if gpus else "",
                    features=tuple(f for f in features.split(",") if f != "(null)"),
                )
            )
    partitions = []
    for line in _text(said, "partitions").split("\n"):
        pairs = dict(_PAIR.findall(line))
        if name := clean(pairs.get("PartitionName", ""), 100):
            partitions.append(
                Partition(
                    name=name,
                    default=pairs.get("Default") == "YES",
                    up=pairs.get("State", "UP") == "UP",
                    max_time=seconds(pairs.get("MaxTime", "")),
                    max_nodes=int(pairs["MaxNodes"]) if pairs.get("MaxNodes", "").isdigit() else None,
                    machines=tuple(machines.get(name, ())),
                )
            )
    accounts = []
    for line in _text(said, "accounts").split("\n"):
        fields = [clean(field, 100) for field in line.split("|")]
        if len(fields) >= 3 and fields[0]:
            qos = tuple(q for q in fields[2].split(",") if q)
            accounts.append(Account(account=fields[0], partition=fields[1], qos=qos))
    tracks = _TRACK.search(_text(said, "config"))
    proctrack = clean(tracks[1], 100) if tracks else ""
    return Cluster(partitions=tuple(partitions), accounts=tuple(accounts), proctrack=proctrack)


def offers(known: Cluster) -> list[str]:
    """What there is to ask for, a partition a line, and the user's accounts."""
    lines = []
    for partition in known.partitions:
        kinds = dict.fromkeys(machine.gpu_type for machine in partition.machines if machine.gpu_type)
        words = [f"{partition.nodes} nodes, {partition.free} of them free now"]
        words += [f"{partition.gpus} GPUs each" + (f" ({', '.join(kinds)})" if kinds else "")] if partition.gpus else []
        words += [f"at most {partition.max_time / 3600:g} hours"] if partition.max_time is not None else []
        words += [] if partition.up else ["takes no jobs now"]
        lines.append(f"{partition.name}{' (the default)' if partition.default else ''}: {', '.join(words)}")
    accounts = [f"{a.account} (qos {', '.join(a.qos)})" if a.qos else a.account for a in known.accounts]
    return [*lines, *([f"your accounts: {'; '.join(dict.fromkeys(accounts))}"] if accounts else [])]


def seconds(text: str) -> int | None:
    """Slurm's time limit (minutes, m:s, h:m:s, d-h, d-h:m, d-h:m:s) in seconds; None for UNLIMITED and junk."""
    days, dash, rest = text.partition("-")
    if not dash:
        days, rest = "0", text
    parts = rest.split(":")
    if not days.isdigit() or not all(part.isdigit() for part in parts) or len(parts) > 3:
        return None
    numbers = [int(part) for part in parts]
    if dash:
        hours, minutes, secs = [*numbers, 0, 0][:3]
    elif len(numbers) == 1:
        hours, minutes, secs = 0, numbers[0], 0
    else:
        hours, minutes, secs = [0, *numbers][-3:]
    return ((int(days) * 24 + hours) * 60 + minutes) * 60 + secs


def _number(text: str) -> int:
    """`16+` and `3/4` of sinfo: what comes first."""
    match = re.match(r"\d+", text)
    return int(match[0]) if match else 0


def _text(said: Mapping[str, Any], command: str) -> str:
    answer = said.get(command)
    return str(answer.get("out", "")) if isinstance(answer, dict) and answer.get("code") == 0 else ""
