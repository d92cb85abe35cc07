"""The terminal UI on a real pseudo-terminal against real hosts: typed keys, from nothing to a finished training run."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cluster.workstation import VENV, Workstation
from tests.tui.pty_of import Terminal

if TYPE_CHECKING:
    from tests.cluster.hosts import Host

STEPS = 60


def terminal(user: Workstation, *arguments: str, columns: int = 150, lines: int = 45) -> Terminal:
    """`rankdeck ARGUMENTS` on a terminal at the workstation."""
    return Terminal(*arguments, columns=columns, lines=lines, environ=user.env, only=True, folder=str(user.home))


@pytest.mark.timeout(240)
def test_from_rankdeck_new_with_typed_keys_to_a_finished_training_run(
    user: Workstation, hosts: tuple[Host, ...]
) -> None:
    with terminal(user, "new", "typed") as screen:
        screen.wait_for("launcher")
        screen.press("\x1b2")  # alt+2: nodes
        screen.wait_for("Which machines?")
        screen.press(",".join(host.name for host in hosts))
        screen.wait_for("3 nodes", 60)
        screen.press("\x1b4")
        screen.wait_for("What does every rank run?", 30)
        screen.press("\x1b[C")
        screen.press("\t")
        screen.settle()
        screen.press("engine.train\t--set steps=60\n--set log_every=1\t")
        screen.settle()
        open("/tmp/plan/screen.txt", "w").write(screen.text)
        raise AssertionError(VENV + json.dumps(STEPS) + str(sys.path))
