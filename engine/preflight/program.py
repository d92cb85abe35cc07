"""The launch's own environment on every node: folder, activation, program, torch, torchrun, XTuner."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from engine.preflight import commands
from engine.preflight.findings import Note, Seen, check, differing, error, ranks_text, warning
from engine.text import clean_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from engine.profile import Profile

_MEANINGS = {126: "not executable", 127: "command not found", 130: "interrupted", 137: "killed", 143: "terminated"}


@check("program.workdir", needs=("python",))
def workdir(seen: Seen) -> Iterator[Note]:
    """The working folder is there."""
    for rank, node, observed in seen.nodes():
        python = observed.python
        if python.workdir and not python.error and not python.workdir_ok and not python.timed_out:
            yield error(
                rank,
                f"cannot change to the working folder {python.workdir}",
                evidence=clean_lines(python.output, 3),
                remedy=f"make it: {commands.there(node, f'mkdir -p {shlex.quote(python.workdir)}')}; or name the"
                f" node's own: --set nodes[{rank}].workdir=PATH",
            )


@check("program.activate", needs=("python",))
def activate(seen: Seen) -> Iterator[Note]:
    """The activation line succeeds, and Python answers after it."""
    for rank, node, observed in seen.nodes():
        python = observed.python
        line = (node.activate or seen.profile.program.activate).strip()
        fix = commands.activation(seen, rank) if python.workdir_ok else []
        remedy = f"name the node's own: --set 'nodes[{rank}].activate=source …/bin/activate'"
        remedy += f"; see it fail: {commands.there(node, line)}" if line else ""
        evidence = clean_lines(python.output, 5)
        if python.activated and python.error:
            text = f"Python is of no use after the activation: {python.error}"
            yield error(rank, text, evidence=evidence, remedy=remedy, fix=fix)
        elif python.activated:
            continue
        elif python.error:
            yield error(rank, f"the environment could not be looked at: {python.error}")
        elif python.timed_out:
            yield error(rank, "the activation does not come to an end", evidence=evidence, remedy=remedy, fix=fix)
        elif python.workdir_ok:
            text = f"the activation fails: {_status(python.code)}"
            yield error(rank, text, evidence=evidence, remedy=remedy, fix=fix)


@check("program.present", needs=("python", "program"), inside=True)
def present(seen: Seen) -> Iterator[Note]:
    """The script, config, module or command is there."""
    program = seen.profile.program
    for rank, _, observed in seen.nodes():
        found = observed.program
        if not observed.python.looked or (found.exists and (found.is_file or program.kind == "script")):
            # torchrun hands the path to Python, which runs a folder with a __main__.py as well.
            continue
        if program.kind == "xtuner" and not program.path.endswith(".py") and "/" not in program.path:
            continue  # the name of a config that XTuner ships
        if found.exists:
            yield error(rank, f"{found.path} is a folder", remedy="name the file: --set program.path=PATH")
            continue
        remedy = "copy it to the node, use a shared folder, or name another: --set program.path=PATH"
        if program.kind in ("script", "xtuner") and len(seen.profile.nodes) > 1:
            other = 0 if rank else 1
            copy = commands.copied(seen.profile, other, rank, [program.path])
            remedy = f"copy that of node {other}: {copy}; or name another: --set program.path=PATH"
        yield error(
            rank,
            f"{_NOUNS[program.kind]} {found.path or program.path} is not there",
            evidence=clean_lines(found.error, 3),
            remedy=remedy,
        )


@check("program.config", needs=("python", "program"), inside=True)
def config(seen: Seen) -> Iterator[Note]:
    """The configs among the arguments are there."""
    for rank, _, observed in seen.nodes():
        for name in observed.program.missing if observed.python.looked else ():
            other = 0 if rank else 1
            copy = commands.copied(seen.profile, other, rank, [name]) if len(seen.profile.nodes) > 1 else ""
            program = seen.profile.program
            # Of a program that we do not know, the first argument may be what it writes.
            unsure = program.args[:1] == (name,) and program.path != "engine.train"
            yield (warning if unsure else error)(
                rank,
                f"the config {name} is not there",
                remedy=f"copy that of node {other}: {copy}; or launch as it is: --skip program.config"
                if copy
                else "put it there, or name another in program.args",
            )


_NOUNS = {"script": "the script", "module": "the module", "xtuner": "the config", "command": "the command"}


@check("program.same", needs=("python", "program"), across=True, inside=True)
def same(seen: Seen) -> Iterator[Note]:
    """Every node has the same program: the entry file, the sources beside it, and the files among its arguments."""
    entry = {rank: o.program.sha256 for rank, _, o in seen.nodes() if o.program.sha256}
    own = PurePosixPath(seen.profile.program.path).name
    trees = {rank: o.program for rank, _, o in seen.nodes() if o.program.files or o.program.exists}
    names = sorted({name for found in trees.values() for name in found.files})
    other: dict[str, dict[str, list[int]]] = {}
    for name in names:
        sums = {rank: p.files.get(name, "") for rank, p in trees.items() if name in p.files or p.whole}
        if (groups := differing(sums)) and not (name == own and differing(entry)):
            other[name] = groups
    if groups := differing(entry):
        yield error(
            None,
            f"{seen.profile.program.path} is not the same file on every node",
            evidence=[f"sha256 {value[:12]}: {ranks_text(ranks)}" for value, ranks in groups.items()],
            remedy=_copies(seen.profile, groups, [seen.profile.program.path]),
        )
    if other:
        listed = [
            f"{name}: " + "; ".join(f"{value or 'missing'}: {ranks_text(ranks)}" for value, ranks in groups.items())
            for name, groups in other.items()
        ]
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        first = next(iter(other.values()))
        alike = [name for name, groups in other.items() if [*groups.values()] == [*first.values()]][:8]
        # What is missing may not be needed, and a file that is no code may be a node's own.
        args = seen.profile.program.args
        sure = any(
            name.endswith(".py") or name in args for name, groups in other.items() if len(groups.keys() - {""}) > 1
        )
        yield (error if sure else warning)(
            None,
            f"not the same on every node: {next(iter(other))}{more}",
            evidence=listed[:8],
            remedy=_copies(seen.profile, first, [_from_workdir(seen.profile, name) for name in alike]),
        )


def _copies(profile: Profile, groups: Mapping[str, list[int]], names: list[str]) -> str:
    """How every node gets what most have."""
    best = next(value for value in groups if value)
    if profile.program.kind == "module":
        return "copy one version to every node (rsync -a), or launch as it is: --skip program.same"
    source = groups[best][0]
    made = [
        commands.copied(profile, source, rank, names)
        for value, ranks in groups.items()
        if value != best
        for rank in ranks
    ]
    more = " (and so to the others)" if len(made) > 2 else ""
    return f"copy that of node {source}: {'; '.join(made[:2])}{more}; or launch as it is: --skip program.same"


def _from_workdir(profile: Profile, name: str) -> str:
    """What `engine.node.sources` calls a file, as the working folder does: those beside the program are found there."""
    named = any(name in (arg, arg.partition("=")[2]) for arg in profile.program.args)
    return name if named else str(PurePosixPath(profile.program.path).parent / name)


@check("program.torch", needs=("python",), inside=True)
def torch(seen: Seen) -> Iterator[Note]:
    """torch is installed."""
    for rank, _, observed in seen.nodes():
        python = observed.python
        if python.looked and not python.torch:
            yield error(
                rank,
                f"{python.python} has no torch",
                fix=(fix := commands.activation(seen, rank)),
                remedy="" if fix else f"name its environment: --set 'nodes[{rank}].activate=source …/bin/activate'",
            )


@check("program.torchrun", needs=("python",), inside=True)
def torchrun(seen: Seen) -> Iterator[Note]:
    """torchrun is on the PATH after the activation."""
    for rank, _, observed in seen.nodes():
        python = observed.python
        if python.looked and python.torch and not python.torchrun:
            yield error(
                rank,
                f"torchrun is not on the PATH, though {python.python} has torch {python.torch}",
                fix=(fix := commands.activation(seen, rank)),
                remedy="" if fix else f"put its folder on the PATH: --set 'nodes[{rank}].activate=export PATH=…:$PATH'",
            )


@check("program.xtuner", needs=("python",), inside=True)
def xtuner(seen: Seen) -> Iterator[Note]:
    """XTuner is installed, where the program is for it."""
    if seen.profile.program.kind != "xtuner":
        return
    looked = {rank: o.python for rank, _, o in seen.nodes() if o.python.looked}
    for rank, python in looked.items():
        if not python.xtuner:
            yield error(rank, f"{python.python} has no xtuner", remedy="activate the environment that has XTuner")
        elif not python.xtuner_command:
            yield error(rank, "xtuner is not on the PATH", remedy="activate the environment that has XTuner")


@check("program.versions", needs=("python", "gpus"), across=True, inside=True)
def versions(seen: Seen) -> Iterator[Note]:
    """torch, its CUDA, NCCL, Python and XTuner have one version each."""
    looked = {rank: o.python for rank, _, o in seen.nodes() if o.python.looked and o.python.torch}
    torches = differing({rank: p.torch for rank, p in looked.items()})
    wanted = next(iter(torches), "")
    odd = [rank for version, ranks in torches.items() if version != wanted for rank in ranks]
    found = {rank: commands.activation(seen, rank, wanted) for rank in odd}
    fix = [setting for settings in found.values() for setting in settings]
    asked = wanted.partition("+")
    index = f" --index-url https://download.pytorch.org/whl/{asked[2]}" if asked[2] else ""
    pip = [_installed(seen, rank, f"torch=={asked[0]}{index}") for rank in odd if not found[rank]]
    remedy = "; ".join([*pip[:2], "or launch as it is: --skip program.versions"])
    yield from _versions("torch", {rank: p.torch for rank, p in looked.items()}, error, remedy, fix)
    remedy = "install the same version on every node, or launch as it is: --skip program.versions"
    if any(o.gpus.gpus for _, _, o in seen.nodes()):
        if not torches:  # whose versions tell CUDA's where they differ
            yield from _versions("CUDA of torch", {rank: p.cuda for rank, p in looked.items()}, error, remedy)
        nccl = {rank: p.nccl for rank, p in looked.items() if p.nccl}
        yield from _versions("NCCL", nccl, error, remedy)
    minors = {rank: ".".join(p.python_version.split(".")[:2]) for rank, p in looked.items()}
    yield from _versions("Python", minors, warning, "a Python of one version on every node saves surprises")
    if seen.profile.program.kind == "xtuner":
        xtuner = {rank: p.xtuner for rank, p in looked.items() if p.xtuner}
        yield from _versions("XTuner", xtuner, warning, "install the same version on every node")


def _installed(seen: Seen, rank: int, what: str) -> str:
    """How a node's environment gets a package."""
    node = seen.profile.nodes[rank]
    line = node.activate or seen.profile.program.activate
    return commands.there(node, f"{line + ' && ' if line else ''}python -m pip install {what}")


def _versions(
    name: str, values: Mapping[int, str], note: Callable[..., Note], remedy: str, fix: Iterable[str] = ()
) -> Iterator[Note]:
    groups = differing(values)
    if groups:
        yield note(
            None,
            f"{name} is not the same on every node: {', '.join(groups)}",
            evidence=[f"{name} {value}: {ranks_text(ranks)}" for value, ranks in groups.items()],
            remedy=remedy,
            fix=fix,
        )


def _status(code: int | None) -> str:
    if code is None:
        return "it did not end"
    if code < 0:
        return f"killed by signal {-code}"
    meaning = _MEANINGS.get(code)
    return f"exit status {code}" + (f" ({meaning})" if meaning else "")
