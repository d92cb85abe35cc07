"""Processes as /proc shows them, and signals that reach the right one or nobody.

Who a process is: (pid, start), with `start` in clock ticks since boot. A pid alone is a number that the kernel hands
out again. Source: proc_pid_stat(5), pidfd_open(2), prctl(2).
"""

from __future__ import annotations

import os
import signal
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

# Call numbers from the common table: the same on every architecture that Linux got after pidfds (and on x86, arm).
_SYS_PIDFD_SEND_SIGNAL = 424
_SYS_PIDFD_OPEN = 434

Ending = Tuple[Optional[int], Optional[int]]  # (code, signal): one of the two; both None where nobody saw it


class Stat(NamedTuple):
    """What is used of /proc/PID/stat: `state` is a letter, `start` in ticks since boot, `exit_code` as in wait(2)."""

    pid: int
    comm: str
    state: str
    ppid: int
    session: int
    start: int
    exit_code: int

    @property
    def dead(self) -> bool:
        """Ended: a zombie that waits for its parent, or less."""
        return self.state in "ZXx"


def read(path: str, size: int = 1 << 20) -> bytes:
    """The first `size` bytes of a small file; OSError as open(2) and read(2) raise it."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while size > 0:
            part = os.read(fd, min(size, 1 << 16))
            if not part:
                break
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def parse_stat(data: bytes) -> Stat:
    """One /proc/PID/stat line; the name may hold spaces and parentheses. ValueError for anything else."""
    opening, closing = data.find(b"("), data.rfind(b")")
    fields = data[closing + 2 :].split()
    if opening < 0 or closing < 0 or len(fields) < 50:
        raise ValueError("not a stat line")
    return Stat(
        pid=int(data[:opening]),
        comm=data[opening + 1 : closing].decode("utf-8", "replace"),
        state=fields[0].decode("ascii", "replace"),
        ppid=int(fields[1]),
        session=int(fields[3]),
        start=int(fields[19]),
        exit_code=int(fields[49]),
    )


def stat(pid: int) -> Optional[Stat]:
    """The process that has this pid now, or None."""
    try:
        return parse_stat(read("/proc/%d/stat" % pid))
    except (OSError, ValueError):
        return None


def is_running(pid: int, start: int) -> bool:
    """Whether this very process still runs; a zombie does not."""
    found = stat(pid)
    return found is not None and found.start == start and not found.dead


def pids() -> List[int]:
    """Every pid that /proc shows to this user."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def environ(pid: int) -> Dict[str, str]:
    """The environment that a process was started with; empty where it is gone, wiped or not ours to read."""
    try:
        data = read("/proc/%d/environ" % pid, 1 << 22)
    except OSError:
        return {}
    pairs = (entry.partition(b"=") for entry in data.split(b"\0") if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def command(pid: int, limit: int = 200) -> str:
    """The command line in at most `limit` characters; control characters are left to whoever shows it."""
    try:
        data = read("/proc/%d/cmdline" % pid, 4 * limit + 4)
    except OSError:
        return ""
    return data.rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")[:limit]


def boot_id() -> str:
    """The id of this boot, or "" where the kernel shows none: (pid, start) means nothing after a reboot."""
    try:
        return read("/proc/sys/kernel/random/boot_id").decode("ascii", "replace").strip()
    except OSError:
        return ""


def table() -> Dict[int, Stat]:
    """Every process in sight."""
    found = (stat(pid) for pid in pids())
    return {entry.pid: entry for entry in found if entry is not None}


def below(root: int, processes: Dict[int, Stat]) -> List[Stat]:
    """The descendants of `root`, parents before their children."""
    children: Dict[int, List[Stat]] = {}
    for entry in processes.values():
        children.setdefault(entry.ppid, []).append(entry)
    order: List[Stat] = []
    seen = {root}
    level = [root]
    while level:
        found = [child for pid in level for child in children.get(pid, []) if child.pid not in seen]
        seen.update(child.pid for child in found)
        order += found
        level = [child.pid for child in found]
    return order


def descendants(root: int) -> List[Stat]:
    """The descendants that `root` has now, zombies included, parents before their children."""
    return below(root, table())


def ancestors(pid: int) -> List[int]:
    """The parents of a process, nearest first."""
    found: List[int] = []
    entry = stat(pid)
    while entry is not None and entry.ppid > 0 and entry.ppid not in found:
        found.append(entry.ppid)
        entry = stat(entry.ppid)
    return found


def ending(status: int) -> Ending:
    """A wait(2) status as (code, signal)."""
    number = status & 0x7F
    return (None, number) if number else ((status >> 8) & 0xFF, None)


def observed_ending(pid: int, start: int) -> Ending:
    """How a zombie ended, as field 52 of its stat line tells users who may look; (None, None) once it is reaped."""
    found = stat(pid)
    if found is None or found.start != start or not found.dead:
        return None, None
    try:
        # The same permission guards field 52, which reads 0 to those who lack it, and this link, which says so.
        os.readlink("/proc/%d/cwd" % pid)
    except PermissionError:
        return None, None
    except OSError:
        pass
    return ending(found.exit_code)


def _libc() -> Any:
    """The C library, or None where this Python has no ctypes."""
    try:
        import ctypes

        return ctypes.CDLL(None, use_errno=True)
    except (ImportError, OSError, TypeError):
        return None


def control(option: int, value: int) -> bool:
    """prctl(option, value); False where it cannot be called or refuses."""
    libc = _libc()
    return libc is not None and libc.prctl(option, value, 0, 0, 0) == 0


def open_pidfd(pid: int) -> Optional[int]:
    """A descriptor that becomes readable when the process ends; None where it is gone or the kernel has none."""
    try:
        if hasattr(os, "pidfd_open"):
            return os.pidfd_open(pid)
        libc = _libc()
        fd = -1 if libc is None else int(libc.syscall(_SYS_PIDFD_OPEN, pid, 0))
    except (OSError, AttributeError):
        return None
    return fd if fd >= 0 else None


def _send_through(fd: int, number: int) -> bool:
    """Signal through a pidfd; False where this system offers no way to. ProcessLookupError if the process is gone."""
    if hasattr(signal, "pidfd_send_signal"):
        signal.pidfd_send_signal(fd, number)
        return True
    libc = _libc()
    return libc is not None and libc.syscall(_SYS_PIDFD_SEND_SIGNAL, fd, number, None, 0) == 0


def send(pid: int, start: int, number: int) -> bool:
    """Signal this very process; False, and nobody is signalled, if (pid, start) is not running or refuses.

    The pidfd is opened before the start time is read: what it holds cannot become another process in between.
    """
    fd = open_pidfd(pid)
    try:
        if pid <= 1 or not is_running(pid, start):
            return False
        if fd is None or not _send_through(fd, number):
            os.kill(pid, number)
        return True
    except OSError:
        return False
    finally:
        if fd is not None:
            os.close(fd)
