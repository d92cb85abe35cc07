"""Which hosts the ssh configuration can tell apart: hosts that it cannot share one `ssh -G`.

    question    every `Host` line asks one; two hosts that give the same answers get the same values
    own values  HostName, Port and User are read from the files as well, so that a `Host` block with nothing else in it
                does not part the hosts; what is read is compared with what ssh says for one host of each group
    doubt       a Match that looks at the host, canonical names, %-tokens in a value that is used: one `ssh -G` per host

Nothing here decides a value but those three. Sources: ssh_config(5), OpenSSH readconf.c and ssh.c.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.ssh.config import HostConfig

_DEEPEST_INCLUDE = 16

_OWN = frozenset({"hostname", "port", "user"})
_USED = frozenset(
    {
        "addressfamily", "bindaddress", "certificatefile", "connecttimeout", "globalknownhostsfile", "hashknownhosts",
        "hostkeyalias", "identitiesonly", "identityagent", "identityfile", "port", "proxycommand", "proxyjump",
        "pubkeyauthentication", "stricthostkeychecking", "user", "userknownhostsfile",
    }
)  # fmt: skip
_TOKENS_KEPT_BY_SSH = frozenset({"hostname", "proxycommand"})


def local_user() -> str:
    """Who logs in where nothing else is said."""
    return pwd.getpwuid(os.getuid()).pw_name


def home() -> Path:
    """The home directory of the password file, which is the one that ssh uses; $HOME is not asked."""
    return Path(pwd.getpwuid(os.getuid()).pw_dir)


@dataclass
class HostLine:
    """One `Host` line: the question whether a name matches its patterns."""

    exact: frozenset[str]
    wanted: list[re.Pattern[str]]
    unwanted: list[re.Pattern[str]]
    own_only: bool = True  # its block sets nothing but HostName, Port and User

    def matches(self, host: str) -> bool:
        if any(p.fullmatch(host) for p in self.unwanted):
            return False
        return host in self.exact or any(p.fullmatch(host) for p in self.wanted)

    @classmethod
    def of(cls, patterns: list[str]) -> HostLine:
        plain = [p for p in patterns if not re.search(r"[*?!]", p)]
        wild = [p for p in patterns if re.search(r"[*?]", p) and not p.startswith("!")]
        return cls(frozenset(plain), [_glob(p) for p in wild], [_glob(p[1:]) for p in patterns if p.startswith("!")])


def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern), re.DOTALL)


@dataclass(frozen=True)
class OwnValue:
    keyword: str
    value: str
    conditions: tuple[int, ...]  # Host lines that must all match


@dataclass(frozen=True)
class OwnValues:
    hostname: str
    port: int
    user: str


@dataclass
class Grammar:
    """The structure of the configuration files: which questions they ask, and what cannot be decided from here."""

    lines: list[HostLine] = field(default_factory=list)
    own: list[OwnValue] = field(default_factory=list)
    second_pass: bool = False  # a `Match final` makes ssh read the files again with the final host name
    doubt: str = ""  # why every host is asked for on its own

    @classmethod
    def read(cls, path: Path | None) -> Grammar:
        grammar = cls()
        dot_ssh = home() / ".ssh"
        system = Path("/etc/ssh")
        files = [(path, dot_ssh)] if path else [(dot_ssh / "config", dot_ssh), (system / "ssh_config", system)]
        for file, base in files:
            grammar._read_file(file, base, (), in_match=False, depth=0)
        return grammar

    def question(self, host: str) -> tuple[object, ...] | None:
        """What the files find out about a host; equal for hosts that they cannot tell apart. None: ask for each."""
        if self.doubt:
            return None
        first = tuple(i for i, line in enumerate(self.lines) if not line.own_only and line.matches(host))
        if not self.second_pass:
            return first
        name = self.own_values(host).hostname
        return first, tuple(i for i, line in enumerate(self.lines) if not line.own_only and line.matches(name))

    def own_values(self, host: str) -> OwnValues:
        found: dict[str, str] = {}
        for own in self.own:
            if own.keyword not in found and self._holds(own, host):
                found[own.keyword] = own.value
        hostname = found.get("hostname", "%h").replace("%%", "\0").replace("%h", host).replace("\0", "%").lower()
        if self.second_pass:
            for own in self.own:
                if own.keyword not in found and self._holds(own, hostname):
                    found[own.keyword] = own.value
        port = found.get("port", "")
        return OwnValues(hostname, int(port) if port.isdigit() else 22, found.get("user") or local_user())

    def agrees_with(self, said: HostConfig) -> bool:
        """Whether what is read here is what ssh says for one host; if not, every host is asked for on its own."""
        own = self.own_values(said.host)
        agrees = (own.hostname, own.port, own.user) == (said.hostname, said.port, said.user)
        if not agrees:
            self.doubt = f"ssh says otherwise about {said.host}"
        return agrees

    def _holds(self, own: OwnValue, host: str) -> bool:
        return all(self.lines[i].matches(host) for i in own.conditions)

    def _read_file(self, path: Path, base: Path, outer: tuple[int, ...], *, in_match: bool, depth: int) -> None:
        try:
            text = path.read_text(errors="surrogateescape")
        except OSError:
            return  # ssh reads no such file either, or says what is wrong with it
        inner, inner_match = outer, in_match
        for raw in text.splitlines():
            keyword, arguments = self._split(raw)
            if keyword == "host":
                self.lines.append(HostLine.of(arguments))
                inner, inner_match = (*outer, len(self.lines) - 1), in_match
            elif keyword == "match":
                self._match(arguments)
                inner, inner_match = outer, True
            elif keyword == "include":
                self._include(arguments, base, inner, in_match=inner_match, depth=depth)
            elif keyword:
                self._value(keyword, arguments, inner, in_match=inner_match)

    def _split(self, raw: str) -> tuple[str, list[str]]:
        found = re.match(r"\s*(\w+)(?:\s*=\s*|\s+)(.*)", raw)
        if raw.lstrip().startswith("#") or found is None:
            return "", []
        keyword, rest = found[1].lower(), found[2]
        try:
            return keyword, shlex.split(rest, comments=True)
        except ValueError:
            if keyword in ("host", "match", "include") or keyword in _OWN:
                self.doubt = f"unusual quotes: {raw.strip()}"
            return keyword, [rest]

    def _match(self, arguments: list[str]) -> None:
        criteria = {a.lower() for a in arguments}
        if not criteria <= {"all", "final", "canonical"}:
            self.doubt = f"Match {' '.join(arguments)}"
        self.second_pass |= bool(criteria & {"final", "canonical"})

    def _include(
        self, arguments: list[str], base: Path, conditions: tuple[int, ...], *, in_match: bool, depth: int
    ) -> None:
        for pattern in arguments:
            if "$" in pattern or "%" in pattern or depth >= _DEEPEST_INCLUDE:
                self.doubt = f"Include {pattern}"
                return
            full = str(home() / pattern[2:]) if pattern.startswith("~/") else str(base / pattern)
            for file in sorted(Path("/").glob(full.lstrip("/"))):
                self._read_file(file, base, conditions, in_match=in_match, depth=depth + 1)

    def _value(self, keyword: str, arguments: list[str], conditions: tuple[int, ...], *, in_match: bool) -> None:
        value = " ".join(arguments)
        if keyword == "canonicalizehostname" and value.lower() not in ("no", "false"):
            self.doubt = "CanonicalizeHostname"
        elif keyword in _USED and keyword not in _TOKENS_KEPT_BY_SSH and ("%" in value or "${" in value):
            self.doubt = f"{keyword} {value}"
        if keyword not in _OWN:
            for i in conditions:
                self.lines[i].own_only = False
        elif in_match or (keyword == "hostname" and re.search(r"%(?![h%])", value)):
            self.doubt = f"{keyword} {value}"
        else:
            self.own.append(OwnValue(keyword, value, conditions))
