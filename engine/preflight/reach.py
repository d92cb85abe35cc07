"""Can we talk to the node, run our program there, and keep its files?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine import errors
from engine.preflight.findings import Note, Seen, check, error, warning
from engine.text import clean, clean_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOM = 64 << 20
INODES = 1000

_REMEDIES: dict[type[errors.RankdeckError], str] = {
    errors.Unreachable: "see that this works here: ssh {target} true",
    errors.AuthenticationFailed: "let ssh in without a question (ssh-add, or ssh-copy-id {target}): ssh {target} true",
    errors.HostKeyChanged: "ask the machine's owner; if it was installed anew: ssh-keygen -R {host}",
    errors.ConnectionLost: "try again; if it happens again, look at the network between here and {host}",
    errors.NoPython: "install Python 3.8 or newer as python3 on {host}",
}


@check("reach.ssh", needs=("reach",))
def ssh(seen: Seen) -> Iterator[Note]:
    """Every node answers."""
    for rank, node in enumerate(seen.profile.nodes):
        found = seen.observations.get(rank)
        if seen.awaits(rank):
            continue
        if found is None:
            yield error(rank, "no answer from this node", remedy=_remedy(errors.Unreachable, seen, rank))
        elif isinstance(found, errors.RankdeckError) and not isinstance(found, errors.NoPython):
            remedy = clean(found.remedy) or _remedy(type(found), seen, rank)
            yield error(rank, clean(found.text) or f"{node.host} does not answer", remedy=remedy)


@check("node.python", needs=("system",))
def python(seen: Seen) -> Iterator[Note]:
    """python3 on the node is 3.8 or newer."""
    for rank, _ in enumerate(seen.profile.nodes):
        found = seen.observations.get(rank)
        if isinstance(found, errors.NoPython):
            remedy = clean(found.remedy) or _remedy(errors.NoPython, seen, rank)
            yield error(rank, clean(found.text), remedy=remedy)
    for rank, _, observed in seen.nodes():
        version = observed.system.python
        if version and _numbers(version) < (3, 8):
            yield error(rank, f"python3 is {version}", remedy=_remedy(errors.NoPython, seen, rank))


@check("node.state", needs=("system",))
def state(seen: Seen) -> Iterator[Note]:
    """The folder for logs and journals can be written to, and has room."""
    for rank, _, observed in seen.nodes():
        about = observed.system.state
        if observed.system.error or not about.path:
            continue
        remedy = "free some space, or name another folder: --set state_dir=PATH"
        if not about.writable:
            yield error(
                rank,
                f"the state folder {about.path} cannot be written to: {about.error or 'permission denied'}",
                remedy="name a folder on a disk of the node: --set state_dir=PATH",
            )
        elif about.free is not None and about.free < ROOM:
            yield error(rank, f"{about.free >> 20} MiB free at {about.path}; 64 MiB is the least", remedy=remedy)
        elif about.inodes is not None and about.inodes < INODES:
            yield error(rank, f"{about.inodes} inodes free at {about.path}; {INODES} is the least", remedy=remedy)


@check("node.probe", needs=("system", "addresses", "ports", "jobs"))
def probe(seen: Seen) -> Iterator[Note]:
    """Every part of the look at the node came back."""
    for rank, _, o in seen.nodes():
        # The environment and the GPUs have checks of their own that report it.
        parts = {"system": o.system.error, "addresses": o.addresses.error, "ports": o.ports.error, "jobs": o.jobs.error}
        for name, failure in parts.items():
            if failure:
                text = f"the node could not look at its {name}, so what depends on it is not checked"
                yield warning(rank, text, evidence=clean_lines(failure, 5))


def _remedy(kind: type[errors.RankdeckError], seen: Seen, rank: int) -> str:
    node = seen.profile.nodes[rank]
    user = f"{node.user}@" if node.user else ""
    port = f"-p {node.port} " if node.port else ""
    known = next((_REMEDIES[base] for base in kind.__mro__ if base in _REMEDIES), "")
    return known.format(target=f"{port}{user}{node.host}", host=node.host)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
