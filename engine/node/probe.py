"""What a node is like, in one bounded look: every part answers, and one that fails says so beside the others.

ask     {"program": {"kind", "path", "args"}, "workdir", "activate", "ports": [29500], "free_ports": 3, "seed",
        "route_to": [NAME], "state": PATH, "agent": PATH, "seconds": 20, "parts": [NAME] or absent for all}
answer  {PART: {…} or {"error": TEXT}}: see `engine.preflight.observation` for the fields
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Callable, Dict, List, Optional

from engine.node import environment, proc

HASHED = 8 << 20
PARTS = ("system", "limits", "fabric", "python", "program", "gpus", "addresses", "ports", "jobs")

Json = Dict[str, Any]


def probe(ask: Json) -> Json:
    """Look at this node; the parts in `ask`, all by default. Raises nothing, and changes nothing on the node."""
    wanted = [part for part in PARTS if part in ask.get("parts", PARTS)]
    program = dict(ask.get("program") or {})
    kind, path = str(program.get("kind", "")), str(program.get("path", ""))
    seconds = float(ask.get("seconds", environment.SECONDS))
    agent = str(ask.get("agent", ""))
    visit: Optional[environment.Visit] = None
    answer: Json = {}
    failure = ""
    if {"python", "program", "gpus"} & set(wanted):
        # Bash and python start while the other parts are looked at here.
        try:
            module = path if kind == "module" else ""
            workdir, activate = str(ask.get("workdir", "")), str(ask.get("activate", ""))
            visit = environment.Visit(workdir, activate, module, seconds, agent)
        except Exception as error:  # what goes wrong in one part is that part's answer
            failure = _words(error)
    own: Dict[str, Callable[[], Json]] = {
        "system": lambda: _system(str(ask.get("state", ""))),
        "limits": _limits,
        "fabric": _fabric,
        "addresses": lambda: _addresses(ask),
        "ports": lambda: _ports(ask),
        "jobs": lambda: _jobs(str(ask.get("state", ""))),
    }
    for part, look in own.items():
        if part in wanted:
            answer[part] = _guarded(look)
    if visit is None:
        answer.update({part: {"error": failure} for part in wanted if part not in own})
        return answer
    found = visit
    python = _guarded(found.answer)
    launched: Dict[str, Callable[[], Json]] = {
        "python": lambda: dict(python, environments=_environments(found.workdir, str(python.get("python", "")))),
        "program": lambda: _program(kind, path, [str(arg) for arg in program.get("args") or ()], found, agent),
        "gpus": lambda: _gpus(found.env, seconds),
    }
    for part, look in launched.items():
        if part in wanted:
            answer[part] = _guarded(look)
    return answer


def _guarded(look: Callable[[], Json]) -> Json:
    try:
        return look()
    except Exception as error:  # see `probe`
        return {"error": _words(error)}


def _words(error: Exception) -> str:
    return "%s: %s" % (type(error).__name__, error)


def _system(state: str) -> Json:
    import pwd

    about = os.uname()
    try:
        account = pwd.getpwuid(os.getuid())
        user, home, login_shell = account.pw_name, account.pw_dir, account.pw_shell
    except KeyError:
        user, home, login_shell = str(os.getuid()), os.path.expanduser("~"), ""
    return {
        "hostname": about.nodename,
        "kernel": about.release,
        "machine": about.machine,
        "boot": proc.boot_id(),
        "python": "%d.%d.%d" % sys.version_info[:3],
        "uid": os.getuid(),
        "user": user,
        "home": home,
        "shell": login_shell,
        "cpu_count": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "time": time.time(),
        "state": _state(state),
    }


def _state(path: str) -> Json:
    """{path, writable, error, free [bytes], inodes}; a folder that is not there yet is judged by the nearest above."""
    there = path
    while there and not os.path.isdir(there) and os.path.dirname(there) != there:
        there = os.path.dirname(there)
    answer: Json = {"path": path, "writable": False, "error": "", "free": None, "inodes": None}
    if not there:
        return dict(answer, error="no state folder was named")
    try:
        room = os.statvfs(there)
        answer["free"] = room.f_bavail * room.f_frsize
        # A file system that makes inodes as it goes (btrfs) counts none.
        answer["inodes"] = room.f_favail if room.f_files else None
        answer["device"] = os.stat(there).st_dev
        if there == path:
            # Permission bits tell nothing about a read-only or full file system, or a quota: a file does.
            name = os.path.join(there, ".rankdeck-%d-%d" % (os.getpid(), time.monotonic_ns()))
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            os.unlink(name)
            answer["writable"] = True
        else:
            answer["writable"] = os.access(there, os.W_OK | os.X_OK)
            answer["error"] = "" if answer["writable"] else "%s cannot be written to" % there
    except OSError as error:
        answer["error"] = error.strerror or str(error)
    return answer


def _program(kind: str, path: str, args: List[str], visit: environment.Visit, agent: str) -> Json:
    """{kind, path, exists, is_file, executable, size, sha256, files, whole, disk, error}: `path` is where it was found.

    sha256 is "" for a file of more than 8 MiB, and for commands, which are nobody's copies; `files` are the sources
    beside it (`engine.node.sources`); `disk` is the working folder's, and `fed` as `engine.node.samples` has it.
    `missing`: the configs among the arguments that are not there.
    """
    from engine.node import samples, sources

    answer: Json = {"kind": kind, "path": "", "exists": False, "is_file": False, "disk": _disk(visit.cwd)}
    answer.update(size=None, sha256="", error="", fed=samples.look(kind, path, args, visit.cwd))
    answer["missing"] = sources.missing(args, visit.cwd)
    if kind == "module":
        answer["error"] = visit.module_error
        answer["path"] = visit.module or ""
        if visit.module is None and not visit.module_error:
            return dict(answer, error="not looked for: there is no Python to ask")
    elif kind == "command" and "/" not in path:
        import shutil

        answer["path"] = shutil.which(path, path=visit.env.get("PATH")) or ""
    else:
        answer["path"] = os.path.normpath(os.path.join(visit.cwd, os.path.expanduser(path)))
    found = answer["path"]
    if agent and found.startswith(agent + "/"):  # the training program that travels in ours, the same on every node
        return dict(answer, exists=True, is_file=True, **sources.look("", args, visit.cwd))
    answer.update(sources.look(os.path.dirname(found) if kind != "command" else "", args, visit.cwd))
    if not found or not os.path.exists(found):
        return answer
    answer.update(exists=True, is_file=os.path.isfile(found), executable=os.access(found, os.X_OK))
    if answer["is_file"]:
        answer["size"] = os.path.getsize(found)
        if kind != "command" and answer["size"] <= HASHED:
            import hashlib

            answer["sha256"] = hashlib.sha256(proc.read(found, HASHED)).hexdigest()
    return answer


def _disk(path: str) -> Json:
    """{path, free [bytes], inodes, device}: of the file system that a folder is on."""
    try:
        room = os.statvfs(path)
        inodes = room.f_favail if room.f_files else None
        return {"path": path, "free": room.f_bavail * room.f_frsize, "inodes": inodes, "device": os.stat(path).st_dev}
    except OSError:
        return {"path": path}


def _environments(workdir: str, python: str) -> List[Json]:
    from engine.node import venvs

    return venvs.look(workdir, python)


def _gpus(env: Dict[str, str], seconds: float) -> Json:
    from engine.node import gpus

    return gpus.look(env, seconds)


def _limits() -> Json:
    from engine.node import limits

    return limits.look()


def _fabric() -> Json:
    from engine.node import fabric

    return fabric.look()


def _addresses(ask: Json) -> Json:
    from engine.node import addresses

    return addresses.look([str(name) for name in ask.get("route_to") or ()])


def _ports(ask: Json) -> Json:
    from engine.node import ports

    seed = ask.get("seed")
    return ports.look([int(port) for port in ask.get("ports") or ()], int(ask.get("free_ports", 3)), seed)


def _jobs(state: str) -> Json:
    """{found: what still runs of ours, as `engine.node.sweep.find` has it, living: the jobs that are supervised}."""
    from engine.node import sweep

    found = sweep.find(state)[:1000] if state else []
    jobs = sorted({entry["job"] for entry in found})
    return {"found": found, "living": [job for job in jobs if sweep.alive(os.path.join(state, "runs", job))]}
