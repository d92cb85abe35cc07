"""Where the nodes meet: the master address, and what a node thinks its own name is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.hosts import is_address
from engine.preflight import networks, pairs
from engine.preflight.facts import holder, master_name, node_facts
from engine.preflight.findings import Note, Seen, check, differing, error, info, ranks_text, warning
from engine.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.preflight.observation import Observation, Route


@check("addresses.loopback", needs=("addresses",), across=True)
def loopback(seen: Seen) -> Iterator[Note]:
    """Every node's own name leads to an address of its own, or gloo is told which interface to use."""
    if seen.one_machine() or "GLOO_SOCKET_IFNAME" in seen.profile.env:
        return
    facts = node_facts(seen.profile, seen.observations)
    chosen = seen.profile.rendezvous.interface
    for rank, _, observed in seen.nodes():
        about = observed.addresses
        own = {ip for each in about.interfaces if not each.loopback for ip in (*each.ipv4, *each.ipv6)}
        if not own or not own.isdisjoint(about.hostname_ips):
            continue
        interface = facts[rank].interface or about.default_interface
        leads = f"leads to {', '.join(about.hostname_ips)}" if about.hostname_ips else "does not resolve"
        text = f"the node's own name {about.hostname} {leads}: gloo listens where no other node can connect"
        if (chosen == "auto" and facts[rank].interface) or chosen not in ("", "auto"):
            set_to = chosen if chosen != "auto" else interface
            yield info(rank, f"{text}; GLOO_SOCKET_IFNAME={set_to} is set for the launch, so it does not matter")
        else:
            fix = ["rendezvous.interface=auto"] if chosen != "auto" else []
            yield warning(rank, text, fix=fix, remedy="or mend /etc/hosts there" if fix else "mend /etc/hosts there")


@check("addresses.interface", needs=("addresses",), across=True)
def interface(seen: Seen) -> Iterator[Note]:
    """NCCL and gloo use the interface that leads to the other nodes, on every node by its own name."""
    if seen.one_machine():
        return
    wanted = seen.profile.rendezvous.interface
    facts = node_facts(seen.profile, seen.observations)
    found = {rank: facts[rank].interface for rank, _, _ in seen.nodes() if facts[rank].interface}
    if wanted == "auto":
        for rank, _, _ in seen.nodes():
            if rank not in found and facts[rank].addr and not _loops(facts[rank].addr):
                text = "no interface of this node is known to lead to the others: NCCL and gloo will choose one"
                yield warning(rank, text, remedy=f"--set 'nodes[{rank}].addr=ADDRESS' names it by its address")
        if groups := differing(found):
            named = [f"{name} on {ranks_text(ranks)}" for name, ranks in groups.items()]
            yield info(None, f"NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME are set by node: {', '.join(named)}")
        return
    for rank, _, observed in seen.nodes():
        names = {i.name for i in observed.addresses.interfaces}
        if wanted and names and not any(_matches(name, wanted) for name in names):
            yield error(
                rank,
                f"there is no interface {wanted} on this node",
                evidence=[f"there are: {', '.join(sorted(names))}"],
                fix=["rendezvous.interface=auto"],
                remedy="sets each node's own",
            )
    yield from _left_to_chance(seen, found)


def _left_to_chance(seen: Seen, found: dict[int, str]) -> Iterator[Note]:
    """Nothing is set: bridges of containers, with one address on all nodes, are what NCCL and gloo then trip over."""
    if seen.profile.rendezvous.interface or {"NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"} & set(seen.profile.env):
        return
    holders: dict[str, list[int]] = {}
    names: dict[str, str] = {}
    for rank, _, observed in seen.nodes():
        for each in observed.addresses.interfaces:
            for ip in each.ipv4 if not each.loopback else ():
                holders.setdefault(ip, []).append(rank)
                names[ip] = each.name
    twins = {ip: ranks for ip, ranks in holders.items() if len(ranks) > 1 and not _one_host(seen, ranks)}
    if twins:
        listed = [f"{ip} ({names[ip]}): {ranks_text(ranks)}" for ip, ranks in twins.items()]
        yield warning(
            None,
            "several nodes have the same address, and no interface is chosen: ranks may look for each other there",
            evidence=[*listed[:8], *(f"node {rank}: {name} leads to the others" for rank, name in found.items())][:16],
            fix=["rendezvous.interface=auto"],
        )


@check("addresses.unique", needs=("addresses", "system"), across=True)
def unique(seen: Seen) -> Iterator[Note]:
    """Every node has a training address of its own."""
    found: dict[str, list[int]] = {}
    for rank, ip in pairs.addresses(seen.profile, seen.observations).items():
        if seen.node(rank) is not None and not _loops(ip):
            found.setdefault(ip, []).append(rank)
    for ip, ranks in found.items():
        if len(ranks) > 1 and not _one_host(seen, ranks):
            fix = networks.move(seen.profile, seen.observations, [ip])
            yield error(
                None,
                f"{ranks_text(ranks)} have the same training address {ip}: each would find itself there",
                fix=fix,
                remedy="" if fix else f"give each its own: --set 'nodes[{ranks[0]}].addr=ADDRESS'",
            )


def _one_host(seen: Seen, ranks: list[int]) -> bool:
    """Whether these nodes of the profile are one machine, listed more than once."""
    boots = {observed.system.boot for rank, _, observed in seen.nodes() if rank in ranks}
    return len(boots) == 1 and "" not in boots


def _matches(name: str, wanted: str) -> bool:
    """As NCCL reads NCCL_SOCKET_IFNAME: beginnings of names, =NAME for a whole one, ^NAME for all others."""
    if wanted.startswith("^"):
        return not any(name.startswith(word) for word in wanted[1:].split(","))
    words = wanted.split(",")
    return any(name == word[1:] if word.startswith("=") else name.startswith(word) for word in words if word)


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
    offered = _offer(first) if first is not None else ""
    numbers = [f"{key}={offered}"] if offered and not is_address(chosen) else []
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
                fix=numbers,
                remedy="" if numbers else f"give an address in numbers: --set '{key}=ADDRESS'",
            )
        elif wanted and not wanted & set(route.ips) and not _loops(next(iter(wanted))):
            yield error(
                rank,
                f"the master address {chosen} means something else here",
                evidence=[f"node 0: {', '.join(sorted(wanted))}", f"here: {', '.join(route.ips)}"],
                fix=numbers,
                remedy="" if numbers else f"give an address in numbers: --set '{key}=ADDRESS'",
            )
        elif not route.source:
            fix = networks.move(profile, seen.observations, route.ips)
            yield error(
                rank,
                f"there is no way to the master address {chosen}: {clean(route.error)}",
                fix=fix,
                remedy="" if fix else f"give an address that every node can reach: --set '{key}=ADDRESS'",
            )


@check("addresses.ipv6", needs=("addresses",), across=True)
def ipv6(seen: Seen) -> Iterator[Note]:
    """The nodes meet over IPv4, as torch, NCCL and gloo expect; or all of them over IPv6, on purpose."""
    if seen.one_machine() or "NCCL_SOCKET_FAMILY" in seen.profile.env:
        return
    chosen = master_name(seen.profile)
    key = "rendezvous.master_addr" if seen.profile.rendezvous.master_addr else "nodes[0].addr"
    first = seen.node(0)
    offered = _offer(first) if first is not None and chosen and not is_address(chosen) else ""
    for rank, _, observed in seen.nodes():
        outside = [each for each in observed.addresses.interfaces if each.up and not each.loopback]
        bare = bool(outside) and not any(ip for each in outside if not each.bridge for ip in each.ipv4)
        route = _route(observed, chosen) if chosen else None
        if bare:
            yield warning(
                rank,
                "it has IPv6 addresses alone: NCCL and gloo look for IPv4, and connections to it are not tried here",
                fix=["env.NCCL_SOCKET_FAMILY=AF_INET6"],
                remedy="and an address in numbers as nodes[0].addr",
            )
        elif route is not None and route.ips and all(":" in ip for ip in route.ips) and offered:
            text = f"the master address {chosen} leads to IPv6 alone here: {', '.join(route.ips[:3])}"
            yield warning(rank, text, fix=[f"{key}={offered}"])


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


def _offer(first: Observation) -> str:
    """An address of node 0: where we reach it, or else one that is no bridge's."""
    outside = [i for i in first.addresses.interfaces if not i.loopback]
    own = [ip for i in sorted(outside, key=lambda i: i.bridge) for ip in i.ipv4]
    return first.peer if first.peer in own else next(iter(own), "")


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
