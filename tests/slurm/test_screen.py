"""A Slurm job from the terminal UI at a workstation: typed keys, from nothing to a finished training run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cluster.test_screen import ALT, ENTER, F10, RIGHT, TAB, terminal
from tests.cluster.workstation import VENV

if TYPE_CHECKING:
    from tests.cluster.workstation import Workstation


@pytest.mark.timeout(240)
def test_from_rankdeck_new_with_typed_keys_to_a_finished_run_on_two_nodes(user: Workstation) -> None:
    with terminal(user, "new", "typed") as screen:
        screen.wait_for("What is it called")
        screen.type(TAB, RIGHT, ALT + "6")
        screen.wait_for("What is Slurm asked for", 30)
        screen.type("train", TAB, "2", TAB, "1", TAB, "10", TAB, "node4", TAB)
        screen.wait_for("train (the default): 3 nodes, 3 of them free now", 60)
        screen.type(ALT + "4", RIGHT, TAB, "engine.train", TAB, "--set steps=40", ENTER, "--set log_every=1")
        screen.type(TAB, TAB, VENV)
        screen.wait_for("#SBATCH --nodes=2", 60)
        screen.type(ALT + "7")
        screen.wait_for("sbatch --test-only takes the script", 60)
        screen.wait_for("nothing is wrong", 60)
        screen.type(ALT + "8", F10)
        screen.wait_for("step ", 90)
        screen.wait_for("SUCCEEDED", 90)
        assert "node2" in screen.text
        screen.press("q")
        assert screen.wait() == 0
    run = json.loads(user.run("runs", "--json").stdout)
    assert (run["summary"]["outcome"], run["summary"]["step"], run["world_size"]) == ("succeeded", 40, 2)
