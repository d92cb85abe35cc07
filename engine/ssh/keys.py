"""The user's private keys: read once, checked as OpenSSH checks them, offered in OpenSSH's order.

    1. keys of the agent that the configuration names     2. the agent's other keys, unless IdentitiesOnly
    3. key files without a passphrase                      4. key files with one, asked for once, when nothing else fits

Passphrases are used and forgotten; the keys that they open stay in memory only.
Sources: ssh_config(5) IdentityFile, IdentitiesOnly, CertificateFile; OpenSSH authfile.c (sshkey_perm_ok), PROTOCOL.key.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import copy
import os
import re
import shlex
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import asyncssh

from engine.waiting import in_thread, within

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from engine.ssh.config import HostConfig
    from engine.transport import Asker

_AGENT_TIMEOUT = 10.0  # seconds
_PASSPHRASE_TRIES = 3
_LARGEST_KEY_FILE = 1 << 20


@dataclass
class KeyFile:
    """One identity file, as it was found."""

    path: Path
    pairs: list[asyncssh.SSHKeyPair] = field(default_factory=list)
    public: bytes = b""  # the public key on the wire, where it can be known
    locked: bytes = b""  # the encrypted file
    problem: str = ""  # why it is not used
    remedy: str = ""


@dataclass(frozen=True)
class Offer:
    """What a host is offered. `tried` and `remedies` are for the message if it takes none of it."""

    pairs: list[asyncssh.SSHKeyPair]
    locked: list[KeyFile]
    tried: list[str]
    remedies: list[str]


class KeyRing:
    """Every key file and agent, each read once."""

    def __init__(self, ask: Asker | None) -> None:
        self._ask = ask
        self._files: dict[Path, asyncio.Task[KeyFile]] = {}
        self._agents: dict[str, asyncio.Task[_Agent]] = {}
        self._asking = asyncio.Lock()

    def __repr__(self) -> str:
        return f"KeyRing({len(self._files)} files, {len(self._agents)} agents)"

    async def offer(self, config: HostConfig) -> Offer:
        """The keys for one host, in the order in which they are tried."""
        if not config.pubkey_authentication:
            return Offer([], [], ["no key (PubkeyAuthentication no)"], [])
        files = await asyncio.gather(*(self._file(path) for path in config.identity_files))
        agent = await self._agent(config.identity_agent)
        certificates = await self._certificates(config.certificate_files)
        order = {file.public: rank for rank, file in enumerate(files) if file.public}
        held = [p for p in agent.pairs if not config.identities_only or p.key_public_data in order]
        held.sort(key=lambda pair: order.get(pair.key_public_data, len(order)))
        in_agent = {pair.key_public_data for pair in held}
        own = [f for f in files if f.public not in in_agent]

        pairs = _with_certificates([*held, *(p for f in own for p in f.pairs)], certificates)
        tried = [f"{len(held)} key{'s' * (len(held) != 1)} of the agent"] if held else []
        tried += [str(f.path) for f in own if f.pairs] + [f"{f.path} ({f.problem})" for f in own if f.problem]
        tried += [agent.problem] if agent.problem else []
        return Offer(pairs, [f for f in own if f.locked], tried, [f.remedy for f in own if f.remedy])

    async def unlock(self, file: KeyFile) -> bool:
        """Ask for the passphrase of a key, once for all hosts; whether the key can be used afterwards."""
        async with self._asking:
            for _ in range(_PASSPHRASE_TRIES):
                if not file.locked:
                    break
                passphrase = await self._ask.passphrase(str(file.path)) if self._ask is not None else None
                if passphrase is None:
                    file.locked = b""
                    file.problem = "encrypted, no passphrase given"
                    file.remedy = f"ssh-add {shlex.quote(str(file.path))}"
                    return False
                try:
                    key = await in_thread(asyncssh.import_private_key, file.locked, passphrase)
                except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError):
                    continue
                file.pairs, file.locked = await in_thread(_pairs, key, file.path), b""
            if file.locked:
                file.locked = b""
                file.problem = f"{_PASSPHRASE_TRIES} wrong passphrases"
            return bool(file.pairs)

    async def close(self) -> None:
        for task in self._agents.values():
            if task.done() and (client := task.result().client) is not None:
                client.close()
        self._agents.clear()

    async def _file(self, path: Path) -> KeyFile:
        if path not in self._files:
            self._files[path] = asyncio.ensure_future(in_thread(read_key_file, path))
        return await asyncio.shield(self._files[path])

    async def _agent(self, path: str) -> _Agent:
        if not path:
            return _Agent()
        if path not in self._agents:
            self._agents[path] = asyncio.ensure_future(_Agent.reach(path))
        return await asyncio.shield(self._agents[path])

    async def _certificates(self, paths: Sequence[Path]) -> list[asyncssh.SSHCertificate]:
        return await in_thread(_read_certificates, paths) if paths else []


@dataclass
class _Agent:
    client: asyncssh.SSHAgentClient | None = None
    pairs: list[asyncssh.SSHKeyPair] = field(default_factory=list)
    problem: str = ""

    @classmethod
    async def reach(cls, path: str) -> _Agent:
        client = None
        try:
            client = await within(_AGENT_TIMEOUT, asyncssh.connect_agent(path))
            return cls(client, list(await within(_AGENT_TIMEOUT, client.get_keys())))
        except (OSError, ValueError, asyncssh.Error, asyncio.TimeoutError) as error:
            if client is not None:
                client.close()
            said = str(error) or "no answer"
            return cls(problem=f"no agent at {path} ({said})")


def read_key_file(path: Path) -> KeyFile:
    """Read one identity file; `problem` and `remedy` say what is wrong with it. A missing file is an empty KeyFile."""
    found = KeyFile(path)
    try:
        status = path.stat()
        data = path.read_bytes() if status.st_size <= _LARGEST_KEY_FILE else b""
    except (FileNotFoundError, NotADirectoryError):
        found.public = _public_of(path)
        return found
    except OSError as error:
        found.problem = f"not readable: {error.strerror}"
        return found
    if b"PRIVATE KEY" not in data:
        found.public = _public_of(path)  # the public half names a key that the agent holds
        return found
    if status.st_uid == os.getuid() and status.st_mode & 0o077:
        found.problem = f"not used: mode {status.st_mode & 0o777:04o} lets others read it"
        found.remedy = f"chmod 600 {shlex.quote(str(path))}"
        return found
    try:
        key = asyncssh.import_private_key(data)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        if str(error).startswith("Passphrase"):
            found.locked, found.public = data, _public_of(path) or _public_in_header(data)
        else:
            found.problem = f"not a key that can be used: {error}"
        return found
    found.public, found.pairs = key.public_data, _pairs(key, path)
    return found


def fresh(pairs: list[asyncssh.SSHKeyPair]) -> list[asyncssh.SSHKeyPair]:
    """Copies for one connection, which writes into them the signature algorithm that it agrees on."""
    return [copy.copy(pair) for pair in pairs]


def _pairs(key: asyncssh.SSHKey, path: Path) -> list[asyncssh.SSHKeyPair]:
    """The key with the certificate beside it, if there is one, and the key alone."""
    certificates = _read_certificates([path.with_name(path.name + "-cert.pub")])
    return list(
        asyncssh.load_keypairs([key], certlist=[c for c in certificates if c.key.public_data == key.public_data])
    )


def _with_certificates(
    pairs: list[asyncssh.SSHKeyPair], certificates: list[asyncssh.SSHCertificate]
) -> list[asyncssh.SSHKeyPair]:
    """Each key is tried with its certificate of CertificateFile before it is tried alone."""
    result: list[asyncssh.SSHKeyPair] = []
    for pair in pairs:
        for certificate in certificates:
            if certificate.key.public_data == pair.key_public_data and not pair.has_cert:
                certified = copy.copy(pair)
                certified.set_certificate(certificate)
                result.append(certified)
        result.append(pair)
    return result


def _read_certificates(paths: Sequence[Path]) -> list[asyncssh.SSHCertificate]:
    found = []
    for path in paths:
        try:
            found.append(asyncssh.read_certificate(path))
        except (OSError, asyncssh.KeyImportError):
            continue
    return found


def _public_of(path: Path) -> bytes:
    """The public key in PATH.pub, or in PATH itself."""
    for candidate in (path.with_name(path.name + ".pub"), path):
        try:
            return asyncssh.read_public_key(candidate).public_data
        except (OSError, asyncssh.KeyImportError):
            continue
    return b""


def _public_in_header(data: bytes) -> bytes:
    """The public key in the clear of an openssh-key-v1 file: magic, cipher, kdf, options, count, public key."""
    body = re.search(rb"-----BEGIN OPENSSH PRIVATE KEY-----(.*?)-----END", data, re.DOTALL)
    if body is None:
        return b""
    try:
        raw = base64.b64decode(body[1])
        at = len(b"openssh-key-v1\0")
        for _ in range(3):
            at += 4 + int(struct.unpack_from(">I", raw, at)[0])
        at += 4
        length = int(struct.unpack_from(">I", raw, at)[0])
        return raw[at + 4 : at + 4 + length]
    except (binascii.Error, struct.error):
        return b""
