"""The port of the rendezvous, on the node that listens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.preflight.findings import Note, Seen, check, error, warning
from engine.preflight.observation import Observation

if TYPE_CHECKING:
    from collections.abc import Iterator

PRIVILEGED = 1024


@check("ports.master")
def master(seen: Seen) -> Iterator[Note]:
    """The rendezvous port is free on node 0."""
    found, port = seen.observations.get(0), seen.profile.rendezvous.master_port
    if not isinstance(found, Observation) or found.ports.error:
        return
    if port == "auto":
        if not found.ports.free_ports:
            yield error(0, "no free port was found for the rendezvous", remedy=_propose(found))
        return
    for asked in found.ports.asked:
        if asked.port != port or asked.free or (port < PRIVILEGED and found.system.uid != 0):
            continue
        holder = asked.holder
        by = f" by {holder}" if holder is not None else ""
        reap = " (or end it: rankdeck reap PROFILE)" if holder is not None and holder.job else ""
        evidence = [asked.error]
        if holder is not None and holder.cmd:
            evidence.append(holder.cmd)
        if holder is not None and holder.job:
            evidence.append(f"it belongs to the run {holder.job}")
        yield error(0, f"port {port} is taken{by}", evidence=filter(None, evidence), remedy=_propose(found) + reap)


@check("ports.range")
def port_range(seen: Seen) -> Iterator[Note]:
    """The rendezvous port is one that a user may open, and that the kernel gives to nobody else."""
    found, port = seen.observations.get(0), seen.profile.rendezvous.master_port
    if not isinstance(found, Observation) or port == "auto":
        return
    ephemeral = found.ports.ephemeral
    if not 0 < port < 65536:
        yield error(0, f"{port} is not a port number", remedy=_propose(found))
    elif port < PRIVILEGED and found.system.uid > 0:
        yield error(0, f"only root may listen on port {port}", remedy=_propose(found))
    elif ephemeral is not None and ephemeral[0] <= port <= ephemeral[1]:
        yield warning(
            0,
            f"port {port} lies in {ephemeral[0]}-{ephemeral[1]}, which the kernel gives to outgoing connections:"
            " it may be taken by the time of the launch",
            remedy=_propose(found),
        )


def _propose(found: Observation) -> str:
    """A port that is free, in the words of the command line."""
    port = found.ports.free_ports[0] if found.ports.free_ports else "N"
    return f"--set rendezvous.master_port={port}"
