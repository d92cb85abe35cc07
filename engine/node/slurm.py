"""Slurm's own commands, run where the user logs in: submit, look, cancel, test.

Rules:
- A run is submitted once. Its folder is made before sbatch is called and names the job afterwards; when a reply was
  lost in between, the job is found again by its comment, which is the name of the run.
- Slurm's controller is everybody's: one squeue answers for all runs, and not more often than every LOOK_SECONDS.
- A job is cancelled only while its comment still names the run: Slurm hands out its numbers again.
- What Slurm says is passed on as it is; the workstation reads it (engine/slurm).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from typing import Any, Dict, List, Optional, Tuple

from engine.node import overlap, proc, tail

Json = Dict[str, Any]

LOOK_SECONDS = 10.0
SUBMIT_SECONDS = 60.0
ASK_SECONDS = 30.0
CANCEL_POLL_SECONDS = 2.0
KILL_WAIT = 30  # seconds; Slurm's default
JOB_ID = re.compile(r"[0-9]{1,12}")
JOB_OR_TASK = re.compile(r"[0-9]{1,12}(?:_[0-9]{1,9})?")
RUN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
FIELDS = "%A\x1f%i\x1f%T\x1f%r\x1f%k\x1f%V\x1f%S\x1f%e\x1f%N\x1f%j"
"""Of squeue(1): job, its name for people, state, reason, comment, submitted, starts, ends, nodes, name."""
ACCOUNTED = "JobIDRaw,State,ExitCode,Submit,Start,End,NodeList,Reason,JobName"
EXIT, CANCELLED = "exit", "cancelled"
"""Files of a run that was started inside a job: how its script ended, and that somebody wanted it to."""
KEPT = ("HOME", "USER", "LOGNAME", "SHELL", "LANG", "PATH", "SLURM_CONF")
"""What a job gets of the environment in which it is submitted, besides sbatch's own SBATCH_ variables."""
STEP = """\
#!/bin/sh
# Before the command that srun starts: Rankdeck's supervisor, with a python3 that this node has.
for p in python3 /usr/bin/python3 /usr/local/bin/python3 {python}; do
    if command -v "$p" >/dev/null 2>&1 && "$p" -c 'import sys; sys.exit(sys.version_info < (3, 8))'; then
        exec "$p" -I -S {program} step {folder} "$@"
    fi
done
echo "rankdeck: there is no python3 of version 3.8 or later on $(hostname)" >&2
exit 97
"""


class Failed(Exception):
    """A command of Slurm's said no; `code` is stable, the text is Slurm's own."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Slurm:
    """The commands, for one client. `program` is our zip, on storage that the compute nodes see."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._looked = -LOOK_SECONDS
        self._seen: Json = {}
        self._overlap = overlap.Overlap(program)

    def submit(self, folder: str, texts: Dict[str, str], job: Json, secrets: Dict[str, str]) -> Json:
        """Submit `texts["script"]` from the run's folder: {"job": id}, and "again" where that had been done before.

        `texts["record"]` is the workstation's own, for other workstations to find.
        """
        script = texts["script"]
        if shutil.which("sbatch") is None:
            raise Failed("no-slurm", "there is no sbatch on the PATH of %s" % os.uname().nodename)
        os.makedirs(os.path.dirname(folder), 0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        path = os.path.join(folder, "job.sbatch")
        lock = os.open(os.path.join(folder, "submit.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with contextlib.suppress(OSError):  # storage without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            known = _read(os.path.join(folder, "job"))
            if os.path.exists(path) and _read(path) != script:
                raise Failed("exists", "%s is there already, for another job" % folder)
            if known:
                return {"job": known, "again": True}
            if os.path.exists(path):
                found = self._by_comment(os.path.basename(folder))
                if found:
                    _write(os.path.join(folder, "job"), found)
                    return {"job": found, "again": True}
            _write(os.path.join(folder, "record.json"), texts["record"])
            return {"job": self._submit(folder, path, script, job, secrets)}
        finally:
            os.close(lock)

    def _submit(self, folder: str, path: str, script: str, job: Json, secrets: Dict[str, str]) -> str:
        grace = min(float(job["grace"]), max(1.0, self._kill_wait() - 5.0))
        _write(os.path.join(folder, "job.json"), json.dumps(dict(job, grace=grace, secrets=sorted(secrets))))
        if secrets:
            _write(os.path.join(folder, "secrets.json"), json.dumps(secrets))
        os.makedirs(os.path.join(folder, "n0"), 0o700, exist_ok=True)
        step = os.path.join(folder, "step")
        quoted = {"python": sys.executable or "python3", "program": self._program, "folder": folder}
        _write(step, STEP.format(**{name: shlex.quote(value) for name, value in quoted.items()}), 0o700)
        _write(path, script)
        env = {name: value for name, value in os.environ.items() if name in KEPT or name.startswith("SBATCH_")}
        env["RANKDECK_STEP"] = step
        if job.get("allocation"):
            return self._begin(folder, str(job["allocation"]), env)
        try:
            # Slurm's own words go to where the journal of the first node is, and travel like it.
            argv = ["sbatch", "--parsable", "--output=" + os.path.join(folder, "n0", "slurm.log"), path]
            done = _run(argv, SUBMIT_SECONDS, cwd=folder, env=env)
        except subprocess.TimeoutExpired:
            text = "sbatch gave no answer within %d s; whether the job is queued is not known yet" % SUBMIT_SECONDS
            raise Failed("unknown", text) from None
        number = str(done["out"]).strip().partition(";")[0]
        if done["code"] != 0 or not JOB_ID.fullmatch(number):
            shutil.rmtree(folder, ignore_errors=True)  # what was refused must not look like a run
            raise Failed("sbatch", (done["err"] or done["out"]).strip() or "sbatch ended with %s" % done["code"])
        _write(os.path.join(folder, "job"), number)
        return number

    def _begin(self, folder: str, job: str, env: Dict[str, str]) -> str:
        """Run the script here, whose srun starts a step inside a job that runs. It is named as the run is."""
        run = os.path.basename(folder)
        done = _ask(["scontrol", "update", "jobid=" + job, "comment=" + run])
        if done["code"] != 0:
            shutil.rmtree(folder, ignore_errors=True)
            raise Failed("sbatch", done["err"].strip())
        _write(os.path.join(folder, "job"), job)
        with open(os.path.join(folder, "n0", "slurm.log"), "ab") as log:
            subprocess.Popen(
                ["sh", "-c", "bash -l job.sbatch; echo $? > %s" % EXIT],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=env,
                start_new_session=True,
            )
        return job

    def _kill_wait(self) -> float:
        with contextlib.suppress(subprocess.TimeoutExpired, OSError):
            found = re.search(r"^KillWait\s*=\s*(\d+)", _run(["scontrol", "show", "config"], ASK_SECONDS)["out"], re.M)
            if found:
                return float(found.group(1))
        return float(KILL_WAIT)

    def _by_comment(self, run: str) -> Optional[str]:
        """The job of a run that was submitted before; Failed where Slurm cannot tell: then nothing may be submitted."""
        said = self._squeue()
        if said["code"] != 0:
            raise Failed(
                "unknown", "whether the run was submitted before cannot be found out: %s" % said["err"].strip()
            )
        for line in str(said["out"]).split("\n"):
            fields = line.split("\x1f")
            if len(fields) > 4 and fields[4] == run:
                return fields[0]
        return None

    def _squeue(self) -> Json:
        return _ask(["squeue", "-h", "-t", "all", "-u", str(os.geteuid()), "-o", FIELDS])

    def find(self, folder: str) -> Json:
        """The job of a run that was submitted: {"job": id}, "" where there is none."""
        known = _read(os.path.join(folder, "job"))
        return {"job": known or self._by_comment(os.path.basename(folder)) or ""}

    def named(self, runs: str, job: str) -> Json:
        """The record of the run that is this job: {"record"}; Failed where it is none of ours."""
        if not JOB_OR_TASK.fullmatch(job):
            raise Failed("job", "not the number of a job: %r" % job)
        run = self._state(job)[1]
        if not run:
            owners = (name for name in os.listdir(runs) if _read(os.path.join(runs, name, "job")) == job)
            run = max(owners, key=lambda name: os.stat(os.path.join(runs, name)).st_mtime, default="")
        record = _read(os.path.join(runs, run, "record.json")) if RUN.fullmatch(run) else ""
        if not record:
            raise Failed("job", "job %s is no run of Rankdeck's below %s" % (job, runs))
        return {"record": record}

    def adopt(self, runs: str, job: str) -> Json:
        """A folder through which the output of a job is read that came about by other means, and what Slurm says of it:
        {"run", "shown", "hosts"}. Of an array, one task ("12_3"): each has its own number, and its own folder.
        """
        if not JOB_OR_TASK.fullmatch(job):
            raise Failed("job", "not the number of a job: %r" % job)
        said = _ask(["scontrol", "show", "job", job])
        if said["code"] != 0:
            raise Failed("job", "Slurm tells nothing of job %s: %s" % (job, said["err"].strip()))
        shown = said["out"].split("\n\n")[0]
        told = dict(re.findall(r"^\s*(JobId|SubmitTime|NodeList|StdOut|StdErr)=(\S.*?)(?: \w+=.*)?$", shown, re.M))
        tasks = re.findall(r" ArrayTaskId=(\S+)", said["out"])
        if len(tasks) > 1 or not all(task.isdigit() for task in tasks):
            text = "job %s is an array, tasks %s: name one that has begun, such as %s_%s"
            first = next((task for task in tasks if task.isdigit()), "0")
            raise Failed("job", text % (job, ",".join(tasks), job.partition("_")[0], first))
        name = re.findall(r"^JobId=.* JobName=(.*)$", shown, re.M)
        if not name or "JobId" not in told or "StdOut" not in told:
            raise Failed("job", "Slurm does not tell where job %s writes" % job)
        array = re.findall(r" ArrayJobId=(\d+)", shown) or [told["JobId"]]
        # Some versions tell the pattern, and not the file.
        known = {"j": told["JobId"], "A": array[0], "a": "".join(tasks), "x": name[0], "%": "%"}
        run = "job-%s-%s" % (told["JobId"], re.sub(r"\D", "", told.get("SubmitTime", "")))
        place = os.path.join(runs, run, "n0", "ranks", "job", "attempt_0", "0")
        os.makedirs(place, 0o700, exist_ok=True)
        for stream, key in (("stdout.log", "StdOut"), ("stderr.log", "StdErr")):
            if key in told and (key == "StdOut" or told[key] != told["StdOut"]):
                file = re.sub("%([jAax%])", lambda match: known[match.group(1)], told[key])
                with contextlib.suppress(FileExistsError):
                    os.symlink(file, os.path.join(place, stream))
        _write(os.path.join(runs, run, "job"), told["JobId"])
        _write(os.path.join(runs, run, tail.ADOPTED), name[0])
        hosts = _ask(["scontrol", "show", "hostnames", told.get("NodeList", "(null)")])["out"].split()
        return {"run": run, "shown": shown, "hosts": [] if hosts == ["(null)"] else hosts}

    def ended(self, folder: str) -> str:
        """How a script that was started inside a job has ended, as a state of Slurm's; "" while it runs."""
        code = _read(os.path.join(folder, EXIT)).strip()
        if code and os.path.exists(os.path.join(folder, CANCELLED)):
            return "CANCELLED"
        return "" if not code else "COMPLETED" if code == "0" else "FAILED"

    def _end_step(self, folder: str, job: str, seconds: float) -> Json:
        """Cancel what runs inside a job, and leave the job."""
        _write(os.path.join(folder, CANCELLED), "")
        began = time.monotonic()
        for number, until in (("TERM", seconds - 55.0), ("KILL", seconds)):
            said = _ask(["squeue", "-h", "-s", "-j", job, "-o", "%i\x1f%j"])
            for line in str(said["out"]).splitlines():
                step, _, name = line.partition("\x1f")
                if name == os.path.basename(folder):
                    _ask(["scancel", "--signal=" + number, step])  # without a signal a step is killed at once
            while not self.ended(folder) and time.monotonic() - began < until:
                time.sleep(0.2)
        return {"state": self.ended(folder) or "RUNNING"}

    def look(self, ids: List[str]) -> Json:
        """What Slurm says of the user's jobs: {"squeue", "sacct", "scontrol": {id}, "age"}, each {code, out, err}.

        accounting and controller are asked for the jobs `ids` besides. An answer is up to LOOK_SECONDS old.
        """
        age = time.monotonic() - self._looked
        if age < LOOK_SECONDS and set(ids) <= set(self._seen.get("scontrol", ())):
            return dict(self._seen, age=age)
        ids = [each for each in ids if JOB_ID.fullmatch(each)]
        seen: Json = {"squeue": self._squeue(), "scontrol": {}}
        if seen["squeue"]["code"] == 124:
            return dict(seen, age=0.0)  # the controller is away: nobody waits for the same answer twice
        for each in ids:
            seen["scontrol"][each] = _ask(["scontrol", "show", "job", "-o", each])
        if ids and shutil.which("sacct") is not None:
            argv = ["sacct", "-X", "-n", "-P", "--delimiter=\x1f", "--duplicates", "-j", ",".join(ids)]
            seen["sacct"] = _ask([*argv, "-o", ACCOUNTED])
        self._seen, self._looked = seen, time.monotonic()
        return dict(seen, age=0.0)

    def sample(self, job: str, parts: List[int]) -> Json:
        """What the nodes of a running job do; see `overlap.Overlap.take`."""
        if not JOB_ID.fullmatch(job):
            raise Failed("job", "not the number of a job: %r" % job)
        return self._overlap.take(job, parts)

    def cancel(self, folder: str, job: str, seconds: float) -> Json:
        """Cancel the run's job and wait until it is over: {"state"}, "" where Slurm knows the job no more."""
        if not JOB_ID.fullmatch(job):
            raise Failed("job", "not the number of a job: %r" % job)
        state, comment, name = self._state(job)
        if not state:
            return {"state": ""}
        if comment != os.path.basename(folder) and name != (_read(os.path.join(folder, tail.ADOPTED)) or None):
            raise Failed("reused", "job %s is another one by now: %s" % (job, comment or name))
        if json.loads(_read(os.path.join(folder, "job.json")) or "{}").get("allocation"):
            return self._end_step(folder, job, seconds)
        done = _ask(["scancel", job])
        if done["code"] != 0:
            raise Failed("scancel", done["err"].strip())
        deadline = time.monotonic() + seconds
        while state in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD"):
            if time.monotonic() > deadline:
                break
            time.sleep(CANCEL_POLL_SECONDS if state != "PENDING" else 0.2)
            state = self._state(job)[0]
        self._looked = -LOOK_SECONDS
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(folder, "secrets.json"))
        return {"state": state}

    def _state(self, job: str) -> Tuple[str, str, str]:
        """State, comment and name of a job; empty ones where Slurm does not know it."""
        said = _ask(["squeue", "-h", "-t", "all", "-j", job, "-o", "%T\x1f%k\x1f%j"])
        if said["code"] != 0 and "Invalid job id" not in said["err"]:
            raise Failed("squeue", said["err"].strip())
        state, comment, *name = [*said["out"].split("\n")[0].split("\x1f"), "", ""][:3]
        return state, comment, name[0]

    def test(self, script: str) -> Json:
        """`sbatch --test-only`: whether Slurm would take the script, and when it would start."""
        if shutil.which("sbatch") is None:
            raise Failed("no-slurm", "there is no sbatch on the PATH of %s" % os.uname().nodename)
        return _answer(lambda: _run(["sbatch", "--test-only"], ASK_SECONDS, input=script))

    def cluster(self) -> Json:
        """What there is to ask for: partitions, nodes and what is free now, limits, and the user's accounts."""
        user = os.environ.get("USER") or str(os.geteuid())
        return {
            "sinfo": _ask(["sinfo", "-h", "-o", "%R\x1f%a\x1f%l\x1f%D\x1f%T\x1f%c\x1f%m\x1f%G\x1f%f"]),
            "partitions": _ask(["scontrol", "show", "partition", "-o"]),
            "config": _ask(["scontrol", "show", "config"]),
            "accounts": _ask(["sacctmgr", "-n", "-P", "show", "assoc", "user=" + user, "format=account,partition,qos"])
            if shutil.which("sacctmgr") is not None
            else {"code": 127, "out": "", "err": "no sacctmgr"},
        }


def _run(
    argv: List[str],
    seconds: float,
    *,
    cwd: Optional[str] = None,
    env: Optional[Dict[str, str]] = None,
    input: Optional[str] = None,
) -> Json:
    """{code, out, err}; subprocess.TimeoutExpired, and OSError where it cannot be started."""
    done = subprocess.run(
        argv,
        input=(input or "").encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=seconds,
        cwd=cwd,
        env=env,
        start_new_session=True,
        check=False,
    )
    out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
    return {"code": done.returncode, "out": out, "err": err[-4000:]}


def _answer(work: Any) -> Json:
    try:
        found: Json = work()
        return found
    except subprocess.TimeoutExpired as late:
        return {"code": 124, "out": "", "err": "no answer from %s within %d s" % (late.cmd[0], late.timeout)}
    except OSError as error:
        return {"code": 127, "out": "", "err": "%s: %s" % (error.filename, error.strerror)}


def _ask(argv: List[str]) -> Json:
    """Run a command that tells something; its times are in UTC."""
    return _answer(lambda: _run(argv, ASK_SECONDS, env=dict(os.environ, TZ="UTC")))


def _read(path: str) -> str:
    """The text of a file, "" where there is none."""
    try:
        return proc.read(path, 1 << 24).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _write(path: str, text: str, mode: int = 0o600) -> None:
    """Write beside, bring to the disk, rename."""
    beside = "%s.%d" % (path, os.getpid())
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(fd)
    os.rename(beside, path)
