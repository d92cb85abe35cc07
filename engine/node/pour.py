"""How much a line between two nodes carries: as much as goes, for a moment, to a listener of `engine.node.mesh`."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any, Dict

from engine.node.mesh import NONCE, QUIET, Target

POUR_BYTES = 256 << 10
_SIOCOUTQ = 0x5411

Json = Dict[str, Any]


def pour(nonce: str, target: Target, source: str = "", seconds: float = 0.4) -> Json:
    """Send as much as goes to a sink for a while: {key, ok, error, rate [bit/s], bytes}; the first third is warm-up."""
    answer: Json = {"key": target.key, "ok": False, "error": "", "rate": None, "bytes": 0}
    family = socket.AF_INET6 if ":" in target.address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(3.0)
            if source:
                try:
                    sock.bind((source, 0))
                except OSError:
                    pass  # no address of this node: the kernel chooses
            sock.connect((target.address, target.port))
            half = NONCE // 2
            sock.sendall(nonce[:half].encode(), QUIET)
            if sock.recv(half, socket.MSG_WAITALL) != nonce[half:].encode():
                return dict(answer, error="something else answers there")
            began, start, counted = time.monotonic(), 0.0, 0
            sent, room, now = 0, bytes(POUR_BYTES), began
            while now < began + seconds:
                sent += sock.send(room, QUIET)
                now = time.monotonic()
                if not start and now >= began + seconds / 3:
                    start, counted = now, sent - _queued(sock)
            through = sent - _queued(sock)
            rate = 8 * (through - counted) / (now - start) if start and now > start else None
            return dict(answer, ok=True, rate=rate, bytes=sent)
    except OSError as error:
        return dict(answer, error=error.strerror or str(error))


def _queued(sock: socket.socket) -> int:
    """Bytes that have not arrived yet, or of which that is not known: tcp(7), SIOCOUTQ."""
    import fcntl

    return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), _SIOCOUTQ, b"\0" * 4))[0])
