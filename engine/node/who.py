"""Who a process is, for a human: user, name, command line, and the run of ours that it belongs to."""

from __future__ import annotations

import os
from typing import Any, Dict

from engine.node import proc

MARKER = "RANKDECK_JOB"


def user_name(uid: int) -> str:
    """The name of a user id, or the number where the system has none for it."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def describe(pid: int) -> Dict[str, Any]:
    """{pid, user, comm, cmd, job}; "" for what is gone or not ours to read. `job` is "RUN/nK"."""
    try:
        user = user_name(os.stat("/proc/%d" % pid).st_uid)
    except OSError:
        user = ""
    stat = proc.stat(pid)
    return {
        "pid": pid,
        "user": user,
        "comm": "" if stat is None else stat.comm,
        "cmd": proc.command(pid),
        "job": proc.environ(pid).get(MARKER, "")[:96],
    }
