"""What is not submitted by Rankdeck: jobs of plain sbatch and of arrays, and runs inside a job of salloc."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from engine import events, runs
from engine.launching import opened
from engine.transport import Connector
from tests.cluster.test_preflight import stand_in
from tests.cluster.workstation import Workstation, wait_until
from tests.slurm.test_jobs import COUNT, await_line, counting, job_of, outcome, profile

if TYPE_CHECKING:
    import pytest

    from tests.slurm.slurm import Slurm

PLAIN = COUNT.replace('os.environ["SLURM_PROCID"]', "'0'")
GPU = "#!/bin/sh\necho '0, NVIDIA H100, 55, 1024, 81559, 300.5, 61'\n"


class Samples:
    """A viewer that keeps what the nodes do."""

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        self.found: dict[int, events.Sample] = {}
        self.all = asyncio.Event()

    def event(self, event: events.AnyEvent) -> None:
        if isinstance(event, events.Sample) and event.cpu is not None:
            self.found[event.node_rank] = event
            if len(self.found) == self.nodes:
                self.all.set()

    def log(self, node_rank: int, stream: str, data: bytes) -> None:
        pass


async def test_gpus_and_cpus_of_nodes_that_differ_come_while_somebody_looks_and_nothing_of_it_stays(
    slurm: Slurm, user: Workstation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is a heterogeneous one; the GPUs are a stand-in for nvidia-smi."""
    smi = slurm.login.bin / "nvidia-smi"
    stand_in(smi, GPU)
    groups = [{"nodes": 1, "gpus_per_node": 2}, {"nodes": 2, "gpus_per_node": 1}]
    run = user.launch(counting(slurm, user, "differ", "600", style="torchrun", nodes=1, groups=groups))
    await_line(slurm, run, "step 3 ")
    for name, value in user.env.items():
        monkeypatch.setenv(name, value)
    viewer = Samples(3)
    session = opened(runs.find(run), Connector(), viewer)
    session.sampling = True
    watching = asyncio.create_task(session.watch())
    await asyncio.wait_for(viewer.all.wait(), 60)
    assert [gpu.util for gpu in viewer.found[2].gpus] == [55.0]
    assert sorted((worker.key[1], worker.rank) for worker in session.state.workers.values()) == [
        (0, 0), (0, 1), (1, 2), (2, 3),
    ]  # fmt: skip
    assert [node.host for node in session.state.nodes.values()] == ["node1", "node2", "node3"]
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    smi.unlink()
    wait_until(lambda: "rankdeck" not in slurm.sh(f"squeue -h -s -j {job_of(slurm, run)} -o %j"), seconds=30)
    assert user.run("stop", run, "--grace", "3").returncode == 0


def test_a_job_of_plain_sbatch_is_watched_by_its_number_and_an_array_task_by_its_own(
    slurm: Slurm, user: Workstation
) -> None:
    slurm.path("count.py").write_text(PLAIN)
    job = slurm.sh("sbatch --parsable --nodes=2 --job-name='my job' --wrap='python3 count.py 6'").strip()
    slurm.await_state(job, "RUNNING")
    seen = user.run("attach", job, "--login", "node4")
    assert (seen.returncode, "0 node1 | rank 0 step 59 loss" in seen.stdout) == (0, True), seen.stderr
    assert "succeeded" in seen.stderr
    assert "step 59 · loss 8.41" in seen.stderr, seen.stderr
    again = user.run("attach")
    assert (again.returncode, "step 59" in again.stdout) == (0, True), again.stderr

    wrap = "python3 count.py 1; exit $SLURM_ARRAY_TASK_ID"
    array = slurm.sh(f"sbatch --parsable --array=0-1 --nodes=1 --job-name=tasks --wrap='{wrap}'").strip()
    slurm.await_state(f"{array}_1", "FAILED", "COMPLETED")
    whole = user.run("attach", array, "--login", "node4")
    assert (whole.returncode, f"such as {array}_" in whole.stderr) == (2, True), whole.stderr
    codes = [user.run("attach", f"{array}_{task}", "--login", "node4").returncode for task in (0, 1)]
    assert codes == [0, 1]
    listed = [json.loads(line) for line in user.run("runs", "--json").stdout.splitlines()]
    assert [one["summary"]["outcome"] for one in listed] == ["failed", "succeeded", "succeeded"]
    assert len({one["run"] for one in listed}) == 3

    unknown = user.run("attach", "99999", "--login", "node4")
    assert (unknown.returncode, "Invalid job id" in unknown.stderr) == (2, True), unknown.stderr

    job = slurm.sh("sbatch --parsable --wrap='sleep 600'").strip()
    slurm.await_state(job, "RUNNING")
    viewer = user.start("attach", job, "--login", "node4")
    wait_until(lambda: "is running on node1" in (user.home / "viewer-0.err").read_text(), seconds=30)
    run = json.loads(user.run("runs", "--json").stdout.splitlines()[0])["run"]
    assert user.run("stop", run, "--grace", "3").returncode == 0
    assert viewer.wait(60) == 1
    assert outcome(user, run) == "stopped"


def test_a_run_inside_a_job_of_salloc_begins_and_ends_and_leaves_the_job(slurm: Slurm, user: Workstation) -> None:
    slurm.sh("salloc --no-shell --nodes=3 --gres=gpu:4 --job-name=mine 2>&1")
    job = slurm.sh("squeue -h -o %A").strip()
    done = user.run("launch", profile(user, "inside", allocation=int(job)), timeout=150)
    assert (done.returncode, "step 20/20" in done.stdout) == (0, True), done.stderr
    failed = user.run("launch", counting(slurm, user, "broken", "600", "1", style="direct", allocation=int(job)))
    assert (failed.returncode, "the data of rank 1 is damaged" in failed.stderr) == (1, True), failed.stderr
    run = user.launch(counting(slurm, user, "endless", "600", allocation=int(job)))
    await_line(slurm, run, "step 3 ")
    stopped = user.run("stop", run, "--grace", "3")
    assert (stopped.returncode, outcome(user, run)) == (0, "stopped"), stopped.stderr
    assert slurm.state(job) == "RUNNING"
    assert not any(host.jobs() for host in slurm.nodes)
    slurm.sh(f"scancel {job}")
    slurm.await_state(job, "CANCELLED")
    refused = user.run("launch", profile(user, "inside", allocation=int(job)))
    assert (refused.returncode, f"job {job} is CANCELLED" in refused.stderr) == (3, True), refused.stderr
