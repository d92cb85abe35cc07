"""The known_hosts files: which key a host has, and where that is written.

    known       an entry of this host holds this key
    unknown     no entry of this host
    changed     entries of this host hold other keys; the offending one is named by file and line
    revoked     the key stands under @revoked

A presented key of a type that is not on file counts as changed when other types are: whoever sits in between could
otherwise choose a type that nobody has seen. Hashed names cost one HMAC each to test, so the entries that hold the
presented key come first, and all of them are tested only when none of those matches.

Sources: sshd(8) "SSH_KNOWN_HOSTS FILE FORMAT", OpenSSH hostfile.c and sshconnect.c (check_host_key).
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import functools
import hashlib
import hmac
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Verdict = Literal["known", "unknown", "changed", "revoked"]
DEFAULT_PORT = 22
_NOT_FILES = frozenset({"none", "/dev/null"})


class Entry(NamedTuple):
    """One line of a known_hosts file. `key` is the public key as it goes over the wire."""

    path: str
    line: int
    marker: str  # "" | "cert-authority" | "revoked"
    names: str
    key_type: str
    key: bytes

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"

    @property
    def hashed(self) -> bool:
        return self.names.startswith("|1|")

    def matches(self, name: str) -> bool:
        return _hash_matches(self.names, name) if self.hashed else _patterns_match(self.names, name)


class Judgement(NamedTuple):
    verdict: Verdict
    entry: Entry | None = None  # the entry that decides


@dataclass(frozen=True)
class HostName:
    """Under which names a host stands in known_hosts: `[host]:port`, or an alias, which has no port."""

    host: str
    port: int = DEFAULT_PORT
    alias: str = ""

    @property
    def name(self) -> str:
        if self.alias:
            return self.alias.lower()
        host = self.host.lower()
        return host if self.port == DEFAULT_PORT else f"[{host}]:{self.port}"

    @property
    def portless(self) -> str:
        """A key on file for the plain host name is good for any port of it; "" when there is nothing more to try."""
        return "" if self.alias or self.port == DEFAULT_PORT else self.host.lower()


class KnownHosts:
    """Several known_hosts files, parsed once. `none` and /dev/null count as empty files: they switch nothing off."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._plain: dict[str, list[Entry]] = {}
        self._patterns: list[Entry] = []
        self._hashed: list[Entry] = []
        self._by_key: dict[bytes, list[Entry]] = {}
        self._marked: list[Entry] = []
        self.size = 0
        for entry in entries:
            self.add(entry)

    def __repr__(self) -> str:
        return f"KnownHosts({self.size} entries)"

    @classmethod
    def read(cls, paths: Iterable[Path]) -> KnownHosts:
        """Every readable file of `paths`; a missing file is an empty one, as ssh sees it."""
        known = cls()
        for path in paths:
            if str(path) in _NOT_FILES:
                continue
            try:
                text = path.read_text(errors="replace")
            except OSError:
                continue
            for entry in parse(text, str(path)):
                known.add(entry)
        return known

    def add(self, entry: Entry) -> None:
        self.size += 1
        if entry.marker:
            self._marked.append(entry)
            return
        if entry.hashed:
            self._hashed.append(entry)
            self._by_key.setdefault(entry.key, []).append(entry)
        elif re.search(r"[*?!]", entry.names):
            self._patterns.append(entry)
        else:
            for name in entry.names.lower().split(","):
                self._plain.setdefault(name, []).append(entry)

    def key_types(self, host: HostName) -> list[str]:
        """Key types to ask the server for first: those on file for this host, as far as that is cheap to know."""
        on_file = [e.key_type for e in self._cheap(host.name)] or [e.key_type for e in self._cheap(host.portless)]
        return list(dict.fromkeys(on_file)) or list(dict.fromkeys(e.key_type for e in self._hashed))

    def all_key_types(self, host: HostName) -> list[str]:
        """Every key type on file for this host, hashed entries included; exact, and not cheap."""
        return list(dict.fromkeys(e.key_type for e in self._all(host)))

    def marked(self, host: HostName, marker: str) -> list[Entry]:
        """The @cert-authority or @revoked entries that apply to this host; the marker is without its @."""
        names = [n for n in (host.name, host.portless) if n]
        return [e for e in self._marked if e.marker == marker and any(e.matches(n) for n in names)]

    def judge(self, host: HostName, key_type: str, key: bytes) -> Judgement:
        """What the files say about this key of this host."""
        for entry in self.marked(host, "revoked"):
            if entry.key == key:
                return Judgement("revoked", entry)
        for name in (host.name, host.portless):
            same = [e for e in self._cheap(name) if e.key == key]
            same += [e for e in self._by_key.get(key, []) if name and e.matches(name)]
            if same:
                return Judgement("known", same[0])
        other = self._all(host, portless=False)
        if not other:
            return Judgement("unknown")
        return Judgement("changed", next((e for e in other if e.key_type == key_type), other[0]))

    def _cheap(self, name: str) -> list[Entry]:
        return self._plain.get(name, []) + [e for e in self._patterns if e.matches(name)] if name else []

    def _all(self, host: HostName, *, portless: bool = True) -> list[Entry]:
        found = self._cheap(host.name) + [e for e in self._hashed if e.matches(host.name)]
        if not found and portless and host.portless:
            found = self._cheap(host.portless) + [e for e in self._hashed if e.matches(host.portless)]
        return found


def parse(text: str, path: str) -> Iterator[Entry]:
    """The entries of one file; a line that is none (comment, damage) is passed over, as ssh does."""
    for number, line in enumerate(text.split("\n"), 1):
        fields = line.split()
        marker = ""
        if fields and fields[0].startswith("@"):
            marker = fields.pop(0)[1:]
            if marker not in ("cert-authority", "revoked"):
                continue
        if len(fields) < 3 or fields[0].startswith("#"):
            continue
        try:
            key = base64.b64decode(fields[2], validate=True)
        except binascii.Error:
            continue
        yield Entry(path, number, marker, fields[0], fields[1], key)


def fingerprint(key: bytes) -> str:
    """SHA256:… as ssh-keygen -l prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def new_entry(host: HostName, key_type: str, key: bytes, *, hashed: bool) -> str:
    """The known_hosts line for this key, without a line end."""
    name = host.name
    if hashed:
        salt = os.urandom(20)
        digest = hmac.digest(salt, name.encode(), "sha1")
        name = f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"
    return f"{name} {key_type} {base64.b64encode(key).decode()}"


def remember(entry: str, path: Path) -> None:
    """Append one line to a known_hosts file, made 0600 if missing, and sync it to the disk; a repeat changes nothing.

    Call it after an explicit yes only. Raises OSError, and ValueError for what is not one entry or not a file to keep.
    """
    if len(list(parse(entry, ""))) != 1 or "\n" in entry or "\r" in entry:
        raise ValueError(f"not a known_hosts entry: {entry!r}")
    if str(path) in _NOT_FILES:
        raise ValueError(f"{path} keeps nothing: set UserKnownHostsFile to a file")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "r+b") as file:  # noqa: PTH123
        fcntl.flock(file, fcntl.LOCK_EX)
        old = file.read()
        if entry.encode() in old.split(b"\n"):
            return
        file.write((b"" if not old or old.endswith(b"\n") else b"\n") + entry.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _hash_matches(names: str, name: str) -> bool:
    try:
        _, _, salt, digest = names.split("|")
        return hmac.digest(base64.b64decode(salt), name.encode(), "sha1") == base64.b64decode(digest)
    except ValueError:
        return False


def _patterns_match(names: str, name: str) -> bool:
    found = False
    for pattern in names.lower().split(","):
        if _glob(pattern.removeprefix("!")).fullmatch(name):
            if pattern.startswith("!"):
                return False
            found = True
    return found


@functools.lru_cache(maxsize=1024)
def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern))
