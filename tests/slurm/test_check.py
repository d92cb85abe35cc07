"""`rankdeck check` of a job on a real Slurm: what it cannot have is found, and the settings that are told mend it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tests.slurm.test_jobs import counting

if TYPE_CHECKING:
    from tests.cluster.workstation import Workstation
    from tests.slurm.slurm import Slurm


def checked(user: Workstation, path: str, *flags: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Exit code, and the findings by check."""
    done = user.run("check", path, "--json", *flags)
    found: dict[str, list[dict[str, Any]]] = {}
    for line in done.stdout.splitlines():
        each = json.loads(line)
        found.setdefault(each["check"], []).append(each)
    return done.returncode, found


def test_a_job_that_the_cluster_cannot_run_is_mended_by_its_findings_alone_and_then_it_runs(
    slurm: Slurm, user: Workstation
) -> None:
    path = counting(
        slurm, user, "greedy", "0.3",
        partition="trian", nodes=5, gpus_per_node=16, ranks_per_node=1, time="2-00:00:00",
    )  # fmt: skip
    code, found = checked(user, path)
    assert code == 3
    assert [each["text"] for each in found["slurm.request"]] == ["there is no partition trian"]
    assert "there is no such partition" in found["slurm.test"][0]["text"], "sbatch --test-only refuses it too"
    assert "linuxproc" in found["slurm.track"][0]["text"]
    remedies = " ".join(each["remedy"] for each in found["slurm.request"])
    settings = re.findall(r"--set [^\s;]+", remedies)
    code, found = checked(user, path, *" ".join(settings).split())
    assert [each["fix"] for each in found["slurm.request"]] == [
        ["slurm.time=1440"], ["slurm.nodes=3"], ["slurm.gpus_per_node=8"],
    ]  # fmt: skip
    assert (code, found["slurm.test"][0]["severity"]) == (3, "error")
    settings += re.findall(r"--set [^\s;]+", " ".join(each["remedy"] for each in found["slurm.request"]))
    code, found = checked(user, path, *" ".join(settings).split())
    assert (code, "slurm.request" in found, found["slurm.test"][0]["severity"]) == (0, False, "info")
    done = user.run("launch", path, *" ".join(settings).split(), timeout=150)
    assert done.returncode == 0, done.stderr
    assert "rank 2 step 2 " in done.stdout
