"""The test cluster: hosts node1, node2, … on one switch, and everything needed to log in to them.

Needs root, iproute2, nftables, openssh and a kernel with namespaces; `obstacle` says what is missing. Two clusters run
side by side: folder, wires and subnet are each their own, and what a crashed run leaves is removed by the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.hosts import Host
from tests.cluster.network import SEARCH, Network, command, free_subnet, namespaces, quietly

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.cluster.processes import Process

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = ("ip", "tc", "nft", "sshd", "ssh", "ssh-keygen", "unshare", "nsenter", "setpriv", "hostname", "mount")
FOLDERS = Path("/var/tmp")
PREFIX = "rankdeck-cluster-"
LETTERS = itertools.cycle("abcdefghij")
"""What tells the clusters of one process apart."""


def obstacle() -> str:
    """Why hosts cannot be made here, in a few words; "" where they can."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [name for name in PROGRAMS if not shutil.which(name, path=SEARCH)]
    if missing:
        return f"needs the commands {', '.join(missing)}"
    trial = f"rd{os.getpid()}t-trial"
    try:
        command("ip", "netns", "add", trial)
        inside = ("unshare", "--uts", "--mount", "--pid", "--fork", "--mount-proc", "true")
        command("ip", "netns", "exec", trial, *inside)
        command("ip", "-n", trial, "link", "add", "trial", "type", "bridge")
        command("ip", "netns", "exec", trial, "nft", "add table inet trial")
    except RuntimeError as error:
        return f"needs namespaces: {error}"
    finally:
        quietly("ip", "netns", "del", trial)
    return ""


class Cluster:
    """Hosts node1, node2, … on one switch, the keys and the ssh config to reach them, and the way to remove it all.

    user         the login user: `rank`, who is nobody on this machine; root where others cannot read the repository
    home         the login user's home, one path, on every host another folder
    share        a folder that every host and the tests see at the same path (as NFS gives)
    ssh_config   for `ssh -F`, and what RANKDECK_SSH_CONFIG names
    known_hosts  every host's key under its name and address
    key          the private key that logs in
    """

    def __init__(self, count: int = 3) -> None:
        name = f"{os.getpid()}{next(LETTERS)}"
        self.folder = FOLDERS / f"{PREFIX}{name}"
        with _one_at_a_time():
            remove_stale()
            self.folder.mkdir(mode=0o755)
            self._lock = (self.folder / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self.network = Network(f"rd{name}", free_subnet())
            self.network.create()
        self.user, self.uid = _login_user()
        self.visible = _visible([REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)], ordinary=self.uid != 0)
        self.home = self.folder / "home"
        self.share = self.folder / "share"
        self.key = self.folder / "id_ed25519"
        self.ssh_config = self.folder / "ssh_config"
        self.known_hosts = self.folder / "known_hosts"
        self.hosts: tuple[Host, ...] = ()
        try:
            self._write_files()
            self.hosts = tuple(Host(self, number) for number in range(1, count + 1))
            self._write_ssh_files()
            for host in self.hosts:
                host.boot()
            for host in self.hosts:
                host.await_sshd()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<Cluster {self.network.subnet}.0/24 {' '.join(host.name for host in self.hosts)}>"

    def __getitem__(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    def _write_files(self) -> None:
        self.home.mkdir()
        self.share.mkdir()
        self.share.chmod(0o1777)
        names = {number: f"node{number}" for number in range(1, 250)}
        lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost", f"{self.network.workstation} workstation"]
        lines += [f"{self.network.subnet}.{number} {name}" for number, name in names.items()]
        (self.folder / "hosts").write_text("\n".join(lines) + "\n")
        command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "rankdeck test", "-f", str(self.key))
        (self.folder / "authorized_keys").write_text(self.key.with_suffix(".pub").read_text())

    def _write_ssh_files(self) -> None:
        keys = {host: (host.folder / "host_key.pub").read_text().rsplit(" ", 1)[0].strip() for host in self.hosts}
        self.known_hosts.write_text("".join(f"{h.name},{h.address} {key}\n" for h, key in keys.items()))
        blocks = [f"Host {host.name} {host.address}\n    HostName {host.address}\n" for host in self.hosts]
        self.ssh_config.write_text(
            "".join(blocks) + f"Host node* {self.network.subnet}.*\n    User {self.user}\n    IdentityFile {self.key}\n"
            f"    IdentitiesOnly yes\n    UserKnownHostsFile {self.known_hosts}\n    GlobalKnownHostsFile /dev/null\n"
            "    StrictHostKeyChecking yes\n    BatchMode yes\n    ConnectTimeout 10\n"
        )

    def user_env(self, home: Path) -> dict[str, str]:
        """The environment of someone at the workstation whose home is `home` (made where it is missing)."""
        home.mkdir(parents=True, exist_ok=True)
        kept = {key: os.environ[key] for key in ("LANG", "TERM", "TMPDIR") if key in os.environ}
        return {
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            **kept,
            "HOME": str(home),
            "USER": "workstation",
            "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin",
            "XDG_CONFIG_HOME": str(home / ".config"),
            "XDG_STATE_HOME": str(home / ".local/state"),
            "XDG_DATA_HOME": str(home / ".local/share"),
            "XDG_CACHE_HOME": str(home / ".cache"),
            "RANKDECK_SSH_CONFIG": str(self.ssh_config),
        }

    def ssh_argv(self, host: Host | str, text: str) -> list[str]:
        """The plain OpenSSH command line that runs `text` on a host."""
        name = host if isinstance(host, str) else host.name
        return ["ssh", "-F", str(self.ssh_config), name, text]

    def ssh(self, host: Host | str, text: str, *, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run `text` on a host over plain OpenSSH; never raises for its exit status (255: ssh itself failed)."""
        argv = self.ssh_argv(host, text)
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)

    def heal(self) -> dict[str, list[Process]]:
        """Heal every host; by host name, the marked processes that had to be killed."""
        left = {host.name: host.heal() for host in self.hosts}
        for host in self.hosts:
            host.await_sshd()
        shared = [self.folder / "shared-home", *self.share.iterdir()]
        for entry in shared:
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
        return {name: processes for name, processes in left.items() if processes}

    def close(self) -> None:
        """Power every host off and remove every trace of the cluster."""
        for host in self.hosts:
            host.power_off()
        self.network.remove()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()


def remove_stale() -> None:
    """Remove what a crashed run left: clusters whose lock nobody holds."""
    for folder in FOLDERS.glob(f"{PREFIX}*"):
        if folder.stat().st_uid != os.geteuid():
            continue
        try:
            with (folder / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                Network(f"rd{folder.name.removeprefix(PREFIX)}", "").remove()
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
    alive = {f"rd{folder.name.removeprefix(PREFIX)}" for folder in FOLDERS.glob(f"{PREFIX}*")}
    for netns in namespaces():
        owner = netns.split("-")[0]
        pid = owner[2:-1]
        if netns.startswith("rd") and pid.isdigit() and owner not in alive and not Path("/proc", pid).exists():
            Network(owner, "").remove()


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Two test runs that start together must not choose the same subnet, nor take each other for a crashed one."""
    folder = os.open(FOLDERS, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _login_user() -> tuple[str, int]:
    """An ordinary user with a uid that nobody has; root where the files of the repository are closed to others."""
    needed = {
        REPOSITORY: Path(__file__),
        Path(sys.prefix): Path(sysconfig.get_path("purelib")),
        Path(sys.base_prefix).resolve(): Path(sys.executable).resolve(),
    }
    for folder, leaf in needed.items():
        way = [leaf, *(parent for parent in leaf.parents if parent.is_relative_to(folder))]
        if not all(path.stat().st_mode & (0o001 if path.is_dir() else 0o004) for path in way):
            return "root", 0
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    return "rank", next(uid for uid in range(60100, 61000) if uid not in taken)


def _visible(paths: Sequence[Path], *, ordinary: bool) -> tuple[list[str], list[str]]:
    """The folders to keep in view, and the closed folders above them that a tmpfs has to cover for an ordinary user."""
    keep: list[str] = []
    covers: list[str] = []
    for path in (path.resolve() for path in paths):
        closed = [parent for parent in reversed(path.parents) if ordinary and not parent.stat().st_mode & 0o001]
        hidden = any(path.is_relative_to(cover) for cover in ("/tmp", "/run", "/dev/shm"))
        if (closed or hidden) and str(path) not in keep:
            keep.append(str(path))
        if closed and str(closed[0]) not in covers:
            covers.append(str(closed[0]))
    return keep, covers
