"""The training engine on three hosts: launched, interrupted, resumed, and the losses of a run that ran through."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from engine.node.metrics import MetricReader
from tests.cluster.workstation import VENV, node_folder

if TYPE_CHECKING:
    from tests.cluster.hosts import Host
    from tests.cluster.workstation import Workstation

# After its warm-up the learning rate stays as it is, so a step does not depend on how many follow.
WORK = [
    "context=32",
    "width=64",
    "layers=1",
    "per_device_batch=4",
    "warmup_steps=5",
    "min_lr_ratio=1",
    "powersgd_start=8",
]


def profile(user: Workstation, hosts: tuple[Host, ...], name: str, *args: str) -> str:
    """One rank a host, with `--resume`: the first time there is nothing to resume."""
    settings = ", ".join(f"--set, {pair}" for pair in (*WORK, *args))
    nodes = "".join(f"  - {{host: {host.name}, addr: {host.address}, gpus: 1}}\n" for host in hosts)
    path = user.home / f"{name}.yaml"

    path.write_text(
        f"version: 1\nname: {name}\nnodes:\n{nodes}env: {{OMP_NUM_THREADS: '1'}}\n"
        f"program:\n  kind: module\n  path: engine.train\n  args: [--resume, {settings}]\n"
        f"  activate: {json.dumps(VENV)}\n"
    )
    return str(path)


def losses(user: Workstation, run: str) -> dict[int, float]:
    """Rank 0's losses by step, from its log on its node."""
    (log,) = node_folder(user.cluster["node1"], run).glob("n0/ranks/*/attempt_0/0/stdout.log")
    return {metric["step"]: metric["loss"] for metric in MetricReader().feed(log.read_bytes())}


@pytest.mark.parametrize("hook", ["none", "powersgd"])
def test_a_stopped_training_is_resumed_and_its_losses_are_those_of_one_that_ran_through(
    user: Workstation, hosts: tuple[Host, ...], hook: str
) -> None:
    hooked = (f"hook={hook}", "powersgd_start=8")
    run = user.launch(profile(user, hosts, "first", "out=~/stopped", *hooked, "steps=1000000"))
    user.await_text("step 20/", run, ranks=1)
    stopped = user.run("stop", run, "--grace", "30")
    assert stopped.returncode == 0, stopped.stderr
    before = losses(user, run)
    last = max(before)
    assert list(hosts[0].path("stopped/checkpoints").glob(f"step-{last:08d}.main.*.pt"))
    assert list(hosts[2].path("stopped/checkpoints").glob(f"step-{last:08d}.rank2.*.pt"))

    after = {}
    for name, folder in (("resumed", "stopped"), ("through", "through")):
        settings = (f"out=~/{folder}", *hooked, f"steps={last + 20}")
        done = user.run("launch", profile(user, hosts, name, *settings))
        assert done.returncode == 0, done.stderr
        found = re.search(rf"{name}-\d+-\d+-\w+", done.stderr)
        assert found, done.stderr
        after[name] = losses(user, found.group())
    assert min(after["resumed"]) == last + 1
    assert before | after["resumed"] == after["through"]
