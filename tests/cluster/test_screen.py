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
ALT, TAB, RIGHT, F10 = "\x1b", "\t", "\x1b[C", "\x1b[21~"


def terminal(user: Workstation, *arguments: str, columns: int = 150, lines: int = 45) -> Terminal:
    """`rankdeck ARGUMENTS` on a terminal at the workstation."""
    return Terminal(*arguments, columns=columns, lines=lines, environ=user.env, only=True, folder=str(user.home))


@pytest.mark.timeout(240)
def test_from_rankdeck_new_with_typed_keys_to_a_finished_training_run(
    user: Workstation, hosts: tuple[Host, ...]
) -> None:
    with terminal(user, "new", "typed") as screen:
        screen.wait_for("launcher")
        screen.type(ALT + "2", ",".join(host.name for host in hosts))
        screen.wait_for("3 nodes", 60)
        screen.type(ALT + "4", RIGHT, TAB, "engine.train", TAB, f"--set steps={STEPS}", "\r", "--set log_every=1")
        screen.type(TAB, TAB, VENV)
        screen.settle()
        open("/tmp/plan/screen.txt", "w").write(screen.text)
        screen.type(F10)
        screen.settle(2, 20)
        open("/tmp/plan/screen2.txt", "w").write(screen.text)
        screen.type(ALT + "8")
        screen.settle(2, 20)
        open("/tmp/plan/screen3.txt", "w").write(screen.text)
        screen.type(F10)
        screen.settle(2, 20)
        open("/tmp/plan/screen4.txt", "w").write(screen.text)
        raise AssertionError(json.dumps(STEPS) + str(sys.path))
