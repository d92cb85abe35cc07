"""The test cluster is real: what the other tests rely on, seen on the hosts themselves."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.cluster.cluster import REPOSITORY, Cluster, remove_stale
from tests.cluster.hosts import Host, port_answers
from tests.cluster.network import Unsupported, namespaces

if TYPE_CHECKING:
    from collections.abc import Callable

Hosts = tuple[Host, ...]

LISTEN = "import socket,time; s=socket.create_server(('0.0.0.0', 29600)); print('up', flush=True); time.sleep(600)"
ALL_REDUCE = """\
import os, torch, torch.distributed as dist
dist.init_process_group("gloo")
value = torch.tensor([float(dist.get_rank())])
dist.all_reduce(value)
line = f"rank {dist.get_rank()} of {dist.get_world_size()} on {os.uname().nodename}: sum {value.item():.0f}\\n"
os.write(1, line.encode())
dist.destroy_process_group()
"""


def listen(host: Host) -> subprocess.Popen[bytes]:
    process = host.start(["python3", "-c", LISTEN], stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"up\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def wait_until(condition: Callable[[], object], *, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.02)


def test_every_host_answers_ssh_with_its_own_name_and_address(cluster: Cluster, hosts: Hosts) -> None:
    for host in hosts:
        answer = cluster.ssh(host, "hostname; echo $SSH_CONNECTION; echo $OMP_NUM_THREADS; id -un")
        assert answer.returncode == 0, answer.stderr
        name, connection, threads, user = answer.stdout.splitlines()
        assert (name, threads, user) == (host.name, "1", cluster.user)
        assert connection.split()[0::2] == [cluster.network.workstation, host.address]


def test_a_host_sees_its_own_processes_only(hosts: Hosts) -> None:
    mine = hosts[0].start(["sleep", "4321"])
    try:
        wait_until(lambda: any(p.cmdline == ("sleep", "4321") for p in hosts[0].processes()))
        assert "sleep 4321" in hosts[0].run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout
        assert "sleep 4321" not in hosts[1].run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout
    finally:
        end(mine)


def test_orphans_are_reaped_by_the_host(hosts: Hosts) -> None:
    hosts[0].run("setsid sleep 0.1 & setsid sh -c 'sleep 0.1 & sleep 0.2' &")
    wait_until(lambda: not [p for p in hosts[0].processes() if p.name in ("sleep", "sh") or p.state == "Z"])


def test_a_zombie_is_listed_as_one(hosts: Hosts) -> None:
    parent = hosts[0].start("sh -c 'sleep 0.05 & exec sleep 600'; true")
    try:
        wait_until(lambda: any(p.state == "Z" and p.name == "sleep" for p in hosts[0].processes()))
    finally:
        end(parent)


def test_a_port_is_taken_on_one_host_and_free_on_another(hosts: Hosts) -> None:
    taken = listen(hosts[0])
    try:
        assert port_answers(hosts[0].address, 29600)
        assert not port_answers(hosts[1].address, 29600)
        end(listen(hosts[1]))
    finally:
        end(taken)


def test_hosts_reach_one_another_by_name(hosts: Hosts) -> None:
    hosts[0].run(["python3", "-c", "import socket; socket.create_connection(('node3', 22), 2)"])


def test_homes_and_temporary_folders_are_separate_and_the_share_is_not(cluster: Cluster, hosts: Hosts) -> None:
    hosts[0].run(f"touch ~/mine /tmp/mine; touch {cluster.share}/ours")
    assert hosts[0].path("mine").exists()
    assert hosts[0].path("/tmp/mine").exists()
    assert hosts[1].run(f"ls ~/mine /tmp/mine {cluster.share}/ours", check=False).stdout == f"{cluster.share}/ours\n"


def test_a_shared_home_is_one_folder_for_all(hosts: Hosts) -> None:
    for host in hosts:
        host.share_home()
    hosts[0].run("touch ~/ours")
    assert hosts[2].run("ls ~").stdout == "ours\n"


def test_the_login_user_reads_the_repository(cluster: Cluster, hosts: Hosts) -> None:
    hosts[0].run([sys.executable, "-c", "import engine"], env={"PYTHONPATH": str(REPOSITORY)})
    assert hosts[0].run(["id", "-u"]).stdout.strip() == str(cluster.uid)


def test_an_unplugged_host_is_unreachable_and_comes_back(cluster: Cluster, hosts: Hosts) -> None:
    hosts[0].unplug()
    assert not port_answers(hosts[0].address, 22)
    assert hosts[0].run("ip -4 -br addr show eth0").stdout.split()[2] == f"{hosts[0].address}/24"
    hosts[0].plug()
    wait_until(lambda: port_answers(hosts[0].address, 22))


def test_an_open_connection_outlives_a_short_unplugging(cluster: Cluster, hosts: Hosts) -> None:
    argv = cluster.ssh_argv(hosts[0], "read line; echo got $line")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as ssh:
        wait_until(hosts[0].sshd_sessions)
        hosts[0].unplug()
        time.sleep(0.3)
        hosts[0].plug()
        assert ssh.communicate(b"it\n", timeout=20)[0] == b"got it\n"


def test_a_power_failure_ends_everything_and_sends_nothing(hosts: Hosts) -> None:
    listen_process = listen(hosts[0])
    with socket.create_connection((hosts[0].address, 29600), timeout=2) as open_connection:
        boot = hosts[0].run("cat /proc/sys/kernel/random/boot_id").stdout
        hosts[0].run("touch ~/kept /tmp/lost")
        hosts[0].power_off()
        end(listen_process)
        assert hosts[0].processes() == []
        open_connection.settimeout(1.0)
        with pytest.raises(TimeoutError):
            open_connection.recv(1)
        hosts[0].power_on()
    assert hosts[0].run("cat /proc/sys/kernel/random/boot_id").stdout != boot
    assert hosts[0].run("ls ~; test ! -e /tmp/lost").stdout == "kept\n"


def test_killed_sessions_end_the_connection_and_not_the_server(cluster: Cluster, hosts: Hosts) -> None:
    argv = cluster.ssh_argv(hosts[0], "sleep 600")
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as ssh:
        wait_until(lambda: any(p.cmdline == ("sleep", "600") for p in hosts[0].processes()))
        assert hosts[0].kill_sessions() == 2
        assert ssh.wait(timeout=10) == 255
    assert cluster.ssh(hosts[0], "true").returncode == 0


def test_sshd_takes_options_for_one_test(cluster: Cluster, hosts: Hosts) -> None:
    hosts[0].restart_sshd(ForceCommand="echo forced")
    assert cluster.ssh(hosts[0], "echo mine").stdout == "forced\n"
    cluster.heal()
    assert cluster.ssh(hosts[0], "echo mine").stdout == "mine\n"


@pytest.mark.parametrize(("action", "error"), [("drop", TimeoutError), ("reject", ConnectionRefusedError)])
def test_a_firewalled_port_is_closed_to_others_and_open_on_the_host(
    hosts: Hosts, action: str, error: type[OSError]
) -> None:
    hosts[0].firewall(29600, action)
    listening = listen(hosts[0])
    try:
        with pytest.raises(error):
            socket.create_connection((hosts[0].address, 29600), timeout=1)
        hosts[0].run(["python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 29600), 2)"])
        assert port_answers(hosts[0].address, 22)
    finally:
        end(listening)


def test_a_slow_link_is_slow(cluster: Cluster, hosts: Hosts) -> None:
    hosts[0].slow(rate="8mbit")
    start = time.monotonic()
    cluster.ssh(hosts[0], "head -c 1000000 /dev/zero")
    assert time.monotonic() - start > 0.8


def test_a_lossy_link_still_carries(cluster: Cluster, hosts: Hosts) -> None:
    hosts[0].slow(loss=5.0)
    assert len(cluster.ssh(hosts[0], "head -c 200000 /dev/zero").stdout) == 200_000


def test_a_delayed_link_adds_its_delay(hosts: Hosts) -> None:
    try:
        hosts[0].slow(delay="50ms")
    except Unsupported as missing:
        pytest.skip(str(missing))
    start = time.monotonic()
    assert port_answers(hosts[0].address, 22)
    assert time.monotonic() - start > 0.045


def test_docker0_and_a_second_interface_appear_on_the_host(hosts: Hosts) -> None:
    for host in hosts[:2]:
        host.docker0()
        host.second_nic("10.77.0")
    addresses = hosts[0].run("ip -4 -br addr").stdout
    assert "172.17.0.1/16" in addresses
    assert "10.77.0.1/24" in addresses
    hosts[0].run(["python3", "-c", "import socket; socket.create_connection(('10.77.0.2', 22), 2)"])


def test_a_process_that_carries_the_run_marker_is_found_and_removed(cluster: Cluster, hosts: Hosts) -> None:
    left = hosts[1].start(["sleep", "600"], env={"RANKDECK_JOB": "r/n1"})
    wait_until(lambda: [p.name for p in hosts[1].jobs()] == ["sleep"])
    assert [p.job for p in hosts[1].heal(wait=0)] == ["r/n1"]
    assert left.wait(timeout=5) == -signal.SIGKILL or left.returncode == 128 + signal.SIGKILL
    cluster.heal()


def test_what_a_crashed_run_left_is_removed_by_the_next(hosts: Hosts) -> None:
    """A child makes a cluster and is killed with no chance to remove it."""
    text = "from tests.cluster.cluster import Cluster; import time; print(Cluster(1), flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, cwd=REPOSITORY) as child:
        assert child.stdout
        assert b"node1" in child.stdout.readline()
        name = f"rd{child.pid}a-node1"
        assert name in namespaces()
        remove_stale()
        assert name in namespaces()
        os.kill(child.pid, signal.SIGKILL)
    remove_stale()
    assert name not in namespaces()
    assert hosts[0].is_on


def test_torchrun_all_reduces_over_three_hosts(cluster: Cluster, hosts: Hosts) -> None:
    (cluster.share / "all_reduce.py").write_text(ALL_REDUCE)
    launches = []
    for rank, host in enumerate(hosts):
        torchrun = (
            f"{sys.prefix}/bin/torchrun --nnodes 3 --nproc-per-node 2 --node-rank {rank} "
            f"--master-addr {hosts[0].address} --master-port 29600 {cluster.share}/all_reduce.py"
        )
        argv = cluster.ssh_argv(host, torchrun)
        launches.append(subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    answers = [launch.communicate(timeout=100) for launch in launches]
    assert [launch.returncode for launch in launches] == [0, 0, 0], answers
    lines = sorted(line for out, _ in answers for line in out.splitlines() if line.startswith("rank"))
    assert lines == [f"rank {rank} of 6 on node{rank // 2 + 1}: sum 15" for rank in range(6)]
