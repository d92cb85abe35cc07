"""One login: what asyncssh asks and tells during it, and what its errors mean in our words.

host key    judged here, from our own reading of known_hosts: unknown, changed and revoked are three errors
refused     says which keys were tried and what the server takes
hung up     before the login began: Dropped, worth another try; everything else is final
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncssh

from engine.errors import AuthenticationFailed, HostKeyChanged, HostKeyUnknown, MachineError, Unreachable
from engine.ssh import known_hosts
from engine.ssh.dial import hung_up, not_ssh, place
from engine.ssh.known_hosts import HostName, Judgement, KnownHosts
from engine.text import clean

if TYPE_CHECKING:
    from engine.ssh.config import HostConfig
    from engine.ssh.dial import ProxyProcess
    from engine.ssh.keys import Offer

# Finite-field groups come last, for servers that have nothing else. Group-exchange (0.6 s of CPU) and SHA-1 are out.
KEX = (
    "mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org", "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384", "ecdh-sha2-nistp521", "diffie-hellman-group14-sha256", "diffie-hellman-group16-sha512",
)  # fmt: skip
CIPHERS = (
    "aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr", "aes256-ctr",
)  # fmt: skip
MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")
KEY_TYPES = (
    "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa",
    "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
)  # fmt: skip
SIGNATURES = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
CERTIFICATES = tuple(
    f"{name}-cert-v01@openssh.com"
    for name in ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
                 "rsa-sha2-512", "rsa-sha2-256")
)  # fmt: skip
SPEAKS_SSH = (b"SSH-2.0-", b"SSH-1.99-")  # RFC 4253, section 5.1
LOGIN_METHODS = ("publickey", "keyboard-interactive", "password")  # the last two only to learn what the server takes


class Login(asyncssh.SSHClient):
    """What asyncssh asks and tells during one login."""

    def __init__(self, config: HostConfig, known: KnownHosts, types: list[str]) -> None:
        self.config = config
        self.known = known
        self.name = host_name(config)
        self.greeting = b""
        self.begun = False  # the user's name has been sent
        self.takes: list[str] = []  # login methods that the server takes
        self.judgement: Judgement | None = None
        self.key_type = ""
        self.key = b""
        self._types = types
        self._connection: asyncssh.SSHClientConnection | None = None

    @property
    def heard(self) -> bool:
        """Whether the server has said that it is an ssh server, or, where that is out of sight, shown its host key."""
        if self.greeting.startswith(SPEAKS_SSH) or self.key:
            return True
        return self._connection is not None and self._connection.get_server_host_key() is not None

    def algorithms(self) -> list[str]:
        """Host key algorithms, those with a key on file first; certificates only under a known authority."""
        order = dict.fromkeys([*(t for t in self._types if t in KEY_TYPES), *KEY_TYPES])
        plain = [name for kind in order for name in SIGNATURES.get(kind, (kind,))]
        return [*(CERTIFICATES if self.known.marked(self.name, "cert-authority") else ()), *plain]

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._connection = conn

    def begin_auth(self, username: str) -> None:
        self.begun = True

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.key_type, self.key = key.algorithm.decode("ascii"), key.public_data
        self.judgement = self.known.judge(self.name, self.key_type, self.key)
        return self.judgement.verdict == "known"

    def public_key_auth_requested(self) -> None:
        self._note_methods()

    def kbdint_auth_requested(self) -> None:
        self._note_methods()

    def password_auth_requested(self) -> None:
        self._note_methods()

    def _note_methods(self) -> None:
        if self._connection is not None:
            self.takes = list(dict.fromkeys([*self.takes, *self._connection.get_server_auth_methods()]))


def host_name(config: HostConfig) -> HostName:
    return HostName(config.hostname, config.port, config.host_key_alias)


def translate(error: Exception, login: Login, offer: Offer, process: ProxyProcess | None, jump: str) -> Exception:
    """asyncssh's errors in our words; Dropped where another try makes sense."""
    config = login.config
    said = clean(getattr(error, "reason", "") or str(error), 200)
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return _host_key_error(login, said)
    if isinstance(error, asyncssh.PermissionDenied) or "uthentication failures" in said:
        return _refused(login, offer, said)
    if isinstance(error, asyncssh.ChannelOpenError) and jump:
        return Unreachable(
            f"{place(config)} cannot be reached from the jump host {jump}: {said}",
            node=config.host,
            remedy=f"try it there: ssh {jump} nc -vz {config.hostname} {config.port}",
        )
    if isinstance(error, asyncssh.KeyExchangeFailed):
        return Unreachable(
            f"{place(config)}: no common algorithm ({said})",
            node=config.host,
            remedy="the server offers old algorithms only: update its OpenSSH (7.4 or later is enough)",
        )
    if login.greeting and not login.heard:
        return not_ssh(config, login.greeting)
    if process is not None and not login.heard:
        return Unreachable(
            f"the ProxyCommand for {place(config)} ended: {process.stderr or said}",
            node=config.host,
            remedy="try it by hand; ProxyCommand stands in your ssh config",
        )
    if isinstance(error, (asyncssh.ConnectionLost, ConnectionError)) and not login.begun:
        return hung_up(config, said)
    compare = f"compare with: ssh -v -p {config.port} {config.user}@{config.hostname} true"
    if isinstance(error, asyncssh.ConnectionLost):
        compare = f"a server too slow for its own LoginGraceTime hangs up so (a directory service?); {compare}"
    return Unreachable(
        f"{place(config)}: the login broke off: {said or type(error).__name__}", node=config.host, remedy=compare
    )


def _host_key_error(login: Login, said: str) -> MachineError:
    config = login.config
    judgement = login.judgement or Judgement("changed")
    fingerprint = known_hosts.fingerprint(login.key)
    if judgement.verdict == "unknown":
        entry = known_hosts.new_entry(login.name, login.key_type, login.key, hashed=config.hash_known_hosts)
        unknown = HostKeyUnknown(
            node=config.host, host=config.hostname, port=config.port, key_type=login.key_type,
            fingerprint=fingerprint, entry="" if config.strict else entry,
        )  # fmt: skip
        if config.strict:
            unknown.remedy = "StrictHostKeyChecking is yes: add its key to your known_hosts from a trusted source"
        return unknown
    if judgement.entry is None:  # a certificate, or a revoked key that asyncssh saw first
        authority = next((e.where for e in login.known.marked(login.name, "cert-authority")), "known_hosts")
        return HostKeyChanged(
            f"the host key of {place(config)} is not accepted: {said}",
            node=config.host,
            remedy=f"ask who runs the machine; the entries that decide begin at {authority}",
        )
    where = judgement.entry.where
    if judgement.verdict == "revoked":
        return HostKeyChanged(
            f"the host key of {place(config)} is revoked in {where} ({login.key_type} {fingerprint})",
            node=config.host,
            remedy="do not log in there; ask who runs the machine",
        )
    return HostKeyChanged(
        f"the host key of {place(config)} has changed: it shows {login.key_type} {fingerprint},"
        f" {where} holds {judgement.entry.key_type} {known_hosts.fingerprint(judgement.entry.key)}",
        node=config.host,
        remedy=f"someone may be in between. If the machine is known to be reinstalled: "
        f"ssh-keygen -R '{login.name.name}' -f {judgement.entry.path}",
    )


def _refused(login: Login, offer: Offer, said: str) -> AuthenticationFailed:
    config = login.config
    tried = [*offer.tried, *(f"{f.path} (encrypted, not opened)" for f in offer.locked)]
    takes = ", ".join(clean(t, 40) for t in login.takes)
    remedy = "; ".join(offer.remedies)
    if not remedy and offer.locked:
        remedy = f"ssh-add {offer.locked[0].path}"
    if not remedy and "publickey" not in login.takes and takes:
        remedy = "Rankdeck logs in with keys only: allow PubkeyAuthentication on the server"
    if "uthentication failures" in said:
        remedy = "the server gave up before the right key came: set IdentityFile and IdentitiesOnly yes for this host"
    return AuthenticationFailed(
        f"{config.user}@{config.hostname} port {config.port} refuses the login; tried {', '.join(tried) or 'no key'}"
        + (f"; the server takes {takes}" if takes else ""),
        node=config.host,
        remedy=remedy or f"ssh-copy-id -p {config.port} {config.user}@{config.hostname}",
    )
