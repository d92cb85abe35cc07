"""One supervisor for one node of one run: starts torchrun, journals what happens, and leaves nothing behind.

It belongs to no login session and to no viewer: it is told what to do by files in the run folder (`job.json`,
`stop.json`) and answers in files (`journal.jsonl`). Holding the lock of the folder is being alive. Torchrun is its
child, and whatever escapes from torchrun becomes its child too (PR_SET_CHILD_SUBREAPER), so that ending a job is ending
a tree.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple

import engine
from engine.node import detach, proc, sweep
from engine.node.gauges import Gauges
from engine.node.journal import CREATE, RESERVE_BYTES, Journal, again, keep_reserve
from engine.node.kernel import Kernel
from engine.node.ranks import Poller, Ranks

TICK_SECONDS = 0.1
GRACE_SECONDS = 35.0  # torch elastic itself gives its workers 30
LEFTOVER_SECONDS = 5.0
LEFTOVER_TERM_SECONDS = 2.0
KILL_SECONDS = 10.0
VANISHED_SECONDS = 2.0
REQUEST_BYTES = 1 << 20


class Refused(Exception):
    """Nothing was started; the arguments are a code for programs and a sentence for people."""


class Job(NamedTuple):
    """What job.json asks for; `name` is "RUN/nK", `grace` in seconds."""

    name: str
    script: str
    grace: float
    metric_pattern: Optional[str]


def read_job(run_dir: str) -> Job:
    """job.json of a run folder. Refused if it is unreadable, of another version, or belongs to another folder."""
    path = os.path.join(run_dir, "job.json")
    try:
        asked = json.loads(proc.read(path, REQUEST_BYTES))
        name = "%s/n%d" % (asked["run"], asked["node_rank"])
        job = Job(name, str(asked["script"]), float(asked.get("grace", GRACE_SECONDS)), asked.get("metric_pattern"))
        version = asked["version"]
    except OSError as error:
        raise Refused("job", "cannot read %s: %s" % (path, error.strerror)) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused("job", "%s is not a job: %r" % (path, error)) from None
    if version != 1:
        raise Refused("version", "%s has version %r; this program knows version 1" % (path, version))
    place = run_dir.split(os.sep)[-3:]
    if sweep.JOB.fullmatch(name) is None or place != ["runs", *name.split("/")]:
        raise Refused("folder", "%s is not the run folder of %s" % (run_dir, name))
    return job


def read_secrets(fd: int) -> Dict[str, str]:
    """The secrets on the first line of a descriptor. They go into the environment of the child and nowhere else."""
    data = b""
    while not data.endswith(b"\n") and len(data) < REQUEST_BYTES:
        part = os.read(fd, 1 << 16)
        if not part:
            break
        data += part
    try:
        secrets = json.loads(data)["secrets"] if data.strip() else {}
        if all(isinstance(name, str) and isinstance(value, str) for name, value in secrets.items()):
            return dict(secrets)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    # The text itself may be a secret: it is in no message.
    raise Refused("secrets", "the first line on stdin is not an object of secrets")


def supervise(run_dir: str) -> None:
    """Start the job of a run folder and see it through.

    Reads the secrets on stdin and answers with one line of JSON on stdout: {ok, pid, start} of the supervisor once the
    job is started, or {error, text}. After that it has neither. The caller's own process ends before the answer comes.
    """
    run_dir = os.path.realpath(run_dir)
    umask = os.umask(0o077)
    try:
        secrets = read_secrets(0)
        job = read_job(run_dir)
        detach.daemonise()
        supervisor = Supervisor(run_dir, job)
        supervisor.start(secrets, umask)
    except Refused as refusal:
        code, text = refusal.args
        _answer({"error": code, "text": text})
        return
    del secrets
    _answer({"ok": True, "pid": os.getpid(), "start": supervisor.identity.start})
    detach.silence()
    supervisor.run()


def environment(run_dir: str, job: str, secrets: Dict[str, str]) -> Dict[str, str]:
    """What the processes of a job get: ours, the secrets, the marks by which they are found, and our programs."""
    marks = {sweep.MARKER: job, sweep.MARKER_DIR: run_dir, "RANKDECK_PROGRAM": sys.path[0]}
    return {**os.environ, **secrets, **marks}


def _answer(answer: Dict[str, Any]) -> None:
    try:
        os.write(1, json.dumps(answer).encode() + b"\n")
    except OSError:
        pass  # nobody listens any more; the journal says the same


def _trace() -> str:
    import traceback

    return traceback.format_exc()[-4000:]


class Life(NamedTuple):
    """Which time a job runs here: a batch system that starts it anew counts `restart` up, and attempts go on from
    `first_attempt`. `known_as` is its name there, "" where this program was started directly."""

    restart: int = 0
    first_attempt: int = 0
    known_as: str = ""


class Supervisor:
    """Construction takes lock and journal, `start` starts the child, `run` sees it through. Refused if it cannot."""

    def __init__(self, run_dir: str, job: Job, life: Life = Life()) -> None:  # noqa: B008 (immutable)
        self._run_dir = run_dir
        self._job = job
        self._life = life
        self._lock = self._take_lock()
        self._journal = self._open_journal()
        identity = proc.stat(os.getpid())
        assert identity is not None
        self.identity = identity
        self._poller = Poller()
        self._child = 0
        self._exit: Optional[proc.Ending] = None
        self._stop_seen: Optional[Tuple[int, int]] = None  # inode and mtime of the request that was read last
        self._stopped = False
        self._kill_at = float("inf")  # monotonic seconds
        self._asked: Optional[float] = None  # unix seconds of a SIGTERM
        self._present_at = time.monotonic()
        self._signalled: Set[Tuple[int, int]] = set()

    def _path(self, name: str) -> str:
        return os.path.join(self._run_dir, name)

    def _take_lock(self) -> int:
        try:
            return sweep.take_lock(self._run_dir)
        except BlockingIOError:
            raise Refused("already", "%s already has a supervisor" % self._job.name) from None
        except OSError as error:
            if self._life.known_as:
                return -1  # storage without locks; the batch system itself starts a job once, and knows if it lives
            raise Refused("folder", "cannot lock %s: %s" % (self._run_dir, error.strerror)) from None

    def _open_journal(self) -> Journal:
        try:
            journal = Journal(self._path("journal.jsonl"), self._path("reserve"), again=self._life.restart > 0)
            with contextlib.suppress(FileExistsError):
                keep_reserve(self._path("reserve"))
            return journal
        except FileExistsError:
            raise Refused("already", "%s has been started before" % self._job.name) from None
        except OSError as error:
            text = "no room for %d KiB in %s: %s" % (RESERVE_BYTES // 1024, self._run_dir, error.strerror)
            raise Refused("disk", text) from None

    # Start

    def start(self, secrets: Dict[str, str], umask: int) -> None:
        """Start the child. Refused if it cannot start; the journal then ends there."""
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "_asked", self._asked or time.time()))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        known_as: Dict[str, Any] = {"known_as": self._life.known_as, "restart": self._life.restart}
        self._journal.append(
            "supervisor",
            pid=self.identity.pid,
            start=self.identity.start,
            boot=proc.boot_id(),
            host=os.uname().nodename,
            python="%d.%d.%d" % sys.version_info[:3],
            version=engine.__version__,
            **(known_as if self._life.known_as else {}),
        )
        if not proc.control(proc.PR_SET_CHILD_SUBREAPER, 1):
            text = "this Python cannot call prctl: ranks outlive a killed supervisor, escaped processes are swept late"
            self._journal.append("warning", text=text)
        self._kernel = Kernel()
        others = set(proc.pids())
        try:
            self._child = self._start_child(environment(self._run_dir, self._job.name, secrets), umask)
        except (OSError, ValueError) as error:
            text = "cannot start the job: %s" % error
            self._journal.append("warning", text=text)
            self._journal.finish(5.0, code=127, signal=None, stopped=False)
            raise Refused("start", text) from None
        found = proc.stat(self._child)
        self._journal.append("torchrun", pid=self._child, start=found.start if found is not None else 0)
        self._poller.watch(self._child)
        self._ranks = self._follow_ranks(others)
        self._gauges = Gauges(self._run_dir, self._journal, self._job.metric_pattern)

    def _start_child(self, env: Dict[str, str], umask: int) -> int:
        log = os.open(self._path("torchrun.log"), again(CREATE, self._life.restart) | os.O_APPEND, 0o600)
        try:
            return detach.start(self._job.script, env, log, self._home(), umask)
        finally:
            os.close(log)

    def _follow_ranks(self, others: Set[int]) -> Ranks:
        return Ranks(self._run_dir, self._journal, self._poller, self._child, others, self._life.first_attempt)

    def _ask_kernel(self) -> None:
        for clue in self._kernel.look():
            self._journal.append("clue", source=clue.source, text=clue.text)

    def _home(self) -> str:
        home = os.path.expanduser("~")
        if os.path.isdir(home):
            return home
        self._journal.append("warning", text="the home folder %s is missing: starting in /" % home)
        return "/"

    # Run

    def run(self) -> None:
        """Follow the job to its end, clear what it leaves, and write the last record."""
        swept: Dict[str, Any] = {"killed": 0, "left": []}
        try:
            while self._running():
                self._step()
                if time.monotonic() >= self._kill_at:
                    self._kill_tree()
            self._journal.append("torchrun_exit", **self._exit_fields())
            self._await_leftovers()
        except Exception:
            self._journal.append("warning", text="the supervisor failed: " + _trace())
        try:
            self._kill_tree()
            swept = self._sweep()
            self._ranks.finish()
            self._ask_kernel()
        except Exception:
            self._journal.append("warning", text="clearing failed: " + _trace())
        self._journal.append("swept", **swept)
        self._gauges.read(self._ranks.streams, final=True)
        self._journal.finish(0.0 if self._vanished() else 600.0, stopped=self._stopped, **self._exit_fields())

    def _running(self) -> bool:
        return self._exit is None

    def exit_code(self) -> int:
        """How the launch command ended, as a shell would report it; 1 where nobody saw it."""
        code, number = self._exit or (1, None)
        return code if code is not None else 128 + (number or 0)

    def _exit_fields(self) -> Dict[str, Optional[int]]:
        code, number = self._exit or (None, None)
        return {"code": code, "signal": number}

    def _step(self, seconds: float = TICK_SECONDS) -> None:
        ended = self._poller.wait(min(seconds, self._ranks.pause()))
        self._ranks.ended(ended)
        if ended:
            self._ask_kernel()
        self._reap()
        self._ranks.look()
        self._gauges.read(self._ranks.streams)
        self._heed_stop()
        self._journal.flush()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._child:
                self._exit = proc.ending(status)
            else:
                self._ranks.reaped(pid, status)

    # Stop

    def _vanished(self) -> bool:
        if os.path.isdir(self._run_dir):
            self._present_at = time.monotonic()
        return time.monotonic() - self._present_at > VANISHED_SECONDS

    def _heed_stop(self) -> None:
        if self._asked is not None:
            at, self._asked = self._asked, None
            self._stop(self._job.grace, "SIGTERM to the supervisor", at)
        if self._vanished() and not self._stopped:
            self._stop(LEFTOVER_SECONDS, "the run folder is gone")
        try:
            found = os.stat(self._path("stop.json"))
            if self._stop_seen == (found.st_ino, found.st_mtime_ns):
                return
            self._stop_seen = (found.st_ino, found.st_mtime_ns)
            request = json.loads(proc.read(self._path("stop.json"), REQUEST_BYTES))
            self._stop(float(request.get("grace", self._job.grace)), str(request.get("reason", ""))[:1000])
        except OSError:
            return
        except (ValueError, TypeError, AttributeError, RecursionError):
            self._stop(self._job.grace, "a request that cannot be read")

    def _stop(self, grace: float, reason: str, at: Optional[float] = None) -> None:
        """Ask torchrun to end, and set the time of its end; another request can only bring that time nearer."""
        self._journal.append("stop", at=at, reason=reason, grace=grace)
        self._kill_at = min(self._kill_at, time.monotonic() + max(0.0, grace))
        if not self._stopped:
            self._stopped = True
            if self._exit is None:
                self._ask_child()

    def _ask_child(self) -> None:
        os.kill(self._child, signal.SIGTERM)  # our own unreaped child: this pid cannot be anybody else's

    # What is left

    def _tree(self) -> List[proc.Stat]:
        return [entry for entry in proc.descendants(os.getpid()) if not entry.dead]

    def _signal(self, entry: proc.Stat, number: int) -> None:
        if proc.send(entry.pid, entry.start, number):
            self._signalled.add((entry.pid, entry.start))

    def _await_leftovers(self) -> None:
        """Torchrun has ended: give the rest time to end by itself, then ask it to, one orphan after the other.

        Where the script is a shell that torchrun runs below, torchrun itself is such an orphan after a stop: while
        workers live it gets what is left of the grace period to end them in its own way.
        """
        own_end = time.monotonic() + LEFTOVER_SECONDS
        while not self._stopped and time.monotonic() < own_end and self._tree():
            self._step()
        asked: Set[int] = set()
        end = time.monotonic() + LEFTOVER_TERM_SECONDS
        while self._tree() and time.monotonic() < (self._kill_at if self._stopped and self._ranks.living() else end):
            for entry in self._tree():
                if entry.ppid == os.getpid() and entry.pid not in asked:
                    asked.add(entry.pid)
                    self._signal(entry, signal.SIGTERM)
            self._step()

    def _kill_tree(self) -> None:
        """SIGKILL everything below, again until nothing is left; gives up on what the kernel does not end."""
        deadline = time.monotonic() + KILL_SECONDS
        while time.monotonic() < deadline:
            tree = self._tree()
            if not tree:
                break
            for entry in tree:  # parents first: torchrun starts killed workers again
                self._signal(entry, signal.SIGKILL)
            self._step(0.02)
        self._reap()

    def _sweep(self) -> Dict[str, Any]:
        """Find what carries the marker and is not in our tree, end it too, and say what is left of either."""
        state_root = os.path.dirname(os.path.dirname(os.path.dirname(self._run_dir)))
        outside = sweep.kill(sweep.find(state_root, {self._job.name}), LEFTOVER_TERM_SECONDS)
        left = {entry["pid"]: entry for entry in outside["left"]}
        for entry in self._tree():
            left[entry.pid] = {"pid": entry.pid, "comm": entry.comm, "state": entry.state}
        ended = [key for key in self._signalled if key[0] not in left]
        return {"killed": len(ended) + outside["killed"], "left": list(left.values())}
