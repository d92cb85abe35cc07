"""The networks that the nodes are on, and how to move a profile to another one. Pure."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from engine.preflight.facts import NO_ADDRESS
from engine.preflight.findings import Seen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.preflight.findings import Observations
    from engine.preflight.observation import Observation
    from engine.profile import Profile


def shared(profile: Profile, observations: Observations) -> dict[str, dict[int, str]]:
    """The networks ("10.0.0.0/24") on which every node has an address of its own, the fastest first.

    Bridges of containers and virtual machines are left out: they have the same addresses on every machine.
    """
    seen = Seen(profile, observations)
    found: dict[str, dict[int, str]] = {}
    speeds: dict[str, int] = {}
    for rank, _, observed in seen.nodes():
        for interface in observed.addresses.interfaces:
            if interface.loopback or interface.bridge or not interface.up:
                continue
            for ip, prefix in zip(interface.ipv4, interface.prefixes, strict=False):
                network = network_of(ip, prefix)
                if network and not ip.startswith(NO_ADDRESS):
                    found.setdefault(network, {}).setdefault(rank, ip)
                    speeds[network] = min(speeds.get(network, 1 << 30), interface.speed or 0)
    every = {name: ips for name, ips in found.items() if len(ips) == len(profile.nodes) == len(set(ips.values()))}
    return dict(sorted(every.items(), key=lambda item: -speeds[item[0]]))


def move(profile: Profile, observations: Observations, away_from: Iterable[str]) -> list[str]:
    """Settings that put every node's training address on a network that all are on; [] where there is no other.

    `away_from` are addresses on the network that does not work.
    """
    bad = set(away_from)
    for ips in shared(profile, observations).values():
        if bad.isdisjoint(ips.values()):
            return settings(profile, ips)
    return []


def settings(profile: Profile, ips: Mapping[int, str]) -> list[str]:
    """What to set in the profile so that the nodes meet at these addresses."""
    made = [f"nodes[{rank}].addr={ip}" for rank, ip in sorted(ips.items())]
    if profile.rendezvous.master_addr:
        made.append(f"rendezvous.master_addr={ips[0]}")
    if profile.rendezvous.interface != "auto":
        made.append("rendezvous.interface=auto")
    return made


def network_of(ip: str, prefix: int) -> str:
    try:
        return str(ipaddress.ip_network(f"{ip}/{prefix}", strict=False))
    except ValueError:
        return ""


def around(observed: Observation, ip: str) -> str:
    """The network that this address of a node is on, or the address itself."""
    for interface in observed.addresses.interfaces:
        for own, prefix in zip(interface.ipv4, interface.prefixes, strict=False):
            if own == ip:
                return network_of(own, prefix) or ip
    return ip
