"""Real TCP connections between the nodes, as the ranks will make them: who can talk to whom, how fast, and with what
loss. A listener and callers, both bounded; strangers are told nothing.

Both ends know a nonce that travelled over ssh. A caller begins with its first half and the listener answers with the
second; then small messages go to and fro at a gentle pace, and one large enough to need full packets. The kernel counts
what it had to send again (TCP_INFO), which is the loss that NCCL and gloo would suffer.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import struct
import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

NONCE = 32
"""Letters of the nonce; half of them each way."""
PINGS, PING_BYTES, PING_EVERY = 20, 64, 0.001
LARGE = 32 << 10
RETRY_EVERY, TRIES = 0.25, 4
"""A first packet that is lost is sent again only after a second: a new connection gets through earlier."""
LISTEN_SECONDS, TALK_SECONDS = 30.0, 10.0
MOST_TALKS = 1024
QUIET = socket.MSG_NOSIGNAL
"""A peer that resets its connection is an answer; SIGPIPE would end the program that serves the node."""
_COUNTS = struct.Struct("!II")
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

Json = Dict[str, Any]


class Listener:
    """Answers whoever knows the nonce, for at most LISTEN_SECONDS, in a thread of its own.

    `ports` are those that it got at `address`; `also` is the error of the port that it was asked to take as torch would
    ("" where it got it, None where it was not asked). A `sink` sends nothing back: see `engine.node.pour`.
    """

    def __init__(self, nonce: str, address: str, count: int, also: Optional[int] = None, sink: bool = False) -> None:
        self.also: Optional[str] = None
        self._sink = sink
        self._nonce = nonce.encode()
        self._talks = 0
        self._closing = threading.Event()
        self._selector = selectors.DefaultSelector()
        woken, self._wake = socket.socketpair()
        self._selector.register(woken, _READ, None)
        self.ports = [self._listen(_server(address)) for _ in range(count)]
        if also is not None:
            try:
                self._listen(_rendezvous(also))
                self.also = ""
            except OSError as error:
                self.also = error.strerror or str(error)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let go of every port; they are free when this returns."""
        self._closing.set()
        self._wake.close()  # its other end looks like a caller that is none
        self._thread.join(2.0)

    def _listen(self, server: socket.socket) -> int:
        server.setblocking(False)
        server.listen(128)
        self._selector.register(server, _READ, None)
        return int(server.getsockname()[1])

    def _run(self) -> None:
        until = time.monotonic() + LISTEN_SECONDS
        try:
            while not self._closing.is_set() and time.monotonic() < until:
                for key, _ in self._selector.select(0.25):
                    if key.data is None:
                        self._accept(key.fileobj)
                    elif not key.data.step():
                        self._end(key.fileobj)
                now = time.monotonic()
                for key in [k for k in self._selector.get_map().values() if k.data is not None and now > k.data.until]:
                    self._end(key.fileobj)
        finally:
            for key in list(self._selector.get_map().values()):
                self._end(key.fileobj)
            self._wake.close()
            self._selector.close()

    def _accept(self, server: Any) -> None:
        try:
            sock, _ = server.accept()
        except OSError:
            return
        if self._talks >= MOST_TALKS:
            sock.close()
            return
        self._talks += 1
        _plain(sock)
        self._selector.register(sock, _READ, _Answer(sock, self._nonce, self._selector, self._sink))

    def _end(self, sock: Any) -> None:
        self._talks -= 1
        self._selector.unregister(sock)
        sock.close()


class _Answer:
    """One caller, being answered: the nonce first, then whatever comes goes back, and at its end our own counts."""

    def __init__(self, sock: socket.socket, nonce: bytes, selector: selectors.BaseSelector, sink: bool) -> None:
        self._room = bytearray(1 << 20 if sink else 1 << 16)
        self._sink = sink
        self.until = time.monotonic() + TALK_SECONDS
        self._sock = sock
        self._nonce = nonce
        self._selector = selector
        self._heard = b""
        self._known = False
        self._ended = False
        self._out = bytearray()

    def step(self) -> bool:
        """Take and give what is possible; False when the talk is over."""
        try:
            if not self._ended and len(self._out) <= LARGE:
                size = self._sock.recv_into(self._room)
                if size and self._known and self._sink:
                    return True
                self._take(bytes(memoryview(self._room)[:size]))
        except (BlockingIOError, InterruptedError):
            pass
        except (OSError, ValueError):
            return False
        try:
            if self._out:
                del self._out[: self._sock.send(self._out, QUIET)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            return False
        if self._ended and not self._out:
            return False
        self._selector.modify(self._sock, _WRITE if self._out else _READ, self)
        return True

    def _take(self, data: bytes) -> None:
        if self._known and data:
            self._out += data
        elif self._known:
            self._ended = True
            self._out += _COUNTS.pack(*info(self._sock)[1:])
        else:
            self._heard += data
            half = NONCE // 2
            if not data or not self._heard.startswith(self._nonce[: min(half, len(self._heard))]):
                raise ValueError("a stranger")
            if len(self._heard) >= half:
                self._known = True
                self._out += self._nonce[half:] + self._heard[half:]


class Target(NamedTuple):
    """Whom to call: an address and a port. `key` comes back with the answer."""

    key: Any
    address: str
    port: int


def call(nonce: str, targets: List[Target], source: str = "", seconds: float = 2.0) -> List[Json]:
    """Call every target at once, from `source` where that is an address of this node; at most twice `seconds`.

    For each {key, ok, code, error, tries, rtt [s], sent, lost, large}: `lost` of `sent` packets had to go again, both
    ways together; `large` is whether full packets pass; `code` names the error (ETIMEDOUT, …, silent, stranger).
    """
    with selectors.DefaultSelector() as selector:
        calls = [_Call(nonce.encode(), target, source, seconds, selector) for target in targets]
        while True:
            now = time.monotonic()
            going = [each for each in calls if not each.done and (each.due(now) > 0 or each.step())]
            if not going:
                return [each.answer for each in calls]
            for key, _ in selector.select(min(each.due(now) for each in going)):
                key.data.step()


class _Call:
    """One call: connect (of several tries the first that gets through), greet, ping, send something large, compare."""

    def __init__(
        self, nonce: bytes, target: Target, source: str, seconds: float, selector: selectors.BaseSelector
    ) -> None:
        self.answer: Json = {"key": target.key, "ok": False, "code": "", "error": "", "tries": 0}
        self.answer.update(rtt=None, sent=0, lost=0, large=None)
        self._nonce = nonce
        self._target = target
        self._source = source
        self._seconds = seconds
        self._selector = selector
        self._began = time.monotonic()
        self._until = self._began + seconds
        self._next = self._began
        self._socks: List[socket.socket] = []
        self._stage: Callable[[], None] = self._connect
        self._heard = bytearray()
        self._count = 0
        self._left = 0
        self.done = False

    def due(self, now: float) -> float:
        """Seconds until there is something to do even if nothing comes in."""
        return max(0.0, min(self._next, self._until) - now)

    def step(self) -> bool:
        """Go on as far as that goes; False when the call is over."""
        try:
            if not self.done:
                self._stage()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._fail(errno.errorcode.get(error.errno or 0, "os"), error.strerror or str(error))
        if not self.done and time.monotonic() >= self._until:
            self._late()
        return not self.done

    # The stages.

    def _connect(self) -> None:
        for sock in self._socks:
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                raise OSError(number, os.strerror(number))  # to be refused is an answer, too
            try:
                sock.getpeername()
            except OSError:
                continue
            self._keep(sock)
            self._until = time.monotonic() + self._seconds
            self._next = self._until
            self._stage = self._greet
            sock.sendall(self._nonce[: NONCE // 2], QUIET)
            return
        if self.answer["tries"] < TRIES and time.monotonic() >= self._next:
            self._try()

    def _try(self) -> None:
        self.answer["tries"] += 1
        self._next = self._next + RETRY_EVERY if self.answer["tries"] < TRIES else self._until
        family = socket.AF_INET6 if ":" in self._target.address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        self._socks.append(sock)
        _plain(sock)
        self._selector.register(sock, _WRITE, self)
        if self._source:
            try:
                sock.bind((self._source, 0))
            except OSError:
                pass  # no address of this node: the kernel chooses
        number = sock.connect_ex((self._target.address, self._target.port))
        if number not in (0, errno.EINPROGRESS):
            raise OSError(number, os.strerror(number))

    def _keep(self, sock: socket.socket) -> None:
        for other in self._socks:
            if other is not sock:
                self._selector.unregister(other)
                other.close()
        self._socks = [sock]
        self._selector.modify(sock, _READ, self)

    def _greet(self) -> None:
        data = self._receive()
        half = self._nonce[NONCE // 2 :]
        if not data or not half.startswith(bytes(self._heard)):
            self._fail("stranger", "something else answers there")
        elif len(self._heard) == len(half):
            self._heard.clear()
            self._stage = self._ping
            self._next = time.monotonic()

    def _ping(self) -> None:
        if self._count < PINGS and time.monotonic() >= self._next:
            self._count += 1
            self._next += PING_EVERY
            self._socks[0].sendall(b"." * PING_BYTES, QUIET)
        if self._count == PINGS:
            self._next = self._until
        if not self._receive():
            self._fail("ECONNRESET", "the connection is closed from there")
        elif len(self._heard) == PINGS * PING_BYTES:
            self._heard.clear()
            self._left = LARGE
            self._stage = self._send_large
            self._until = self._next = time.monotonic() + self._seconds
            self._selector.modify(self._socks[0], _READ | _WRITE, self)

    def _send_large(self) -> None:
        if self._left:
            try:
                self._left -= self._socks[0].send(bytes(self._left), QUIET)
            except (BlockingIOError, InterruptedError):
                pass
            if not self._left:
                self._selector.modify(self._socks[0], _READ, self)
        if not self._receive():
            self._fail("ECONNRESET", "the connection is closed from there")
        elif len(self._heard) == LARGE:
            self._heard.clear()
            self.answer["large"] = True
            self._stage = self._compare
            self._socks[0].shutdown(socket.SHUT_WR)

    def _compare(self) -> None:
        if not self._receive():
            counts = _COUNTS.unpack(self._heard) if len(self._heard) == _COUNTS.size else (0, 0)
            self._finish(counts)

    def _receive(self) -> bytes:
        data = self._socks[0].recv(1 << 16)
        self._heard += data
        return data

    # The ends.

    def _late(self) -> None:
        text = "no answer within %g s" % self._seconds
        if self._stage == self._connect:
            self._fail("ETIMEDOUT", text)
        elif self._stage == self._send_large:
            self.answer["large"] = False  # small messages pass and this does not: that is the answer
            self._finish((0, 0))
        elif self._stage == self._compare:
            self._finish((0, 0))
        else:
            self._fail("silent", "connected, and then " + text)

    def _finish(self, theirs: Tuple[int, int]) -> None:
        rtt, lost, sent = info(self._socks[0])
        lost += theirs[0] + self.answer["tries"] - 1
        self.answer.update(ok=True, rtt=rtt, lost=lost, sent=sent + theirs[1])
        self._close()

    def _fail(self, code: str, text: str) -> None:
        self.answer.update(code=code, error=text)
        self._close()

    def _close(self) -> None:
        self.done = True
        for sock in self._socks:
            self._selector.unregister(sock)
            sock.close()


def _plain(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _server(address: str) -> socket.socket:
    """A socket on a port of the kernel's choice at an address of ours, or at all of them where that is none."""
    server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        server.bind((address, 0))
    except OSError:
        server.bind(("", 0))
    return server


def _rendezvous(port: int) -> socket.socket:
    """Bound as torch's TCPStore binds: see `engine.node.ports`."""
    for family, address in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):
        server = socket.socket(family, socket.SOCK_STREAM)
        try:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            server.bind((address, port))
            return server
        except OSError as error:
            server.close()
            if family == socket.AF_INET or error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise
    raise AssertionError


def info(sock: socket.socket) -> Tuple[Optional[float], int, int]:
    """(smallest round trip in s, packets sent again, packets sent): struct tcp_info of linux/tcp.h, 0 on old kernels.

    What arrived twice was sent again without need (dsack_dups), and does not count.
    """
    data = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)

    def word(offset: int) -> int:
        return int(struct.unpack_from("=I", data, offset)[0]) if len(data) >= offset + 4 else 0

    smallest = word(148) or word(68)
    return (smallest / 1e6 if smallest else None), max(0, word(100) - word(216)), word(156)
