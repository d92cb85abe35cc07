"""How long it takes until something is told: hosts that swallow packets, and a workstation whose own disk is full."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cluster.workstation import RANKDECK, TALK, Workstation, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.hosts import Host

    Hosts = tuple[Host, ...]

NOTICED = 20.0  # seconds
BUSY = 5.0  # seconds that a machine with other things to do may take on top


def test_a_host_that_swallows_packets_is_told_at_once_when_connecting(user: Workstation, hosts: Hosts) -> None:
    hosts[1].firewall(22, "drop")
    profile = user.profile("talk", "python3", user.script("talk.py", TALK), "3", "0", hosts=hosts)
    began = time.monotonic()
    done = user.run("launch", profile)
    took = time.monotonic() - began
    assert done.returncode == 3
    assert "node2" in done.stderr
    assert "no answer within 10 s" in done.stderr
    assert not any(host.jobs() for host in hosts)
    assert took < NOTICED + BUSY


def test_a_link_that_swallows_packets_is_noticed_while_connected_and_the_ranks_run_on(
    user: Workstation, hosts: Hosts
) -> None:
    profile = user.profile("talk", "python3", user.script("talk.py", TALK), "1000000", "0.05", hosts=hosts)
    run = user.launch(profile)
    user.await_text("line 1 ", run, ranks=6)
    viewer = user.start("attach", run, "--json", "--lost-after", "600")
    output = user.home / "viewer-0.out"
    wait_until(lambda: output.read_text().count('"reached"') == 3, seconds=20)
    hosts[1].unplug()
    began = time.time()
    wait_until(lambda: '"unreachable"' in output.read_text(), seconds=NOTICED + BUSY)
    seen = next(e for e in map(json.loads, output.read_text().splitlines()) if e["type"] == "unreachable")
    print(f"\na dead link is noticed after {seen['t'] - began:.1f} s")
    assert seen["host"] == "node2"
    assert seen["t"] - began < NOTICED + BUSY
    assert hosts[1].jobs(), "the ranks run on"
    hosts[1].plug()
    wait_until(lambda: output.read_text().count('"reached"') == 4, seconds=30)
    assert user.run("stop", run, "--grace", "5").returncode == 0
    assert viewer.wait(30) == 1


@pytest.fixture
def small_disk(user: Workstation) -> Iterator[Path]:
    """The user's state folder on a disk of 400 KiB."""
    path = Path(user.env["XDG_STATE_HOME"])
    path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(path)], check=True)
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_a_full_disk_at_the_workstation_ends_the_viewer_and_not_the_run(
    user: Workstation, hosts: Hosts, small_disk: Path
) -> None:
    profile = user.profile("talk", "python3", user.script("talk.py", TALK), "30000", "0.001", hosts=hosts)
    done = subprocess.run(
        [RANKDECK, "launch", profile], env=user.env, cwd=user.home, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 4, done.stderr[-2000:]
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert all(host.jobs() for host in hosts), "the ranks run on"
    (run,) = [path.name for path in (small_disk / "rankdeck" / "watched").iterdir()]
    stopped = user.run("stop", run, "--grace", "5")
    assert "nothing left" in stopped.stdout
    assert not any(host.jobs() for host in hosts)
