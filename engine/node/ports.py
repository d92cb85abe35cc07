"""Which ports a rendezvous could listen on, who holds the others, and some that are free.

A port is tried as torch's TCPStore takes it (torch/csrc/distributed/c10d/socket.cpp): with SO_REUSEADDR, [::] for both
families first, else 0.0.0.0, and it must listen: two sockets may bind one port, but only one may listen on it.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from typing import Any, Dict, List, Optional, Set, Tuple

from engine.node import proc, who

LOWEST_OFFERED = 20000
SCAN_SECONDS = 0.3
_LISTEN = b"0A"


def look(ports: List[int], count: int, seed: Optional[int] = None) -> Dict[str, Any]:
    """{asked: [{port, free, error, holder}], free_ports, ephemeral: [low, high]}."""
    low, high = ephemeral_range()
    asked: List[Dict[str, Any]] = []
    for port in ports[:64]:
        error = listen_error(port)
        entry: Dict[str, Any] = {"port": port, "free": not error, "error": error, "holder": None}
        if error:
            entry["holder"] = holder(port)
        asked.append(entry)
    return {"asked": asked, "free_ports": free_ports(count, (low, high), set(ports), seed), "ephemeral": [low, high]}


def listen_error(port: int) -> str:
    """Why nobody can start to listen on this port, or ""."""
    if not 0 < port < 65536:
        return "not a port number"
    first = ""
    for family, address in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as server:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                server.bind((address, port))
                server.listen(1)
                return ""
        except OSError as error:
            # A machine without IPv6 refuses the first in words that say nothing about the port.
            if family == socket.AF_INET or error.errno in (errno.EADDRINUSE, errno.EACCES):
                first = first or (error.strerror or str(error))
    return first


def ephemeral_range() -> Tuple[int, int]:
    """The ports that the kernel hands out to outgoing connections."""
    try:
        low, high = proc.read("/proc/sys/net/ipv4/ip_local_port_range").split()
        return int(low), int(high)
    except (OSError, ValueError):
        return 32768, 60999


def free_ports(count: int, ephemeral: Tuple[int, int], avoid: Set[int], seed: Optional[int]) -> List[int]:
    """`count` random free ports above the well-trodden ones, outside of the ephemeral range where that leaves any."""
    import random

    low, high = ephemeral
    every = range(LOWEST_OFFERED, 65536)
    outside = [port for port in every if not low <= port <= high and port not in avoid]
    candidates = outside or [port for port in every if port not in avoid]
    source = random.Random(seed)
    found: List[int] = []
    for port in source.sample(candidates, min(len(candidates), count + 50)):
        if len(found) >= count:
            break
        if not listen_error(port):
            found.append(port)
    return found


def holder(port: int) -> Optional[Dict[str, Any]]:
    """Who has this port open, a listener before others; a process is named only where its descriptors are readable."""
    sockets = _sockets(port)
    if not sockets:
        return None
    _, inode, uid = sockets[0]
    pid = _owner(inode)
    if pid is not None:
        return who.describe(pid)
    return {"pid": None, "user": who.user_name(uid), "comm": "", "cmd": "", "job": ""}


def _sockets(port: int) -> List[Tuple[bool, int, int]]:
    """(not listening, inode, uid) of the sockets bound to a local port; proc_net_tcp.rst of the kernel."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = proc.read(table, 16 << 20).split(b"\n")[1:]
        except OSError:
            continue
        ending = b":%04X" % port
        for line in lines:
            fields = line.split()
            if len(fields) > 9 and fields[1].endswith(ending) and fields[9] != b"0":
                found.append((fields[3] != _LISTEN, int(fields[9]), int(fields[7])))
    return sorted(found)


def _owner(inode: int) -> Optional[int]:
    """The process that has this socket open, if it is found in time and may be looked at."""
    target = "socket:[%d]" % inode
    until = time.monotonic() + SCAN_SECONDS
    for pid in proc.pids():
        if time.monotonic() > until:
            break
        folder = "/proc/%d/fd" % pid
        try:
            for name in os.listdir(folder):
                if os.readlink(folder + "/" + name) == target:
                    return pid
        except OSError:
            continue
    return None
