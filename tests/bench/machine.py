"""Programs and what they cost: wall time, CPU of a whole process tree, memory of one process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil

from tests.loopback.sshd import Lab, Sshd, public

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MIB = 1 << 20


class Cost(NamedTuple):
    """Seconds of one program and of every process below it that it has waited for."""

    wall: float
    cpu: float


def cost(argv: Sequence[str], env: Mapping[str, str] | None = None, stdout: int = subprocess.DEVNULL) -> Cost:
    """Run a program to its end. RuntimeError if it fails."""
    with tempfile.TemporaryFile() as errors:
        began = time.monotonic()
        process = subprocess.Popen(
            argv, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, stdout=stdout, stderr=errors
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"{argv[:4]} ended with {process.returncode}: {errors.read()[-2000:].decode()}")
    return Cost(wall, usage.ru_utime + usage.ru_stime)


def cpu(process: psutil.Process) -> float:
    """Seconds of CPU of one living process."""
    times = process.cpu_times()
    return float(times.user + times.system)


def rss(process: psutil.Process) -> int:
    """Resident bytes of one living process."""
    return int(process.memory_info().rss)


@contextlib.contextmanager
def loopback(count: int) -> Iterator[tuple[Lab, Sshd, list[str]]]:
    """One sshd that is `count` addresses of 127.0.0.0/8 to its clients; login shells have an empty home of their own.

    (The home of whoever runs this may have rc files that cost more than everything measured here.)
    """
    with tempfile.TemporaryDirectory(prefix="rankdeck-bench-") as name:
        folder = Path(name)
        home = folder / "home"
        home.mkdir(mode=0o700)
        lab = Lab(folder)
        path = "/usr/local/bin:/usr/bin:/bin"
        with lab.sshd(
            "0.0.0.0", known=False, LogLevel="INFO",
            MaxStartups=max(100, count), SetEnv=f"HOME={home} PATH={path}",
        ) as sshd:  # fmt: skip
            hosts = [f"127.0.{n // 200 + 1}.{n % 200 + 1}" for n in range(count)]
            lab.block("Host 127.0.*", f"Port {sshd.port}", f"User {lab.user}", "BatchMode yes")
            with lab.known_hosts.open("a") as file:
                file.writelines(f"[{host}]:{sshd.port} {public(sshd.host_key)}\n" for host in hosts)
            yield lab, sshd, hosts


def served(sshd: Sshd) -> list[psutil.Process]:
    """Rankdeck's programs at the far end of the connections to this sshd."""
    found = []
    for session in sshd.sessions():
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(session).children():
                if process.cmdline()[1:3] == ["-I", "-S"]:
                    found.append(process)
    return found
