"""Real failures on real hosts end in the right verdict: the cause, the node and the rank, evidence and a remedy."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.workstation import Workstation, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from tests.cluster.hosts import Host, Inside

    Hosts = tuple[Host, ...]

FAILING = str(Path(__file__).resolve().parents[1] / "failing.py")
MEMORY = Path("/sys/fs/cgroup/memory")
PROGRAMS = [
    (["raise"], ("exception", 1, 1), "ValueError: sample 1337 has 0 tokens (step 3), in load"),
    (["kill"], ("killed", 1, 1), "SIGKILL"),
    (["segfault"], ("segfault", 1, 1), "SIGSEGV"),
    (["exit"], ("exit-code", 1, 1), "code 3"),
    (["import"], ("import-error", 1, 1), "flash_attn_that_is_not_there"),
    (["hang", "--timeout", "6"], ("hang", 1, 1), "hung"),
    (["collective", "--timeout", "20"], ("collective-mismatch", 0, 0), "shape"),
    (["nan"], ("nan-loss", 0, 0), "loss is nan at step 3"),
    (["disk", "--path", "/dev/full"], ("disk-full", 1, 1), "disk is full"),
    (["raise", "--bacth", "4"], ("bad-option", 0, 0), "--bacth"),
    (["missing", "--path", "/data/shard-3.bin"], ("file-missing", 1, 1), "/data/shard-3.bin"),
]
"""How the failing program fails, the rule, node rank and rank of its verdict, and words of the cause."""


def start(user: Workstation, hosts: Hosts, *argv: str, extra: str = "", ranks: int = 1) -> subprocess.Popen[str]:
    """`rankdeck launch` of the failing program on two hosts."""
    profile = user.profile("failing", "python3", FAILING, *argv, hosts=hosts[:2], ranks=ranks, extra=extra)
    return user.start("launch", profile, "--lost-after", "5")


def verdict_of(user: Workstation, viewer: subprocess.Popen[str]) -> dict[str, Any]:
    """What the launch ends with, which has to be what `diagnose` says of the run afterwards."""
    assert viewer.wait(100) == 1, (user.home / "viewer-0.err").read_text()
    said = (user.home / "viewer-0.err").read_text()
    run = next(line.split()[1].rstrip(":") for line in said.split("\n") if line.startswith("run "))
    done = user.run("diagnose", run, "--json")
    verdict: dict[str, Any] = json.loads(done.stdout)
    assert f"first failure: {verdict['cause']}" in said
    assert verdict["remedy"] in said
    return verdict


def place(verdict: dict[str, Any]) -> tuple[str, int | None, int | None]:
    return verdict["rule"], verdict["node_rank"], verdict["rank"]


@pytest.mark.parametrize(
    ("argv", "expected", "words"),
    PROGRAMS,
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_a_program_that_fails(
    user: Workstation, hosts: Hosts, argv: list[str], expected: tuple[str, int, int], words: str
) -> None:
    verdict = verdict_of(user, start(user, hosts, *argv))
    rule, node_rank, rank = place(verdict)
    if expected[0] in ("nan-loss", "bad-option", "collective-mismatch"):
        assert rule == expected[0]  # every rank fails so, and any may be the first
    else:
        assert (rule, node_rank, rank) == expected
    assert words in verdict["cause"]
    assert verdict["evidence"]


@pytest.fixture
def little_memory(hosts: Hosts) -> Iterator[Host]:
    """The second host, with 700 MiB of memory for all that it runs."""
    if not (MEMORY / "memory.limit_in_bytes").exists():
        pytest.skip("no cgroup v1 controller for memory here")
    host = hosts[1]
    group = MEMORY / f"rankdeck-{os.getpid()}-{host.name}"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text(str(700 << 20))
    # A host has a /sys of its own, without control groups, as the first thing that needs them finds out.
    host.mount("-t", "tmpfs", "none", "/sys/fs/cgroup")
    host.run(["mkdir", "/sys/fs/cgroup/memory"], root=True)
    host.mount("-t", "cgroup", "-o", "memory", "none", "/sys/fs/cgroup/memory")
    for process in host.processes():
        (group / "cgroup.procs").write_text(str(process.outer))
    yield host
    for pid in (group / "cgroup.procs").read_text().split():
        (MEMORY / "cgroup.procs").write_text(pid)
    wait_until(lambda: not (group / "cgroup.procs").read_text(), seconds=5)
    group.rmdir()


def test_a_rank_that_the_kernel_kills_for_want_of_memory(user: Workstation, hosts: Hosts, little_memory: Host) -> None:
    verdict = verdict_of(user, start(user, hosts, "memory"))
    assert place(verdict) == ("host-out-of-memory", 1, 1)
    assert "oom_kill" in verdict["evidence"][0]["text"] or "ut of memory" in verdict["evidence"][0]["text"]


def await_step(user: Workstation) -> None:
    wait_until(lambda: "step: 3 " in (user.home / "viewer-0.out").read_text(), seconds=60)


def test_torchrun_that_somebody_terminates(user: Workstation, hosts: Hosts) -> None:
    viewer = start(user, hosts, "ok", "--steps", "100000")
    await_step(user)
    agent = next(p for p in hosts[1].jobs() if any("bin/torchrun" in word for word in p.cmdline))
    hosts[1].run(["kill", "-TERM", str(agent.pid)], root=True)
    assert place(verdict_of(user, viewer)) == ("terminated", 1, None)


def test_a_host_without_power(user: Workstation, hosts: Hosts) -> None:
    viewer = start(user, hosts, "ok", "--steps", "100000", "--timeout", "300")
    await_step(user)
    hosts[1].power_off()
    verdict = verdict_of(user, viewer)
    assert place(verdict) == ("node-lost", 1, None)
    assert "unreachable" in verdict["cause"]


# ---- what only a launch by hand gets wrong: torchrun on each host, and the verdict on its output --------------------

Flags = dict[str, str]


def by_hand(
    user: Workstation, hosts: Hosts, *flags: Flags, env: tuple[Flags, ...] = ({}, {}), argv: tuple[str, ...] = ("ok",)
) -> dict[str, Any]:
    """Start torchrun on hosts with these flags instead of the right ones; the verdict on what they print."""
    started: list[Inside] = []
    logs = []
    for rank, (host, own) in enumerate(zip(hosts, flags, strict=False)):
        right = {"nnodes": "2", "node-rank": str(rank), "master-addr": hosts[0].address, "master-port": "29500"}
        options = [f"--{key}={value}" for key, value in {**right, **own}.items()]
        conf = "--rdzv-conf=timeout=10,join_timeout=10,read_timeout=10"
        log = user.home / f"node{rank}.txt"
        logs.append(str(log))
        argv_there = ["torchrun", "--nproc-per-node=1", conf, *options, FAILING, *argv]
        path = {"PATH": user.env["PATH"] + ":/usr/sbin:/sbin", "GLOO_SOCKET_IFNAME": "eth0", **env[rank]}
        if started and "nnodes" in own:
            time.sleep(6)  # with c10d, whoever joins last decides how many nodes are enough
        with log.open("wb") as out:
            started.append(host.start(argv_there, env=path, stdout=out, stderr=out))
    # The other one may wait for minutes.
    deadline = time.monotonic() + 45
    while time.monotonic() < deadline and any(process.poll() is None for process in started):
        if any(process.poll() is not None for process in started):
            deadline = min(deadline, time.monotonic() + 8)
        time.sleep(0.2)
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
    done = user.run("diagnose", "--json", *logs)
    assert done.returncode == 0, done.stderr
    verdict: dict[str, Any] = json.loads(done.stdout)
    return verdict


def block(host: Host) -> None:
    """Refuse what comes in on the ports that programs choose themselves, and leave the rendezvous port open."""
    host.firewall((32768, 60999), "reject")


@pytest.mark.parametrize(
    ("flags", "env", "before", "expected"),
    [
        ([{"nnodes": "2"}, {"node-rank": "0"}], ({}, {}), None, ("duplicate-node-rank", 1)),
        ([{}, {"master-addr": "{subnet}.77"}], ({}, {}), None, ("master-unreachable", 1)),
        ([{}, {}], ({}, {"GLOO_SOCKET_IFNAME": "eth7"}), None, ("no-such-interface", 1)),
        ([{}, {}], ({}, {}), block, ("peer-unreachable", None)),
        (
            [
                {"rdzv-backend": "c10d", "rdzv-endpoint": "{first}:29500", "rdzv-id": "job"},
                {"rdzv-backend": "c10d", "rdzv-endpoint": "{first}:29500", "rdzv-id": "job", "nnodes": "3"},
            ],
            ({}, {}),
            None,
            ("nnodes-mismatch", 0),
        ),
    ],
    ids=[
        "duplicate node_rank",
        "master unreachable",
        "wrong interface",
        "firewall after rendezvous",
        "nnodes mismatch",
    ],
)
def test_a_launch_by_hand(
    user: Workstation,
    hosts: Hosts,
    flags: list[Flags],
    env: tuple[Flags, ...],
    before: Callable[[Host], None] | None,
    expected: tuple[str, int | None],
) -> None:
    if before is not None:
        before(hosts[0])
    subnet = hosts[0].address.rpartition(".")[0]
    filled = [{k: v.format(subnet=subnet, first=hosts[0].address) for k, v in one.items()} for one in flags]
    verdict = by_hand(user, hosts, *filled, env=env, argv=("ok", "--timeout", "15"))
    assert verdict["rule"] == expected[0], verdict
    if expected[1] is not None:
        assert verdict["node_rank"] == expected[1], verdict


def test_a_port_that_somebody_has(user: Workstation, hosts: Hosts) -> None:
    holder = hosts[0].start(
        ["python3", "-c", "import socket,time; s=socket.create_server(('0.0.0.0', 29500)); time.sleep(600)"]
    )
    try:
        time.sleep(0.5)
        verdict = by_hand(user, hosts, {}, {})
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert place(verdict) == ("port-in-use", 0, None)
    assert "29500" in verdict["cause"]
