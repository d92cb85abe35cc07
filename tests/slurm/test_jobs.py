"""From a workstation over SSH to a login node: jobs submitted, waited for, watched, found again and stopped."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from engine import runs
from engine.cli.plain import JsonLines
from engine.launching import opened
from engine.slurm import session
from engine.transport import Connector
from tests.cluster.workstation import VENV, Workstation, sums, wait_until

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.slurm.slurm import Slurm

TRAIN = ("--set", "steps=20", "--set", "log_every=1")
COUNT = """\
import os, sys, time
rank = os.environ["SLURM_PROCID"]
for number in range(int(float(sys.argv[1]) * 10)):
    print(f"rank {rank} step {number} loss {9 - number / 100}", flush=True)
    time.sleep(0.1)
    if sys.argv[2:] == [rank] and number == 10:
        raise ValueError(f"the data of rank {rank} is damaged")
"""
"""A rank that counts for so many seconds; the one that is named raises after a second."""
SAVE = """\
import os, signal, time
signal.signal(signal.SIGUSR1, lambda number, frame: print("saved", flush=True))
secret, cpus = os.environ["TOKEN"], os.environ["SLURM_CPUS_PER_TASK"]
print(f"begun with {len(secret)} secret characters, {cpus} CPUs a task", flush=True)
while True:
    time.sleep(1)
"""
"""A rank that saves when it is signalled, and goes on."""


def profile(user: Workstation, name: str, *, program: str = "", extra: str = "", **slurm: Any) -> str:
    """Write the profile of a job; its path. Without a program, it trains for real."""
    asked = {"login": "node4", "nodes": 2, "gpus_per_node": 1, **slurm}
    train = f"program: {{kind: module, path: engine.train, args: {json.dumps(TRAIN)}, activate: {json.dumps(VENV)}}}\n"
    path = user.home / f"{name}.yaml"
    path.write_text(
        f"version: 1\nname: {name}\nlauncher: slurm\nslurm: {json.dumps(asked)}\nenv: {{OMP_NUM_THREADS: '1'}}\n"
        + (program or train) + extra
    )  # fmt: skip
    return str(path)


def counting(slurm: Slurm, user: Workstation, name: str, *args: str, **more: Any) -> str:
    """The profile of a job whose ranks count."""
    slurm.path("count.py").write_text(COUNT)
    argv = json.dumps([str(slurm.cluster.home / "count.py"), *args])
    program = f"program: {{kind: command, path: python3, args: {argv}, activate: {json.dumps(VENV)}}}\n"
    return profile(user, name, program=program, **{"style": "direct", **more})


def there(slurm: Slurm, run: str) -> Path:
    """A run's folder in the home that login and compute nodes share."""
    return slurm.path(f".local/state/rankdeck/runs/{run}")


def job_of(slurm: Slurm, run: str) -> str:
    return (there(slurm, run) / "job").read_text()


def await_line(slurm: Slurm, run: str, text: str, *, seconds: float = 60.0) -> None:
    """Until a rank of the run has written this."""
    logs = "n*/ranks/*/attempt_*/*/stdout.log"
    wait_until(lambda: any(text in log.read_text() for log in there(slurm, run).glob(logs)), seconds=seconds)


def outcome(user: Workstation, run: str) -> str:
    for line in user.run("runs", "--json").stdout.splitlines():
        if (listed := json.loads(line))["run"] == run:
            return str(listed["summary"]["outcome"])
    raise AssertionError(f"no run {run}")


def ended(viewer: subprocess.Popen[str], user: Workstation, number: int = 0, seconds: float = 90.0) -> tuple[int, str]:
    """Exit code of a viewer and what it told."""
    code = viewer.wait(seconds)
    return code, (user.home / f"viewer-{number}.err").read_text()


@pytest.mark.parametrize("style", ["torchrun", "direct"])
def test_a_job_trains_on_two_nodes_and_its_logs_and_throughput_come_here(
    slurm: Slurm, user: Workstation, style: str
) -> None:
    done = user.run("launch", profile(user, "train", style=style), timeout=150)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^0 node1 \| step 20/20  loss .* tokens/s [\d,]+", done.stdout, re.MULTILINE)
    assert "1 node2 | step 20/20" in done.stdout
    assert re.search(r"succeeded .* step 20/20 .* tokens/s", done.stderr)
    run = json.loads(user.run("runs", "--json").stdout)["run"]
    assert sums(there(slurm, run)).items() <= sums(user.folder(run)).items()


def test_a_job_that_waits_says_why_and_is_cancelled_and_so_is_one_that_runs(slurm: Slurm, user: Workstation) -> None:
    running = user.launch(counting(slurm, user, "long", "600", nodes=3, gpus_per_node=8, ranks_per_node=1))
    await_line(slurm, running, "step 3 ")
    waiting = user.launch(counting(slurm, user, "later", "1", nodes=1))
    viewer = user.start("attach", waiting)
    told = user.home / "viewer-0.err"
    wait_until(lambda: "for nodes to become free (Resources), expected to start" in told.read_text(), seconds=60)
    stopped = user.run("stop", waiting)
    assert (stopped.returncode, "cancelled" in stopped.stdout) == (0, True), stopped.stderr
    assert ended(viewer, user)[0] == 1
    assert outcome(user, waiting) == "stopped"
    stopped = user.run("stop", running, "--grace", "3")
    assert (stopped.returncode, "cancelled" in stopped.stdout) == (0, True), stopped.stderr
    assert outcome(user, running) == "stopped"
    assert not slurm.sh("squeue -h").strip()
    assert not any(host.jobs() for host in slurm.nodes)


@pytest.mark.parametrize("style", ["torchrun", "direct"])
def test_a_rank_that_fails_is_named_with_its_words_and_ends_the_others(
    slurm: Slurm, user: Workstation, style: str
) -> None:
    done = user.run("launch", counting(slurm, user, "wrong", "600", "1", style=style))
    assert done.returncode == 1, done.stderr
    assert re.search("first failure: .*rank 1 .*node2.*the data of rank 1 is damaged", done.stderr), done.stderr
    assert not any(host.jobs() for host in slurm.nodes)


def test_ranks_are_signalled_before_the_time_limit_and_a_job_whose_time_is_over_says_so(
    slurm: Slurm, user: Workstation
) -> None:
    """Below torchrun, which would die of the signal. Slurm looks at its clocks every 30 s."""
    slurm.path("save.py").write_text(SAVE)
    user.env["TOKEN"] = "a-secret-value"
    argv = json.dumps([str(slurm.cluster.home / "save.py")])
    program = f"program: {{kind: command, path: python3, args: {argv}, activate: {json.dumps(VENV)}}}\n"
    asked = {"time": "1", "signal": "USR1@50", "cpus_per_task": 2}
    run = user.launch(profile(user, "slow", program=program, extra="secrets: [TOKEN]\n", **asked))
    await_line(slurm, run, "begun with 14 secret characters, 2 CPUs a task")
    kept = [path for path in there(slurm, run).rglob("*") if path.is_file() and b"a-secret-value" in path.read_bytes()]
    assert [(path.name, path.stat().st_mode & 0o777) for path in kept] == [("secrets.json", 0o600)]
    await_line(slurm, run, "saved")
    slurm.login.run(["scontrol", "update", f"jobid={job_of(slurm, run)}", "endtime=now"], root=True)
    done = user.run("attach", run)
    assert done.returncode == 1
    assert "time limit" in done.stderr, done.stderr
    assert "slurm.time" in done.stderr
    assert outcome(user, run) == "failed"


def test_a_job_whose_place_is_taken_says_so(slurm: Slurm, user: Workstation) -> None:
    run = user.launch(counting(slurm, user, "low", "600", nodes=3, gpus_per_node=8, ranks_per_node=1))
    await_line(slurm, run, "step 3 ")
    viewer = user.start("attach", run)
    slurm.sh("sbatch --partition=urgent --nodes=3 --gres=gpu:8 --output=/dev/null --wrap=true")
    code, told = ended(viewer, user)
    assert (code, "a job of higher priority took its place (PREEMPTED)" in told) == (1, True), told
    assert outcome(user, run) == "failed"


def test_a_node_that_loses_its_power_is_named(slurm: Slurm, user: Workstation) -> None:
    run = user.launch(counting(slurm, user, "power", "600", requeue=False))
    await_line(slurm, run, "step 3 ")
    viewer = user.start("attach", run)
    slurm.nodes[1].power_off()
    slurm.login.run(["scontrol", "update", "nodename=node2", "state=down", "reason=power"], root=True)  # or wait 20 s
    code, told = ended(viewer, user)
    assert code == 1, told
    assert "node2" in told
    assert "NODE_FAIL" in told, told
    assert outcome(user, run) == "failed"


def test_a_controller_that_is_away_for_a_while_is_no_failure_of_the_run(slurm: Slurm, user: Workstation) -> None:
    run = user.launch(counting(slurm, user, "alone", "600"))
    await_line(slurm, run, "step 3 ")
    saved = slurm.folder / "state" / "job_state"
    wait_until(lambda: run.encode() in saved.read_bytes(), seconds=30)
    slurm.stop_controller()
    viewer = user.start("attach", run)
    told = user.home / "viewer-0.err"
    wait_until(lambda: "controller does not answer" in told.read_text(), seconds=90)
    slurm.start_controller()
    slurm.await_state(job_of(slurm, run), "RUNNING")
    assert viewer.poll() is None
    assert user.run("stop", run, "--grace", "3").returncode == 0
    assert (ended(viewer, user)[0], outcome(user, run)) == (1, "stopped"), told.read_text()


def test_a_job_that_is_requeued_goes_on_in_the_same_run(slurm: Slurm, user: Workstation) -> None:
    run = user.launch(counting(slurm, user, "again", "8", requeue=True))
    await_line(slurm, run, "step 3 ")
    viewer = user.start("attach", run)
    job = job_of(slurm, run)
    slurm.sh(f"scontrol requeue {job}")
    slurm.await_state(job, "PENDING")
    slurm.sh(f"scontrol update jobid={job} starttime=now")
    code, told = ended(viewer, user)
    assert code == 0, told
    assert "attempt 1" in told, told
    attempts = {log.parent.parent.name for log in user.folder(run).glob("n0/ranks/*/attempt_*/0/stdout.log")}
    assert attempts == {"attempt_0", "attempt_1"}


async def test_a_job_whose_number_was_lost_on_the_way_is_found_and_not_submitted_again(
    slurm: Slurm, user: Workstation, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = user.launch(counting(slurm, user, "once", "600"))
    job = job_of(slurm, run)
    (there(slurm, run) / "job").unlink()
    for name, value in user.env.items():
        monkeypatch.setenv(name, value)
    asking = session.JobSession(runs.find(run), Connector(), JsonLines(io.StringIO()))
    conversation, number = await asking._submit(await asking._login.dial(0), {})
    await conversation.close()
    assert (number, slurm.sh("squeue -h -o %A").split()) == (job, [job])
    await_line(slurm, run, "step 3 ")
    assert user.run("stop", run, "--grace", "3").returncode == 0


async def test_a_number_that_slurm_has_given_to_another_job_is_not_taken_for_ours(
    slurm: Slurm, user: Workstation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The viewer is this process, in which a job is given up sooner."""
    run = user.launch(counting(slurm, user, "first", "600"))
    await_line(slurm, run, "step 3 ")
    slurm.forget()
    other = ""
    while other != job_of(slurm, run):
        other = slurm.sh("sbatch --parsable --output=/dev/null --wrap='sleep 600'").strip()
    slurm.await_state(other, "RUNNING", "PENDING")
    stopped = user.run("stop", run)
    assert slurm.state(other) in ("RUNNING", "PENDING"), stopped.stderr
    monkeypatch.setattr(session, "GONE_AFTER", 5.0)
    monkeypatch.setattr(session, "LOOK_EVERY", (1.0,))
    for name, value in user.env.items():
        monkeypatch.setenv(name, value)
    assert (await opened(runs.find(run), Connector(), JsonLines(io.StringIO())).watch()).outcome == "failed"
    slurm.sh("scancel --me")
    wait_until(lambda: not slurm.sh("squeue -h").strip(), seconds=60)


def test_a_job_is_found_by_its_number_from_another_workstation(slurm: Slurm, user: Workstation, tmp_path: Path) -> None:
    run = user.launch(counting(slurm, user, "shared", "12"))
    await_line(slurm, run, "step 3 ")
    colleague = Workstation(slurm.cluster, slurm.cluster.user_env(tmp_path / "other"))
    attached = colleague.run("attach", job_of(slurm, run), "--login", "node4")
    assert attached.returncode == 0, attached.stderr
    assert f"run {run}" in attached.stderr
    assert sums(there(slurm, run)).items() <= sums(colleague.folder(run)).items()
