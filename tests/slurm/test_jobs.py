"""From a workstation over SSH to a login node: jobs submitted, waited for, watched, found again and stopped."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.workstation import VENV, sums

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.workstation import Workstation
    from tests.slurm.slurm import Slurm

TRAIN = ("--set", "steps=20", "--set", "log_every=1")


def profile(user: Workstation, name: str = "train", *, program: str = "", extra: str = "", **slurm: Any) -> str:
    """Write the profile of a job; its path. Without a program, it trains for real."""
    asked = {"login": "node4", "partition": "train", "nodes": 2, "gpus_per_node": 1, **slurm}
    train = f"program: {{kind: module, path: engine.train, args: {json.dumps(TRAIN)}, activate: {json.dumps(VENV)}}}\n"
    path = user.home / f"{name}.yaml"
    path.write_text(
        f"version: 1\nname: {name}\nlauncher: slurm\nslurm: {json.dumps(asked)}\nenv: {{OMP_NUM_THREADS: '1'}}\n"
        + (program or train) + extra
    )  # fmt: skip
    return str(path)


@pytest.mark.parametrize("style", ["torchrun", "direct"])
def test_a_job_trains_on_two_nodes_and_its_logs_and_throughput_come_here(
    slurm: Slurm, user: Workstation, style: str
) -> None:
    done = user.run("launch", profile(user, style=style), timeout=150)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^0 node1 \| step 20/20  loss .* tokens/s [\d,]+", done.stdout, re.MULTILINE)
    assert "1 node2 | step 20/20" in done.stdout
    assert re.search(r"succeeded .* step 20/20 .* tokens/s", done.stderr)
    run = json.loads(user.run("runs", "--json").stdout)["run"]
    assert sums(there(slurm, run)).items() <= sums(user.folder(run)).items()


def there(slurm: Slurm, run: str) -> Path:
    """A run's folder in the home that login and compute nodes share."""
    return slurm.path(f".local/state/rankdeck/runs/{run}")
