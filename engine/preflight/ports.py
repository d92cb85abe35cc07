"""The port of the rendezvous, on the node that listens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.preflight.findings import Note, Seen, check, error, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.preflight.observation import Observation

PRIVILEGED = 1024
NAME_ONE = "name a port that is free on node 0: --set rendezvous.master_port=N"


@check("ports.master", needs=("system", "ports", "jobs"))
def master(seen: Seen) -> Iterator[Note]:
    """The rendezvous port is free on node 0."""
    found, port = seen.node(0), seen.profile.rendezvous.master_port
    if found is None or found.ports.error:
        return
    if port == "auto":
        if not found.ports.free_ports:
            yield error(0, "no free port was found for the rendezvous", remedy=NAME_ONE)
        return
    for asked in found.ports.asked:
        if asked.port != port or asked.free or (port < PRIVILEGED and found.system.uid != 0):
            continue
        holder = asked.holder
        by = f" by {holder}" if holder is not None else ""
        reap = f"or end it: {found.jobs.end(holder.job)}" if holder is not None and holder.job else ""
        remedy = reap if found.ports.free_ports else NAME_ONE
        evidence = [asked.error]
        if holder is not None and holder.cmd:
            evidence.append(holder.cmd)
        if holder is not None and holder.job:
            evidence.append(f"it belongs to the run {holder.job}")
        yield error(0, f"port {port} is taken{by}", evidence=filter(None, evidence), fix=_propose(found), remedy=remedy)


@check("ports.range", needs=("system", "ports"))
def port_range(seen: Seen) -> Iterator[Note]:
    """The rendezvous port is one that a user may open, and that the kernel gives to nobody else."""
    found, port = seen.node(0), seen.profile.rendezvous.master_port
    if found is None or port == "auto":
        return
    ephemeral = found.ports.ephemeral
    if not 0 < port < 65536:
        yield error(0, f"{port} is not a port number", fix=_propose(found))
    elif port < PRIVILEGED and found.system.uid > 0:
        yield error(0, f"only root may listen on port {port}", fix=_propose(found))
    elif ephemeral is not None and ephemeral[0] <= port <= ephemeral[1]:
        yield warning(
            0,
            f"port {port} lies in {ephemeral[0]}-{ephemeral[1]}, which the kernel gives to outgoing connections:"
            " it may be taken by the time of the launch",
            fix=_propose(found),
        )


def _propose(found: Observation) -> list[str]:
    return [f"rendezvous.master_port={port}" for port in found.ports.free_ports[:1]]
