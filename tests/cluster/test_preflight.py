"""Broken clusters, each with several faults: exactly the right findings, on the right nodes, and remedies that mend.

Every test makes its faults on real hosts and reads `rankdeck check --json`. What stands in for a part that no test
machine has (GPUs, InfiniBand, a clock that is off) says so in the test's name.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

from tests.cluster.cluster import REPOSITORY
from tests.cluster.patient import PORT, Patient
from tests.cluster.workstation import VENV, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.hosts import Host


def stand_in(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def test_a_healthy_cluster_has_nothing_to_be_told_about_and_nothing_is_left_on_it(patient: Patient) -> None:
    assert patient.check() == {}
    for host in patient.hosts:
        assert not [p.name for p in host.processes() if p.name not in ("python", "python3", "sshd")]
        left = [path for path in host.path().rglob("*") if path.is_file()]
        assert [path.suffix for path in left] == [".zip", ".zip"]  # with and without bytecode


def test_shells_folders_activations_limits_and_clocks_with_stand_ins_for_infiniband_and_for_a_clock(
    patient: Patient,
) -> None:
    first, second, third = patient.hosts
    first.restart_sshd(limits=["--nofile=256:4096"])
    first.path(".bashrc").write_text("sleep 2.5\n")
    patient.asked["nodes"][1]["workdir"] = "/data/nowhere"
    infiniband(second)
    second.restart_sshd(limits=["--memlock=65536"])
    ahead = "import time; real = time.time; time.time = lambda: real() + 30"
    stand_in(second.bin / "python3", f'#!/bin/sh\nexec {sys.base_prefix}/bin/python3 "$1" "$2" "$3" "{ahead}; $4"\n')
    patient.asked["nodes"][2]["activate"] = "source /opt/venv/bin/activate"
    third.mount("-o", "remount,size=40M", "/dev/shm")
    patient.write()
    found = patient.check()
    assert set(found) == {
        ("reach.shell", 0), ("limits.files", 0),
        ("program.workdir", 1), ("reach.clock", 1), ("limits.memlock", 1),
        ("program.activate", 2), ("limits.shm", 2),
        ("fabric.ports", 0), ("fabric.ports", 2),  # the second node alone has InfiniBand
    }  # fmt: skip
    assert "30.0 s ahead" in found["reach.clock", 1]["text"]
    assert "No such file" in " ".join(found["program.activate", 2]["evidence"])
    patient.obey(found["limits.shm", 2])
    after = patient.check("--fix", "--no-speed")
    assert set(found) - set(after) == {("limits.files", 0), ("limits.shm", 2)}
    assert "ulimit -n" in patient.path.read_text()


def infiniband(host: Host) -> None:
    """A port of an InfiniBand device, as /sys shows it."""
    port = "/sys/class/infiniband/mlx5_0/ports/1"
    host.run(
        "mkdir /run/net && mount --bind /sys/class/net /run/net && mount -t tmpfs tmpfs /sys/class"
        f" && mkdir -p /sys/class/net {port} && mount --bind /run/net /sys/class/net"
        f" && echo '4: ACTIVE' > {port}/state && echo '400 Gb/sec (4X NDR)' > {port}/rate"
        f" && echo InfiniBand > {port}/link_layer",
        root=True,
    )
    host._touched = True


def test_names_and_ports_are_mended_by_settings_and_then_the_launch_works(patient: Patient) -> None:
    first, second, third = patient.hosts
    patient.asked["rendezvous"] |= {"master_addr": "head", "interface": ""}
    patient.write()
    lines = {first: f"{first.address} {first.name} head", second: f"127.0.1.1 {second.name} head", third: ""}
    for host, line in lines.items():
        host.path("hosts").write_text(f"127.0.0.1 localhost\n{line or f'{host.address} {host.name}'}\n")
        host.mount("--bind", str(host.home / "hosts"), "/etc/hosts")
        host.docker0()
    squatter = first.start(["python3", "-m", "http.server", str(PORT)])
    try:
        first.run(f"until ss -ltn | grep -q :{PORT}; do sleep 0.05; done")
        found = patient.check()
        assert set(found) == {
            ("ports.master", 0),
            ("addresses.loopback", 1), ("addresses.interface", None),
            ("addresses.master", 1), ("addresses.master", 2),
        }  # fmt: skip
        assert "http.server" in " ".join(found["ports.master", 0]["evidence"])
        assert "172.17.0.1 (docker0)" in " ".join(found["addresses.interface", None]["evidence"])
        patient.user.run("check", str(patient.path), "--fix")
        assert patient.check() == {}
        patient.launch()
    finally:
        squatter.kill()
        squatter.wait()


def test_firewalls_are_found_one_by_one_and_opened_by_the_remedy(patient: Patient) -> None:
    first, second, third = patient.hosts
    first.wall(22, f"1024-{PORT - 1}", f"{PORT + 1}-65535", action="reject")
    second.wall(22, PORT, action="reject")
    third.wall(22, PORT, action="drop")
    found = patient.check()
    assert set(found) == {("mesh.master", 0), ("mesh.connect", 1), ("mesh.connect", 2)}
    assert "refused" in found["mesh.connect", 1]["text"]
    assert "dropped" in found["mesh.connect", 2]["text"]
    shown = patient.user.run("check", str(patient.path), "--no-speed").stdout
    assert re.search(r"0 node1 +- +refused  *\S* *dropped", shown), shown
    patient.obey(found["mesh.master", 0])
    patient.obey(found["mesh.connect", 1])
    patient.obey(found["mesh.connect", 2])
    assert patient.check() == {}
    patient.launch()


def test_a_pulled_cable_is_found_and_the_profile_moves_to_the_other_network(patient: Patient) -> None:
    for node, host in zip(patient.asked["nodes"], patient.hosts, strict=True):
        node["addr"] = host.second_nic()
    patient.write()
    assert patient.check("--no-speed") == {}
    patient.hosts[2].unplug(nic=1)
    found = patient.check()
    assert set(found) == {("mesh.connect", 2)}
    assert found["mesh.connect", 2]["text"].startswith("cut off")
    assert found["mesh.connect", 2]["fix"] == [f"nodes[{n}].addr={h.address}" for n, h in enumerate(patient.hosts)]
    patient.launch("--fix")


def test_a_master_on_a_network_that_one_node_is_not_on_is_found_there(patient: Patient) -> None:
    patient.asked["nodes"][0]["addr"] = patient.hosts[0].second_nic()
    patient.hosts[1].second_nic()
    patient.write()
    found = patient.check()
    assert set(found) == {("addresses.master", 2)}
    assert "unreachable" in found["addresses.master", 2]["text"]
    patient.launch(*patient.obey(found["addresses.master", 2]))


def test_the_address_of_a_container_bridge_is_nobodys_own(patient: Patient) -> None:
    for node, host in zip(patient.asked["nodes"], patient.hosts, strict=True):
        host.docker0()
        node["addr"] = "172.17.0.1"
    patient.write()
    found = patient.check()
    assert set(found) == {("addresses.unique", None)}
    patient.launch(*patient.obey(found["addresses.unique", None]))


def test_a_slow_line_and_a_lossy_one_are_found_on_their_nodes(patient: Patient) -> None:
    patient.hosts[1].slow(rate="100mbit")
    found = patient.check()
    assert set(found) == {("speed.bandwidth", 1)}
    assert re.search(r"carries (9\d|10\d) Mbit/s", found["speed.bandwidth", 1]["text"])
    patient.hosts[2].slow(loss=20)
    for _ in range(4):  # ssh itself may not come through in time
        found = patient.check("--no-speed")
        assert {node for _, node in found} == {2}
        if ("mesh.loss", 2) in found:
            return
    pytest.fail(f"the loss is not found: {found}")


def test_other_programs_and_other_versions_are_found_with_stand_ins_for_a_python_and_a_torch(patient: Patient) -> None:
    for number, host in enumerate(patient.hosts):
        host.path("exp").mkdir()
        host.path("exp/train.py").write_text("import net\n")
        host.path("exp/net.py").write_text(f"layers = {max(number, 1)}\n")
    share = patient.user.cluster.share
    for folder in ("bin", "lib/torch"):
        (share / folder).mkdir(parents=True)
    (share / "lib/torch/__init__.py").touch()
    (share / "lib/torch/version.py").write_text("__version__ = '2.8.0+cu126'\n")
    older = "import sys; sys.version_info = (3, 9, 18); look = sys.argv.pop(1); exec(look)"
    stand_in(share / "bin/python3", f'#!/bin/bash\nexec {sys.executable} -c "{older}" "${{@:2}}"\n')
    stand_in(share / "bin/torchrun", f"#!{share}/bin/python3\n")
    patient.asked["program"] |= {"path": "train.py", "workdir": "~/exp"}
    patient.asked["nodes"][1]["activate"] = f"export PATH={share}/bin:$PATH PYTHONPATH={share}/lib"
    patient.write()
    kept = patient.hosts[1].path("venv")  # with the torch of the others
    version = f"__version__ = '{metadata.version('torch')}'\n"
    texts = {
        "pyvenv.cfg": "",
        "bin/activate": VENV,
        "bin/torchrun": "",
        "lib/python3.11/site-packages/torch/version.py": version,
    }
    for name, text in texts.items():
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        stand_in(kept / name, text)
    done = patient.user.run("check", str(patient.path), "--json", "--no-speed")
    assert done.returncode == 3, done.stderr
    found = [each for line in done.stdout.splitlines() if (each := json.loads(line))["severity"] != "info"]
    assert [(each["check"], each["severity"], each["node_rank"]) for each in found] == [
        ("program.same", "error", None),
        ("program.versions", "error", None),
        ("program.versions", "warning", None),
    ]
    assert "net.py: " in found[0]["evidence"][0]
    assert "torch 2.8.0+cu126: node 1" in found[1]["evidence"]
    assert "Python 3.9: node 1" in found[2]["evidence"]
    environments = (f"{patient.hosts[1].home}/venv", sys.prefix)  # this one too, where torch is really in it
    assert found[1]["fix"][0] in [f"nodes[1].activate=source {folder}/bin/activate" for folder in environments]
    assert set(patient.check("--no-speed", *patient.obey(found[1]))) == {("program.same", None)}


def test_full_disks_are_told_with_the_key_that_names_another(patient: Patient) -> None:
    _, second, third = patient.hosts
    for host in patient.hosts:
        own_var_tmp(host)
    second.mount("-t", "tmpfs", "-o", "size=64k,mode=777", "tmpfs", str(second.home))
    second.run("dd if=/dev/zero of=$HOME/fill bs=4k", check=False)
    third.mount("-t", "tmpfs", "-o", "size=16m,mode=777", "tmpfs", str(third.home))
    found = patient.check("--no-speed")
    assert set(found) == {("reach.ssh", 1), ("node.state", 2)}
    assert "no space left" in found["reach.ssh", 1]["text"]
    assert all("state_dir" in each["remedy"] for each in found.values())
    patient.launch(*patient.obey(found["reach.ssh", 1]), "--skip", "node.workdir")


def own_var_tmp(host: Host) -> None:
    """A /var/tmp of the host's own, in which the test cluster's files and those of a clone stay where they are."""
    kept = [str(path) for path in (host.cluster.folder, REPOSITORY) if path.is_relative_to("/var/tmp")]
    lines = [f"mkdir /run/kept{n} && mount --rbind {path} /run/kept{n}" for n, path in enumerate(kept)]
    lines += ["mount -t tmpfs -o mode=1777 none /var/tmp"]
    lines += [f"mkdir -p {path} && mount --rbind /run/kept{n} {path}" for n, path in enumerate(kept)]
    host.run(" && ".join(lines), root=True)
    host._touched = True


SMI = """\
#!/bin/sh
case "$*" in
*--query-gpu=index,uuid*) {gpus} ;;
*--query-compute-apps*) {apps} ;;
*) exit 2 ;;
esac
"""


def gpus(host: Host, *used: int, apps: str = "true", broken: str = "") -> None:
    """An nvidia-smi that prints these GPUs; `used` is the memory in MiB of each that is in use."""
    lines = [f"{n}, GPU-{host.name}-{n}, NVIDIA H100, 81559, {mib}, 570.86.10" for n, mib in enumerate(used)]
    shown = broken or "; ".join(f"echo '{line}'" for line in lines)
    stand_in(host.bin / "nvidia-smi", SMI.format(gpus=shown, apps=apps))


def test_gpus_that_are_busy_missing_or_without_a_driver_with_a_stand_in_for_nvidia_smi(patient: Patient) -> None:
    first, second, third = patient.hosts
    for node in patient.asked["nodes"]:
        node["gpus"] = 2
    patient.write()
    thief = second.start(["sleep", "60"])
    gpus(first, 4, 4)
    pid = second.run("pgrep -x sleep").stdout.strip()
    gpus(second, 70000, 4, apps=f"echo 'GPU-{second.name}-0, {pid}, 69990'")
    gpus(third, 4)
    no_cuda = {("devices.cuda", number) for number in range(3)}  # the torch of these hosts may be one for CPUs
    found = patient.check()  # which leaves the lines alone: somebody computes
    assert set(found) - no_cuda == {("devices.busy", 1), ("devices.enough", 2)}
    assert f"sleep (pid {pid})" in found["devices.busy", 1]["evidence"][0]
    assert found["devices.enough", 2]["fix"] == ["nodes[2].gpus=1"]
    flags = patient.obey(found["devices.busy", 1]) + patient.obey(found["devices.enough", 2])
    assert set(patient.check(*flags)) <= no_cuda
    patient.launch(*flags, ranks=4)
    thief.kill()
    thief.wait()
    mismatch = "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18"
    gpus(second, broken=mismatch)
    gpus(third, 4, 4)
    found = patient.check("--no-speed")
    assert set(found) - no_cuda == {("devices.driver", 1)}
    assert "version mismatch" in found["devices.driver", 1]["evidence"][0]


def test_a_real_all_reduce_is_measured_and_nothing_is_left(patient: Patient) -> None:
    done = patient.user.run("check", str(patient.path), "--json", "--no-speed", "--collective", "50")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    tried = next(each for each in found if each["check"] == "collective.works")
    assert tried["severity"] == "info", tried
    assert "16 MiB over 3 ranks (gloo)" in tried["text"]
    assert len(tried["evidence"]) == 2
    for host in patient.hosts:
        assert not host.jobs()
        assert not list(host.path(".local/state/rankdeck").glob("runs/*"))
    assert patient.user.run("runs").stdout.count("\n") <= 1


def test_a_rank_that_hangs_is_named_in_bounded_time(patient: Patient) -> None:
    third = patient.hosts[2]
    checking = patient.user.start("check", str(patient.path), "--json", "--no-speed", "--collective", "20")
    wait_until(lambda: [p for p in third.jobs() if p.environ.get("RANK") == "2"], seconds=30)
    for process in third.jobs():
        if process.environ.get("RANK") == "2":
            os.kill(process.outer, signal.SIGSTOP)
    assert checking.wait(60) == 3
    found = [json.loads(line) for line in (patient.user.home / "viewer-0.out").read_text().splitlines()]
    bad = [each for each in found if each["severity"] != "info"]
    assert [(each["check"], each["node_rank"]) for each in bad] == [("collective.works", 2)]
    assert bad[0]["text"].startswith("rank 2 never came")
    assert not third.jobs()


def test_a_dead_node_is_one_error_and_the_others_are_judged(patient: Patient) -> None:
    patient.hosts[1].power_off()
    patient.hosts[2].wall(22, action="drop")
    found = patient.check("--no-speed")
    assert set(found) == {("reach.ssh", 1), ("mesh.connect", 2)}
