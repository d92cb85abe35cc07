"""Can we talk to the node, run our program there, and keep its files?"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from engine import errors
from engine.hosts import LOCAL
from engine.preflight import commands
from engine.preflight.findings import Note, Seen, check, error, info, warning
from engine.text import clean, clean_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.preflight.observation import Observation

ROOM, WORKDIR_ROOM = 64 << 20, 1 << 30
INODES = 1000
SLOW_SHELL = 2.0
FAR = 0.5
"""Seconds of a round trip over ssh beyond which every key and every click is felt."""
SKEW, SKEW_C10D = 2.0, 10.0
"""Seconds: torch's dynamic_rendezvous.py takes a node for dead after 3 × 5 s by the clocks of both."""

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
            remedy, command = clean(found.remedy), _remedy(type(found), seen, rank)
            if isinstance(found, errors.Unreachable) and "ssh " not in remedy:
                remedy = "; ".join(filter(None, (remedy, command)))
            remedy = remedy or command
            yield error(rank, clean(found.text) or f"{node.host} does not answer", remedy=remedy)


@check("reach.shell", needs=("reach",))
def shell(seen: Seen) -> Iterator[Note]:
    """The shell's start-up files are quick and quiet."""
    for rank, node, observed in seen.nodes():
        about, see = observed.reach, f"see what its start-up files do: time ssh {commands.login(node)} true"
        if about.shell > SLOW_SHELL:
            text = f"the shell takes {about.shell:.1f} s to start: every command over ssh waits for it"
            remedy = f"{see}; conda init is a usual cause"
            yield warning(rank, text, evidence=clean_lines(about.noise, 3), remedy=remedy)
        elif about.noise:
            text = "its start-up files print where nobody reads: it does not matter here, and breaks scp and rsync"
            yield info(rank, text, evidence=clean_lines(about.noise, 3), remedy=see)


@check("reach.latency", needs=("reach",), across=True)
def latency(seen: Seen) -> Iterator[Note]:
    """The nodes answer quickly over ssh."""
    known = {rank: o.reach.latency for rank, node, o in seen.nodes() if o.reach.latency and node.host != LOCAL}
    for rank, seconds in known.items():
        if seconds > FAR:
            text = f"a round trip over ssh takes {seconds:.1f} s: what is shown of it comes late, the training does not"
            login = commands.login(seen.profile.nodes[rank])
            yield warning(rank, text, remedy=f"see where it stays: ssh -v {login} true")
    if known and max(known.values()) <= FAR:
        low, high = min(known.values()) * 1e3, max(known.values()) * 1e3
        yield info(None, f"round trips over ssh: {low:.1f} to {high:.1f} ms")


@check("reach.clock", needs=("reach",), across=True)
def clock(seen: Seen) -> Iterator[Note]:
    """The clocks of the nodes agree."""
    known = {rank: observed.reach for rank, _, observed in seen.nodes() if not seen.one_machine()}
    if len(known) < 2:
        return
    # Of two nodes nobody can tell which one is wrong: our own clock is the third.
    offsets = [reach.clock for reach in known.values()]
    middle = statistics.median(offsets if len(offsets) > 2 else [*offsets, 0.0])
    c10d = seen.profile.rendezvous.backend == "c10d"
    for rank, reach in known.items():
        off = reach.clock - middle
        sure = abs(off) - reach.clock_error
        if sure <= SKEW:
            continue
        way = "ahead of" if off > 0 else "behind"
        text = f"its clock is {abs(off):.1f} s {way} the others (known to {reach.clock_error:.2f} s)"
        why = "; c10d gives up nodes whose clock differs" if c10d else "; its log lines cannot be compared with others'"
        note = error if c10d and sure > SKEW_C10D else warning
        yield note(rank, text + why, remedy="on that node: sudo chronyc makestep || sudo timedatectl set-ntp true")


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
        remedy = f"free some space there, or {_elsewhere(observed)}"
        if not about.writable:
            yield error(
                rank,
                f"the state folder {about.path} cannot be written to: {about.error or 'permission denied'}",
                remedy=_elsewhere(observed),
            )
        elif about.free is not None and about.free < ROOM:
            yield error(rank, f"{about.free >> 20} MiB free at {about.path}; 64 MiB is the least", remedy=remedy)
        elif about.inodes is not None and about.inodes < INODES:
            yield error(rank, f"{about.inodes} inodes free at {about.path}; {INODES} is the least", remedy=remedy)


@check("node.workdir", needs=("system", "program"))
def workdir(seen: Seen) -> Iterator[Note]:
    """The working folder has room for checkpoints."""
    for rank, _, observed in seen.nodes():
        disk, state = observed.program.disk, observed.system.state
        if state.free is not None and disk.device == state.device and state.free < ROOM:
            continue  # the same disk, told already
        if disk.free is not None and disk.free < WORKDIR_ROOM:
            text = f"{disk.free >> 20} MiB free in the working folder {disk.path}"
            yield warning(rank, text, remedy=f"checkpoints may not fit: df -h {disk.path}")
        elif disk.inodes is not None and disk.inodes < INODES:
            text = f"{disk.inodes} inodes free in the working folder {disk.path}"
            yield warning(rank, text, remedy=f"df -i {disk.path}; many small files are the usual cause")


@check("node.probe", needs=("system", "limits", "fabric", "addresses", "ports", "jobs", "mesh"))
def probe(seen: Seen) -> Iterator[Note]:
    """Every part of the look at the node came back."""
    for rank, _, o in seen.nodes():
        # The environment and the GPUs have checks of their own that report it.
        for name in ("system", "limits", "fabric", "addresses", "ports", "jobs", "mesh"):
            if failure := getattr(o, name).error:
                text = f"the node could not look at its {name}, so what depends on it is not checked"
                yield warning(rank, text, evidence=clean_lines(failure, 5))


def _elsewhere(observed: Observation) -> str:
    return f"keep the logs elsewhere: --set state_dir=/var/tmp/rankdeck-{observed.system.user}"


def _remedy(kind: type[errors.RankdeckError], seen: Seen, rank: int) -> str:
    node = seen.profile.nodes[rank]
    known = next((_REMEDIES[base] for base in kind.__mro__ if base in _REMEDIES), "")
    return known.format(target=commands.login(node), host=node.host)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
