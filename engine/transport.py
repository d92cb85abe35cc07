"""The one seam to the outside: a program started on a node, bytes in and bytes out.

    Transport    a node that programs can be started on: this machine, or one ssh connection
    Link         one program on it
    Connector    opens transports; what ssh needs to read is read once for all of them

Everything beyond this seam raises errors of `engine.errors` only. ssh is loaded when the first node needs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from typing import TYPE_CHECKING, Protocol

from engine.errors import ConnectionLost, NodeRefused
from engine.waiting import within

if TYPE_CHECKING:
    from pathlib import Path

    from engine.errors import HostKeyUnknown
    from engine.ssh.client import SshClient

LOCAL = "localhost"
CHUNK = 256 * 1024  # bytes that one receive() returns at most
STDERR_TAIL = 8 * 1024  # bytes of stderr that are kept
_SEND_TIMEOUT = 60.0  # seconds until a program that reads nothing is given up
_CLOSE_TIMEOUT = 2.0  # seconds between the end of input, SIGTERM and SIGKILL


class Link(Protocol):
    """A program started on a node: bytes in, bytes out."""

    async def send(self, data: bytes) -> None:
        """Pass bytes to the program. Into one that has ended they vanish: receive() tells how it ended.

        Raises ConnectionLost if the connection broke, or the program reads nothing for a minute.
        """

    async def receive(self) -> bytes:
        """Some bytes, at most 256 KiB; b"" after the last one, and then there is an exit status.

        Raises ConnectionLost if the connection broke before that.
        """

    @property
    def exit_status(self) -> int | None:
        """The program's exit code, minus the number of the signal that ended it, or None while it is not known."""

    @property
    def stderr(self) -> str:
        """The end of what the program wrote to stderr, at most 8 KiB, unsanitised."""

    async def close(self) -> None:
        """End the program's input and let go of it; bounded in time, raises nothing."""


class Transport(Protocol):
    """A node that programs can be started on."""

    @property
    def name(self) -> str:
        """What the node is called in messages."""

    @property
    def peer(self) -> str:
        """The address that the connection goes to; "" for this machine."""

    async def open(self, command: str) -> Link:
        """Start a program. `command` is constant text of ours, never data."""

    async def close(self) -> None:
        """Let go of the node; bounded in time, raises nothing."""


class Asker(Protocol):
    """Who answers a question that only the user can answer."""

    async def passphrase(self, path: str) -> str | None:
        """The passphrase of the private key in `path`; None: go on without this key."""


class Connector:
    """Opens transports. Close it when the last one is closed.

    `config` is an ssh configuration file instead of the user's and the system's. Without `ask`, encrypted keys that no
    agent holds are passed over.
    """

    def __init__(self, *, ask: Asker | None = None, config: Path | None = None) -> None:
        self._ask = ask
        self._config = config
        self._ssh: SshClient | None = None
        _allow_many_files()

    def __repr__(self) -> str:
        return f"Connector({self._ssh!r})"

    async def connect(self, host: str, *, user: str = "", port: int | None = None) -> Transport:
        """This machine for exactly `localhost` without a user or port, ssh for everything else.

        Raises RequestError, Unreachable, AuthenticationFailed, HostKeyUnknown, HostKeyChanged or ConnectionLost.
        """
        if host == LOCAL and not user and port is None:
            return LocalTransport()
        return await self._client().connect(host, user, port)

    async def remember(self, unknown: HostKeyUnknown) -> None:
        """Store a host key after the user's explicit yes, in the file that ssh itself would use."""
        await self._client().remember(unknown)

    async def close(self) -> None:
        if self._ssh is not None:
            await self._ssh.close()

    def _client(self) -> SshClient:
        if self._ssh is None:
            from engine.ssh.client import SshClient

            self._ssh = SshClient(ask=self._ask, config=self._config)
        return self._ssh


def _allow_many_files() -> None:
    """As many files as may be open: a connection is one, and so is each log that comes here; shells give 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS calls its hard limit infinite, and does not mean it
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def connect(host: str, *, user: str = "", port: int | None = None, ask: Asker | None = None) -> Transport:
    """One transport on its own; for several, share a Connector."""
    connector = Connector(ask=ask)
    try:
        return _Owning(await connector.connect(host, user=user, port=port), connector)
    except BaseException:
        await connector.close()
        raise


class _Owning:
    """A transport that closes its connector with itself."""

    def __init__(self, transport: Transport, connector: Connector) -> None:
        self._transport = transport
        self._connector = connector

    def __repr__(self) -> str:
        return repr(self._transport)

    @property
    def name(self) -> str:
        return self._transport.name

    @property
    def peer(self) -> str:
        return self._transport.peer

    async def open(self, command: str) -> Link:
        return await self._transport.open(command)

    async def close(self) -> None:
        await self._transport.close()
        await self._connector.close()


class LocalTransport:
    """This machine. Programs get a session of their own, so that Ctrl-C at the terminal does not reach them."""

    name = LOCAL
    peer = ""

    def __init__(self) -> None:
        self._links: set[LocalLink] = set()

    def __repr__(self) -> str:
        return f"LocalTransport({len(self._links)} open)"

    async def open(self, command: str) -> Link:
        try:
            process = await asyncio.create_subprocess_exec(
                "/bin/sh", "-c", command,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                limit=CHUNK, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise NodeRefused(f"/bin/sh does not start: {error.strerror}", node=LOCAL) from None
        link = LocalLink(process)
        self._links.add(link)
        return link

    async def close(self) -> None:
        await asyncio.gather(*(link.close() for link in self._links))
        self._links.clear()


class LocalLink:
    """A program on this machine, over three pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._tail = bytearray()
        self._drain = asyncio.ensure_future(self._read_stderr(process.stderr))

    def __repr__(self) -> str:
        return f"LocalLink(pid={self._process.pid}, exit_status={self.exit_status})"

    async def send(self, data: bytes) -> None:
        if self._stdin.is_closing() or self._process.returncode is not None:
            return
        try:
            self._stdin.write(data)
            await within(_SEND_TIMEOUT, self._stdin.drain())
        except (ConnectionError, RuntimeError):
            pass  # the program has closed its input or ended
        except asyncio.TimeoutError:
            raise ConnectionLost(f"the program read nothing for {_SEND_TIMEOUT:g} s", node=LOCAL) from None

    async def receive(self) -> bytes:
        data = await self._stdout.read(CHUNK)
        if not data:
            await self._process.wait()
            await asyncio.wait({self._drain}, timeout=_CLOSE_TIMEOUT)
        return data

    @property
    def exit_status(self) -> int | None:
        return self._process.returncode

    @property
    def stderr(self) -> str:
        return self._tail.decode(errors="replace")

    async def close(self) -> None:
        self._stdin.close()
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)
            discard = asyncio.ensure_future(self._discard())
            done, _ = await asyncio.wait({discard}, timeout=_CLOSE_TIMEOUT)
            discard.cancel()
            if done:
                break
        self._drain.cancel()
        await asyncio.wait({self._drain})
        transport = getattr(self._process, "_transport", None)
        if isinstance(transport, asyncio.SubprocessTransport):
            transport.close()  # a descendant may hold the pipes open for as long as it likes

    async def _discard(self) -> None:
        """Wait for the end of the program, reading on so that it is not stuck in a write."""
        reader = asyncio.ensure_future(self._read_on())
        try:
            await self._process.wait()
        finally:
            reader.cancel()

    async def _read_on(self) -> None:
        with contextlib.suppress(RuntimeError):  # somebody else is still in receive()
            while await self._stdout.read(CHUNK):
                pass

    async def _read_stderr(self, pipe: asyncio.StreamReader) -> None:
        while data := await pipe.read(CHUNK):
            self._tail += data
            del self._tail[:-STDERR_TAIL]
