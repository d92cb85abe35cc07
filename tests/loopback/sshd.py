"""A real sshd on a loopback address, with keys, configuration and log of its own; root or not.

    lab = Lab(folder)                       a client's files: a key, known_hosts, ssh_config
    with lab.sshd(MaxSessions=1) as sshd:   a server that takes the key; known to the client unless known=False
        lab.alias("gpu01", sshd)            a `Host` block for it

Everything lies under one folder; ports are free ones of the address. All of 127.0.0.0/8 is this machine.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
_START_TIMEOUT = 10.0  # seconds


def obstacle() -> str:
    """Why no sshd can be run here, or ""."""
    missing = [name for name in ("ssh", "ssh-keygen", "ssh-agent", "ssh-add") if shutil.which(name) is None]
    if SSHD is None:
        missing.append("sshd")
    return f"not installed: {', '.join(missing)}" if missing else ""


def keygen(path: Path, *, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A new key pair in `path` and `path`.pub."""
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", path.name, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def public(key: Path) -> str:
    """The type and the key of `key`.pub, without the comment."""
    return " ".join(key.with_name(key.name + ".pub").read_text().split()[:2])


def free_port(address: str = "127.0.0.1") -> int:
    with socket.socket() as sock:
        sock.bind((address, 0))
        return int(sock.getsockname()[1])


class Sshd:
    """One running sshd. `options` are lines of sshd_config."""

    def __init__(self, folder: Path, address: str, host_key: Path, options: dict[str, str]) -> None:
        self.folder = folder
        self.address = address
        self.port = 0
        self.host_key = host_key
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "sshd.log"

    def __repr__(self) -> str:
        return f"Sshd({self.address}:{self.port})"

    @property
    def name(self) -> str:
        """As it stands in known_hosts."""
        return f"[{self.address}]:{self.port}"

    def start(self) -> None:
        """Start and wait until it listens; another free port is taken if somebody was faster."""
        assert SSHD is not None, obstacle()
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd, as root, parks its unprivileged half
        for _ in range(5):
            self.port = free_port(self.address)
            config = self.folder / "sshd_config"
            config.write_text("".join(f"{key} {value}\n" for key, value in self._lines().items()))
            self._log.unlink(missing_ok=True)
            self._process = subprocess.Popen(
                [SSHD, "-D", "-f", str(config), "-E", str(self._log)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
            end = time.monotonic() + _START_TIMEOUT
            while self._process.poll() is None and time.monotonic() < end:
                if "Server listening" in self.log():
                    return
                time.sleep(0.01)
            self.stop()
        raise RuntimeError(f"sshd does not start:\n{self.log()}")

    def stop(self) -> None:
        """End the server and every session of it."""
        if self._process is not None:
            for pid in self.sessions():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()
            self._process = None

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def count(self, text: str) -> int:
        """How many lines of the log hold `text`; "Connection from" is one for each TCP connection."""
        return sum(text in line for line in self.log().splitlines())

    def sessions(self) -> list[int]:
        """The process ids of the sshd processes that serve connections, parents before children."""
        assert self._process is not None
        found, level = [], [self._process.pid]
        while level:
            level = [child for pid in level for child in _children(pid) if _command(child).startswith("sshd")]
            found += level
        return found

    def kill_sessions(self) -> None:
        """SIGKILL what serves the connections; the listener goes on, and so do the programs that they started."""
        for pid in self.sessions():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _lines(self) -> dict[str, str]:
        return {
            "ListenAddress": f"{self.address}:{self.port}",
            "HostKey": str(self.host_key),
            "AuthorizedKeysFile": str(self.folder / "authorized_keys"),
            "PidFile": "none",
            "LogLevel": "VERBOSE",
            "StrictModes": "no",
            "UsePAM": "no",
            "UseDNS": "no",
            "PermitRootLogin": "yes",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "MaxStartups": "100",
            **self._options,
        }


class Lab:
    """A client's side: one key, one known_hosts, one ssh_config, and the servers of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = keygen(folder / "id_ed25519")
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.touch(mode=0o600)
        self.config = folder / "ssh_config"
        self.user = getpass.getuser()
        self._blocks: list[str] = []
        self._servers = 0
        self._write()

    @contextlib.contextmanager
    def sshd(
        self, address: str = "127.0.0.1", *, known: bool = True, host_key: Path | None = None, **options: str | int
    ) -> Iterator[Sshd]:
        """A running server that takes the lab's key. `options` are names and values of sshd_config."""
        self._servers += 1
        folder = self.folder / f"sshd{self._servers}"
        folder.mkdir(mode=0o700)
        host_key = host_key or keygen(folder / "host_key")
        (folder / "authorized_keys").write_text(public(self.key) + "\n")
        server = Sshd(folder, address, host_key, {name: str(value) for name, value in options.items()})
        server.start()
        try:
            if known:
                self.know(server)
            yield server
        finally:
            server.stop()

    def know(self, server: Sshd, name: str = "", key: Path | None = None) -> None:
        """Put a server, or another name or key for it, into known_hosts."""
        with self.known_hosts.open("a") as file:
            file.write(f"{name or server.name} {public(key or server.host_key)}\n")

    def alias(self, name: str, server: Sshd, *lines: str) -> None:
        """A `Host` block; more lines of ssh_config may follow."""
        self.block(f"Host {name}", f"HostName {server.address}", f"Port {server.port}", *lines)

    def block(self, *lines: str) -> None:
        self._blocks.append("\n  ".join(lines))
        self._write()

    def _write(self) -> None:
        general = (
            "Host *",
            f"IdentityFile {self.key}",
            "IdentityAgent none",
            f"UserKnownHostsFile {self.known_hosts}",
            "GlobalKnownHostsFile none",
        )
        self.config.write_text("\n".join([*self._blocks, "\n  ".join(general)]) + "\n")


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
