"""XTuner as Slurm tasks (`--launcher slurm`), by a stand-in whose command returns 0 even where a rank fails."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.cluster.standin_xtuner import profile

if TYPE_CHECKING:
    from tests.cluster.workstation import Workstation
    from tests.slurm.slurm import Slurm

TWO = {"login": "node4", "nodes": 2, "gpus_per_node": 1, "style": "direct"}


def test_every_task_trains_by_its_contract_and_one_that_fails_is_found(slurm: Slurm, user: Workstation) -> None:
    done = user.run("launch", profile(user, "direct", launcher="slurm", slurm=TWO), timeout=150)
    assert done.returncode == 0, done.stderr
    assert "2 ranks, launcher slurm, resumed from nothing" in done.stdout
    assert re.search(r"succeeded .* step 20/20", done.stderr), done.stderr

    failing = profile(user, "fails", "--cfg-options", "fails=1", "pause=0.5", launcher="slurm", slurm=TWO)
    done = user.run("launch", failing, timeout=150)
    assert done.returncode == 1, done.stderr
    assert "the data of rank 1 is damaged" in done.stderr
