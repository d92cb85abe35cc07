"""Every judgement on a Slurm job, on cases from a data file: see tests/unit/slurm/checks.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from ruamel.yaml import YAML

from engine.profile import Profile, override
from engine.slurm import cluster
from engine.slurm.preflight import lacks, tracked

CASES = YAML(typ="safe", pure=True).load((Path(__file__).parent / "slurm" / "checks.yaml").read_text())
SINFO = (
    ("train", "up", "1-00:00:00", "2", "idle", "64", "512000", "gpu:a100:8(S:0-1)", "(null)"),
    ("train", "up", "1-00:00:00", "2", "allocated", "64", "512000", "gpu:a100:8", "(null)"),
    ("debug", "up", "1:00:00", "1", "idle", "8", "16000", "gpu:1", "(null)"),
)
PARTITIONS = """\
PartitionName=debug Default=NO MaxNodes=UNLIMITED MaxTime=01:00:00 State=UP
PartitionName=train Default=YES MaxNodes=UNLIMITED MaxTime=1-00:00:00 State=UP
"""


def profile_of(case: dict[str, Any]) -> Profile:
    asked = {"version": 1, "name": "lab", "launcher": "slurm", "slurm": case["slurm"], "program": {"path": "train.py"}}
    return msgspec.convert(asked, Profile)


def said_of(case: dict[str, Any]) -> dict[str, Any]:
    said = {
        "sinfo": "\n".join("\x1f".join(line) for line in SINFO),
        "partitions": case.get("partitions", PARTITIONS),
        "config": case.get("config", ""),
        "accounts": case.get("accounts", ""),
    }
    return {command: {"code": 0, "out": out, "err": ""} for command, out in said.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_findings_are_these_and_each_fix_mends_its_own(case: dict[str, Any]) -> None:
    asked, known = profile_of(case), cluster.read(said_of(case))
    found = [*lacks(asked, known), *tracked(known)]
    assert [note.severity for note in found] == [wanted["severity"] for wanted in case["expect"]], found
    for note, wanted in zip(found, case["expect"], strict=True):
        assert wanted["text"] in note.text
        assert wanted.get("remedy", "") in note.remedy
        assert list(note.fix) == wanted.get("fix", [])
        assert note.remedy or note.severity == "info"
        if note.fix:
            assert note.text not in [left.text for left in lacks(override(asked, note.fix), known)]
