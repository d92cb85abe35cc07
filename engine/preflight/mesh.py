"""What real connections between the nodes showed: firewalls, cables, loss, packet sizes, distances."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from engine.preflight import networks, pairs
from engine.preflight.findings import Note, Seen, check, error, info, ranks_text, warning

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from engine.preflight.findings import Observations
    from engine.preflight.observation import Link
    from engine.preflight.pairs import Pair
    from engine.profile import Profile

FAR = 0.010
"""Seconds of round trip beyond which nodes are not in one place."""
LOSS, LOST = 0.03, 3
"""A connection is lossy that had to send so much of its packets again, and so many at least."""
LOST_CODES = {"", "ETIMEDOUT", "silent"}
"""How a call ends whose packets are lost."""
SHOWN = 16
"""Nodes up to which the matrix has a row for each."""

WORDS = {
    "ETIMEDOUT": "dropped",
    "ECONNREFUSED": "refused",
    "EHOSTUNREACH": "no route",
    "ENETUNREACH": "no route",
    "silent": "silent",
    "stranger": "stranger",
    "ECONNRESET": "reset",
}


class Tested(NamedTuple):
    """The calls that were made: by caller and callee, the high ports apart from the master's."""

    high: dict[Pair, list[Link]]
    master: dict[Pair, list[Link]]


def tested(seen: Seen) -> Tested:
    """All calls so far: what is blocked among the nodes that are there is worth telling before the last one comes."""
    found = Tested({}, {})
    for rank, _, observed in seen.so_far().nodes():
        for link in observed.mesh.links:
            if 0 <= link.to < len(seen.profile.nodes):
                (found.master if link.master else found.high).setdefault((rank, link.to), []).append(link)
    return found


def blocked(seen: Seen) -> set[Pair]:
    """The calls to high ports that did not come up, and not for the loss of packets on their way."""
    calls = tested(seen).high
    bad = {pair for pair, links in calls.items() if not all(link.ok for link in links)}
    return {pair for pair in bad if not any(link.ok for link in calls[pair])} | (bad - lossy(seen))


def lossy(seen: Seen) -> set[Pair]:
    """The calls over lines that lose packets, and all of a node that most of its lines lose packets of."""
    calls = tested(seen).high
    lines = _lines(calls)
    bad = {line for line, links in lines.items() if _lossy(links)}
    blamed, _ = pairs.blame(bad, lines)
    return {(a, b) for a, b in calls if _line(a, b) in bad or not blamed.keys().isdisjoint((a, b))}


def _line(a: int, b: int) -> Pair:
    return min(a, b), max(a, b)


def _lines(calls: dict[Pair, list[Link]]) -> dict[Pair, list[Link]]:
    """The calls of both directions: what is lost shows at one end or the other, and both are one cable."""
    found: dict[Pair, list[Link]] = {}
    for (a, b), links in calls.items():
        found.setdefault(_line(a, b), []).extend(links)
    return found


@check("mesh.connect", needs=("mesh",))
def connect(seen: Seen) -> Iterator[Note]:
    """Every node can open connections to the high ports of the others, where NCCL and gloo listen."""
    calls = tested(seen).high
    # A node without a way to the master's network has a finding for that, and so have two with one address.
    lost = {rank for rank, _, o in seen.so_far().nodes() for r in o.addresses.routes if r.ips and not r.source}
    own = pairs.addresses(seen.profile, seen.observations)
    told = {(a, b) for a, b in calls if not lost.isdisjoint((a, b)) or own.get(a, a) == own.get(b, b)}
    blamed, left = pairs.walls(blocked(seen) - told, calls)
    for rank, trouble in blamed.items():
        into = {pair for pair in trouble if pair[1] == rank}
        word = _word(link for pair in trouble for link in calls[pair])
        if trouble - into and into:
            text = f"cut off: no connection to or from {_others(trouble, rank)} comes up on {_address(calls, rank)}"
        elif into:
            text = f"{_others(trouble, rank)} cannot connect to its high ports: {word}"
        else:
            text = f"it cannot connect to the high ports of {_others(trouble, rank)}: {word}"
        yield _blocked(seen, rank, text, [link for pair in trouble for link in calls[pair]])
    for a, b in sorted(left):
        both = (b, a) in left
        if both and a > b:
            continue
        links = [link for pair in ((a, b), (b, a)) if pair in left for link in calls[pair]]
        way = (
            f"nodes {a} and {b} cannot connect to each other" if both else f"node {a} cannot connect to its high ports"
        )
        yield _blocked(seen, b, f"{way}: {_word(links)}", links)


@check("mesh.master", needs=("mesh",))
def master(seen: Seen) -> Iterator[Note]:
    """Every node can open connections to the master port."""
    calls = tested(seen)
    bad = {pair for pair, links in calls.master.items() if not all(link.ok for link in links)}
    high = {pair for pair, links in calls.high.items() if not any(link.ok for link in links)}
    bad -= high  # nothing passes there, and mesh.connect says so
    bad -= {pair for pair in lossy(seen) & bad if {k.code for k in calls.master[pair]} <= LOST_CODES}
    if not bad:
        return
    links = [link for pair in bad for link in calls.master[pair]]
    port, callers = links[0].port, sorted(a for a, _ in bad)
    if len(callers) > 1 or len(seen.profile.nodes) == 2:
        text = f"{ranks_text(callers)} cannot connect to the master port {port}: {_word(links)}"
        yield _blocked(seen, 0, text, links)
    else:
        text = f"it cannot connect to the master port {port} of node 0, as others can: {_word(links)}"
        yield error(
            callers[0], text, evidence=_evidence(links), remedy="see its routes and its firewall for outgoing traffic"
        )


@check("mesh.large", needs=("mesh",))
def large(seen: Seen) -> Iterator[Note]:
    """Full packets pass between the nodes, as small ones do."""
    calls = tested(seen).high
    bad = {pair for pair, links in calls.items() if any(link.large is False for link in links)} - lossy(seen)
    blamed, left = pairs.blame(bad, calls)
    for rank, trouble in [*blamed.items(), *((b, {(a, b)}) for a, b in sorted(left))]:
        observed = seen.so_far().node(rank)
        address = _address(calls, rank)
        held = next((i for i in observed.addresses.interfaces if address in i.ipv4), None) if observed else None
        name = held.name if held is not None else "INTERFACE"
        mtu = f" (its MTU is {held.mtu})" if held is not None and held.mtu else ""
        yield error(
            rank,
            f"small packets pass to and from {_others(trouble, rank)}, and full ones are lost{mtu}",
            remedy=f"packets are larger than a switch or tunnel takes: sudo ip link set {name} mtu 1400",
        )


@check("mesh.loss", needs=("mesh",))
def loss(seen: Seen) -> Iterator[Note]:
    """No packets are lost between the nodes."""
    both = _lines(tested(seen).high)
    bad = {pair for pair, links in both.items() if _lossy(links)}
    blamed, left = pairs.blame(bad, both)
    for rank, trouble in [*blamed.items(), *((None, {pair}) for pair in sorted(left))]:
        links = [link for pair in trouble for link in both[pair] if link.ok]
        share = sum(link.lost for link in links) / sum(link.sent for link in links)
        between = "to and from " + _others(trouble, rank) if rank is not None else f"between {ranks_text(*trouble)}"
        yield warning(
            rank,
            f"about {share:.0%} of the packets {between} have to be sent again",
            evidence=[f"{link.lost} of {link.sent} packets again: node {link.to}" for link in links[:8]],
            remedy="look at cable, port and driver: ip -s link; ethtool -S INTERFACE | grep -i err",
        )


@check("mesh.distance", needs=("mesh",))
def distance(seen: Seen) -> Iterator[Note]:
    """The nodes are near each other."""
    calls = tested(seen).high
    rtts = {pair: min((k.rtt for k in links if k.rtt is not None), default=None) for pair, links in calls.items()}
    known = {pair: rtt for pair, rtt in rtts.items() if rtt is not None}
    if not known:
        return
    blamed, left = pairs.blame({pair for pair, rtt in known.items() if rtt > FAR}, known)
    for rank, trouble in [*blamed.items(), *((None, {pair}) for pair in sorted(left) if pair[0] < pair[1])]:
        worst = max(known[pair] for pair in trouble)
        between = _others(trouble, rank) if rank is not None else ranks_text(*trouble)
        text = f"a round trip {'to' if rank is not None else 'between'} {between} takes {worst * 1e3:.1f} ms"
        yield warning(
            rank, text, remedy="every step of the training waits for it: use nodes of one place, or their own network"
        )
    if not blamed and not left:
        low, high = min(known.values()), max(known.values())
        yield info(None, f"round trips between the nodes: {low * 1e3:.2f} to {high * 1e3:.2f} ms")


def picture(profile: Profile, observations: Observations) -> list[str]:
    """Who can connect to whom, as lines of text: callers down, callees across, round trips in ms.

    "~" marks loss, "m" that the master port alone passes, and "M" that it alone does not. [] where nobody called.
    """
    seen = Seen(profile, observations)
    calls = tested(seen)
    ranks = sorted({rank for pair in calls.high for rank in pair})
    if not ranks:
        return []
    bad = {rank for pair, links in calls.high.items() if not all(k.ok for k in links) for rank in pair}
    rows = ranks if len(ranks) <= SHOWN else [rank for rank in ranks if rank in bad][:SHOWN]
    if not rows:
        return [f"every one of {len(calls.high)} connections among {len(ranks)} nodes came up"]
    names = {rank: profile.nodes[rank].host for rank in rows}
    cells = {(a, b): _cell(calls, (a, b)) for a in rows for b in rows}
    widths = {b: max(len(str(b)), *(len(cells[a, b]) for a in rows)) for b in rows}
    margin = max(len(f"{rank} {name}") for rank, name in names.items())
    head = " " * margin + "  " + "  ".join(f"{b:>{widths[b]}}" for b in rows)
    body = [f"{f'{a} {names[a]}':<{margin}}  " + "  ".join(f"{cells[a, b]:>{widths[b]}}" for b in rows) for a in rows]
    return [head, *body]


def _cell(calls: Tested, pair: Pair) -> str:
    links, master = calls.high.get(pair, []), calls.master.get(pair, [])
    if not links:
        return "-" if pair[0] == pair[1] else "·"
    through = [link for link in links if link.ok]
    passes = all(link.ok for link in master)
    if len(through) < len(links):
        return _word(links) + ("  m" if master and passes else "")
    best = min((link.rtt for link in through if link.rtt is not None), default=None)
    text = "ok" if best is None else f"{best * 1e3:.2f}"
    return text + ("~" if _lossy(links) else "") + ("" if passes else " M")


def _blocked(seen: Seen, rank: int, text: str, links: list[Link]) -> Note:
    bad = [link for link in links if not link.ok]
    observed = seen.so_far().node(rank)
    address = next((link.address for link in bad if link.to == rank), "")
    codes = {link.code for link in bad}
    fix = networks.move(seen.profile, seen.observations, {link.address for link in bad})
    if codes & {"ETIMEDOUT", "ECONNREFUSED"} and not fix and observed is not None and address:
        remedy = _open(observed.addresses.firewall, networks.around(observed, address))
    elif codes == {"stranger"}:
        remedy = "another machine has this address, or a gateway answers for it: name the right one in nodes[N].addr"
    else:
        remedy = f"see that these two reach each other: ping {address or 'ADDRESS'}"
    return error(rank, text, evidence=_evidence(links), remedy=f"or: {remedy}" if fix else remedy, fix=fix)


def _open(front: str, network: str) -> str:
    """How to let the training network in, in the words of the firewall that is there."""
    commands = {
        "ufw": f"sudo ufw allow from {network}",
        "firewalld": f"sudo firewall-cmd --zone=trusted --add-source={network}",
        "iptables": f"sudo iptables -I INPUT -s {network} -j ACCEPT",
    }
    command = commands.get(front, f"sudo nft insert rule inet filter input ip saddr {network} accept")
    return f"let the nodes talk to each other on all ports; on that node: {command}"


def _evidence(links: Iterable[Link]) -> list[str]:
    bad = [link for link in links if not link.ok]
    found = Counter(f"{link.address} port {link.port}: {link.error}" for link in bad)
    return [text + (f" ({count} times)" if count > 1 else "") for text, count in found.most_common(6)]


def _word(links: Iterable[Link]) -> str:
    codes = Counter(WORDS.get(link.code, link.code) for link in links if not link.ok)
    return codes.most_common(1)[0][0] if codes else ""


def _others(trouble: Collection[Pair], rank: int) -> str:
    return ranks_text(sorted({other for pair in trouble for other in pair} - {rank}))


def _address(calls: dict[Pair, list[Link]], rank: int) -> str:
    return next((link.address for pair, links in calls.items() if pair[1] == rank for link in links), "?")


def _lossy(links: Collection[Link]) -> bool:
    lost, sent = sum(link.lost for link in links), sum(link.sent for link in links)
    return lost >= LOST and lost >= LOSS * sent
