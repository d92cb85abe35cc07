"""The fast network: InfiniBand and RoCE ports, and whether the training uses the fastest network there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.preflight import networks, pairs
from engine.preflight.facts import holder
from engine.preflight.findings import Note, Seen, check, info, ranks_text, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

MUCH_FASTER = 4


@check("fabric.ports", needs=("fabric",), across=True)
def ports(seen: Seen) -> Iterator[Note]:
    """InfiniBand and RoCE ports are up, on every node alike."""
    if seen.one_machine():
        return
    active = {rank: o.fabric.active for rank, _, o in seen.nodes()}
    using = [rank for rank, found in active.items() if found]
    for rank, _, observed in seen.nodes():
        down = [port for port in observed.fabric.ports if port.state != "ACTIVE"]
        if using and not active[rank]:
            states = ", ".join(f"{port.device} {port.state or 'unknown'}" for port in down) or "it has no such device"
            yield warning(
                rank,
                f"no InfiniBand or RoCE port is active here, as on {ranks_text(using)}: {states}",
                remedy="NCCL falls back to sockets for all: see ibstat there, the cable and the subnet manager",
            )
    speeds = sorted({f"{p.rate:g} Gbit/s {p.layer}" for found in active.values() for p in found if p.rate})
    if using and len(using) == len(active):
        yield info(None, f"RDMA on every node: {', '.join(speeds)}")


@check("fabric.fast", needs=("addresses",), across=True)
def fast(seen: Seen) -> Iterator[Note]:
    """The training address is on the fastest network that all nodes share."""
    if seen.one_machine():
        return
    used = pairs.addresses(seen.profile, seen.observations)
    speeds = []
    for rank, _, observed in seen.nodes():
        interface = holder(observed.addresses, used.get(rank, ""))
        speeds.append(interface.speed if interface is not None else None)
    known = [speed for speed in speeds if speed]
    if len(known) < len(seen.profile.nodes):
        return
    for network, ips in networks.shared(seen.profile, seen.observations).items():
        better = []
        for rank, _, observed in seen.nodes():
            interface = holder(observed.addresses, ips[rank])
            better.append(interface.speed or 0 if interface is not None else 0)
        if set(ips.values()).isdisjoint(used.values()) and min(better) >= MUCH_FASTER * min(known):
            yield warning(
                None,
                f"the training uses a network of {min(known) / 1000:g} Gbit/s, and all nodes are on {network} with"
                f" {min(better) / 1000:g} Gbit/s",
                fix=networks.settings(seen.profile, ips),
            )
            return
