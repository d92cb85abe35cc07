"""Profiles for the stand-in of XTuner (tests/standin_xtuner), whose command behaves as the real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster.workstation import VENV

if TYPE_CHECKING:
    from tests.cluster.workstation import Workstation

FOLDER = Path(__file__).parents[1] / "standin_xtuner"
BATCH = {"per_device": 2, "grad_accum": 4, "base_lr": 0.0001, "base_batch": 16, "lr_scaling": "none"}


def profile(user: Workstation, name: str, *args: str, **keys: Any) -> str:
    """The profile of an XTuner run; `keys` are those of profiles. Its path."""
    config = user.cluster.share / "standin.py"
    config.write_text(json.dumps({"iters": 20}))
    program = {
        "kind": "xtuner",
        "path": str(config),
        "args": ["--work-dir", "work", *args],
        "activate": f"{VENV} && export PATH={FOLDER}/bin:$PATH && export PYTHONPATH={FOLDER}",
    }
    path = user.home / f"{name}.yaml"
    path.write_text(json.dumps({"version": 1, "name": name, "program": program, "batch": BATCH, **keys}))
    return str(path)
