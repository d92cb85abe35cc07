"""What goes wrong around a run: viewers, links, processes and machines die, and the truth is still told."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.cluster.workstation import TALK, Workstation, sums, sums_on_nodes, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.hosts import Host
    from tests.cluster.processes import Process

    Hosts = tuple[Host, ...]

SEED = 20261124


def rank_process(host: Host, local_rank: int) -> Process:
    return next(
        p for p in host.jobs() if p.environ.get("LOCAL_RANK") == str(local_rank) and p.cmdline[:1] == ("python3",)
    )


def kill(host: Host, process: Process) -> None:
    host.run(["kill", "-9", str(process.pid)], root=True)


def kill_rank(host: Host) -> None:
    kill(host, rank_process(host, 1))


def kill_torchrun(host: Host) -> None:
    kill(host, next(p for p in host.jobs() if any("bin/torchrun" in word for word in p.cmdline)))


def kill_supervisor(host: Host) -> None:
    kill(host, next(p for p in host.jobs() if "supervise" in p.cmdline))


@pytest.mark.timeout(240)
def test_over_120000_lines_and_20_random_faults_the_logs_are_byte_identical(user: Workstation, hosts: Hosts) -> None:
    profile = user.profile("talk", "python3", user.script("talk.py", TALK), "20000", "0.003", hosts=hosts)
    run = user.launch(profile)
    user.await_text("line 1 ", run, ranks=6)
    chance = random.Random(SEED)
    viewer = user.start("attach", run)
    cuts = [30.0] + [chance.uniform(0.2, 3.0) for _ in range(5)]
    faults = ["cut"] * len(cuts) + [chance.choice(["viewer", "session"]) for _ in range(20 - len(cuts))]
    chance.shuffle(faults)
    for fault in faults:
        time.sleep(chance.uniform(0.2, 1.5))
        host = chance.choice(hosts)
        if fault == "viewer":
            viewer.kill()
            viewer.wait()
            viewer = user.start("attach", run)
        elif fault == "session":
            host.kill_sessions()
        else:
            host.unplug()
            time.sleep(cuts.pop())
            host.plug()
    assert viewer.wait(120) == 0
    here, there = sums(user.folder(run)), sums_on_nodes(hosts, run)
    assert len(there) == 3 * (2 + 2 * 2)
    assert here == there
    texts = [path.read_text() for path in user.folder(run).glob("n*/ranks/*/attempt_0/*/stdout.log")]
    assert sum(text.count("\n") for text in texts) == 6 * 20_001


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (kill_rank, "rank 3 (local_rank 1) on node2 (node_rank 1) was killed by SIGKILL"),
        (kill_torchrun, "torchrun on node2 (node_rank 1) was killed by SIGKILL"),
        (kill_supervisor, "node2 (node_rank 1) lost its supervisor"),
    ],
)
def test_when_a_process_dies_it_is_named_and_the_other_hosts_are_clean_within_seconds(
    user: Workstation, hosts: Hosts, fault: Callable[[Host], None], words: str
) -> None:
    profile = user.profile("talk", "python3", user.script("talk.py", TALK), "1000000", "0.02", hosts=hosts)
    viewer = user.start("launch", profile)
    wait_until(lambda: (user.home / "viewer-0.out").read_text().count(" line 1 ") == 6, seconds=60)
    fault(hosts[1])
    began = time.monotonic()
    code = viewer.wait(60)
    took = time.monotonic() - began
    text = (user.home / "viewer-0.err").read_text()
    assert code == 1, text
    assert f"first failure: {words}" in text
    assert not any(host.jobs() for host in hosts)
    assert took < 20


@pytest.mark.timeout(180)
def test_a_host_that_loses_power_is_named_and_the_others_are_stopped(user: Workstation, hosts: Hosts) -> None:
    profile = user.profile("talk", "python3", user.script("talk.py", TALK), "1000000", "0.02", hosts=hosts)
    viewer = user.start("launch", profile, "--lost-after", "10")
    wait_until(lambda: (user.home / "viewer-0.out").read_text().count(" line 1 ") == 6, seconds=60)
    hosts[2].power_off()
    code = viewer.wait(90)
    text = (user.home / "viewer-0.err").read_text()
    assert code == 1, text
    assert "first failure: node3 (node_rank 2) has been unreachable" in text
    assert not any(host.jobs() for host in hosts[:2])


def test_a_host_that_restarts_is_named_as_such(user: Workstation, hosts: Hosts) -> None:
    profile = user.profile("talk", "python3", user.script("talk.py", TALK), "1000000", "0.02", hosts=hosts)
    viewer = user.start("launch", profile)
    wait_until(lambda: (user.home / "viewer-0.out").read_text().count(" line 1 ") == 6, seconds=60)
    hosts[1].reboot()
    assert viewer.wait(60) == 1
    assert "first failure: node2 (node_rank 1)" in (user.home / "viewer-0.err").read_text()
    assert not any(host.jobs() for host in hosts)


def test_stop_ends_ranks_that_ignore_sigterm_and_daemons_that_ran_away(user: Workstation, hosts: Hosts) -> None:
    stubborn = user.script(
        "stubborn.py",
        "import os, signal, subprocess, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "subprocess.Popen(['setsid', 'sh', '-c', 'trap \"\" TERM HUP; sleep 3000'], stdout=subprocess.DEVNULL)\n"
        "print('up', flush=True)\ntime.sleep(3000)\n",
    )
    run = user.launch(user.profile("stubborn", "python3", stubborn, hosts=hosts))
    user.await_text("up", run, ranks=6)
    stopped = user.run("stop", run, "--grace", "3", timeout=60)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert not any(host.jobs() for host in hosts)
    assert not [p for host in hosts for p in host.processes() if "3000" in " ".join(p.cmdline)]


def test_a_dead_supervisors_run_is_found_and_removed_by_reap(user: Workstation, hosts: Hosts) -> None:
    daemon = user.script(
        "daemon.py",
        "import subprocess, time\n"
        "subprocess.Popen(['setsid', 'sleep', '3000'], stdout=subprocess.DEVNULL)\n"
        "print('up', flush=True)\ntime.sleep(3000)\n",
    )
    profile = user.profile("daemon", "python3", daemon, hosts=hosts)
    user.await_text("up", user.launch(profile), ranks=6)
    for host in hosts:
        kill_supervisor(host)
    wait_until(lambda: all(len(host.jobs()) == 2 for host in hosts), seconds=20)
    shown = user.run("reap", profile, "--dry-run")
    assert shown.stdout.count("would remove") == 6
    assert user.run("reap", profile).stdout.count("removed") == 6
    assert not any(host.jobs() for host in hosts)


# ---- machines that are not as they should be: a clear error, in bounded time, nothing started -----------------------


def refused(user: Workstation, hosts: Hosts, *, code: int = 3) -> str:
    profile = user.profile("talk", "python3", user.script("talk.py", TALK), "3", "0", hosts=hosts)
    began = time.monotonic()
    done = user.run("launch", profile)
    assert time.monotonic() - began < 30
    assert done.returncode == code, done.stderr
    assert not any(host.jobs() for host in hosts if host.is_on)
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_host_without_python3_is_named(user: Workstation, hosts: Hosts) -> None:
    for path in ("/usr/bin/python3", "/usr/local/bin/python3"):
        with contextlib.suppress(Exception):
            hosts[1].mount("--bind", "/dev/null", path)
    hosts[1].restart_sshd(SetEnv="PATH=/bin:/usr/bin")
    text = refused(user, hosts)
    assert "node2" in text
    assert "python3" in text


def test_a_read_only_home_is_named_with_the_remedy(user: Workstation, hosts: Hosts) -> None:
    home = str(user.cluster.home)
    hosts[1].mount("-t", "tmpfs", "-o", "ro", "none", home)
    text = refused(user, hosts)
    assert "node2" in text
    assert "read-only" in text
    assert "state_dir" in text


def test_a_full_disk_is_named_with_the_remedy(user: Workstation, hosts: Hosts) -> None:
    home = str(user.cluster.home)
    hosts[2].mount("-t", "tmpfs", "-o", "size=4k,mode=777", "none", home)
    text = refused(user, hosts)
    assert "node3" in text
    assert "no space left" in text
    assert "state_dir" in text


def test_a_server_that_accepts_and_says_nothing_is_given_up(user: Workstation, hosts: Hosts) -> None:
    hosts[1].stop_sshd()
    silent = hosts[1].start(
        ["python3", "-c", "import socket,time; s=socket.create_server(('0.0.0.0', 22)); time.sleep(600)"], root=True
    )
    try:
        time.sleep(0.5)
        text = refused(user, hosts)
    finally:
        silent.send_signal(signal.SIGKILL)
        silent.wait()
    assert "node2" in text


def test_a_host_that_takes_none_of_our_keys_is_named_with_what_was_tried(user: Workstation, hosts: Hosts) -> None:
    hosts[1].restart_sshd(AuthorizedKeysFile="/nonexistent")
    text = refused(user, hosts)
    assert "node2" in text
    assert "the server takes publickey" in text
    assert "ssh-copy-id" in text


def test_a_changed_host_key_is_refused(user: Workstation, hosts: Hosts) -> None:
    known = user.cluster.known_hosts
    text = known.read_text()
    lines = {line.split()[0]: line.split(" ", 1)[1] for line in text.splitlines()}
    names = list(lines)
    try:
        known.write_text(f"{names[0]} {lines[names[0]]}\n{names[1]} {lines[names[0]]}\n{names[2]} {lines[names[2]]}\n")
        said = refused(user, hosts)
    finally:
        known.write_text(text)
    assert "node2" in said
    assert str(known) in said


def test_an_unknown_host_key_shows_its_fingerprint_and_is_not_stored(user: Workstation, hosts: Hosts) -> None:
    known = user.cluster.known_hosts
    text = known.read_text()
    try:
        known.write_text("".join(line + "\n" for line in text.splitlines() if "node3" not in line))
        said = refused(user, hosts)
        assert "node3" not in known.read_text()
    finally:
        known.write_text(text)
    assert "node3" in said
    assert "SHA256:" in said


def test_a_noisy_start_up_file_hurts_nothing(user: Workstation, hosts: Hosts) -> None:
    rc = hosts[0].path(".bashrc")
    rc.write_text('echo "welcome to node1"; printf "\\033]0;title\\007"; echo oops >&2\n')
    profile = user.profile("talk", "python3", user.script("talk.py", TALK), "3", "0", hosts=hosts)
    done = user.run("launch", profile)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize("shells", [("/bin/dash", "/usr/bin/fish", "/bin/tcsh"), ("/bin/zsh",)])
def test_a_run_goes_through_any_login_shell(user: Workstation, hosts: Hosts, shells: tuple[str, ...]) -> None:
    for host, shell in zip(hosts, shells, strict=False):
        if not host.path(shell).exists():
            pytest.skip(f"{shell} is not installed")
        host.set_login_shell(shell)
    some = hosts[: len(shells)]
    profile = user.profile("talk", "python3", user.script("talk.py", TALK), "3", "0", hosts=some, ranks=1)
    done = user.run("launch", profile)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("says goodbye") == len(shells)
