"""What the lines between the nodes carry, and what that means for a step of the training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.preflight import pairs
from engine.preflight.devices import ranks_of
from engine.preflight.facts import holder
from engine.preflight.findings import Note, Seen, check, info, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOW, FAST_ENOUGH = 0.9e9, 10e9
"""bit/s: less than a gigabit is a fault anywhere; between nodes with GPUs, ten are the least that keeps them busy."""
BEHIND = 3
"""A node whose lines carry so much less than the best has a slow line of its own."""
GRADIENTS = 1 << 30
"""Bytes: half a billion parameters in 16 bits."""


def busy(seen: Seen) -> str:
    """Whose work a measurement would disturb, or ""."""
    for _, node, observed in seen.nodes():
        for process in observed.gpus.processes:
            return f"{process} computes on {node.host}"
        for job in observed.jobs.found:
            return f"the run {job.job} is on {node.host}"
    return ""


@check("speed.bandwidth", needs=("speed", "addresses", "gpus"), across=True)
def bandwidth(seen: Seen) -> Iterator[Note]:
    """The lines between the nodes carry what the training needs."""
    left_out = next((o.speed.left_out for _, _, o in seen.nodes() if o.speed.left_out), "")
    if left_out:
        yield info(None, f"bandwidth is not measured, for {left_out}: --speed measures it all the same")
        return
    rates = {(a, flow.to): flow.rate for a, _, o in seen.nodes() for flow in o.speed.flows if flow.rate is not None}
    for rank, _, observed in seen.nodes():
        for flow in observed.speed.flows:
            if flow.error:
                text = f"nothing could be sent to node {flow.to}: {flow.error}"
                yield warning(rank, text, remedy="try again: rankdeck check PROFILE --speed")
    if not rates:
        return
    best, worst = max(rates.values()), min(rates.values())
    slow = {pair for pair, rate in rates.items() if rate < max(best / BEHIND, SLOW)}
    alone = [
        rank
        for rank in sorted({rank for pair in slow for rank in pair})
        if best >= SLOW and all(pair in slow for pair in rates if rank in pair) and len(rates) > 2
    ]
    for rank in alone:
        own = [rate for pair, rate in rates.items() if rank in pair]
        text = f"its line carries {_gbit(max(own))}, and others {_gbit(best)}: {_step(seen, max(own))}"
        yield warning(rank, text, evidence=_link(seen, rank), remedy=_look(seen, rank))
    rest = {pair: rate for pair, rate in rates.items() if not set(pair) & set(alone)}
    limit = FAST_ENOUGH if _gpu_nodes(seen) > 1 else SLOW
    if not alone and worst < limit:
        a, b = min(rates, key=lambda pair: rates[pair])
        text = f"the lines between the nodes carry {_gbit(worst)} (node {a} to {b}): {_step(seen, worst)}"
        remedy = "use a faster network, fewer nodes, or send less: gradient compression, accumulation"
        yield warning(None, text, evidence=[line for rank in (a, b) for line in _link(seen, rank)], remedy=remedy)
    elif rest:
        yield info(None, f"between neighbours {_gbit(min(rest.values()))} to {_gbit(max(rest.values()))} go through")


def _step(seen: Seen, rate: float) -> str:
    """A ring all-reduce sends 2(n-1)/n of the gradients over every line (Patarasuk and Yuan 2009)."""
    world = sum(ranks_of(node, observed) for _, node, observed in seen.nodes())
    seconds = 8 * GRADIENTS * 2 * (world - 1) / world / rate
    return f"1 GiB of gradients takes {seconds:.{0 if seconds >= 10 else 1}f} s a step"


def _gbit(rate: float) -> str:
    return f"{rate / 1e9:.2g} Gbit/s" if rate >= 1e9 else f"{rate / 1e6:.0f} Mbit/s"


def _gpu_nodes(seen: Seen) -> int:
    return sum(bool(observed.gpus.gpus) for _, _, observed in seen.nodes())


def _look(seen: Seen, rank: int) -> str:
    observed = seen.node(rank)
    address = pairs.addresses(seen.profile, seen.observations).get(rank, "")
    interface = holder(observed.addresses, address) if observed is not None else None
    name = interface.name if interface is not None else "INTERFACE"
    return f"see its cable, its port and what else goes over it: ethtool {name}; ip -s link show {name}"


def _link(seen: Seen, rank: int) -> list[str]:
    observed = seen.node(rank)
    address = pairs.addresses(seen.profile, seen.observations).get(rank, "")
    interface = holder(observed.addresses, address) if observed is not None else None
    if interface is None or not interface.speed:
        return []
    return [f"node {rank}: {interface.name} says {interface.speed / 1000:g} Gbit/s"]
