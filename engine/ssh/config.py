"""What the user's ssh configuration says about a host, in OpenSSH's own words: `ssh -G`.

The answers come from ssh itself, because the configuration language is ssh's (Match exec, Include, canonical names …).
One `ssh -G` costs about 10 ms of CPU: hosts that the configuration cannot tell apart share one (ssh_grammar.py).

Sources: ssh_config(5), OpenSSH readconf.c and ssh.c (valid_hostname, valid_ruser, percent_expand).
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import socket
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import MachineError, RequestError
from engine.ssh.grammar import Grammar, home, local_user
from engine.waiting import in_thread

_HOST_FORBIDDEN = frozenset("'`\"$\\;&<>|(){},/@*?!#=")
_USER_FORBIDDEN = frozenset("'`\"$;&<>|(){},@*?!#")
_SSH_G_TIMEOUT = 20.0  # seconds; a `Match exec` may be slow
_SSH_G_AT_ONCE = 4


def valid_host(name: str) -> bool:
    """Whether a host name is safe in a command line, an ssh argument and a known_hosts line (stricter than OpenSSH)."""
    return (
        0 < len(name) <= 255
        and not name.startswith("-")
        and name.isprintable()
        and not any(c in _HOST_FORBIDDEN or c.isspace() for c in name)
    )


def valid_user(name: str) -> bool:
    """Whether a user name is safe in a command line and an ssh argument (stricter than OpenSSH); `DOMAIN\\user` is."""
    return (
        0 < len(name) <= 255
        and not name.startswith("-")
        and not name.endswith("\\")
        and name.isprintable()
        and not any(c in _USER_FORBIDDEN or c.isspace() for c in name)
    )


@dataclass(frozen=True)
class HostConfig:
    """Everything that ssh's configuration decides about one host; paths are expanded."""

    host: str  # as asked for
    hostname: str  # where to connect
    port: int
    user: str
    address_family: str = "any"  # any | inet | inet6
    bind_address: str = ""
    certificate_files: tuple[Path, ...] = ()
    connect_timeout: float | None = None  # seconds
    global_known_hosts: tuple[Path, ...] = ()
    hash_known_hosts: bool = False
    host_key_alias: str = ""
    identities_only: bool = False
    identity_agent: str = ""  # path of the socket, "" without an agent
    identity_files: tuple[Path, ...] = ()
    proxy_command: str = ""  # with its %-tokens
    proxy_jump: str = ""
    pubkey_authentication: bool = True
    strict: bool = False  # an unknown key is refused without a question
    user_known_hosts: tuple[Path, ...] = ()


class SshConfig:
    """Answers about hosts, from one reading of the configuration files.

    `path` is ssh's own `-F`: this file instead of the user's and the system's. Default: $RANKDECK_SSH_CONFIG, or none.
    """

    def __init__(self, path: Path | None = None, *, ssh: str = "ssh") -> None:
        if path is None and (given := os.environ.get("RANKDECK_SSH_CONFIG")):
            path = Path(given)
        self.path = path
        self._ssh = ssh
        self._grammar: Grammar | None = None
        self._answers: dict[tuple[object, ...], asyncio.Task[HostConfig]] = {}
        self._slots = asyncio.Semaphore(_SSH_G_AT_ONCE)
        self.asked = 0  # how many times `ssh -G` ran

    def __repr__(self) -> str:
        return f"SshConfig({str(self.path) if self.path else 'default'!r}, asked={self.asked})"

    async def resolve(self, host: str, user: str = "", port: int | None = None) -> HostConfig:
        """What applies to `host`; an explicit user or port wins. RequestError for a name or a file it refuses."""
        _check_names(host, user, port)
        if self._grammar is None:
            self._grammar = Grammar.read(self.path)
        if (question := self._grammar.question(host)) is not None:
            example = await self._answer(("group", question), host, "", None)
            if self._grammar.agrees_with(example):
                own = self._grammar.own_values(host)
                found = replace(
                    example,
                    host=host,
                    hostname=own.hostname,
                    user=user or own.user,
                    port=port or own.port,
                )
                _check_names(found.hostname, found.user, found.port)
                return found
        return await self._answer(("host", host, user, port), host, user, port)

    def named_hosts(self) -> list[str]:
        """The hosts that `Host` lines name, patterns left out, in the files' order."""
        if self._grammar is None:
            self._grammar = Grammar.read(self.path)
        names = (name for line in self._grammar.lines for name in sorted(line.exact) if valid_host(name))
        return list(dict.fromkeys(names))

    async def _answer(self, key: tuple[object, ...], host: str, user: str, port: int | None) -> HostConfig:
        task = self._answers.get(key)
        if task is None:
            task = self._answers[key] = asyncio.ensure_future(self._ask(host, user, port))
        try:
            return await asyncio.shield(task)
        except (RequestError, MachineError) as error:
            self._answers.pop(key, None)
            raise type(error)(error.text, node=host, remedy=error.remedy) from None

    async def _ask(self, host: str, user: str, port: int | None) -> HostConfig:
        async with self._slots:
            self.asked += 1
            text = await in_thread(self._run, host, user, port)
        return parse_answer(text, host)

    def _run(self, host: str, user: str, port: int | None) -> str:
        argv = [self._ssh, "-T", "-G"]
        argv += ["-F", str(self.path)] if self.path else []
        argv += ["-l", user] if user else []
        argv += ["-p", str(port)] if port else []
        argv += ["--", host]
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=_SSH_G_TIMEOUT, start_new_session=True, check=False,
            )  # fmt: skip
        except FileNotFoundError:
            raise MachineError("no `ssh` on this machine", node=host, remedy="install the OpenSSH client") from None
        except subprocess.TimeoutExpired:
            raise MachineError(
                f"`ssh -G {host}` did not answer within {_SSH_G_TIMEOUT:g} s",
                node=host,
                remedy="look for a slow `Match exec` in your ssh configuration",
            ) from None
        if done.returncode != 0:
            said = "; ".join(done.stderr.split("\n")).strip("; ")[:400]
            raise RequestError(
                f"ssh refuses its configuration: {said or f'exit code {done.returncode}'}",
                node=host,
                remedy=f"make this command succeed: {shlex.join(argv)}",
            )
        return done.stdout


def _check_names(host: str, user: str, port: int | None) -> None:
    if not valid_host(host):
        raise RequestError(f"{host!r} is not a host name", remedy="use a DNS name, an address or an ssh config alias")
    if user and not valid_user(user):
        raise RequestError(f"{user!r} is not a user name", node=host)
    if port is not None and not 0 < port < 65536:
        raise RequestError(f"{port} is not a port", node=host, remedy="use a number from 1 to 65535")


def parse_answer(text: str, host: str) -> HostConfig:
    """The output of `ssh -G` as a HostConfig. Raises RequestError for names that are not safe to use."""
    said: dict[str, list[str]] = {}
    for line in text.splitlines():
        keyword, _, value = line.partition(" ")
        said.setdefault(keyword.lower(), []).append(value.strip())

    def one(keyword: str, default: str = "") -> str:
        return said.get(keyword, [default])[0]

    def yes(keyword: str) -> bool:
        return one(keyword) in ("yes", "true")

    hostname, user, port = one("hostname", host), one("user"), int(one("port", "22"))
    _check_names(hostname, user, port)
    alias = _none_is_empty(one("hostkeyalias"))
    tokens = {
        "%": "%", "d": str(home()), "h": hostname, "i": str(os.getuid()), "k": alias or host,
        "L": socket.gethostname().partition(".")[0], "l": socket.gethostname(),
        "n": host, "p": str(port), "r": user, "u": local_user(),
    }  # fmt: skip

    def paths(values: list[str]) -> tuple[Path, ...]:
        return tuple(_path(v, tokens) for v in values if v and v.lower() != "none")

    timeout = one("connecttimeout", "none")
    return HostConfig(
        host=host,
        hostname=hostname,
        port=port,
        user=user,
        address_family=one("addressfamily", "any"),
        bind_address=_none_is_empty(one("bindaddress")),
        certificate_files=paths(said.get("certificatefile", [])),
        connect_timeout=float(timeout) if timeout.isdigit() and int(timeout) > 0 else None,
        global_known_hosts=paths(one("globalknownhostsfile").split()),
        hash_known_hosts=yes("hashknownhosts"),
        host_key_alias=alias,
        identities_only=yes("identitiesonly"),
        identity_agent=_agent(one("identityagent", "SSH_AUTH_SOCK"), tokens),
        identity_files=paths(said.get("identityfile", [])),
        proxy_command=_none_is_empty(one("proxycommand")),
        proxy_jump=_none_is_empty(one("proxyjump")),
        pubkey_authentication=one("pubkeyauthentication", "true") not in ("no", "false"),
        strict=yes("stricthostkeychecking"),
        user_known_hosts=paths(one("userknownhostsfile").split()),
    )


def expand_command(command: str, config: HostConfig) -> str:
    """A ProxyCommand with its tokens (%% %h %n %p %r) filled in; the names in `config` have been checked."""
    _check_names(config.host, "", None)
    _check_names(config.hostname, config.user, config.port)
    tokens = {"%": "%", "h": config.hostname, "n": config.host, "p": str(config.port), "r": config.user}
    return re.sub("%(.)", lambda m: tokens.get(m[1], m[0]), command)


def _path(text: str, tokens: dict[str, str]) -> Path:
    text = re.sub(r"\$\{(\w+)\}", lambda m: os.environ.get(m[1], ""), text)
    text = re.sub("%(.)", lambda m: tokens.get(m[1], m[0]), text)
    return home() / text[2:] if text.startswith("~/") else Path(text)


def _agent(value: str, tokens: dict[str, str]) -> str:
    if value.lower() == "none":
        return ""
    if value == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK", "")
    if value.startswith("$"):
        return os.environ.get(value.strip("${}"), "")
    return str(_path(value, tokens))


def _none_is_empty(value: str) -> str:
    return "" if value.lower() == "none" else value
