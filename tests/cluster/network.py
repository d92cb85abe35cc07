"""The wires of the test cluster: a switch in its own network namespace, and a cable to every host.

The bridge sits in a namespace of its own, so that the firewall of the machine that runs the tests (Docker sets its
FORWARD chain to drop) never sees the traffic between hosts, and removing that namespace removes every wire.
The workstation is one more cable, whose near end is the only interface that appears on the machine itself.
"""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

SEARCH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"  # a user's PATH often lacks the sbin folders


class Unsupported(Exception):
    """This kernel lacks what a test asks for; the text names it."""


def command(*argv: str, input: str | None = None) -> str:
    """Run an administration command; its stdout. RuntimeError with its stderr where it fails."""
    done = subprocess.run(argv, input=input, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def quietly(*argv: str) -> None:
    """Run a command whose failure means that there is nothing to do."""
    subprocess.run(argv, capture_output=True, timeout=30)


def namespaces() -> list[str]:
    return [line.split()[0] for line in command("ip", "netns", "list").splitlines() if line.strip()]


def free_subnet() -> str:
    """The first of 10.66.0, 10.66.1, … that no interface and no route of this machine uses."""
    addresses = [a["local"] for link in json.loads(command("ip", "-j", "-4", "addr")) for a in link["addr_info"]]
    routes = [route["dst"] for route in json.loads(command("ip", "-j", "-4", "route")) if route["dst"] != "default"]
    taken = [ipaddress.ip_network(text, strict=False) for text in [*addresses, *routes]]
    for third in range(256):
        candidate = ipaddress.ip_network(f"10.66.{third}.0/24")
        if not any(candidate.overlaps(network) for network in taken):
            return f"10.66.{third}"
    raise Unsupported("every network 10.66.x.0/24 is in use on this machine")


@dataclass
class Network:
    """A switch and its cables. `name` starts every namespace and link name; `subnet` is like "10.66.0"."""

    name: str
    subnet: str
    bridges: set[str] = field(default_factory=set)

    @property
    def switch(self) -> str:
        return f"{self.name}-switch"

    @property
    def workstation(self) -> str:
        """The workstation's own address; its interface is called `name`."""
        return f"{self.subnet}.254"

    def netns(self, host: str) -> str:
        return f"{self.name}-{host}"

    def create(self) -> None:
        command("ip", "netns", "add", self.switch)
        command("ip", "-n", self.switch, "link", "set", "lo", "up")
        self._bridge("br0")
        command("ip", "link", "add", self.name, "type", "veth", "peer", "name", "uplink", "netns", self.switch)
        command("ip", "-n", self.switch, "link", "set", "uplink", "master", "br0", "up")
        command("ip", "addr", "add", f"{self.workstation}/24", "dev", self.name)
        command("ip", "link", "set", self.name, "up")

    def _bridge(self, bridge: str) -> None:
        if bridge not in self.bridges:
            command("ip", "-n", self.switch, "link", "add", bridge, "type", "bridge", "forward_delay", "0")
            command("ip", "-n", self.switch, "link", "set", bridge, "up")
            self.bridges.add(bridge)

    def connect(self, host: str, number: int, *, nic: int = 0, subnet: str = "") -> None:
        """Give a host its interface eth<nic>, address SUBNET.<number>, always with the same hardware address."""
        netns, port = self.netns(host), f"{host}.{nic}"
        if nic == 0:
            quietly("ip", "netns", "del", netns)
            command("ip", "netns", "add", netns)
            command("ip", "-n", netns, "link", "set", "lo", "up")
        self._bridge(f"br{nic}")
        mac = f"02:66:00:{nic:02x}:{int(self.subnet.split('.')[2]):02x}:{number:02x}"
        command(
            *("ip", "-n", self.switch, "link", "add", port, "type", "veth"),
            *("peer", "name", f"eth{nic}", "address", mac, "netns", netns),
        )
        command("ip", "-n", self.switch, "link", "set", port, "master", f"br{nic}", "up")
        command("ip", "-n", netns, "addr", "add", f"{subnet or self.subnet}.{number}/24", "dev", f"eth{nic}")
        command("ip", "-n", netns, "link", "set", f"eth{nic}", "up")

    def cable(self, host: str, *, up: bool, nic: int = 0) -> None:
        """Pull or plug the cable at the switch: the host keeps its address and its routes, as with a real cable."""
        command("ip", "-n", self.switch, "link", "set", f"{host}.{nic}", "up" if up else "down")

    def disconnect(self, host: str) -> None:
        """Remove a host's cables, then its namespace with every socket in it: no FIN, no RST leaves it."""
        for nic in range(len(self.bridges)):
            quietly("ip", "-n", self.switch, "link", "del", f"{host}.{nic}")
        quietly("ip", "netns", "del", self.netns(host))
        # Some kernels keep a rule for a device that has gone, for the next one of that name.
        quietly("ip", "netns", "exec", self.switch, "nft", f"delete table netdev {host}")

    def slow(self, host: str, *, rate: str = "", delay: str = "", loss: float = 0.0) -> None:
        """Make a host's link slow: `rate` like "100mbit" both ways, `delay` like "50ms" on what it sends, `loss` in
        percent both ways. Unsupported where a delay is asked for and the kernel lacks netem."""
        ends = ((self.netns(host), "eth0"), (self.switch, f"{host}.0"))
        if rate:
            for netns, device in ends:
                tbf = ("tbf", "rate", rate, "burst", "64kb", "latency", "200ms")
                command("tc", "-n", netns, "qdisc", "replace", "dev", device, "root", "handle", "1:", *tbf)
        if delay:
            netns, device = ends[0]
            parent = ("parent", "1:1") if rate else ("root",)
            try:
                netem = ("netem", "delay", delay, "limit", "100000")
                command("tc", "-n", netns, "qdisc", "replace", "dev", device, *parent, *netem)
            except RuntimeError as error:
                raise Unsupported(f"a slow link with a delay needs the kernel's sch_netem ({error})") from error
        if loss:
            chance = f"numgen random mod 1000 < {round(loss * 10)} drop"
            chain = "type filter hook input priority -10;"
            command(
                "ip", "netns", "exec", ends[0][0], "nft", f"add table inet loss; add chain inet loss c {{ {chain} }}"
            )
            command("ip", "netns", "exec", ends[0][0], "nft", f'add rule inet loss c iifname "eth0" {chance}')
            chain = f'type filter hook ingress device "{host}.0" priority 0;'
            command(
                "ip",
                "netns",
                "exec",
                self.switch,
                "nft",
                f"add table netdev {host}; add chain netdev {host} c {{ {chain} }}",
            )
            command("ip", "netns", "exec", self.switch, "nft", f"add rule netdev {host} c {chance}")

    def firewall(self, host: str, port: int | tuple[int, int], action: str) -> None:
        """Drop or reject new and old TCP traffic to a port, or to a range of ports (both ends in it), of a host."""
        verdict = {"drop": "drop", "reject": "reject"}[action]
        ports = str(port) if isinstance(port, int) else f"{port[0]}-{port[1]}"
        enter = ("ip", "netns", "exec", self.netns(host))
        command(*enter, "nft", "add table inet wall; add chain inet wall c { type filter hook input priority 0; }")
        command(*enter, "nft", f'add rule inet wall c iifname != "lo" tcp dport {ports} {verdict}')

    def wall(self, host: str, open_ports: Iterable[int | str], action: str) -> None:
        """The firewall of Debian's nftables.conf, filled: a chain `input` that lets in replies and a few ports, or
        ranges of them ("1024-65535")."""
        rules = "ct state established,related accept; iifname lo accept; icmp type echo-request accept;"
        ports = ", ".join(map(str, open_ports))
        chain = f"type filter hook input priority 0; {rules} tcp dport {{ {ports} }} accept; {action};"
        table = f"table inet filter {{\n chain input {{ {chain} }}\n}}"
        command("ip", "netns", "exec", self.netns(host), "nft", table)

    def docker0(self, host: str) -> None:
        """The bridge 172.17.0.1 that Docker leaves on every host, up, with one cable in it."""
        on = ("ip", "-n", self.netns(host))
        command(*on, "link", "add", "docker0", "type", "bridge", "forward_delay", "0")
        command(*on, "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
        command(*on, "link", "set", "veth0", "master", "docker0", "up")
        command(*on, "link", "set", "veth1", "up")
        command(*on, "addr", "add", "172.17.0.1/16", "dev", "docker0")
        command(*on, "link", "set", "docker0", "up")
        deadline = time.monotonic() + 5
        while json.loads(command(*on[:1], "-j", *on[1:], "link", "show", "docker0"))[0]["operstate"] != "UP":
            if time.monotonic() > deadline:
                raise RuntimeError("docker0 does not come up")
            time.sleep(0.02)

    def remove(self) -> None:
        """Remove every wire and namespace whose name starts with this one's."""
        quietly("ip", "link", "del", self.name)
        for netns in namespaces():
            if netns.startswith(f"{self.name}-"):
                quietly("ip", "netns", "del", netns)
