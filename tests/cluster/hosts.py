"""Real hosts on one machine: own address, ports, hostname, process list, home, /tmp, sshd; and a hand on each switch.

What a host shares with the machine is what a node shares with its colleagues: the programs under /usr, the virtual
environment and the repository, at the same paths, and the folder `Cluster.share`, which every host sees.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster.network import SEARCH, command
from tests.cluster.processes import Process, child_of, processes_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.cluster.cluster import Cluster

START_SECONDS = 15.0


def port_answers(address: str, port: int, *, timeout: float = 1.0) -> bool:
    """Whether the workstation can open a TCP connection to a port."""
    try:
        with socket.create_connection((address, port), timeout=timeout):
            return True
    except OSError:
        return False


class Inside(subprocess.Popen[bytes]):
    """A program in a host. Signals go to the program, not to the nsenter that waits for it and ends as it ends."""

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(child_of(self.pid) or self.pid, sig)


class Host:
    """One machine of the cluster. Everything that is done to it here is undone by `heal`."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.cluster = cluster
        self.number = number
        self.name = f"node{number}"
        self.address = f"{cluster.network.subnet}.{number}"
        self.folder = cluster.folder / self.name
        self.home = cluster.home
        self.bin = self.folder / "bin"  # first in the PATH of the host's sessions
        self._unshare: subprocess.Popen[bytes] | None = None
        self._init = 0
        self._touched = False
        self._make_folder()

    def __repr__(self) -> str:
        return f"<Host {self.name} {self.address} {'on' if self.is_on else 'off'}>"

    def _make_folder(self) -> None:
        (self.folder / "home").mkdir(parents=True)
        (self.folder / "home").chmod(0o700)
        os.chown(self.folder / "home", self.cluster.uid, self.cluster.uid)
        self.bin.mkdir()
        command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "host_key"))
        self._write_sshd_config({})
        self._write_users("/bin/bash")

    def _write_sshd_config(self, options: Mapping[str, str]) -> None:
        """sshd's own first-wins rule lets `options` come before the defaults."""
        path = f"{self.bin}:/usr/local/bin:/usr/bin:/bin:{sys.base_prefix}/bin"
        lines = {
            **options,
            "ListenAddress": "0.0.0.0",
            "HostKey": str(self.folder / "host_key"),
            "AuthorizedKeysFile": str(self.cluster.folder / "authorized_keys"),
            "PidFile": str(self.folder / "sshd.pid"),
            "UsePAM": "no",
            "StrictModes": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "UseDNS": "no",
            "PrintMotd": "no",
            "AcceptEnv": "LANG LC_*",
            "SetEnv": f"OMP_NUM_THREADS=1 PATH={path}",
            "Subsystem": "sftp internal-sftp",
            "LogLevel": "VERBOSE",
        }
        lines.update(options)
        (self.folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in lines.items()))

    def _write_users(self, shell: str) -> None:
        user, uid = self.cluster.user, self.cluster.uid
        for name, entry in {
            "passwd": f"{user}:*:{uid}:{uid}::{self.home}:{shell}\n",
            "group": f"{user}:*:{uid}:\n",
        }.items():
            others = Path("/etc", name).read_text().splitlines(keepends=True)
            kept = "".join(line for line in others if not line.startswith(f"{user}:"))
            (self.folder / name).write_text(entry + kept)

    # Power.

    @property
    def is_on(self) -> bool:
        return self._unshare is not None

    def power_on(self) -> None:
        """Boot, and wait until sshd listens."""
        self.boot()
        self.await_sshd()

    def boot(self) -> None:
        """Begin to boot, unless it is on; `await_sshd` is the end of it."""
        if self._unshare:
            return
        self.cluster.network.connect(self.name, self.number)
        (self.folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        (self.folder / "sshd.pid").unlink(missing_ok=True)
        keep, covers = self.cluster.visible
        boot = {
            "name": self.name,
            "keep": keep,
            "covers": [
                *([folder, "755"] for folder in covers),
                ["/run", "755"],
                ["/tmp", "1777"],
                ["/dev/shm", "1777"],
            ],
            "binds": [
                [str(self.folder / "home"), str(self.home)],
                [str(self.cluster.folder / "hosts"), "/etc/hosts"],
                *([str(self.folder / name), f"/etc/{name}"] for name in ("passwd", "group")),
                [str(self.folder / "boot_id"), "/proc/sys/kernel/random/boot_id"],
            ],
            "sshd": self._sshd,
        }
        (self.folder / "boot.json").write_text(json.dumps(boot))
        argv = ["ip", "netns", "exec", self.cluster.network.netns(self.name)]
        argv += ["unshare", "--uts", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
        argv += [sys.executable, "-I", "-S", str(Path(__file__).with_name("init.py")), str(self.folder)]
        with (self.folder / "console.log").open("ab") as console:
            self._unshare = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=console, stderr=console, cwd="/")

    @property
    def _sshd(self) -> list[str]:
        log = str(self.folder / "sshd.log")
        return [str(shutil.which("sshd", path=SEARCH)), "-f", str(self.folder / "sshd_config"), "-E", log]

    def await_sshd(self) -> None:
        assert self._unshare
        deadline = time.monotonic() + START_SECONDS
        while not (self.folder / "sshd.pid").exists():
            if self._unshare.poll() is not None or time.monotonic() > deadline:
                log = "".join(p.read_text(errors="replace") for p in sorted(self.folder.glob("*.log")))
                raise RuntimeError(f"{self.name} does not come up:\n{log}")
            time.sleep(0.005)
        self._init = child_of(self._unshare.pid)

    def power_off(self) -> None:
        """A power failure: the link goes first, so nothing more leaves the host, then everything in it dies at once."""
        if not self._unshare:
            return
        self.cluster.network.cable(self.name, up=False)
        init = self._init or child_of(self._unshare.pid)
        if init:
            os.kill(init, signal.SIGKILL)  # unshare reaps it when its whole pid namespace is gone
        else:
            self._unshare.kill()
        self._unshare.wait(timeout=30)
        if self._unshare.stdin:
            self._unshare.stdin.close()
        self._unshare, self._init = None, 0
        self.cluster.network.disconnect(self.name)

    def reboot(self) -> None:
        """Power off and on: a new boot_id, an empty /tmp; the home survives."""
        self.power_off()
        self.power_on()

    # The network.

    def unplug(self, nic: int = 0) -> None:
        """Pull the cable: packets vanish, addresses and routes stay, connections hang."""
        self._touched = True
        self.cluster.network.cable(self.name, up=False, nic=nic)

    def plug(self) -> None:
        self.cluster.network.cable(self.name, up=True)

    def slow(self, *, rate: str = "", delay: str = "", loss: float = 0.0) -> None:
        """A slow link: see `Network.slow`, of which this is the host's side."""
        self._touched = True
        self.cluster.network.slow(self.name, rate=rate, delay=delay, loss=loss)

    def firewall(self, port: int | tuple[int, int], action: str = "drop") -> None:
        """Refuse TCP to a port or a range of ports from outside the host: "drop" in silence, or "reject"."""
        self._touched = True
        self.cluster.network.firewall(self.name, port, action)

    def wall(self, *open_ports: int | str, action: str = "drop") -> None:
        """A firewall as machines have it: new connections from outside to these ports, or ranges of them, alone."""
        self._touched = True
        self.cluster.network.wall(self.name, open_ports, action)

    def second_nic(self, subnet: str = "10.77.0") -> str:
        """A second interface, eth1, on a second wire that all hosts with one share; its address."""
        self._touched = True
        self.cluster.network.connect(self.name, self.number, nic=1, subnet=subnet)
        return f"{subnet}.{self.number}"

    def docker0(self) -> None:
        """The bridge 172.17.0.1, up, as Docker leaves it on every host with the same address."""
        self._touched = True
        self.cluster.network.docker0(self.name)

    # What goes on inside.

    def _enter(self, argv: Sequence[str] | str, *, root: bool, cwd: str, env: Mapping[str, str] | None) -> list[str]:
        if not self._init:
            raise RuntimeError(f"{self.name} is off")
        uid, user = (0, "root") if root else (self.cluster.uid, self.cluster.user)
        path = f"{self.bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:{sys.base_prefix}/bin"
        settings = {"HOME": str(self.home), "USER": user, "PATH": path, "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
        settings |= env or {}
        return [
            *("nsenter", "--target", str(self._init), "--net", "--uts", "--mount", "--pid", "--"),
            *("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--pdeathsig=KILL", "--"),
            *("env", "-i", "-C", cwd or str(self.home), *(f"{key}={value}" for key, value in settings.items())),
            *(["bash", "-c", argv] if isinstance(argv, str) else argv),
        ]

    def run(
        self,
        argv: Sequence[str] | str,
        *,
        root: bool = False,
        check: bool = True,
        timeout: float = 60.0,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run a program (a list) or bash text (a str) in the host, not through ssh, as the login user or root."""
        line = self._enter(argv, root=root, cwd=cwd, env=env)
        done = subprocess.run(line, input=input or "", capture_output=True, text=True, timeout=timeout)
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {argv!r} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def start(
        self,
        argv: Sequence[str] | str,
        *,
        root: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        **popen: Any,
    ) -> Inside:
        """Start a program in the host and return at once; killing the Popen kills it, and so does `heal`."""
        return Inside(self._enter(argv, root=root, cwd=cwd, env=env), **popen)

    def mount(self, *argv: str) -> None:
        """`mount ARGV…` as root inside the host, such as a small tmpfs over the home: a full disk."""
        self._touched = True
        self.run(["mount", *argv], root=True)

    def share_home(self) -> None:
        """Put the home that all hosts share (as NFS does) over this host's own."""
        shared = self.cluster.folder / "shared-home"
        if not shared.exists():
            shared.mkdir(mode=0o700)
            os.chown(shared, self.cluster.uid, self.cluster.uid)
        self.mount("--bind", str(shared), str(self.home))

    def path(self, inside: str | os.PathLike[str] = "") -> Path:
        """A path of the host (relative: to the login user's home) as the tests can open it; off, its home alone."""
        target = self.home / inside
        if self._init:
            return Path(f"/proc/{self._init}/root", *target.parts[1:])
        return self.folder / "home" / target.relative_to(self.home)

    def processes(self) -> list[Process]:
        """Every process of the host, zombies too; [] when it is off."""
        return processes_of(self._init)

    def jobs(self) -> list[Process]:
        """The processes that carry Rankdeck's run marker."""
        return [process for process in self.processes() if process.job]

    # sshd.

    def set_login_shell(self, shell: str) -> None:
        """The login user's shell from the next login on."""
        self._touched = True
        self._write_users(shell)

    def restart_sshd(self, *, limits: Sequence[str] = (), **options: str) -> None:
        """End sshd and every session, start it again with these options before the others: MaxSessions="1".

        `limits` are options of prlimit(1), for it and all its sessions: "--nofile=256:4096".
        """
        self._touched = True
        self.stop_sshd()
        self._write_sshd_config(options)
        (self.folder / "sshd.pid").unlink(missing_ok=True)
        self.run(["prlimit", *limits, *self._sshd] if limits else self._sshd, root=True)
        self.await_sshd()

    def stop_sshd(self) -> None:
        """End sshd and every session: connections are refused."""
        self._touched = True
        for process in self.processes():
            if process.name.startswith("sshd"):
                os.kill(process.outer, signal.SIGKILL)

    def sshd_sessions(self) -> list[Process]:
        """The sshd processes that serve one connection each (two a connection), never the one that listens."""
        listener = int((self.folder / "sshd.pid").read_text())
        return [p for p in self.processes() if p.name.startswith("sshd") and p.pid != listener and p.state != "Z"]

    def kill_sessions(self, sig: int = signal.SIGKILL) -> int:
        """Signal every session (SIGSTOP makes a connection that is open and silent); the number of processes."""
        sessions = self.sshd_sessions()
        for process in sessions:
            os.kill(process.outer, sig)
        return len(sessions)

    # Between tests.

    def heal(self, *, wait: float = 2.0) -> list[Process]:
        """Make the host as new: power on, links plain, home empty; returns the marked processes that it had to kill.

        Processes that carry the run marker get `wait` seconds to end by themselves.
        """
        deadline = time.monotonic() + wait
        left = self.jobs()
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = self.jobs()
        if self._touched or not self.is_on:
            self.power_off()
            self._write_sshd_config({})
            self._write_users("/bin/bash")
            self._touched = False
        else:
            listener = int((self.folder / "sshd.pid").read_text())
            while strays := [p for p in self.processes() if p.pid not in (1, listener)]:
                for process in strays:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process.outer, signal.SIGKILL)
        for folder in (self.folder / "home", self.bin):
            for entry in folder.iterdir():
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        self.boot()
        return left
