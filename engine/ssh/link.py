"""One program on a node over an ssh channel.

Bytes arrive by callback and wait in a short queue; when it is full the channel is paused, ssh's window closes and the
program on the node waits: memory stays at QUEUE_HIGH + WINDOW a link, however fast the sender.

asyncssh reports a broken connection as an ordinary end without an exit status. `_ending` is the one place that tells
the two apart.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from typing import TYPE_CHECKING

import asyncssh

from engine.errors import ConnectionLost
from engine.transport import STDERR_TAIL
from engine.waiting import within

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW = 1 << 20  # bytes that a program may be ahead of us on the way
QUEUE_HIGH = 512 * 1024  # bytes that wait here before the channel is paused
QUEUE_LOW = 128 * 1024
_PIECE = 16 * 1024  # bytes from which on a packet is worth handing over alone; a packet has at most 32 KiB
_SEND_TIMEOUT = 60.0  # seconds until a program that reads nothing is given up
_CLOSE_TIMEOUT = 2.0  # seconds


class SshLink(asyncssh.SSHClientSession[bytes]):
    """A program on a node; `why_lost` words the reason of a broken connection."""

    def __init__(self, name: str, why_lost: Callable[[Exception | None], str]) -> None:
        self._name = name
        self._why_lost = why_lost
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._tail = bytearray()
        self._exit_status: int | None = None
        self._eof = False
        self._over = False
        self._error: Exception | None = None
        self._news = asyncio.Event()  # data, or the end
        self._writable = asyncio.Event()
        self._writable.set()

    def __repr__(self) -> str:
        state = "over" if self._over else "open"
        return f"SshLink({self._name}, {state}, exit_status={self._exit_status})"

    async def send(self, data: bytes) -> None:
        if self._over or self._channel is None:
            if (lost := self._ending()) is not None:
                raise lost
            return
        try:
            self._channel.write(data)
        except OSError:  # the channel is closing: receive() tells why
            return
        if self._writable.is_set():
            return
        try:
            await within(_SEND_TIMEOUT, self._writable.wait())
        except asyncio.TimeoutError:
            raise ConnectionLost(f"the program read nothing for {_SEND_TIMEOUT:g} s", node=self._name) from None
        if self._over and (lost := self._ending()) is not None:
            raise lost

    async def receive(self) -> bytes:
        while not self._chunks:
            if self._over:
                if (lost := self._ending()) is not None:
                    raise lost
                return b""
            self._news.clear()
            await self._news.wait()
        data = self._take()
        if self._paused and self._size <= QUEUE_LOW and self._channel is not None:
            self._paused = False
            self._channel.resume_reading()
        return data

    @property
    def exit_status(self) -> int | None:
        return self._exit_status

    @property
    def stderr(self) -> str:
        return self._tail.decode(errors="replace")

    async def close(self) -> None:
        channel = self._channel
        if channel is None:
            return
        channel.close()
        self._chunks.clear()
        self._size = 0
        waiting = asyncio.ensure_future(channel.wait_closed())
        await asyncio.wait({waiting}, timeout=_CLOSE_TIMEOUT)
        waiting.cancel()

    def _ending(self) -> ConnectionLost | None:
        """How it ended: None with an exit status and all of the output, ConnectionLost without."""
        if self._exit_status is not None and (self._eof or self._error is None):
            return None
        return ConnectionLost(
            f"the connection broke: {self._why_lost(self._error)}",
            node=self._name,
            remedy="what runs on the node runs on; attach again when the node answers",
        )

    def _take(self) -> bytes:
        """A large packet as it came, or several small ones in one piece."""
        first = self._chunks.popleft()
        taken, size = [first], len(first)
        while size < _PIECE and self._chunks:
            taken.append(self._chunks.popleft())
            size += len(taken[-1])
        self._size -= size
        return first if len(taken) == 1 else b"".join(taken)

    # What asyncssh calls

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if datatype == asyncssh.EXTENDED_DATA_STDERR:
            self._tail += data
            del self._tail[:-STDERR_TAIL]
            return
        self._chunks.append(data)
        self._size += len(data)
        self._news.set()
        if self._size > QUEUE_HIGH and not self._paused and self._channel is not None:
            self._paused = True
            self._channel.pause_reading()

    def eof_received(self) -> bool:
        self._eof = True
        return True  # our half stays open until the program has ended

    def exit_status_received(self, status: int) -> None:
        self._exit_status = status

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self._exit_status = -_signal_number(signal)

    def connection_lost(self, exc: Exception | None) -> None:
        self._error = exc
        self._over = True
        self._news.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()


def _signal_number(name: str) -> int:
    """TERM -> 15; a name that this machine does not know counts as KILL."""
    return int(getattr(signal, f"SIG{name}", signal.SIGKILL))
