"""The training engine as a job that Slurm ends and starts again."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.cluster.workstation import VENV, wait_until
from tests.slurm.test_jobs import await_line, job_of, profile, there

if TYPE_CHECKING:
    from tests.cluster.workstation import Workstation
    from tests.slurm.slurm import Slurm

WORK = ("steps=1000000", "log_every=1", "context=32", "width=64", "layers=1", "out=~/exp")


@pytest.mark.parametrize("style", ["direct", "torchrun"])
def test_a_training_that_slurm_requeues_saves_what_it_has_and_goes_on_from_there(
    slurm: Slurm, user: Workstation, style: str
) -> None:
    args = json.dumps([word for pair in WORK for word in ("--set", pair)])
    program = f"program: {{kind: module, path: engine.train, args: {args}, activate: {json.dumps(VENV)}}}\n"
    run = user.launch(profile(user, "long", program=program, style=style, requeue=True))
    await_line(slurm, run, "step 10/")
    job = job_of(slurm, run)
    slurm.sh(f"scontrol requeue {job}")  # SIGTERM, and KillWait later SIGKILL
    slurm.await_state(job, "PENDING")
    slurm.sh(f"scontrol update jobid={job} starttime=now")
    await_line(slurm, run, "resumed: from step ")

    logs = [log.read_text() for log in there(slurm, run).glob("n0/ranks/*/attempt_*/0/stdout.log")]
    before, after = sorted(logs, key=lambda text: "resumed: from step " in text)
    (saved,) = re.findall(r"^checkpoint: step (\d+) ", before, re.M)
    assert re.search(rf"^stopped: {saved} steps", before, re.M)
    assert f"resumed: from step {saved}\n" in after
    await_line(slurm, run, f"step {int(saved) + 1}/")
    stopped = user.run("stop", run, "--grace", "10")
    assert (stopped.returncode, "cancelled" in stopped.stdout) == (0, True), stopped.stderr
    wait_until(lambda: not slurm.sh("squeue -h").strip(), seconds=60)
