"""What a node does at a moment, out of the kernel's own texts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from engine import events
from engine.node import sample

if TYPE_CHECKING:
    from pathlib import Path

DEV = """Inter-|   Receive                 |  Transmit
 face |bytes    packets errs drop|bytes    packets errs drop
    lo: 1000 10 0 0 0 0 0 0 1000 10 0 0 0 0 0 0
  eth0: 5000 50 0 0 0 0 0 0 7000 70 0 0 0 0 0 0
docker0:900 9 0 0 0 0 0 0 800 8 0 0 0 0 0 0
"""


def test_waiting_for_a_disk_is_not_busy() -> None:
    assert sample.cpu_ticks("cpu  100 10 50 800 40 0 0 0 0 0\ncpu0 1 1\n") == (160, 1000)


def test_memory_counts_what_is_not_available() -> None:
    assert sample.memory_percent("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\n") == 75.0


def test_bytes_over_a_bridge_are_not_counted_again() -> None:
    assert sample.network_bytes(DEV, ["eth0"]) == (5000, 7000)


def test_without_a_real_interface_all_but_the_loopback_count() -> None:
    assert sample.network_bytes(DEV, []) == (5900, 7800)


def test_rdma_ports_count_in_words_of_four_bytes(tmp_path: Path) -> None:
    counters = tmp_path / "mlx5_0" / "ports" / "1" / "counters"
    counters.mkdir(parents=True)
    (counters / "port_rcv_data").write_text("100\n")
    (counters / "port_xmit_data").write_text("25\n")
    assert sample.rdma_bytes(str(tmp_path)) == (400, 100)
    assert sample.rdma_bytes(str(tmp_path / "none")) is None


def test_what_a_gpu_does_not_tell_is_left_out() -> None:
    line = "3, NVIDIA H200, 97, 1024, 144384, [N/A], 61"
    assert sample.read_gpu(line) == {
        "index": 3,
        "name": "NVIDIA H200",
        "util": 97.0,
        "memory": float(1 << 30),
        "memory_total": 144384.0 * (1 << 20),
        "temperature": 61.0,
    }
    assert sample.read_gpu("No devices were found") is None


def test_this_machine_tells_its_rates_from_the_second_look_on() -> None:
    sampler = sample.Sampler()
    first = sampler.take()
    time.sleep(0.1)
    second = sampler.take()
    assert "cpu" not in first
    assert 0 <= second["cpu"] <= 100
    assert 0 < second["memory"] < 100


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"t": "x"},
        {"t": 1.0, "cpu": "much"},
        {"t": 1.0, "gpus": [{"name": 1}]},
        {"t": 1e999},
        {"t": 1.0, "cpu": 1e999},
    ],
)
def test_a_lying_node_s_sample_is_junk(fields: dict[str, Any]) -> None:
    assert events.decode_sample(fields, 0) is None


def test_a_gpu_s_name_is_made_safe_and_the_node_cannot_speak_for_another() -> None:
    fields = {"t": 1.0, "node_rank": 7, "gpus": [{"index": 0, "name": "\x1b]52;c;eA==\x07H200"}]}
    found = events.decode_sample(fields, 2)
    assert found is not None
    assert found.node_rank == 2
    assert "\x1b" not in found.gpus[0].name
