"""What a job has left on this machine: found by proof of belonging, ended in order, reported if it cannot be ended.

Proof is the marker (both variables) in the environment a process was started with, its stdout or stderr in the run
folder (a changed process title wipes the environment from /proc), or descent from such a process. A name proves
nothing. Processes of other users, this process and its ancestors are never touched.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import time
from typing import AbstractSet, Any, Dict, List, Optional, Tuple

from engine.node import proc

MARKER = "RANKDECK_JOB"
MARKER_DIR = "RANKDECK_RUN_DIR"
BATCH_LOG = "slurm.log"
"""In a run folder, what the batch system and its script write: they outlive the part of one node."""
JOB = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}/n[0-9]{1,6}")

KILL_SECONDS = 5.0
POLL_SECONDS = 0.02

Found = Dict[str, Any]


def _job_of_folder(path: str, runs: str) -> str:
    """The job whose run folder holds `path`, or ""."""
    if not path.startswith(runs + os.sep):
        return ""
    match = JOB.match(path[len(runs) + 1 :])
    if match is None or path[len(runs) + 1 + match.end() :][:1] not in ("", os.sep):
        return ""
    return match.group()


def _job_by_environ(pid: int, runs: str) -> str:
    values = proc.environ(pid)
    job = values.get(MARKER, "")
    if JOB.fullmatch(job) is None:
        return ""
    folder = values.get(MARKER_DIR, "")
    # The same run may exist below another state root, and that one is not asked about.
    return job if _job_of_folder(os.path.realpath(folder), runs) == job else ""


def _job_by_fd(pid: int, runs: str) -> str:
    for fd in (1, 2):
        try:
            path = os.readlink("/proc/%d/fd/%d" % (pid, fd))
            job = "" if os.path.basename(path) == BATCH_LOG else _job_of_folder(path, runs)
        except OSError:
            continue
        if job:
            return job
    return ""


def _mine(pid: int) -> bool:
    try:
        return os.stat("/proc/%d" % pid).st_uid == os.geteuid()
    except OSError:
        return False


def find(state_root: str, jobs: Optional[AbstractSet[str]] = None) -> List[Found]:
    """The running processes of these jobs ("run/nK"; None: of every job below this state root), parents first.

    Each is {job, pid, start, comm, cmd (at most 200 characters), state, ppid, why: "environ" | "fd" | "child"}.
    """
    runs = os.path.realpath(os.path.join(state_root, "runs"))
    spared = {os.getpid(), *proc.ancestors(os.getpid())}
    processes = {
        pid: entry
        for pid, entry in proc.table().items()
        if not entry.dead and pid not in spared and pid > 1 and _mine(pid)
    }
    claims: Dict[int, Tuple[str, str]] = {}
    for pid in processes:
        job = _job_by_environ(pid, runs)
        why = "environ" if job else "fd"
        job = job or _job_by_fd(pid, runs)
        if job:
            claims[pid] = (job, why)
    for pid in list(claims):
        for child in proc.below(pid, processes):
            # Parents come first: a child of two jobs, one started inside the other, is the nearer one's.
            if child.pid not in claims and child.ppid in claims:
                claims[child.pid] = (claims[child.ppid][0], "child")
    return [
        {
            "job": job,
            "pid": pid,
            "start": processes[pid].start,
            "comm": processes[pid].comm,
            "cmd": proc.command(pid),
            "state": processes[pid].state,
            "ppid": processes[pid].ppid,
            "why": why,
        }
        for pid, (job, why) in sorted(claims.items(), key=lambda claim: processes[claim[0]].start)
        if jobs is None or job in jobs
    ]


def kill(procs: List[Found], grace: float) -> Dict[str, Any]:
    """End these processes and what descends from them: SIGTERM, `grace` seconds, SIGKILL, at most 5 s more.

    Returns {killed: how many ended, left: [{pid, comm, state}]}; a process that is not the one found is passed over.
    """
    known = {(int(entry["pid"]), int(entry["start"])): str(entry.get("comm", "")) for entry in procs}
    spared = {os.getpid(), *proc.ancestors(os.getpid())}
    known = {key: comm for key, comm in known.items() if key[0] not in spared and proc.is_running(*key)}
    for key in list(known):
        proc.send(*key, signal.SIGTERM)
    _wait(known, grace)
    deadline = time.monotonic() + KILL_SECONDS
    while time.monotonic() < deadline:
        running = [key for key in known if proc.is_running(*key)]
        if not running:
            break
        processes = proc.table()
        for pid, _ in running:
            known.update(
                ((child.pid, child.start), child.comm)
                for child in proc.below(pid, processes)
                if child.pid not in spared and not child.dead
            )
        # Insertion order is parents first: a launcher that starts its workers again goes before them.
        for key in list(known):
            proc.send(*key, signal.SIGKILL)
        _wait(known, 0.2)
    left = [
        {"pid": entry.pid, "comm": entry.comm, "state": entry.state}
        for entry in (proc.stat(pid) for pid, start in known if proc.is_running(pid, start))
        if entry is not None
    ]
    return {"killed": len(known) - len(left), "left": left}


def _wait(known: Dict[Tuple[int, int], str], seconds: float) -> None:
    """Wait until none of them runs, at most so long."""
    deadline = time.monotonic() + seconds
    while any(proc.is_running(*key) for key in known) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def alive(run_dir: str) -> bool:
    """Whether a supervisor holds the lock of this run folder. Makes no file; OSError if that cannot be found out.

    The shared lock taken here lasts microseconds and never stands in the way of another reader; a supervisor that
    starts in those microseconds asks again (`take_lock`), so no answer given here ends a start.
    """
    try:
        fd = os.open(os.path.join(run_dir, "lock"), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def take_lock(run_dir: str, patience: float = 1.0) -> int:
    """The descriptor that holds the lock of a run folder until it is closed; BlockingIOError if another one has it."""
    fd = os.open(os.path.join(run_dir, "lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(fd)
                raise
            time.sleep(0.005)
