"""The test Slurm is what the other tests take it for, and takes every text that Rankdeck writes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.errors import RequestError
from engine.slurm import words

if TYPE_CHECKING:
    import subprocess

    from tests.slurm.slurm import Slurm

GOLDEN = Path(__file__).parents[1] / "unit" / "slurm"
PLACES = ("--partition=", "--account=", "--qos=", "--nodelist=", "--exclude=", "--constraint=", "--gres=gpu:")
REFUSED = {
    "--partition=nope": "no such partition",
    "--gres=foo:1": "no GPUs of that name",
    "--gres=gpu:9": "together",
    "--nodes=9": "together",
    "--cpus-per-task=900": "together",
    "--mem=900G": "together",
    "--time=soon": "time limit cannot be read",
    "--constraint=none": "no node has that feature",
    "--nodelist=node77": "no node of that name",
    "--reservation=none": "no such reservation",
    "--licenses=none": "no such licences",
    "--nonsense": "does not know an option",
}
"""An option that this cluster refuses, and how that is explained."""


def test_two_tasks_on_each_of_two_nodes_see_two_gpus(slurm: Slurm) -> None:
    said = slurm.sh(
        "srun --nodes=2 --gres=gpu:2 --ntasks-per-node=2 "
        "sh -c 'echo $(hostname) $SLURM_PROCID $SLURM_NODEID $CUDA_VISIBLE_DEVICES'"
    )
    assert sorted(said.splitlines()) == ["node1 0 0 0,1", "node1 1 0 0,1", "node2 2 1 0,1", "node2 3 1 0,1"]


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("*.sbatch")), ids=lambda path: path.stem)
def test_every_golden_script_is_taken(slurm: Slurm, golden: Path) -> None:
    """But for the names of places, types and sizes that this cluster does not have."""
    lines = [
        line for line in golden.read_text().splitlines() if not line.startswith(tuple(f"#SBATCH {p}" for p in PLACES))
    ]
    script = "\n".join(lines).replace("--cpus-per-task=64", "--cpus-per-task=8")
    slurm.path("job.sbatch").write_text(script)
    done = slurm.cluster.ssh(slurm.login, "sbatch --test-only job.sbatch")
    assert done.returncode == 0, done.stderr
    assert "to start at" in done.stderr


def test_directives_are_read_as_they_were_quoted(slurm: Slurm) -> None:
    from engine.launchers.slurm import _directive

    hostile = r'a "b" \ #c $(touch canary) `id`'
    script = f"#!/bin/bash\n{_directive(f'--comment={hostile}')}\n#SBATCH --output=/dev/null\ntrue\n"
    slurm.path("job.sbatch").write_text(script)
    job = slurm.sh("sbatch --parsable job.sbatch").strip()
    assert slurm.sh(f"squeue -h -t all -j {job} -o %k").strip() == hostile
    slurm.await_state(job, "COMPLETED")
    assert not slurm.path("canary").exists()


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("*.srun")), ids=lambda path: path.stem)
def test_every_golden_line_is_taken(slurm: Slurm, golden: Path) -> None:
    text = golden.read_text().replace(" -p train ", " ").replace(" -p llm ", " ").replace("--account=nlp ", "")
    text = (
        text.replace("-D /data/exp ", "")
        .replace("--cpus-per-task=64", "--cpus-per-task=8")
        .replace("srun ", "srun --test-only ", 1)
    )
    done: subprocess.CompletedProcess[str] = slurm.cluster.ssh(slurm.login, text)
    assert done.returncode == 0, done.stderr
    assert "to start at" in done.stderr


def test_what_sbatch_refuses_is_explained(slurm: Slurm) -> None:
    asked = "; ".join(f"sbatch --test-only {shlex.quote(o)} --wrap=true 2>&1 | tr '\\n' ' '; echo" for o in REFUSED)
    said = slurm.sh(asked).splitlines()
    explained = {option: words.explain(text, "node4") for option, text in zip(REFUSED, said, strict=True)}
    assert {option: REFUSED[option] in error.text for option, error in explained.items()} == dict.fromkeys(
        REFUSED, True
    )
    assert all(isinstance(error, RequestError) and error.remedy for error in explained.values())
