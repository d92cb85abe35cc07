"""The kernel's word on an end, out of files that stand in for its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.node.kernel import Clue, Kernel


def standin_cgroups(root: Path, kills: int, version: int) -> Path:
    """Files as cgroup v1 or v2 has them, for a group that is the container's own root."""
    file = root / ("memory.events" if version == 2 else "memory/memory.oom_control")
    file.parent.mkdir(exist_ok=True)
    text = f"low 0\nhigh 0\nmax 9\noom {kills}\noom_kill {kills}\n"
    file.write_text(text if version == 2 else f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n")
    return file


@pytest.mark.parametrize("version", [1, 2])
def test_a_kill_for_want_of_memory_is_told_once(tmp_path: Path, version: int) -> None:
    file = standin_cgroups(tmp_path, 3, version)
    if (":memory:" if version == 1 else "0::") not in Path("/proc/self/cgroup").read_text():
        pytest.skip("this process is in no such cgroup")
    kernel = Kernel("/nonexistent", str(tmp_path))
    assert kernel.look() == []
    standin_cgroups(tmp_path, 4, version)
    assert kernel.look() == [Clue("memory.events", f"{file}: oom_kill 4 (3 before)")]
    assert kernel.look() == []


def test_where_nothing_can_be_read_nothing_is_told(tmp_path: Path) -> None:
    assert Kernel(str(tmp_path / "none"), str(tmp_path)).look() == []


def test_of_the_kernels_log_only_what_ends_programs_is_told(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    os.mkfifo(log)
    kernel = Kernel(str(log), str(tmp_path))
    writer = os.open(log, os.O_WRONLY)
    try:
        os.write(writer, b"6,2,100,-;eth0: link becomes ready\n")
        assert kernel.look() == []
        os.write(
            writer, b"3,1,99,-;Memory cgroup out of memory: Killed process 812 (python3) total-vm:9kB\n SUBSYSTEM=x\n"
        )
        assert kernel.look() == [
            Clue("kernel log", "Memory cgroup out of memory: Killed process 812 (python3) total-vm:9kB")
        ]
        for number in range(30):
            os.write(writer, b"3,%d,99,-;NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.\n" % number)
            kernel.look()
        os.write(writer, b"3,99,99,-;NVRM: Xid (PCI:0000:3b:00): 79\n")
        assert kernel.look() == [], "a kernel that says it again and again fills no journal"
    finally:
        os.close(writer)
