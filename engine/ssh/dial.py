"""From a host name to a connected socket on which an ssh server has begun to speak.

Done here and not by asyncssh, so that the message can tell a wrong name from a closed port, a firewall from a silent
server, and a full sshd (which is worth another try) from one that is no sshd at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

from engine.errors import Unreachable
from engine.ssh.config import expand_command
from engine.text import clean
from engine.waiting import in_thread, within

if TYPE_CHECKING:
    from engine.ssh.config import HostConfig

_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
_MOST_ADDRESSES = 4
_GREETING = 255  # bytes; RFC 4253, section 4.2
_PENALTY = b"Not allowed at this time"  # sshd's PerSourcePenalties
_STDERR_TAIL = 2048

_WORDS = {
    errno.ECONNREFUSED: ("connection refused: nothing listens there", "is sshd running there, and is the port right?"),
    errno.EHOSTUNREACH: ("no route to the host", "is the machine up, and are you on its network (VPN)?"),
    errno.ENETUNREACH: ("no route to its network", "are you on its network (VPN)?"),
    errno.ETIMEDOUT: ("no answer", "is the machine up? does a firewall drop the port?"),
    errno.EMFILE: ("too many open files on this machine", "raise the limit: ulimit -n 4096"),
    errno.EADDRNOTAVAIL: ("BindAddress is not an address of this machine", "correct BindAddress in your ssh config"),
}


class Dropped(Exception):
    """The server closed the connection before the login began: it may be full (MaxStartups); worth another try."""

    def __init__(self, error: Unreachable) -> None:
        super().__init__(error.text)
        self.error = error


def place(config: HostConfig) -> str:
    return f"{config.hostname} port {config.port}"


async def dial(config: HostConfig, timeout: float) -> socket.socket:
    """A connected socket; raises Unreachable. `timeout` (seconds) holds for the name and for each address."""
    family = _FAMILIES.get(config.address_family, socket.AF_UNSPEC)
    try:
        found = await within(timeout, _addresses(config.hostname, config.port, family))
    except (socket.gaierror, UnicodeError, asyncio.TimeoutError) as error:
        said = error.strerror if isinstance(error, socket.gaierror) else "no answer from the name service"
        raise Unreachable(
            f"the name {config.hostname} cannot be resolved ({said})",
            node=config.host,
            remedy="check the spelling, DNS and /etc/hosts, or set HostName in your ssh config",
        ) from None
    last: OSError = OSError(errno.EHOSTUNREACH, "no address")
    for kind, _, protocol, _, address in found[:_MOST_ADDRESSES]:
        try:
            return await _connect(kind, protocol, address, config.bind_address, timeout)
        except OSError as error:
            last = error
    words, remedy = _WORDS.get(last.errno or 0, (last.strerror or str(last), ""))
    limit = f" within {timeout:g} s" if last.errno == errno.ETIMEDOUT else ""
    raise Unreachable(f"{place(config)}: {words}{limit}", node=config.host, remedy=remedy)


async def _addresses(host: str, port: int, family: int) -> list[tuple[Any, ...]]:
    try:  # an address needs no name service, and no thread to wait for one
        return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return await in_thread(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)


async def _connect(kind: int, protocol: int, address: tuple[object, ...], bind: str, timeout: float) -> socket.socket:
    sock = socket.socket(kind, socket.SOCK_STREAM, protocol)
    try:
        sock.setblocking(False)
        if bind:
            sock.bind((bind, 0))
        await within(timeout, asyncio.get_running_loop().sock_connect(sock, address))
        return sock
    except asyncio.TimeoutError:
        sock.close()
        raise OSError(errno.ETIMEDOUT, "no answer") from None
    except BaseException:
        sock.close()
        raise


async def greeting(sock: socket.socket, config: HostConfig, timeout: float) -> bytes:
    """The first bytes of the server, left in the socket. Raises Unreachable for silence, Dropped for a hang-up."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(sock, readable.set)
    try:
        await within(timeout, readable.wait())
        said = sock.recv(_GREETING, socket.MSG_PEEK)
    except asyncio.TimeoutError:
        raise silent(config, timeout) from None
    except OSError as error:
        raise Dropped(_hung_up(config, error.strerror or "")) from None
    finally:
        loop.remove_reader(sock)
    if said.startswith(_PENALTY):
        raise Unreachable(
            f"{place(config)}: the server refuses this address for a while (PerSourcePenalties)",
            node=config.host,
            remedy="wait a minute; earlier logins from here failed, find out why before the next try",
        )
    if not said or said.startswith(b"Exceeded MaxStartups"):
        raise Dropped(_hung_up(config, ""))
    return said


def silent(config: HostConfig, timeout: float) -> Unreachable:
    return Unreachable(
        f"{place(config)} accepts the connection and says nothing within {timeout:g} s",
        node=config.host,
        remedy="is it an ssh server? a hung sshd or an overloaded machine looks like this too",
    )


def not_ssh(config: HostConfig, said: bytes) -> Unreachable:
    words = clean(said.decode("latin-1"), 60).strip()
    return Unreachable(
        f"{place(config)} is not an ssh server: it says {words!r}",
        node=config.host,
        remedy="give the port of sshd: `port` in the profile, or Port in your ssh config",
    )


def _hung_up(config: HostConfig, why: str) -> Unreachable:
    return Unreachable(
        f"{place(config)} closes the connection before the login{f' ({why})' if why else ''}",
        node=config.host,
        remedy="sshd may be full (MaxStartups) or refuse this address (hosts.deny, fail2ban): see its log",
    )


def hung_up(config: HostConfig, why: str) -> Dropped:
    """The server hung up during the key exchange."""
    return Dropped(_hung_up(config, clean(why, 200)))


class ProxyProcess:
    """A ProxyCommand, joined to us by a socket pair; what it writes to stderr is kept for the message."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._tail = bytearray()
        self._reading = asyncio.ensure_future(self._read())

    def __repr__(self) -> str:
        return f"ProxyProcess(pid={self._process.pid})"

    @property
    def stderr(self) -> str:
        return clean(self._tail.decode(errors="replace"), 300).strip()

    async def close(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            ended = asyncio.ensure_future(self._process.wait())
            done, _ = await asyncio.wait({ended}, timeout=1)
            ended.cancel()
            if done:
                break
        self._reading.cancel()
        await asyncio.wait({self._reading}, timeout=1)

    async def _read(self) -> None:
        assert self._process.stderr is not None
        while data := await self._process.stderr.read(4096):
            self._tail += data
            del self._tail[:-_STDERR_TAIL]


async def start_proxy(config: HostConfig) -> tuple[socket.socket, ProxyProcess]:
    """Run the ProxyCommand; names are checked before they are put into it."""
    command = expand_command(config.proxy_command, config)
    ours, theirs = socket.socketpair()
    try:
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", f"exec {command}",
            stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    ours.setblocking(False)
    return ours, ProxyProcess(process)
