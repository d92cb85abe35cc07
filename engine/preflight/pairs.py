"""Which nodes call which, and whose fault it is when calls fail. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.preflight.facts import master_name, node_facts
from engine.preflight.observation import Observation

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from random import Random

    from engine.preflight.findings import Observations
    from engine.profile import Profile

ALL_PAIRS = 32
"""Nodes up to which everybody calls everybody; beyond, a ring and RANDOM others each."""
RANDOM = 3

Pair = tuple[int, int]
"""Who calls, and who is called."""


def pairs(ranks: Sequence[int], random: Random) -> set[Pair]:
    """The calls among these nodes, both ways for every two that call at all."""
    count = len(ranks)
    if count <= ALL_PAIRS:
        return {(a, b) for a in ranks for b in ranks if a != b}
    chosen = {(place, (place + 1) % count) for place in range(count)}
    for place in range(count):
        others = [other for other in random.sample(range(count), RANDOM + 1) if other != place]
        chosen.update((place, other) for other in others[:RANDOM])
    return {pair for a, b in chosen for pair in ((ranks[a], ranks[b]), (ranks[b], ranks[a]))}


def addresses(profile: Profile, observations: Observations) -> dict[int, str]:
    """Where the ranks of each node listen: the interface that NCCL and gloo are told to use, or the node's address."""
    found = {}
    for rank, fact in node_facts(profile, observations).items():
        wanted = profile.rendezvous.interface
        name = fact.interface if wanted == "auto" else wanted
        observed = observations[rank]
        assert isinstance(observed, Observation)
        ipv4 = next((i.ipv4 for i in observed.addresses.interfaces if i.name == name and i.ipv4), ())
        address = fact.addr if fact.addr in ipv4 or not ipv4 else ipv4[0]
        if address:
            found[rank] = address
    return found


def master(profile: Profile, observations: Observations) -> tuple[dict[int, str], int]:
    """The master's address as each node understands it, and its port (0: there is none that could be tried)."""
    facts = node_facts(profile, observations)
    name, wanted = master_name(profile), profile.rendezvous.master_port
    port = wanted if wanted != "auto" else next(iter(facts[0].free_ports), 0) if 0 in facts else 0
    # A node that takes the name for another address has a finding for that, and need not try.
    meant = {
        ip for rank, observed in observations.items() if rank == 0 and isinstance(observed, Observation)
        for route in observed.addresses.routes if route.to == name for ip in route.ips
    }  # fmt: skip
    understood = {}
    for rank in facts:
        observed = observations[rank]
        assert isinstance(observed, Observation)
        route = next((r for r in observed.addresses.routes if r.to == name), None)
        if name and route is not None and not meant.isdisjoint(route.ips):
            understood[rank] = next(ip for ip in route.ips if ip in meant)
        elif not name and 0 in facts and facts[0].addr:
            understood[rank] = facts[0].addr
    return understood, port if 0 < port < 65536 else 0


def walls(bad: Collection[Pair], tested: Collection[Pair]) -> tuple[dict[int, set[Pair]], set[Pair]]:
    """Calls that fail, by the node at fault, and those that are about no single node.

    A firewall stands before who is called: a node that most others cannot call is at fault, and where its own calls
    fail too it is cut off. After that comes a node that cannot call most others. Of two nodes nobody can tell.
    """
    left, found = set(bad), {}
    for side in (1, 0):
        for rank in sorted({pair[side] for pair in left}):
            calls = {pair for pair in tested if pair[side] == rank}
            failed = calls & left
            if len(calls) < 2 or 2 * len(failed) <= len(calls):
                continue
            back = {(b, a) for a, b in calls}
            found[rank] = failed | (back & left if back & set(tested) <= left else set())
            left -= found[rank]
    return found, left


def blame(bad: Collection[Pair], tested: Collection[Pair]) -> tuple[dict[int, set[Pair]], set[Pair]]:
    """Bad pairs by the node that most of its partners have trouble with, and those that are about no single node.

    The order within a pair does not matter. Of two nodes nobody can tell, and every pair is left.
    """
    left, blamed = set(bad), {}
    partners = _partners(tested)
    while left:
        trouble = _partners(left)
        worst = max(trouble, key=lambda rank: (len(trouble[rank]) / len(partners[rank]), len(trouble[rank]), -rank))
        if len(partners[worst]) < 2 or 2 * len(trouble[worst]) <= len(partners[worst]):
            break
        blamed[worst] = {pair for pair in left if worst in pair}
        left -= blamed[worst]
    return blamed, left


def _partners(some: Collection[Pair]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for a, b in some:
        found.setdefault(a, set()).add(b)
        found.setdefault(b, set()).add(a)
    return found
