"""The terminal UI on a real pseudo-terminal against real hosts: typed keys, from nothing to a finished training run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cluster.workstation import TALK, VENV, Workstation
from tests.tui.pty_of import Terminal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.hosts import Host

ALT, ENTER, ESCAPE, TAB, RIGHT, F10 = "\x1b", "\r", "\x1b", "\t", "\x1b[C", "\x1b[21~"
FAILS = """\
import os, time
time.sleep(1)
if os.environ["RANK"] == "3":
    raise KeyError("no such tensor")
time.sleep(600)
"""


def terminal(user: Workstation, *arguments: str, **environ: str) -> Terminal:
    """`rankdeck ARGUMENTS` on a terminal at the workstation."""
    environ = {**user.env, **environ}
    return Terminal(*arguments, columns=150, lines=45, environ=environ, only=True, folder=str(user.home))


def ssh_that_asks(user: Workstation) -> Path:
    """An ssh configuration to which the last host is unknown."""
    known = user.home / "known_hosts"
    known.write_text("".join(user.cluster.known_hosts.read_text().splitlines(keepends=True)[:-1]))
    config = user.home / "ssh_config"
    text = user.cluster.ssh_config.read_text().replace(str(user.cluster.known_hosts), str(known))
    config.write_text(text.replace("StrictHostKeyChecking yes", "StrictHostKeyChecking ask"))
    return config


@pytest.mark.timeout(240)
def test_from_rankdeck_new_with_typed_keys_to_a_finished_training_run(
    user: Workstation, hosts: tuple[Host, ...]
) -> None:
    with terminal(user, "new", "typed", RANKDECK_SSH_CONFIG=str(ssh_that_asks(user))) as screen:
        screen.wait_for("What is it called")
        screen.type(ALT + "2", ",".join(host.name for host in hosts))
        screen.wait_for("SHA256:", 60)
        screen.press("y")
        screen.wait_for("3 answered", 60)
        screen.type(ALT + "4", RIGHT, TAB, "engine.train", TAB, "--set steps=40", ENTER, "--set log_every=1")
        screen.type(TAB, TAB, VENV)
        screen.wait_for("--nnodes=3", 60)
        screen.type(ALT + "8")
        screen.wait_for("nothing is wrong", 120)  # the all-reduce of a new profile included
        screen.type(F10)
        screen.wait_for("step ", 60)
        screen.wait_for("SUCCEEDED", 60)
        screen.press("q")
        assert screen.wait() == 0
    run = json.loads(user.run("runs", "--json").stdout)
    assert (run["summary"]["outcome"], run["summary"]["step"], run["world_size"]) == ("succeeded", 40, 3)


@pytest.mark.timeout(240)
def test_a_run_is_watched_searched_left_attached_again_and_stopped(user: Workstation, hosts: tuple[Host, ...]) -> None:
    profile = user.profile("talk", "python3", user.script("talk.py", TALK), "100000", "0.02", hosts=hosts)
    with terminal(user, "launch", profile) as screen:
        screen.wait_for("rank 0 line", 60)
        screen.type("/", "line 7 ", ENTER)
        screen.wait_for("line 7 ", 30)
        screen.type(ESCAPE, "q")
        screen.wait_for("is still running")
        screen.press("d")
        assert screen.wait() == 0
    assert all(host.jobs() for host in hosts), "leaving must not end the run"
    with terminal(user, "attach") as screen:
        screen.wait_for("RUNNING", 30)
        screen.type("s")
        screen.wait_for("Stop talk-")
        screen.press("y")
        screen.wait_for("STOPPED", 60)
        screen.press("q")
        assert screen.wait() == 1
    assert not any(host.jobs() for host in hosts)


@pytest.mark.timeout(240)
def test_a_failure_ends_in_a_verdict_on_the_screen(user: Workstation, hosts: tuple[Host, ...]) -> None:
    program = user.script("fail.py", FAILS)
    with terminal(user, "launch", user.profile("fail", "python3", program, hosts=hosts)) as screen:
        screen.wait_for("FAILED", 90)
        screen.type("5")
        screen.wait_for("no such tensor", 20)
        assert "node2" in screen.text
        screen.press("q")
        assert screen.wait() == 1
