"""GPUs: enough of them, free, and with a driver that answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.preflight.findings import Note, Seen, check, differing, error, info, ranks_text, warning
from engine.text import clean_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.preflight.observation import Gpu, Observation
    from engine.profile import Node

BUSY_MIB = 1024
"""Memory in use beyond this, with no process to show for it, is somebody's; a driver at rest keeps less."""
DRIVERS = {"11": "450.80.02", "12": "525.60.13", "13": "580.65.06"}
"""The oldest driver by major version of CUDA, on Linux: "CUDA Toolkit Release Notes", minor version compatibility."""


@check("devices.driver", needs=("gpus",))
def driver(seen: Seen) -> Iterator[Note]:
    """The NVIDIA driver answers wherever there is a card."""
    for rank, node, observed in seen.nodes():
        gpus = observed.gpus
        remedy = f"on {node.host}: sudo modprobe -r nvidia_uvm nvidia && sudo modprobe nvidia, or sudo reboot"
        if gpus.error and gpus.tool and not gpus.cards and _no_driver(gpus.error):
            continue  # nvidia-smi comes with many container images: no card, no driver, no trouble
        if gpus.error:
            evidence = clean_lines(gpus.error, 3)
            yield error(rank, "nvidia-smi fails: the GPUs cannot be used", evidence=evidence, remedy=remedy)
        elif gpus.cards and not gpus.gpus:
            missing = "finds none" if gpus.tool else "is not installed"
            text = f"the machine has {gpus.cards} NVIDIA cards, and nvidia-smi {missing}"
            # A number of ranks may be meant for the CPU, beside a card that only drives a screen.
            note = error if node.devices or node.gpus == "auto" else warning
            yield note(rank, text, remedy=remedy)


@check("devices.cuda", needs=("gpus", "python"), inside=True)
def cuda(seen: Seen) -> Iterator[Note]:
    """torch is built for CUDA where there are GPUs, and the driver is new enough for it."""
    for rank, node, observed in seen.nodes():
        python, gpus = observed.python, _taken(node, observed)
        if not python.torch or not gpus:
            continue
        if not python.cuda:
            text = f"torch {python.torch} is built without CUDA: it does not see the {len(gpus)} GPUs"
            line = f"--set 'nodes[{rank}].activate=source …/bin/activate'"
            yield warning(rank, text, remedy=f"activate an environment whose torch is built for CUDA: {line}")
            continue
        least = DRIVERS.get(python.cuda.partition(".")[0], "")
        if least and gpus[0].driver and _numbers(gpus[0].driver) < _numbers(least):
            yield error(
                rank,
                f"the NVIDIA driver {gpus[0].driver} is too old for CUDA {python.cuda}, for which torch {python.torch}"
                f" is built: {least} is the least",
                remedy="install a newer driver, or a torch for an older CUDA; where a cuda-compat package makes up for"
                " it: --skip devices.cuda",
            )


@check("devices.enough", needs=("gpus",), across=True)
def enough(seen: Seen) -> Iterator[Note]:
    """Every rank has a GPU of its own, or none of them has one."""
    looked = [(rank, node, o) for rank, node, o in seen.nodes() if not o.gpus.error or _no_driver(o.gpus.error)]
    bare = [rank for rank, _, o in looked if not o.gpus.gpus]
    if looked and len(bare) == len(looked):
        for rank, node, _ in looked:
            if node.devices:
                yield error(rank, "devices are picked, and this node has no GPU", fix=[f"nodes[{rank}].devices=[]"])
        if not any(node.devices for _, node, _ in looked):
            yield info(None, "no GPUs on any node: the ranks run on the CPU, with gloo")
        return
    for rank, node, observed in looked:
        yield from _enough_on(rank, node, observed)
    yield from _shared(looked)


def _enough_on(rank: int, node: Node, observed: Observation) -> Iterator[Note]:
    gpus = observed.gpus
    if not gpus.gpus:
        yield error(
            rank,
            "no GPU here, and other nodes have some: NCCL needs one for every rank",
            remedy="take this node out of the profile, or see why nvidia-smi finds nothing there",
        )
        return
    there = {gpu.index for gpu in gpus.gpus}
    missing = [index for index in node.devices if index not in there]
    if missing:
        yield error(
            rank,
            f"GPU {', '.join(map(str, missing))} is picked, and the node has {_indices(gpus.gpus)}",
            remedy=f"pick others: --set nodes[{rank}].devices=[…]",
        )
    elif not node.devices and node.gpus != "auto" and node.gpus > len(gpus.usable):
        hidden = f" (CUDA_VISIBLE_DEVICES={gpus.visible} hides others)" if len(gpus.usable) < len(gpus.gpus) else ""
        yield error(
            rank,
            f"{node.gpus} ranks want a GPU each, and {len(gpus.usable)} can be used{hidden}",
            fix=[f"nodes[{rank}].gpus={max(len(gpus.usable), 1)}"],
        )


def _shared(looked: list[tuple[int, Node, Observation]]) -> Iterator[Note]:
    """Two nodes of the profile may be one machine; NCCL refuses one GPU for two ranks."""
    users: dict[str, list[int]] = {}
    for rank, node, observed in looked:
        for gpu in _taken(node, observed):
            users.setdefault(gpu.uuid, []).append(rank)
    shared = {uuid: ranks for uuid, ranks in users.items() if uuid and len(ranks) > 1}
    if shared:
        ranks = sorted({rank for group in shared.values() for rank in group})
        yield error(
            None,
            f"{ranks_text(ranks)} are one machine and would use the same GPUs",
            evidence=[f"{uuid}: {ranks_text(group)}" for uuid, group in list(shared.items())[:8]],
            remedy=f"pick others for each: --set nodes[{ranks[0]}].devices=[…], or list the machine once",
        )


@check("devices.same", needs=("gpus",), across=True)
def same(seen: Seen) -> Iterator[Note]:
    """All GPUs are of one kind, with one driver, and no node lacks some that others have."""
    used = {rank: _taken(node, observed) for rank, node, observed in seen.nodes() if not observed.gpus.error}
    named = {rank: gpus for rank, gpus in used.items() if gpus and all(gpu.name for gpu in gpus)}
    kinds = {rank: ", ".join(sorted({_kind(gpu) for gpu in gpus})) for rank, gpus in named.items()}
    if groups := differing(kinds):
        yield warning(
            None,
            "the nodes have different GPUs: every step waits for the slowest, and the smallest memory bounds the batch",
            evidence=[f"{kind}: {ranks_text(ranks)}" for kind, ranks in groups.items()],
            remedy="use nodes of one kind, or give the weaker ones fewer samples",
        )
    drivers = {rank: gpus[0].driver for rank, gpus in used.items() if gpus and gpus[0].driver}
    if groups := differing(drivers):
        yield warning(
            None,
            f"the NVIDIA driver is not the same on every node: {', '.join(groups)}",
            evidence=[f"driver {version}: {ranks_text(ranks)}" for version, ranks in groups.items()],
            remedy="NCCL is tested with one driver on all nodes: install the same",
        )
    counts = {rank: str(len(gpus)) for rank, gpus in used.items() if gpus and seen.profile.nodes[rank].gpus == "auto"}
    if groups := differing(counts):
        most, *others = groups
        for count in others:
            for rank in groups[count]:
                yield warning(
                    rank,
                    f"{count} GPUs here, {most} on {ranks_text(groups[most])}",
                    remedy="see whether one is missing: nvidia-smi -L; lspci | grep -i nvidia",
                )


def _kind(gpu: Gpu) -> str:
    return gpu.name + ("" if gpu.total is None else f" {round(gpu.total / 1024)} GiB")


@check("devices.health", needs=("gpus",))
def health(seen: Seen) -> Iterator[Note]:
    """No GPU complains of its memory, and the driver has reported no errors lately."""
    for rank, node, observed in seen.nodes():
        gpus = observed.gpus
        for gpu in _taken(node, observed):
            if gpu.trouble:
                text = f"GPU {gpu.index}: {gpu.trouble}"
                yield warning(rank, text, remedy="drain the node and reset the GPU: sudo nvidia-smi --gpu-reset -i N")
        if gpus.gpus and gpus.cards > len(gpus.gpus):
            yield warning(
                rank,
                f"the machine has {gpus.cards} NVIDIA cards, and nvidia-smi shows {len(gpus.gpus)}",
                remedy="one has fallen off the bus: sudo dmesg | grep -i xid, then reboot the node",
            )
        if gpus.xids:
            yield warning(
                rank,
                f"the driver has reported {len(gpus.xids)} errors within a day",
                evidence=gpus.xids,
                remedy="NVIDIA's list of XID errors says what they mean; after 48, 63, 79 or 94 the GPU needs a reset",
            )


@check("devices.busy", needs=("gpus", "jobs"))
def busy(seen: Seen) -> Iterator[Note]:
    """Nobody else uses the GPUs."""
    for rank, node, observed in seen.nodes():
        evidence: list[str] = []
        ours: dict[str, None] = {}
        taken = _taken(node, observed)
        for gpu in taken:
            users = [p for p in observed.gpus.processes if p.uuid == gpu.uuid]
            for process in users:
                ours.update(dict.fromkeys([observed.jobs.end(process.job)] if process.job else []))
                size = "" if process.used is None else f", {process.used} MiB"
                run = f", from the run {process.job}" if process.job else ""
                evidence.append(f"GPU {gpu.index}: {process}{size}{run}: {process.cmd[:120]}".rstrip(": "))
            if not users and _in_use(gpu, observed):
                evidence.append(f"GPU {gpu.index}: {gpu.used} MiB in use, and no process in sight")
        if evidence:
            free = [gpu.index for gpu in observed.gpus.usable if not _in_use(gpu, observed)]
            picked = _pick(rank, node, free[: len(taken)])
            fix = picked if len(free) >= len(taken) and not ours else []
            few = "wait, or use what is free: " + " ".join(f"--set '{setting}'" for setting in picked)
            few = few if free else "wait, or take another node"
            remedy = f"if nobody needs what runs there: {'; '.join(ours)}" if ours else "" if fix else few
            yield warning(rank, "GPUs are in use", evidence=evidence[:16], remedy=remedy, fix=fix)


def _pick(rank: int, node: Node, indices: list[int]) -> list[str]:
    """Settings that let a node use these GPUs."""
    listed = ",".join(map(str, indices))
    counted = [] if node.gpus in ("auto", len(indices)) else [f"nodes[{rank}].gpus=auto"]
    return [f"nodes[{rank}].devices=[{listed}]", *counted]


def _in_use(gpu: Gpu, observed: Observation) -> bool:
    shown = any(process.uuid == gpu.uuid for process in observed.gpus.processes)
    return shown or (gpu.used is not None and gpu.used > BUSY_MIB)


def _taken(node: Node, observed: Observation) -> tuple[Gpu, ...]:
    """The GPUs that the ranks of a node would use."""
    if node.devices:
        return tuple(gpu for gpu in observed.gpus.gpus if gpu.index in node.devices)
    return observed.gpus.usable[: ranks_of(node, observed)]


def ranks_of(node: Node, observed: Observation) -> int:
    """How many ranks a node would run."""
    if node.devices:
        return len(node.devices)
    return max(1, len(observed.gpus.usable)) if node.gpus == "auto" else node.gpus


def _indices(gpus: tuple[Gpu, ...]) -> str:
    return "GPU " + ", ".join(str(gpu.index) for gpu in gpus)


def _no_driver(text: str) -> bool:
    return "couldn't communicate with the NVIDIA driver" in text or "libnvidia-ml.so" in text


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
