"""The node's own addresses, what names mean here, and which way a packet would leave. Nothing is sent."""

from __future__ import annotations

import os
import socket
import struct
from typing import Any, Callable, Dict, List, Optional, Tuple

from engine.node import proc

RESOLVE_SECONDS = 2.0
_SIOCGIFCONF, _SIOCGIFNETMASK = 0x8912, 0x891B  # netdevice(7)
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8


def look(route_to: List[str]) -> Dict[str, Any]:
    """{interfaces, hostname, hostname_ips, hostname_error, default_interface, routes, firewall}."""
    found = interfaces()
    name = socket.gethostname()
    names = [name] + [text for text in route_to[:64] if text != name]
    resolved = resolve(names)
    ips, error = resolved[name]
    return {
        "interfaces": found,
        "hostname": name,
        "hostname_ips": ips,
        "hostname_error": error,
        "default_interface": default_interface(),
        "routes": [dict(route(text, *resolved[text], found)) for text in route_to[:64]],
        "firewall": firewall(),
    }


def interfaces() -> List[Dict[str, Any]]:
    """Every interface that has an address: {name, up, loopback, bridge, ipv4, prefixes, ipv6, speed, mtu}.

    In the kernel's order; `speed` [Mbit/s] is None where the driver does not tell.
    """
    found: Dict[str, Dict[str, Any]] = {}
    for name, address, prefix in _ipv4():
        _interface(found, name)["ipv4"].append(address)
        _interface(found, name)["prefixes"].append(prefix)
    for name, address in _ipv6():
        _interface(found, name)["ipv6"].append(address)
    return list(found.values())


def _interface(found: Dict[str, Dict[str, Any]], name: str) -> Dict[str, Any]:
    if name not in found:
        folder = "/sys/class/net/" + name
        try:
            flags = int(proc.read(folder + "/flags"), 16)
        except (OSError, ValueError):
            flags = _IFF_UP | (_IFF_LOOPBACK if name == "lo" else 0)
        found[name] = {
            "name": name,
            "up": bool(flags & _IFF_UP),
            "loopback": bool(flags & _IFF_LOOPBACK),
            "bridge": os.path.isdir(folder + "/bridge"),
            "ipv4": [],
            "prefixes": [],
            "ipv6": [],
            "speed": _number(folder + "/speed"),
            "mtu": _number(folder + "/mtu"),
        }
    return found[name]


def _number(path: str) -> Optional[int]:
    """A positive number in a file of /sys; a link that is down has the speed -1, or none at all."""
    try:
        value = int(proc.read(path))
    except (OSError, ValueError):
        return None
    return value if value > 0 else None


def _ipv4() -> List[Tuple[str, str, int]]:
    import array
    import fcntl

    size = 40 if struct.calcsize("P") == 8 else 32  # sizeof(struct ifreq)
    room = array.array("B", bytes(size * 1024))
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("iP", len(room), room.buffer_info()[0])
        used = struct.unpack("iP", fcntl.ioctl(sock.fileno(), _SIOCGIFCONF, request))[0]
        data = room.tobytes()[:used]
        for at in range(0, len(data) - size + 1, size):
            record = data[at : at + size]
            try:
                mask = fcntl.ioctl(sock.fileno(), _SIOCGIFNETMASK, record)[20:24]
            except OSError:
                mask = b"\xff" * 4  # it has just gone
            # An address with a label is listed as "eth0:label".
            name = record[:16].split(b"\0", 1)[0].decode("utf-8", "replace").split(":")[0]
            prefix = bin(int.from_bytes(mask, "big")).count("1")
            found.append((name, socket.inet_ntoa(record[20:24]), prefix))
    return found


def _ipv6() -> List[Tuple[str, str]]:
    try:
        lines = proc.read("/proc/net/if_inet6").decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    fields = [line.split() for line in lines]
    return [(f[5], socket.inet_ntop(socket.AF_INET6, bytes.fromhex(f[0]))) for f in fields if len(f) == 6]


def default_interface() -> str:
    """The interface of the IPv4 default route with the lowest metric, or ""."""
    try:
        lines = proc.read("/proc/net/route").decode("utf-8", "replace").splitlines()[1:]
    except OSError:
        return ""
    routes = [line.split() for line in lines]
    default = [(int(f[6]), f[0]) for f in routes if len(f) > 7 and f[1] == "00000000" and f[7] == "00000000"]
    return min(default)[1] if default else ""


def resolve(names: List[str], seconds: float = RESOLVE_SECONDS) -> Dict[str, Tuple[List[str], str]]:
    """(addresses, error) for every name, all at once and in bounded time: resolvers may take half a minute to fail."""
    import threading
    import time

    answers: Dict[str, Tuple[List[str], str]] = {}

    def ask(name: str) -> Callable[[], None]:
        def work() -> None:
            answers[name] = _lookup(name)

        return work

    threads = [threading.Thread(target=ask(name), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    late = "no answer within %g s" % seconds
    return {name: answers.get(name, ([], late)) for name in names}


def _lookup(name: str) -> Tuple[List[str], str]:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return [], str(error)
    unique = dict.fromkeys(str(entry[4][0]) for entry in found)
    return list(unique), ""


def route(to: str, ips: List[str], error: str, known: List[Dict[str, Any]]) -> Dict[str, Any]:
    """{to, ips, error, source, interface}: the local address and interface that a packet to `to` would leave by."""
    source = ""
    for ip in ips:
        try:
            source = _source(ip)
            error = ""
            break
        except OSError as failure:
            error = failure.strerror or str(failure)
    interface: Optional[str] = next(
        (str(entry["name"]) for entry in known if source in entry["ipv4"] or source in entry["ipv6"]), None
    )
    return {"to": to, "ips": ips, "error": error, "source": source, "interface": interface or ""}


def _source(ip: str) -> str:
    # Connecting a datagram socket asks the kernel's routing table and sends nothing.
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((ip, 9))
        return str(sock.getsockname()[0]).split("%")[0]


def firewall() -> str:
    """What a firewall of this node would be set up with; its rules themselves are for root to read."""
    import shutil

    try:
        if b"ENABLED=yes" in proc.read("/etc/ufw/ufw.conf"):
            return "ufw"
    except OSError:
        pass
    if os.path.isdir("/run/firewalld"):
        return "firewalld"
    search = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return next((name for name in ("nft", "iptables") if shutil.which(name, path=search)), "")
