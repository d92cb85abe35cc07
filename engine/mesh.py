"""A round of real connections among nodes: all listen, all call at once, all let go of their ports.

`mesh` asks who can talk to whom, with a handful of packets; `speed` fills the lines of the nodes for a moment.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from typing import TYPE_CHECKING, Any

import msgspec

from engine.errors import ConnectionLost, MachineError
from engine.preflight.observation import Flow, Link, Mesh, Speed
from engine.text import clean

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from engine.conversation import Conversation
    from engine.preflight.pairs import Pair

HIGH_PORTS = 2
"""Ports that every node listens on, of the kernel's choice: firewalls may open some of them."""
CONNECT_SECONDS = 2.0
ASK_SECONDS = 15.0
POUR_SECONDS, SUSPECTS = 0.4, 4


async def mesh(
    conversations: Mapping[int, Conversation],
    addresses: Mapping[int, str],
    calls: Collection[Pair],
    masters: Mapping[int, str],
    master_port: int,
) -> dict[int, Mesh | ConnectionLost]:
    """Let every caller of `calls` connect to the high ports of whom it calls, and to the master port of node 0.

    `addresses` says where each node listens, `masters` what each understands by the master's address. A node that does
    not do its part has an error, and calls nobody or is not called.
    """
    nonce = secrets.token_hex(16)
    tried = master_port if {a for a, b in calls if b == 0} & masters.keys() else 0
    listening = sorted({b for _, b in calls})
    failed: dict[int, Mesh | ConnectionLost] = {}

    async def ask(rank: int, verb: str, **fields: Any) -> dict[str, Any]:
        try:
            return await conversations[rank].ask(verb, timeout=ASK_SECONDS, **fields)
        except ConnectionLost as lost:
            failed[rank] = lost
        except MachineError as error:
            failed[rank] = Mesh(error=error.text)
        return {}

    async def listen(rank: int) -> dict[str, Any]:
        also = tried if rank == 0 and tried else None
        return await ask(rank, "listen", nonce=nonce, address=addresses[rank], count=HIGH_PORTS, also=also)

    async def call(rank: int) -> Mesh:
        targets = [
            ([other, False], addresses[other], port) for a, other in calls if a == rank for port in ports.get(other, ())
        ]
        if master_there and rank in masters and (rank, 0) in calls:
            targets.append(([0, True], masters[rank], tried))
        if not targets:
            return Mesh()
        fields = {"nonce": nonce, "source": addresses[rank], "seconds": CONNECT_SECONDS}
        answer = await ask(rank, "call", targets=targets, **fields)
        try:
            return Mesh(links=tuple(map(_link, answer["answers"], targets)))
        except (KeyError, TypeError, ValueError) as junk:
            return Mesh(error=f"a strange answer: {clean(repr(junk))[:200]}")

    answers = dict(zip(listening, await asyncio.gather(*map(listen, listening)), strict=True))
    ports = {rank: _ports(answer) for rank, answer in answers.items()}
    master_there = bool(tried) and answers.get(0, {}).get("also") == ""
    callers = sorted({a for a, _ in calls} - failed.keys())
    found = dict(zip(callers, await asyncio.gather(*map(call, callers)), strict=True))
    # The master port is free for the launch when this has been answered.
    await asyncio.gather(*(ask(rank, "hush") for rank in listening if rank not in failed))
    return {**found, **failed}


async def speed(
    conversations: Mapping[int, Conversation], addresses: Mapping[int, str], calls: Collection[Pair]
) -> dict[int, Speed | ConnectionLost]:
    """Let every caller of `calls` send to whom it calls as much as goes, all at once, for POUR_SECONDS.

    What seems slow beside the others is measured once more, alone: what it carries then is what it can.
    """
    nonce = secrets.token_hex(16)
    found: dict[int, Speed | ConnectionLost] = {}

    async def ask(rank: int, verb: str, **fields: Any) -> dict[str, Any]:
        try:
            return await conversations[rank].ask(verb, timeout=ASK_SECONDS, nonce=nonce, **fields)
        except ConnectionLost as lost:
            found[rank] = lost
        except MachineError as error:
            found[rank] = Speed(error=error.text)
        return {}

    async def pour(rank: int, to: int) -> Flow:
        if not ports[to]:
            return Flow(to=to, error="it does not listen")
        target = [to, addresses[to], ports[to][0]]
        answer = await ask(rank, "pour", target=target, source=addresses[rank], seconds=POUR_SECONDS)
        rate = answer.get("rate")
        if not isinstance(rate, (int, float)) or not math.isfinite(rate):
            return Flow(to=to, error=clean(str(answer.get("error", "no answer"))))
        return Flow(to=to, rate=float(rate))

    listening = sorted({b for _, b in calls})
    answers = await asyncio.gather(
        *(ask(rank, "listen", address=addresses[rank], count=1, sink=True) for rank in listening)
    )
    ports = {rank: _ports(answer) for rank, answer in zip(listening, answers, strict=True)}
    pouring = sorted(calls)
    flows = dict(zip(pouring, await asyncio.gather(*(pour(*pair) for pair in pouring)), strict=True))
    best = max((flow.rate or 0.0 for flow in flows.values()), default=0.0)
    for pair in [pair for pair, flow in flows.items() if (flow.rate or 0.0) < best / 2][:SUSPECTS]:
        again = await pour(*pair)
        if (again.rate or 0.0) > (flows[pair].rate or 0.0):
            flows[pair] = again
    await asyncio.gather(*(ask(rank, "hush") for rank in listening if rank not in found))
    made: dict[int, list[Flow]] = {}
    for (rank, _), flow in flows.items():
        made.setdefault(rank, []).append(flow)
    return {**{rank: Speed(flows=tuple(some)) for rank, some in made.items()}, **found}


def _ports(answer: Mapping[str, Any]) -> list[int]:
    ports = answer.get("ports", [])
    return [port for port in ports if isinstance(port, int)][:HIGH_PORTS] if isinstance(ports, list) else []


def _link(found: Any, target: tuple[list[Any], str, int]) -> Link:
    (to, master), address, port = target
    if not isinstance(found, dict):
        raise ValueError("no answer")
    about = {key: clean(value) if isinstance(value, str) else value for key, value in found.items()}
    return msgspec.convert({**about, "to": to, "master": master, "address": address, "port": port}, Link)
