"""What a job on this node may use: limits of the session that starts it, /dev/shm, cgroups, and what ends with a login.

The supervisor of a run is a child of the program that answers here, so the limits are those of the ranks.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional

from engine.node import proc

_NO_LIMIT = 1 << 60  # cgroup v1 says "no limit" with a number near 2**63


def look() -> Dict[str, Any]:
    """{memlock, memlock_hard, nofile, nofile_hard, shm, cgroup, session, kill_user_processes, linger}.

    None: no limit, or not known. memlock and memlock_hard in bytes; shm and cgroup as below; session: whether a logout
    may end what was started here.
    """
    import resource

    def limit(number: int) -> List[Optional[int]]:
        return [None if value == resource.RLIM_INFINITY else value for value in resource.getrlimit(number)]

    soft, hard = limit(resource.RLIMIT_NOFILE)
    locked, most_locked = limit(resource.RLIMIT_MEMLOCK)
    return {
        "memlock": locked,
        "memlock_hard": most_locked,
        "nofile": soft,
        "nofile_hard": hard,
        "shm": shm(),
        "cgroup": cgroup(),
        "session": b"/session-" in _own_cgroups(),
        "kill_user_processes": kill_user_processes(),
        "linger": linger(),
    }


def shm() -> Dict[str, Optional[int]]:
    """{total, free} of /dev/shm in bytes; None where there is none."""
    try:
        room = os.statvfs("/dev/shm")
    except OSError:
        return {"total": None, "free": None}
    return {"total": room.f_blocks * room.f_frsize, "free": room.f_bavail * room.f_frsize}


def cgroup() -> Dict[str, Any]:
    """{memory [bytes], pids, cpus}: the narrowest limit from our own cgroup up to the root."""
    found: Dict[str, Any] = {"memory": None, "pids": None, "cpus": None}
    for line in _own_cgroups().decode("utf-8", "replace").splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0":
            for folder in _upwards("/sys/fs/cgroup", path):
                _narrow(found, "memory", _number(folder + "/memory.max"))
                _narrow(found, "pids", _number(folder + "/pids.max"))
                quota, period = [*_words(folder + "/cpu.max"), "max", "max"][:2]
                if quota.isdigit() and period.isdigit():
                    _narrow(found, "cpus", int(quota) / int(period))
        elif "memory" in controllers.split(","):
            for folder in _upwards("/sys/fs/cgroup/memory", path):
                _narrow(found, "memory", _number(folder + "/memory.limit_in_bytes"))
        elif "pids" in controllers.split(","):
            for folder in _upwards("/sys/fs/cgroup/pids", path):
                _narrow(found, "pids", _number(folder + "/pids.max"))
    return found


def _own_cgroups() -> bytes:
    try:
        return proc.read("/proc/self/cgroup")
    except OSError:
        return b""


def _upwards(root: str, path: str) -> List[str]:
    # In a container the path may lead out of what is mounted; the folders that are there are looked at.
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [root + "".join("/" + part for part in parts[:count]) for count in range(len(parts), -1, -1)]


def _narrow(found: Dict[str, Any], name: str, value: Any) -> None:
    if value is not None and value < _NO_LIMIT and (found[name] is None or value < found[name]):
        found[name] = value


def _words(path: str) -> List[str]:
    try:
        return proc.read(path).decode("ascii", "replace").split()
    except OSError:
        return []


def _number(path: str) -> Optional[int]:
    words = _words(path)
    return int(words[0]) if words and words[0].isdigit() else None


def kill_user_processes() -> bool:
    """Whether systemd-logind ends what a user leaves behind; logind.conf(5) tells the order of its files."""
    import glob

    files = ["/usr/lib/systemd/logind.conf", "/etc/systemd/logind.conf"]
    pieces = [path for top in ("/usr/lib", "/run", "/etc") for path in glob.glob(top + "/systemd/logind.conf.d/*.conf")]
    files += sorted(pieces, key=os.path.basename)
    value = False
    for path in files:
        try:
            lines = proc.read(path).decode("utf-8", "replace").splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, text = line.partition("=")
            if name.strip() == "KillUserProcesses":
                value = text.strip().lower() in ("yes", "true", "on", "1")
    return value


def linger() -> bool:
    from engine.node import who

    return os.path.exists("/var/lib/systemd/linger/" + who.user_name(os.getuid()))
