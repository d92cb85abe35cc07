"""Connections to nodes: one a node, shared jump hosts, and no more logins at a time than a server stands.

    load        16 logins at a time, 8 towards one sshd, fewer as soon as it hangs up on us (MaxStartups)
    jump hosts  one connection each, shared by all nodes behind it
    retried     only a hang-up before the login; never a refused login or a host key

asyncssh's own reading of ssh_config, keys and known_hosts is switched off: it parses them for every connection.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import random
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncssh
from cryptography.utils import CryptographyDeprecationWarning

from engine.errors import (
    AuthenticationFailed,
    ConnectionLost,
    HostKeyChanged,
    HostKeyUnknown,
    MachineError,
    NodeRefused,
    RequestError,
    Unreachable,
)
from engine.ssh import known_hosts
from engine.ssh.config import HostConfig, SshConfig
from engine.ssh.dial import Dropped, ProxyProcess, dial, greeting, not_ssh, place, silent, start_proxy
from engine.ssh.keys import KeyRing, Offer, fresh
from engine.ssh.known_hosts import KnownHosts
from engine.ssh.link import WINDOW, SshLink
from engine.ssh.login import CIPHERS, KEX, LOGIN_METHODS, MACS, Login, host_name, translate
from engine.text import clean
from engine.waiting import in_thread, within

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from engine.transport import Asker, Link

KEEPALIVE_INTERVAL = 5  # seconds
KEEPALIVE_COUNT = 3  # a dead link is noticed after INTERVAL * (COUNT + 1)
AT_ONCE = 16
AT_ONCE_PER_SERVER = 8
_CLOSE_TIMEOUT = 2.0  # seconds


@dataclass(frozen=True)
class Timeouts:
    """Seconds, unless it says tries."""

    connect: float = 10.0  # to a TCP connection, and from there to the server's first word
    login: float = 30.0  # from its first word to a session
    open: float = 30.0  # to start a program
    tries: int = 4
    pause: float = 0.5  # before the second try; doubled each time, ± half


class Gate:
    """How many logins may be under way towards one server; halved whenever it hangs up on one."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.active = 0
        self._change = asyncio.Condition()

    def __repr__(self) -> str:
        return f"Gate({self.active} of {self.limit})"

    def narrow(self) -> None:
        self.limit = max(1, self.limit // 2)

    @contextlib.asynccontextmanager
    async def passage(self) -> AsyncIterator[None]:
        async with self._change:
            await self._change.wait_for(lambda: self.active < self.limit)
            self.active += 1
        try:
            yield
        finally:
            self.active -= 1
            async with self._change:
                self._change.notify()


class SshClient:
    """Opens connections. Holds what they share: configuration, known_hosts, keys, agent, jump hosts."""

    def __init__(
        self, *, ask: Asker | None = None, config: Path | None = None, timeouts: Timeouts | None = None
    ) -> None:
        _quiet()
        self.config = SshConfig(config)
        self.timeouts = timeouts or Timeouts()
        self._can_ask = ask is not None
        self._keys = KeyRing(ask)
        self._known: dict[tuple[Path, ...], asyncio.Task[KnownHosts]] = {}
        self._authorities: dict[bytes, asyncssh.SSHKey] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._gates: dict[object, Gate] = {}
        self._jumps: dict[tuple[str, ...], asyncio.Task[SshTransport]] = {}
        self._open: set[SshTransport] = set()

    def __repr__(self) -> str:
        return f"SshClient({len(self._open)} open, {len(self._jumps)} jump hosts)"

    async def connect(self, host: str, user: str = "", port: int | None = None) -> SshTransport:
        """Log in to a node. An explicit user or port wins over the configuration.

        Raises RequestError, Unreachable, AuthenticationFailed, HostKeyUnknown or HostKeyChanged.
        """
        config = await self.config.resolve(host, user, port)
        return await self._connect(config, await self._through(config, ()))

    async def remember(self, unknown: HostKeyUnknown) -> None:
        """Store a host key after the user's explicit yes. Raises RequestError where nothing may or can be stored."""
        config = await self.config.resolve(unknown.node)
        files = [p for p in config.user_known_hosts if str(p) != "/dev/null"]
        if not unknown.entry or not files:
            raise RequestError("your ssh config lets no host key be stored", node=unknown.node, remedy=unknown.remedy)
        try:
            await in_thread(known_hosts.remember, unknown.entry, files[0])
        except (OSError, ValueError) as error:
            raise RequestError(f"the host key cannot be stored in {files[0]}: {error}", node=unknown.node) from None
        for paths in [p for p in self._known if files[0] in p]:
            del self._known[paths]  # the next login reads them again

    async def close(self) -> None:
        """Close what is still open, nodes before the jump hosts that they are behind."""
        await asyncio.gather(*(t.close() for t in list(self._open) if not t.is_jump))
        for task in self._jumps.values():
            task.cancel()
        await asyncio.gather(*self._jumps.values(), return_exceptions=True)
        for transport in reversed([t for t in self._open if t.is_jump]):
            await transport.close()
        self._jumps.clear()
        await self._keys.close()

    # Jump hosts

    async def _through(self, config: HostConfig, trail: tuple[str, ...]) -> SshTransport | None:
        """The connection to the last jump host before this node, shared; None without one."""
        previous: SshTransport | None = None
        for hop in config.proxy_jump.split(",") if config.proxy_jump else ():
            user, host, port = _parse_hop(hop.strip(), config.host)
            jump = await self.config.resolve(host, user, port)
            name = f"{jump.user}@{jump.hostname}:{jump.port}"
            if name in (*trail, f"{config.user}@{config.hostname}:{config.port}"):
                raise RequestError(
                    f"the jump host {host} is reached through itself",
                    node=config.host,
                    remedy=f"exclude it from the ProxyJump: Host * !{host}",
                )
            if previous is None:
                previous = await self._through(jump, (*trail, name))
            previous = await self._jump(jump, previous, config.host)
        return previous

    async def _jump(self, jump: HostConfig, via: SshTransport | None, node: str) -> SshTransport:
        key = (*(via.path if via else ()), f"{jump.user}@{jump.hostname}:{jump.port}")
        task = self._jumps.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() or task.result().broken)):
            task = self._jumps[key] = asyncio.ensure_future(self._connect(jump, via, path=key))
        try:
            return await asyncio.shield(task)
        except HostKeyUnknown:
            raise
        except MachineError as error:
            raise type(error)(f"its jump host {jump.host}: {error.text}", node=node, remedy=error.remedy) from None

    # One login

    async def _connect(
        self, config: HostConfig, via: SshTransport | None, *, path: tuple[str, ...] = ()
    ) -> SshTransport:
        gate = self._gates.setdefault((via, "" if via else place(config)), Gate(AT_ONCE_PER_SERVER))
        known = await self._known_hosts(config)
        types = known.key_types(host_name(config))
        exact = False  # whether `types` is all there is on file
        tries = 0
        while True:
            offer = await self._keys.offer(config)
            if not offer.pairs and self._can_ask and offer.locked:
                await self._keys.unlock(offer.locked[0])
                continue
            login = Login(config, known, types)
            try:
                async with gate.passage(), self._slots:
                    connection, process = await self._attempt(login, offer, via)
            except Dropped as dropped:
                gate.narrow()
                tries += 1
                if tries >= self.timeouts.tries:
                    raise dropped.error from None
                await asyncio.sleep(self.timeouts.pause * 2 ** (tries - 1) * random.uniform(0.5, 1.5))
            except HostKeyChanged:
                types = known.all_key_types(login.name)
                if exact or login.key_type in types or not types:
                    raise
                exact = True  # the server has a key of a type that is on file, perhaps: ask for that one
            except AuthenticationFailed:
                if not (self._can_ask and offer.locked and await self._keys.unlock(offer.locked[0])):
                    raise
            else:
                transport = SshTransport(config, connection, process, via, path, self.timeouts, self._open.discard)
                self._open.add(transport)
                return transport

    async def _attempt(
        self, login: Login, offer: Offer, via: SshTransport | None
    ) -> tuple[asyncssh.SSHClientConnection, ProxyProcess | None]:
        config, patience = login.config, login.config.connect_timeout or self.timeouts.connect
        sock: socket.socket | None = None
        process: ProxyProcess | None = None
        kept = False
        try:
            if via is None:
                if config.proxy_command:
                    sock, process = await start_proxy(config)
                else:
                    sock = await dial(config, patience)
                    login.greeting = await greeting(sock, config, patience)
            options = self._options(login, offer)
            task = asyncio.ensure_future(
                asyncssh.connect(
                    config.hostname,
                    config.port,
                    sock=sock,
                    tunnel=via.connection if via else None,
                    config=None,
                    **options,
                )
            )
            try:
                await asyncio.wait({task}, timeout=patience)
                if not task.done() and not login.heard:
                    raise not_ssh(config, login.greeting) if login.greeting else silent(config, patience)
                await asyncio.wait({task}, timeout=self.timeouts.login)
                if not task.done():
                    raise Unreachable(
                        f"{place(config)}: the login did not end within {self.timeouts.login:g} s",
                        node=config.host,
                        remedy="an overloaded node, or a login that waits for a directory service, looks like this",
                    )
            finally:
                if not task.done():
                    task.cancel()
                    await asyncio.wait({task}, timeout=_CLOSE_TIMEOUT)
            connection = task.result()
            kept = True
            return connection, process
        except (asyncssh.Error, OSError, ValueError, asyncio.TimeoutError) as error:
            raise translate(error, login, offer, process, via.name if via else "") from None
        finally:
            if not kept:
                if sock is not None:
                    sock.close()
                if process is not None:
                    await process.close()

    def _options(self, login: Login, offer: Offer) -> dict[str, Any]:
        config = login.config
        return {
            "client_factory": lambda: login,
            "username": config.user,
            "client_keys": fresh(offer.pairs) or None,  # an empty list would mean the keys in ~/.ssh
            "agent_path": None,
            "agent_forwarding": False,
            "known_hosts": lambda _host, _address, _port: self._marked_keys(login),
            "host_key_alias": config.host_key_alias or None,
            "server_host_key_algs": login.algorithms(),
            "x509_trusted_certs": None,
            "x509_trusted_cert_paths": [],
            "kex_algs": KEX,
            "encryption_algs": CIPHERS,
            "mac_algs": MACS,
            "compression_algs": None,
            "preferred_auth": LOGIN_METHODS,
            "host_based_auth": False,
            "gss_kex": False,
            "gss_auth": False,
            "gss_host": None,
            "connect_timeout": None,
            "login_timeout": 0,
            "keepalive_interval": KEEPALIVE_INTERVAL,
            "keepalive_count_max": KEEPALIVE_COUNT,
        }

    async def _known_hosts(self, config: HostConfig) -> KnownHosts:
        paths = (*config.user_known_hosts, *config.global_known_hosts)
        if paths not in self._known:
            self._known[paths] = asyncio.ensure_future(in_thread(KnownHosts.read, paths))
        return await asyncio.shield(self._known[paths])

    def _marked_keys(self, login: Login) -> tuple[list[asyncssh.SSHKey], ...]:
        """What asyncssh has to know itself: authorities and revoked keys. Plain keys are judged by `Login`."""
        marked = [[], *(self._public_keys(login, marker) for marker in ("cert-authority", "revoked"))]
        return (*marked, [], [], [], [])

    def _public_keys(self, login: Login, marker: str) -> list[asyncssh.SSHKey]:
        keys = []
        for entry in login.known.marked(login.name, marker):
            if entry.key not in self._authorities:
                line = f"{entry.key_type} {base64.b64encode(entry.key).decode()}"
                with contextlib.suppress(asyncssh.KeyImportError):
                    self._authorities[entry.key] = asyncssh.import_public_key(line)
            if entry.key in self._authorities:
                keys.append(self._authorities[entry.key])
        return keys


class SshTransport:
    """One ssh connection to a node."""

    def __init__(
        self,
        config: HostConfig,
        connection: asyncssh.SSHClientConnection,
        process: ProxyProcess | None,
        via: SshTransport | None,
        path: tuple[str, ...],
        timeouts: Timeouts,
        on_close: Callable[[SshTransport], None],
    ) -> None:
        self.config = config
        self.connection = connection
        self.path = path
        self._process = process
        self._via = via
        self._timeouts = timeouts
        self._on_close = on_close

    def __repr__(self) -> str:
        via = f" via {self._via.name}" if self._via else ""
        return f"SshTransport({self.config.user}@{place(self.config)}{via})"

    @property
    def name(self) -> str:
        return self.config.host

    @property
    def peer(self) -> str:
        """The address at the other end; behind a jump host or a ProxyCommand the name that it is reached by."""
        if self._via is None and self._process is None:
            address = self.connection.get_extra_info("peername")
            if address:
                return str(address[0])
        return self.config.hostname

    @property
    def is_jump(self) -> bool:
        return bool(self.path)

    @property
    def broken(self) -> bool:
        return bool(self.connection.is_closed())

    async def open(self, command: str) -> Link:
        """Start a program through the login shell. Raises NodeRefused or ConnectionLost."""
        try:
            _, link = await within(
                self._timeouts.open,
                self.connection.create_session(
                    lambda: SshLink(self.name, self._why_lost), command,
                    encoding=None, request_pty=False, x11_forwarding=False, env=None, send_env=None, window=WINDOW,
                ),
            )  # fmt: skip
        except asyncio.TimeoutError:
            raise NodeRefused(
                f"{place(self.config)}: no program started within {self._timeouts.open:g} s",
                node=self.name,
                remedy="the node may be overloaded, or its home directory hang (NFS)",
            ) from None
        except (asyncssh.Error, OSError) as error:
            if self.broken or not isinstance(error, asyncssh.ChannelOpenError):
                raise ConnectionLost(f"the connection broke: {self._why_lost(error)}", node=self.name) from None
            raise NodeRefused(
                f"{place(self.config)}: the server refuses another session on this connection ({clean(error.reason)})",
                node=self.name,
                remedy="raise MaxSessions in its sshd_config, or look for a forced command or a shell of /sbin/nologin",
            ) from None
        assert isinstance(link, SshLink)
        return link

    async def close(self) -> None:
        self._on_close(self)
        self.connection.close()
        closing = asyncio.ensure_future(self.connection.wait_closed())
        done, _ = await asyncio.wait({closing}, timeout=_CLOSE_TIMEOUT)
        if not done:
            closing.cancel()
            self.connection.abort()
        if self._process is not None:
            await self._process.close()

    def _why_lost(self, error: Exception | None) -> str:
        said = clean(getattr(error, "reason", "") or str(error or ""), 200)
        if "eepalive" in said:
            return f"nothing heard from the node for {KEEPALIVE_INTERVAL * (KEEPALIVE_COUNT + 1)} s"
        return said or "the server ended the session without an exit status"


def _parse_hop(hop: str, node: str) -> tuple[str, str, int | None]:
    """[user@]host[:port] or [user@][address]:port of a ProxyJump."""
    user, _, rest = hop.removeprefix("ssh://").rpartition("@")
    if rest.startswith("["):
        host, _, port = rest[1:].partition("]")
        port = port.removeprefix(":")
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    else:
        host, port = rest, ""
    if port and not port.isdigit():
        raise RequestError(f"{hop!r} in ProxyJump is not [user@]host[:port]", node=node)
    return user, host, int(port) if port else None


def _quiet() -> None:
    """Keep asyncssh (which logs commands at INFO), asyncio and cryptography's warnings off the terminal."""
    for name in ("asyncssh", "asyncio"):
        logger = logging.getLogger(name)
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())  # without any handler, logging prints warnings to stderr
    asyncssh.set_log_level(logging.WARNING)
    warnings.filterwarnings("ignore", category=CryptographyDeprecationWarning)
