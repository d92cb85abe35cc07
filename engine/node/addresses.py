"""The node's own addresses, what names mean here, and which way a packet would leave. Nothing is sent."""

from __future__ import annotations

import os
import socket
import struct
from typing import Any, Callable, Dict, List, Optional, Tuple

from engine.node import proc

RESOLVE_SECONDS = 2.0
_SIOCGIFCONF = 0x8912  # netdevice(7)
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8


def look(route_to: List[str]) -> Dict[str, Any]:
    """{interfaces, hostname, hostname_ips, hostname_error, default_interface, routes}."""
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
    }


def interfaces() -> List[Dict[str, Any]]:
    """Every interface that has an address: {name, up, loopback, bridge, ipv4, ipv6}, in the kernel's order."""
    found: Dict[str, Dict[str, Any]] = {}
    for name, address in _ipv4():
        _interface(found, name)["ipv4"].append(address)
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
            "ipv6": [],
        }
    return found[name]


def _ipv4() -> List[Tuple[str, str]]:
    import array
    import fcntl

    size = 40 if struct.calcsize("P") == 8 else 32  # sizeof(struct ifreq)
    room = array.array("B", bytes(size * 1024))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("iP", len(room), room.buffer_info()[0])
        used = struct.unpack("iP", fcntl.ioctl(sock.fileno(), _SIOCGIFCONF, request))[0]
    data = room.tobytes()[:used]
    found = []
    for at in range(0, len(data) - size + 1, size):
        # An address with a label is listed as "eth0:label".
        name = data[at : at + 16].split(b"\0", 1)[0].decode("utf-8", "replace").split(":")[0]
        found.append((name, socket.inet_ntoa(data[at + 20 : at + 24])))
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
