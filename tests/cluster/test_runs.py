"""The main job on real hosts: launch, leave, come back, stop, reap."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING

from tests.cluster.workstation import TALK, Workstation, sums, sums_on_nodes, wait_until

if TYPE_CHECKING:
    from tests.cluster.hosts import Host

TRAIN = "  kind: module\n  path: engine.train\n  args: [--set, steps={steps}, --set, log_every=1]\n"


def train_profile(user: Workstation, hosts: tuple[Host, ...], steps: int) -> str:
    """Three hosts × two ranks of real DDP; the training program travels in Rankdeck's zip."""
    path = user.profile("train", "true", hosts=hosts, extra="env: {OMP_NUM_THREADS: '1'}\n")
    text = user.home.joinpath("train.yaml").read_text()
    head, tail = text.split("  kind: command\n")[0], text[text.index("  activate:") :]
    user.home.joinpath("train.yaml").write_text(head + TRAIN.replace("{steps}", str(steps)) + tail)
    return path


def test_a_ddp_run_is_launched_detached_attached_stopped_and_leaves_nothing(
    user: Workstation, hosts: tuple[Host, ...]
) -> None:
    run = user.launch(train_profile(user, hosts, 100_000))
    user.await_text("step 3/", run, ranks=1)
    viewer = user.start("attach", run)
    wait_until(lambda: "step " in (user.home / "viewer-0.out").read_text(), seconds=20)
    viewer.send_signal(signal.SIGINT)
    assert viewer.wait(30) == 130
    assert all(host.jobs() for host in hosts), "leaving must not end the run"
    listed = [json.loads(line) for line in user.run("runs", "--json").stdout.splitlines()]
    assert [(r["run"], r["summary"]["outcome"]) for r in listed] == [(run, "running")]
    stopped = user.run("stop", run, "--grace", "10")
    assert stopped.returncode == 0, stopped.stderr
    assert stopped.stdout.count("nothing left") == 3
    assert not any(host.jobs() for host in hosts)
    reaped = user.run("reap", str(user.home / "train.yaml"))
    assert reaped.returncode == 0, reaped.stderr
    assert reaped.stdout == ""
    assert json.loads(user.run("runs", "--json").stdout)["summary"]["outcome"] == "stopped"


def test_a_run_that_succeeds_exits_0_and_is_here_byte_for_byte(user: Workstation, hosts: tuple[Host, ...]) -> None:
    done = user.run("launch", train_profile(user, hosts, 5))
    assert done.returncode == 0, done.stderr
    assert "0 node1 | step 5/5" in done.stdout
    run = json.loads(user.run("runs", "--json").stdout)["run"]
    here = sums(user.folder(run))
    assert len(here) == 3 * (2 + 2 * 2)
    assert here == sums_on_nodes(hosts, run)


def test_a_finished_run_is_read_without_its_nodes(user: Workstation, hosts: tuple[Host, ...]) -> None:
    profile = user.profile("talk", "python3", user.script("talk.py", TALK), "20", "0", hosts=hosts)
    assert user.run("launch", profile).returncode == 0
    for host in hosts:
        host.unplug()
    began = time.monotonic()
    attached = user.run("attach")
    assert attached.returncode == 0, attached.stderr
    assert "rank 5 says goodbye" in attached.stdout
    assert time.monotonic() - began < 9, "no node is waited for"


def test_two_viewers_see_the_same_run_at_once(user: Workstation, hosts: tuple[Host, ...]) -> None:
    profile = user.profile("talk", "python3", user.script("talk.py", TALK), "3000", "0.001", hosts=hosts)
    run = user.launch(profile)
    viewers = [user.start("attach", run), user.start("attach", run)]
    assert [viewer.wait(60) for viewer in viewers] == [0, 0]
    for number in (0, 1):
        text = (user.home / f"viewer-{number}.out").read_text()
        assert text.count("says goodbye") == 6
    assert sums(user.folder(run)) == sums_on_nodes(hosts, run)


def test_stopping_one_of_two_runs_leaves_the_other_running(user: Workstation, hosts: tuple[Host, ...]) -> None:
    script = user.script("talk.py", TALK)
    runs = [
        user.launch(
            user.profile(
                f"talk-{port}", "python3", script, "100000", "0.05", hosts=hosts, ranks=1,
                extra=f"rendezvous: {{master_port: {port}}}\n",
            )
        )
        for port in (29601, 29602)
    ]  # fmt: skip
    for run in runs:
        user.await_text("line 3 ", run, ranks=3)
    assert user.run("stop", runs[0], "--grace", "5").returncode == 0
    before = [len(host.jobs()) for host in hosts]
    time.sleep(1)
    assert all(process.job.startswith(runs[1]) for host in hosts for process in host.jobs())
    assert [len(host.jobs()) for host in hosts] == before
    assert all(before)
    assert user.run("stop", runs[1], "--grace", "5").returncode == 0


def test_a_port_that_is_taken_stops_the_launch_before_anything_starts(
    user: Workstation, hosts: tuple[Host, ...]
) -> None:
    script = user.script("talk.py", TALK)
    profile = user.profile("talk", "python3", script, "100000", "0.1", hosts=hosts, ranks=1)
    run = user.launch(profile)
    user.await_text("line 1 ", run, ranks=3)
    second = user.run("launch", profile)
    assert second.returncode == 3
    assert "ports.master" in second.stderr
    assert "rendezvous.master_port=" in second.stderr
    assert len(user.run("runs", "--json").stdout.splitlines()) == 1
    assert user.run("stop", run, "--grace", "5").returncode == 0


def test_secrets_reach_the_ranks_and_no_file_argv_or_other_user(user: Workstation, hosts: tuple[Host, ...]) -> None:
    show = user.script("secret.py", "import os, time\nprint(len(os.environ['HF_TOKEN']), flush=True)\ntime.sleep(4)\n")
    profile = user.profile("secret", "python3", show, hosts=hosts, ranks=1, extra="secrets: [HF_TOKEN]\n")
    user.env["HF_TOKEN"] = "canary-7f3a9c51d2"
    run = user.launch(profile)
    user.await_text("17", run, ranks=3)
    for host in hosts:
        assert not [p for p in host.processes() if "canary-7f3a9c51d2" in " ".join(p.cmdline)]
        assert not list(grep(host.path(".local/state"), b"canary-7f3a9c51d2"))
    assert user.run("attach", run).returncode == 0
    assert not list(grep(user.home, b"canary-7f3a9c51d2"))


def grep(folder: object, needle: bytes) -> list[str]:
    from pathlib import Path

    return [str(path) for path in Path(str(folder)).rglob("*") if path.is_file() and needle in path.read_bytes()]
