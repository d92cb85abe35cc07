"""One task of a Slurm step: `step RUN_FOLDER COMMAND…` stands before the command that srun starts.

It stays in the foreground, as Slurm's own child: what Slurm signals and counts is what runs here.

one torchrun a node    the task is a `Supervisor` like any other; its exit code is torchrun's
every rank a task      each task keeps its rank's output and end in files (`Rank`), and the first task of a node is
                       also the node's supervisor (`TaskSupervisor`), which journals what all of them write down

Rules:
- A run belongs to the first Slurm job that starts it: a job that was submitted twice by mistake ends here, at once.
- A task whose rank failed ends after its node's journal is whole: its end makes Slurm end all others.
- Slurm's SIGTERM comes to every process of the step, its SIGKILL so many seconds later (KillWait): the grace period
  of the run is shorter, so that the last record is written. Other signals are Slurm's to deliver, and ignored here.
- After a requeue the journal goes on, with attempts counted on.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import sys
import time
from typing import Any, Dict, List, Mapping, NamedTuple, NoReturn, Optional

from engine.node import detach, proc, supervise
from engine.node.supervise import Job, Life, Refused, Supervisor
from engine.node.tasks import Tasks, task_folder, write_down

REFUSED = 97
WAIT_SECONDS = 20.0
"""Seconds that a task whose rank failed waits for the journal of its node; a dead supervisor never writes it."""
PASSED_ON = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


class Place(NamedTuple):
    """Where in the job this task is, by Slurm's variables; `tasks` run on this node."""

    job: str
    node: int
    local: int
    rank: int
    tasks: int
    restart: int


def place(env: Mapping[str, str]) -> Place:
    """Refused where this is no task of Slurm."""
    try:
        node = int(env["SLURM_NODEID"])
        return Place(
            job=env["SLURM_JOB_ID"],
            node=node,
            local=int(env["SLURM_LOCALID"]),
            rank=int(env["SLURM_PROCID"]),
            tasks=tasks_per_node(env.get("SLURM_STEP_TASKS_PER_NODE") or env["SLURM_TASKS_PER_NODE"])[node],
            restart=int(env.get("SLURM_RESTART_COUNT") or 0),
        )
    except (KeyError, ValueError, IndexError) as error:
        raise Refused("slurm", "this is no task of a Slurm step: %r" % error) from None


def tasks_per_node(text: str) -> List[int]:
    """Slurm's `2(x3),1`: 2, 2, 2, 1."""
    counts: List[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if match is None:
            raise ValueError("not a number of tasks: %r" % part)
        counts += [int(match.group(1))] * int(match.group(2) or 1)
    return counts


def claim(folder: str, job: str) -> None:
    """Take the run for this Slurm job; Refused if another one has it. (A symlink is made with its text in one step.)"""
    path = os.path.join(folder, "claim")
    try:
        os.symlink(job, path)
    except FileExistsError:
        owner = os.readlink(path)
        if owner != job:
            text = "run %s is Slurm job %s; this is job %s, submitted a second time"
            raise Refused("claimed", text % (os.path.basename(folder), owner, job)) from None
    except OSError as error:
        text = "%s cannot be written on %s: %s; it must be on storage that the login and compute nodes share"
        raise Refused("folder", text % (folder, os.uname().nodename, error.strerror)) from None


def step(folder: str, command: List[str]) -> NoReturn:
    """Run one task to its end and exit as it does."""
    umask = os.umask(0o077)
    try:
        here = place(os.environ)
        folder = os.path.realpath(folder)
        claim(folder, here.job)
        asked = read_json(os.path.join(folder, "job.json"))
        secrets = read_json(os.path.join(folder, "secrets.json")) if asked.get("secrets") else {}
        run_dir = os.path.join(folder, "n%d" % here.node)
        os.makedirs(run_dir, 0o700, exist_ok=True)
        life = Life(here.restart, here.restart * (int(asked.get("max_restarts", 0)) + 1), here.job)
        job = Job(
            "%s/n%d" % (asked["run"], here.node),
            "exec " + shlex.join(command),
            float(asked["grace"]),
            asked.get("metric_pattern"),
        )
        if asked["style"] == "torchrun":
            code = watch_over(Supervisor(run_dir, job, life), secrets, umask)
        else:
            rank = Rank(run_dir, job, life, here, command, {str(k): str(v) for k, v in secrets.items()}, umask)
            code = watch_over(TaskSupervisor(run_dir, job, life, rank), {}, umask) if here.local == 0 else rank.run()
        if here.rank == 0 and code == 0:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, "secrets.json"))  # a job that failed may be started anew
    except Refused as refused:
        sys.stderr.write("rankdeck: %s: %s\n" % (os.uname().nodename, refused.args[1]))
        code = REFUSED
    except (OSError, KeyError, ValueError, TypeError) as error:
        sys.stderr.write("rankdeck: %s: the run folder %s: %s\n" % (os.uname().nodename, folder, error))
        code = REFUSED
    os._exit(code)


def read_json(path: str) -> Dict[str, Any]:
    found: Dict[str, Any] = json.loads(proc.read(path))
    return found


def watch_over(supervisor: Supervisor, secrets: Dict[str, str], umask: int) -> int:
    """See a node's job through in the foreground; the exit code of the task."""
    supervisor.start(secrets, umask)
    for number in PASSED_ON:
        signal.signal(number, signal.SIG_IGN)
    supervisor.run()
    return supervisor.exit_code()


class Rank:
    """One rank as a task of its own: its program, the files of its output, and a file that tells its start and end."""

    def __init__(
        self, run_dir: str, job: Job, life: Life, here: Place, command: List[str], secrets: Dict[str, str], umask: int
    ) -> None:
        self.here = here
        self.folder = os.path.join(run_dir, task_folder(life), str(here.local))
        self._run_dir = run_dir
        self._job = job
        self._command = command
        self._secrets = secrets
        self._umask = umask

    def start(self) -> int:
        """Start the program; its pid. OSError if it cannot be."""
        os.makedirs(self.folder, 0o700, exist_ok=True)
        out, err = (
            os.open(os.path.join(self.folder, name), detach.LOG_FLAGS, 0o600) for name in ("stdout.log", "stderr.log")
        )
        env = supervise.environment(self._run_dir, self._job.name, self._secrets)
        try:
            pid = detach.start(self._job.script, env, out, os.getcwd(), self._umask, err)
        finally:
            os.close(out)
            os.close(err)
        found = proc.stat(pid)
        write_down(self.folder, pid=pid, start=found.start if found is not None else 0, rank=self.here.rank)
        return pid

    def run(self) -> int:
        """Run to the end; the exit code of the task."""
        os.umask(0o077)
        for number in (*PASSED_ON, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # the program gets them from Slurm, too
        try:
            pid = self.start()
        except OSError as error:
            sys.stderr.write("rankdeck: %s cannot be started: %s\n" % (self._command[0], error))
            write_down(self.folder, pid=0, start=0, rank=self.here.rank)
            write_down(self.folder, code=127, signal=None)
            return 127
        code, ended_by = proc.ending(os.waitpid(pid, 0)[1])
        write_down(self.folder, code=code, signal=ended_by)
        if code != 0:
            self._await_journal()
        return status(code, ended_by)

    def _await_journal(self) -> None:
        deadline = time.monotonic() + self._job.grace + WAIT_SECONDS
        while time.monotonic() < deadline and not os.path.exists(os.path.join(os.path.dirname(self.folder), "done")):
            time.sleep(0.05)


class TaskSupervisor(Supervisor):
    """The supervisor of a node whose ranks are Slurm tasks: the first is its child, the others are watched by pid."""

    def __init__(self, run_dir: str, job: Job, life: Life, rank: Rank) -> None:
        super().__init__(run_dir, job, life)
        self._rank = rank
        self._failed = False

    def _start_child(self, env: Dict[str, str], umask: int) -> int:
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                os._exit(self._rank.run())
            os._exit(REFUSED)
        return pid

    def _follow_ranks(self, others: Any) -> Tasks:  # type: ignore[override]
        self._tasks = Tasks(self._run_dir, self._journal, self._poller, self._life, self._rank.here.tasks)
        return self._tasks

    def _running(self) -> bool:
        if self._tasks.failed and not self._failed and not self._stopped:
            # What torchrun does below one task: the first failure ends the ranks of its node.
            self._failed = True
            self._kill_at = min(self._kill_at, time.monotonic() + self._job.grace)
            for entry in self._tree():
                proc.send(entry.pid, entry.start, signal.SIGTERM)
        ending = (self._failed or self._stopped) and not self._tasks.living()
        return not (self._tasks.over or ending)

    def _exit_fields(self) -> Dict[str, Optional[int]]:
        code, number = self._tasks.worst
        return {"code": code, "signal": number}

    def _tree(self) -> List[proc.Stat]:
        """The programs of all tasks of this node and what is below them; never a task itself, which Slurm waits for."""
        table = proc.table()
        found: Dict[int, proc.Stat] = {}
        for worker in self._tasks.workers():
            entry = table.get(worker.pid)
            if entry is not None and entry.start == worker.start:
                for each in (entry, *proc.below(worker.pid, table)):
                    found[each.pid] = each
        return [entry for entry in found.values() if not entry.dead]

    def run(self) -> None:
        super().run()
        with contextlib.suppress(OSError):
            os.close(os.open(os.path.join(os.path.dirname(self._rank.folder), "done"), os.O_CREAT | os.O_WRONLY, 0o600))
        while self._exit is None:
            self._step()

    def _ask_child(self) -> None:
        """There is no launch command to ask: Slurm's SIGTERM has reached every rank."""


def status(code: Optional[int], number: Optional[int]) -> int:
    """How a shell would report it."""
    return code if code is not None else 128 + (number or 0)
