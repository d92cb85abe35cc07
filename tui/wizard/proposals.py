"""What the network step proposes, and why: address, port and interface, from what the nodes said. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from engine.hosts import fold
from engine.plan import stays_home
from engine.preflight import Observation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.plan import NodeFacts
    from engine.preflight import Observations
    from engine.profile import Profile


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for a question, and why; `value` is an answer to take instead, "" where there is none to offer.

    `good` is None while it cannot be told.
    """

    why: str
    value: str = ""
    good: bool | None = True


def proposals(profile: Profile, facts: Mapping[int, NodeFacts], observations: Observations) -> dict[str, Proposal]:
    """By question: what the answer comes to."""
    if not profile.nodes:
        return {}
    return {
        "rendezvous.master_addr": _address(profile, facts, observations),
        "rendezvous.master_port": _port(profile, observations),
        "rendezvous.interface": _interface(profile, facts),
    }


def _address(profile: Profile, facts: Mapping[int, NodeFacts], observations: Observations) -> Proposal:
    first, seen = profile.nodes[0], observations.get(0)
    chosen = profile.rendezvous.master_addr
    if chosen:
        return _reached(chosen, f"{chosen}: as you say", observations)
    if first.addr:
        return _reached(first.addr, f"{first.addr}: the address that you gave {first.host}", observations)
    if stays_home(profile):
        return Proposal(why="127.0.0.1: no rank leaves the machine")
    if not isinstance(seen, Observation):
        return Proposal(why=f"found as soon as {first.host} answers", good=None)
    addr = facts[0].addr if 0 in facts else ""
    if not addr:
        return Proposal(why=f"{first.host} has no address that another machine could reach; write one", good=False)
    holder = next((i.name for i in seen.addresses.interfaces if addr in i.ipv4 or addr in i.ipv6), "")
    on = f" on {holder}" if holder else ""
    if addr == seen.peer:
        return _reached(addr, f"{addr}: {first.host}{on}, where this machine reaches it too", observations)
    return _reached(addr, f"{addr}: {first.host}{on}, its way to the world", observations)


def _reached(addr: str, why: str, observations: Observations) -> Proposal:
    """Whether the nodes that answered have a way to it."""
    seen = [found for found in observations.values() if isinstance(found, Observation)]
    routes = [route for found in seen for route in found.addresses.routes if route.to == addr]
    failed = next((route.error for route in routes if route.error), "")
    if failed:
        return Proposal(why=f"{why}; a node has no way there: {failed}", good=False)
    ways = f"; {len(routes)} of {len(seen)} nodes have a way there" if len(seen) > 1 and routes else ""
    return Proposal(why=why + ways)


def _port(profile: Profile, observations: Observations) -> Proposal:
    first, seen = profile.nodes[0], observations.get(0)
    asked = profile.rendezvous.master_port
    if not isinstance(seen, Observation):
        return Proposal(why=f"looked at as soon as {first.host} answers", good=None)
    free = seen.ports.free_ports
    spare = str(free[0]) if free else ""
    if asked == "auto":
        if not free:
            return Proposal(why=f"auto: no free port found on {first.host} yet", good=None)
        return Proposal(why=f"auto: {spare}, free on {first.host} now and outside the ports it hands out itself")
    known = next((port for port in seen.ports.asked if port.port == asked), None)
    if known is None:
        return Proposal(why=f"{asked}: not looked at yet", good=None)
    if not known.free:
        held = f"held by {known.holder}" if known.holder is not None else known.error or "taken"
        offer = f"; {spare} is free" if spare else ""
        return Proposal(why=f"{asked} is {held} on {first.host}{offer}", value=spare, good=False)
    low, high = seen.ports.ephemeral or (0, 0)
    if low <= asked <= high:
        offer = f"; {spare} is safe" if spare else ""
        return Proposal(
            why=f"{asked} is free, but {first.host} hands out {low}-{high} to any connection{offer}",
            value=spare,
            good=False,
        )
    return Proposal(why=f"{asked} is free on {first.host}")


def _interface(profile: Profile, facts: Mapping[int, NodeFacts]) -> Proposal:
    wanted = profile.rendezvous.interface
    if wanted == "":
        return Proposal(why="none: NCCL and Gloo look for one themselves")
    if wanted != "auto":
        return Proposal(why=f"{wanted} on every node, as NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME")
    if stays_home(profile):
        return Proposal(why="auto: left alone, since no rank leaves the machine")
    groups: dict[str, list[str]] = {}
    for rank, node in enumerate(profile.nodes):
        if rank in facts and facts[rank].interface:
            groups.setdefault(facts[rank].interface, []).append(node.host)
    if not groups:
        return Proposal(why="auto: found as soon as the nodes answer", good=None)
    named = ", ".join(f"{name} on {fold(dict.fromkeys(hosts))}" for name, hosts in groups.items())
    return Proposal(why=f"auto: {named}, on the way to the master")
