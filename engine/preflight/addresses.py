"""Where the nodes meet: the master address, and what a node thinks its own name is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.preflight.facts import holder, master_name, node_facts
from engine.preflight.findings import Note, Seen, check, error, info, warning
from engine.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.preflight.observation import Observation, Route


@check("addresses.loopback", needs=("addresses",), across=True)
def loopback(seen: Seen) -> Iterator[Note]:
    """No node takes its own name for the loopback address, or gloo is told which interface to use."""
    if seen.one_machine() or "GLOO_SOCKET_IFNAME" in seen.profile.env:
        return
    facts = node_facts(seen.profile, seen.observations)
    chosen = seen.profile.rendezvous.interface
    for rank, _, observed in seen.nodes():
        about = observed.addresses
        ips = [ip for ip in about.hostname_ips if _loops(ip)]
        if not ips or len(ips) < len(about.hostname_ips):
            continue
        interface = facts[rank].interface or about.default_interface
        text = f"the node's own name {about.hostname} leads to {ips[0]}, where no other node can connect"
        if (chosen == "auto" and facts[rank].interface) or chosen not in ("", "auto"):
            set_to = chosen if chosen != "auto" else interface
            yield info(rank, f"{text}; GLOO_SOCKET_IFNAME={set_to} is set for the launch, so it does not matter")
        else:
            yield warning(rank, text, fix=["rendezvous.interface=auto"], remedy="or mend /etc/hosts there")


@check("addresses.master", needs=("addresses",), across=True)
def master(seen: Seen) -> Iterator[Note]:
    """The master address is node 0's own, and every node means the same by it."""
    profile = seen.profile
    chosen = master_name(profile)
    if not chosen:
        if not seen.one_machine():
            yield from _found_by_itself(seen)
        return
    key = "rendezvous.master_addr" if profile.rendezvous.master_addr else "nodes[0].addr"
    first = next((o for rank, _, o in seen.nodes() if rank == 0), None)
    wanted: set[str] = set()
    if first is not None and (route := _route(first, chosen)) is not None:
        wanted = set(route.ips)
        yield from _judge_first(seen, first, chosen, key, route)
    for rank, _, observed in seen.nodes():
        route = _route(observed, chosen)
        if rank == 0 or route is None:
            continue
        if not route.ips:
            yield error(
                rank,
                f"cannot resolve the master address {chosen}: {clean(route.error)}",
                remedy=f"give an address in numbers: --set {key}=ADDRESS",
            )
        elif wanted and not wanted & set(route.ips) and not _loops(next(iter(wanted))):
            yield error(
                rank,
                f"the master address {chosen} means something else here",
                evidence=[f"node 0: {', '.join(sorted(wanted))}", f"here: {', '.join(route.ips)}"],
                remedy=f"give an address in numbers: --set {key}=ADDRESS",
            )
        elif not route.source:
            yield error(
                rank,
                f"there is no way to the master address {chosen}: {clean(route.error)}",
                remedy=f"give an address that every node can reach: --set {key}=ADDRESS",
            )


def _judge_first(seen: Seen, first: Observation, chosen: str, key: str, route: Route) -> Iterator[Note]:
    own = [ip for i in first.addresses.interfaces if not i.loopback for ip in i.ipv4]
    offer = first.peer if first.peer in own else next(iter(own), "ADDRESS")
    if not route.ips:
        yield error(0, f"cannot resolve the master address {chosen}: {clean(route.error)}", fix=[f"{key}={offer}"])
    elif all(_loops(ip) for ip in route.ips):
        if not seen.one_machine():
            text = f"the master address {chosen} is {route.ips[0]}: to every other node that is the node itself"
            yield error(0, text, fix=[f"{key}={offer}"])
    elif first.addresses.interfaces and all(holder(first.addresses, ip) is None for ip in route.ips):
        yield error(
            0,
            f"the master address {chosen} is none of this node's own",
            evidence=[f"{chosen}: {', '.join(route.ips)}", f"this node: {', '.join(own[:8])}"],
            fix=[f"{key}={offer}"],
            remedy="if a gateway really forwards it, --skip addresses.master",
        )


def _found_by_itself(seen: Seen) -> Iterator[Note]:
    facts = node_facts(seen.profile, seen.observations)
    if 0 in facts and not facts[0].addr and not next(o for _, _, o in seen.nodes()).addresses.error:
        yield error(
            0,
            "no address of this node was found that the others could reach",
            remedy="--set nodes[0].addr=ADDRESS",
        )


def _route(observed: Observation, to: str) -> Route | None:
    return next((route for route in observed.addresses.routes if route.to == to), None)


def _loops(ip: str) -> bool:
    return ip.startswith("127.") or ip == "::1"
