"""What to ask a node, and what its answer settles for the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.hosts import LOCAL
from engine.plan import NodeFacts
from engine.preflight.findings import Observations, Seen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.preflight.observation import Addresses, Interface, Observation
    from engine.profile import Profile

FREE_PORTS = 3
NO_ADDRESS = ("127.", "169.254.", "0.")


def master_name(profile: Profile) -> str:
    """The master address as the profile gives it, or "" where it is to be found."""
    return profile.rendezvous.master_addr or (profile.nodes[0].addr if profile.nodes else "")


def ask(
    profile: Profile,
    node_rank: int,
    *,
    route_to: Iterable[str] = (),
    seed: int | None = None,
    parts: Iterable[str] | None = None,
) -> dict[str, Any]:
    """The request to `engine.node.probe` on one node; `route_to` adds addresses to those that the profile knows.

    An empty state folder stands for the one that the node's own program uses; without `parts` all are asked for.
    """
    node, rendezvous = profile.nodes[node_rank], profile.rendezvous
    port = rendezvous.master_port
    known = [master_name(profile), *route_to]
    return {
        **({} if parts is None else {"parts": list(parts)}),
        "program": {"kind": profile.program.kind, "path": profile.program.path, "args": list(profile.program.args)},
        "workdir": node.workdir or profile.program.workdir,
        "activate": node.activate or profile.program.activate,
        "ports": [port] if isinstance(port, int) and node_rank == 0 else [],
        "free_ports": FREE_PORTS if node_rank == 0 else 0,
        "route_to": list(dict.fromkeys(name for name in known if name)),
        "seed": seed,
    }


def node_facts(profile: Profile, observations: Observations) -> dict[int, NodeFacts]:
    """The facts of every node that answered, for `make_plan`."""
    seen = Seen(profile, observations)
    master = master_name(profile)
    if not master:
        first = observations.get(0)
        master = "" if first is None or isinstance(first, Exception) else own_address(seen, 0, first)
    facts = {}
    for rank, _, found in seen.nodes():
        addr = own_address(seen, rank, found)
        facts[rank] = NodeFacts(
            gpus=None if found.gpus.error else len(found.gpus.usable),
            addr=addr,
            interface=_interface(seen, found.addresses, master, addr),
            torchrun_flags=frozenset(found.python.torchrun_flags),
            free_ports=found.ports.free_ports,
            cpu_count=found.system.cpu_count,
        )
    return facts


def own_address(seen: Seen, rank: int, found: Observation) -> str:
    """Where the other nodes reach this one: as the profile says, as we reach it, or as it reaches the world itself."""
    node = seen.profile.nodes[rank]
    if node.addr:
        return node.addr
    if seen.one_machine() and node.host == LOCAL:
        return "127.0.0.1"
    interfaces = found.addresses.interfaces
    if found.peer and not found.peer.startswith(NO_ADDRESS) and holder(found.addresses, found.peer) is not None:
        return found.peer
    outside = [i for i in interfaces if i.up and not i.loopback]
    # The way to the world first; a bridge of containers or virtual machines has the same address on every node.
    outside.sort(key=lambda i: (i.name != found.addresses.default_interface, i.bridge))
    return next((ip for i in outside for ip in i.ipv4 if not ip.startswith(NO_ADDRESS)), "")


def holder(addresses: Addresses, ip: str) -> Interface | None:
    """The interface that has this address."""
    return next((i for i in addresses.interfaces if ip in i.ipv4 or ip in i.ipv6), None)


def _interface(seen: Seen, addresses: Addresses, master: str, own: str) -> str:
    if seen.one_machine():
        return next((i.name for i in addresses.interfaces if i.loopback), "lo")
    here = holder(addresses, own)
    route = next((r for r in addresses.routes if r.to == master and r.interface), None)
    if route is not None and holder(addresses, route.source) is not None and not _loops(addresses, route.interface):
        return route.interface
    return here.name if here is not None and not here.loopback else ""


def _loops(addresses: Addresses, name: str) -> bool:
    """Whether this is the loopback interface: the way of a machine to itself, and no way to another."""
    return any(i.name == name and i.loopback for i in addresses.interfaces)
