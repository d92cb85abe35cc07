"""What the slurm section of a profile must make sense of. Pure; see `engine.profile.rules`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from engine.hosts import MAX_HOSTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.profile.model import Profile, Slurm

_TEXTS = ("partition", "account", "qos", "constraint", "nodelist", "exclude", "reservation", "container")
_FORMS = {
    # sbatch(1), --time
    "time": (re.compile(r"\d+|\d+:\d\d(:\d\d)?|\d+-\d{1,2}(:\d\d){0,2}|UNLIMITED"), "90, 12:00:00 or 1-12:00:00"),
    "mem": (re.compile(r"\d+[KMGT]?"), "megabytes of a node, or 200G"),
    "signal": (re.compile(r"(SIG)?[A-Z][A-Z0-9]+@\d{1,5}"), "a signal and seconds before the time limit: USR1@120"),
    "gpu_type": (re.compile(r"[A-Za-z0-9_.-]+"), "a type of GPU as `sinfo -o %G` shows it: a100"),
}
_OPTION = re.compile(r"--?([A-Za-z][A-Za-z0-9-]*)")

_COUNTED = "the number of ranks follows from nodes, gpus_per_node, ranks_per_node and style"
_OUTPUT = "Rankdeck keeps the output of every rank itself"
OURS = {
    **dict.fromkeys(("n", "ntasks", "ntasks-per-node", "ntasks-per-gpu", "tasks-per-node"), _COUNTED),
    **dict.fromkeys(("N", "nodes"), "set slurm.nodes instead"),
    **dict.fromkeys(("G", "gpus", "gpus-per-node", "gpus-per-task", "gres"), "set slurm.gpus_per_node instead"),
    **dict.fromkeys(("c", "cpus-per-task"), "set slurm.cpus_per_task instead"),
    **dict.fromkeys(("p", "partition"), "set slurm.partition instead"),
    **dict.fromkeys(("A", "account"), "set slurm.account instead"),
    **dict.fromkeys(("q", "qos"), "set slurm.qos instead"),
    **dict.fromkeys(("t", "time"), "set slurm.time instead"),
    **dict.fromkeys(("w", "nodelist"), "set slurm.nodelist instead"),
    **dict.fromkeys(("J", "job-name"), "the job has the profile's name"),
    **dict.fromkeys(("o", "output", "e", "error", "i", "input", "open-mode"), _OUTPUT),
    **dict.fromkeys(("export", "export-file", "get-user-env"), "variables belong under env:"),
    **dict.fromkeys(("D", "chdir"), "set program.workdir instead"),
    **dict.fromkeys(("a", "array"), "a run is one job; launch it again instead"),
    **dict.fromkeys(("requeue", "no-requeue"), "set slurm.requeue instead"),
    **dict.fromkeys(("signal",), "set slurm.signal instead"),
    **dict.fromkeys(("wrap", "parsable", "W", "wait", "test-only", "Q", "quiet"), "Rankdeck calls sbatch itself"),
    **dict.fromkeys(("comment", "K", "kill-on-bad-exit"), "Rankdeck sets it"),
}
"""Options that a profile has keys for, or that Rankdeck sets, and what to do instead of writing them."""


def slurm_problems(profile: Profile) -> Iterator[tuple[str, str]]:
    """Problems as (path, text), for `rules.RULES`."""
    slurm = profile.slurm
    if slurm is None:
        return
    yield from _counts(slurm)
    for name in _TEXTS:
        text = getattr(slurm, name)
        if bad := next((c for c in text if not c.isprintable()), None):
            yield f"slurm.{name}", f"it contains {bad!r}"
    for name, (form, allowed) in _FORMS.items():
        text = getattr(slurm, name)
        if text and not form.fullmatch(text):
            yield f"slurm.{name}", f"found {text[:60]!r}; allowed: {allowed}"
    yield from _options("extra", slurm.extra)
    yield from _options("srun_extra", slurm.srun_extra)
    if profile.launcher != "slurm":
        return
    if slurm.style == "direct" and profile.rendezvous.max_restarts:
        yield "rendezvous.max_restarts", "torchrun restarts ranks, and slurm.style direct runs without it"
    if profile.rendezvous.backend != "static":
        yield "rendezvous.backend", "found c10d; with launcher slurm the ranks meet on the job's first node: static"


def _counts(slurm: Slurm) -> Iterator[tuple[str, str]]:
    counts = {f"slurm.{name}": getattr(slurm, name) for name in ("nodes", "gpus_per_node", "ranks_per_node")}
    counts["slurm.cpus_per_task"] = slurm.cpus_per_task
    if slurm.allocation is not None and not 1 <= slurm.allocation < 10**12:
        yield "slurm.allocation", f"found {slurm.allocation}; allowed: the number of a running job"
    if slurm.allocation is not None and slurm.groups:
        yield "slurm.allocation", "nodes that differ need a job of their own: leave out allocation or groups"
    for i, group in enumerate(slurm.groups):
        counts |= {f"slurm.groups[{i}].{name}": getattr(group, name) for name in ("nodes", "gpus_per_node")}
        counts[f"slurm.groups[{i}].ranks_per_node"] = group.ranks_per_node
        if group.gpu_type and not _FORMS["gpu_type"][0].fullmatch(group.gpu_type):
            yield f"slurm.groups[{i}].gpu_type", f"found {group.gpu_type[:60]!r}; allowed: {_FORMS['gpu_type'][1]}"
        for name in ("partition", "constraint", "nodelist"):
            if bad := next((c for c in getattr(group, name) if not c.isprintable()), None):
                yield f"slurm.groups[{i}].{name}", f"it contains {bad!r}"
    for path, value in counts.items():
        low = 0 if path.endswith("gpus_per_node") else 1
        if value is not None and not low <= value <= MAX_HOSTS:
            yield path, f"found {value}; allowed: {low} to {MAX_HOSTS}"
    if slurm.groups and (slurm.nodes, slurm.gpus_per_node, slurm.ranks_per_node) != (1, 1, None):
        yield "slurm.nodes", "groups say how many nodes and GPUs there are; leave it out here"
    if slurm.groups and slurm.style == "direct":
        yield "slurm.style", "nodes that differ need style torchrun"


def _options(key: str, options: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for i, text in enumerate(options):
        path = f"slurm.{key}[{i}]"
        if bad := next((c for c in text if not c.isprintable()), None):
            yield path, f"it contains {bad!r}"
        elif (option := _OPTION.match(text)) is None:
            yield path, f"found {text[:60]!r}; allowed: a whole option such as --licenses=x"
        elif reason := OURS.get(option[1]) or OURS.get(option[1][:1] if not text.startswith("--") else ""):
            yield path, f"found {text[:60]!r}: {reason}"
