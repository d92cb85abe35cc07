"""The launch's own environment on every node: folder, activation, program, torch, torchrun, XTuner."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from engine.preflight.findings import Note, Seen, check, differing, error, ranks_text, warning
from engine.text import clean_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_MEANINGS = {126: "not executable", 127: "command not found", 130: "interrupted", 137: "killed", 143: "terminated"}


@check("program.workdir", needs=("python",))
def workdir(seen: Seen) -> Iterator[Note]:
    """The working folder is there."""
    for rank, _, observed in seen.nodes():
        python = observed.python
        if python.workdir and not python.error and not python.workdir_ok and not python.timed_out:
            yield error(
                rank,
                f"cannot change to the working folder {python.workdir}",
                evidence=clean_lines(python.output, 3),
                remedy=f"make it there, or name the node's own: --set nodes[{rank}].workdir=PATH",
            )


@check("program.activate", needs=("python",))
def activate(seen: Seen) -> Iterator[Note]:
    """The activation line succeeds, and Python answers after it."""
    for rank, node, observed in seen.nodes():
        python = observed.python
        line = (node.activate or seen.profile.program.activate).strip()
        remedy = f"try it there: ssh {node.host}; bash; {line}" if line else "set program.activate"
        evidence = clean_lines(python.output, 5)
        if python.activated and python.error:
            text = f"Python is of no use after the activation: {python.error}"
            yield error(rank, text, evidence=evidence, remedy=remedy)
        elif python.activated:
            continue
        elif python.error:
            yield error(rank, f"the environment could not be looked at: {python.error}")
        elif python.timed_out:
            yield error(rank, "the activation does not come to an end", evidence=evidence, remedy=remedy)
        elif python.workdir_ok:
            yield error(rank, f"the activation fails: {_status(python.code)}", evidence=evidence, remedy=remedy)


@check("program.present", needs=("python", "program"))
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
        yield error(
            rank,
            f"{_NOUNS[program.kind]} {found.path or program.path} is not there",
            evidence=clean_lines(found.error, 3),
            remedy="copy it to the node, use a shared folder, or name another: --set program.path=PATH",
        )


_NOUNS = {"script": "the script", "module": "the module", "xtuner": "the config", "command": "the command"}


@check("program.same", needs=("program",), across=True)
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
            remedy="copy one version to every node, or launch as it is: --skip program.same",
        )
    if other:
        listed = [
            f"{name}: " + "; ".join(f"{value or 'missing'}: {ranks_text(ranks)}" for value, ranks in groups.items())
            for name, groups in other.items()
        ]
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        # What is missing may not be needed, and a file that is no code may be a node's own.
        sure = any(name.endswith(".py") or name in seen.profile.program.args for name in other if "" not in other[name])
        yield (error if sure else warning)(
            None,
            f"not the same on every node: {next(iter(other))}{more}",
            evidence=listed[:8],
            remedy="copy one version to every node (rsync -a), or launch as it is: --skip program.same",
        )


@check("program.torch", needs=("python",))
def torch(seen: Seen) -> Iterator[Note]:
    """torch is installed."""
    for rank, _, observed in seen.nodes():
        python = observed.python
        if python.looked and not python.torch:
            yield error(
                rank,
                f"{python.python} has no torch",
                remedy=f"activate the environment that has it: --set nodes[{rank}].activate='source …/bin/activate'",
            )


@check("program.torchrun", needs=("python",))
def torchrun(seen: Seen) -> Iterator[Note]:
    """torchrun is on the PATH after the activation."""
    for rank, _, observed in seen.nodes():
        python = observed.python
        if python.looked and python.torch and not python.torchrun:
            yield error(
                rank,
                f"torchrun is not on the PATH, though {python.python} has torch {python.torch}",
                remedy=f"put its folder on the PATH: --set nodes[{rank}].activate='export PATH=…:$PATH'",
            )


@check("program.xtuner", needs=("python",))
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


@check("program.versions", needs=("python", "gpus"), across=True)
def versions(seen: Seen) -> Iterator[Note]:
    """torch, NCCL, Python and XTuner have one version each."""
    looked = {rank: o.python for rank, _, o in seen.nodes() if o.python.looked and o.python.torch}
    remedy = "install the same version on every node, or launch as it is: --skip program.versions"
    yield from _versions("torch", {rank: p.torch for rank, p in looked.items()}, error, remedy)
    if any(o.gpus.gpus for _, _, o in seen.nodes()):
        nccl = {rank: p.nccl for rank, p in looked.items() if p.nccl}
        yield from _versions("NCCL", nccl, error, remedy)
    minors = {rank: ".".join(p.python_version.split(".")[:2]) for rank, p in looked.items()}
    yield from _versions("Python", minors, warning, "a Python of one version on every node saves surprises")
    if seen.profile.program.kind == "xtuner":
        xtuner = {rank: p.xtuner for rank, p in looked.items() if p.xtuner}
        yield from _versions("XTuner", xtuner, warning, "install the same version on every node")


def _versions(name: str, values: Mapping[int, str], note: Callable[..., Note], remedy: str) -> Iterator[Note]:
    groups = differing(values)
    if groups:
        yield note(
            None,
            f"{name} is not the same on every node: {', '.join(groups)}",
            evidence=[f"{name} {value}: {ranks_text(ranks)}" for value, ranks in groups.items()],
            remedy=remedy,
        )


def _status(code: int | None) -> str:
    if code is None:
        return "it did not end"
    if code < 0:
        return f"killed by signal {-code}"
    meaning = _MEANINGS.get(code)
    return f"exit status {code}" + (f" ({meaning})" if meaning else "")
