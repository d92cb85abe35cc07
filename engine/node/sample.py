"""What a node does at a moment: CPU, memory, network, RDMA, GPUs. Rates are over the time since the last look.

Sources: proc(5) for /proc/stat, /proc/meminfo and /proc/net/dev; the kernel's sysfs-class-infiniband for port_rcv_data
and port_xmit_data, which count in words of four bytes; `nvidia-smi --help-query-gpu`.
"""

from __future__ import annotations

import glob
import os
import time
from typing import Any, Dict, List, Optional, Tuple

from engine.node import proc, shell

Pair = Tuple[int, int]
GPU = "index,name,utilization.gpu,memory.used,memory.total,power.draw,temperature.gpu"
GPU_SECONDS = 10.0
GPU_PAUSE = 30.0  # after nvidia-smi has failed
MIB = 1 << 20


class Sampler:
    """Looks again and again; the first look has no rates."""

    def __init__(self) -> None:
        self._before: Dict[str, Tuple[float, Pair]] = {}
        self._tool: Optional[str] = None
        self._gpus_at = 0.0

    def take(self) -> Dict[str, Any]:
        """{t, cpu [%], memory [%], net_in, net_out, rdma_in, rdma_out [bytes/s], gpus}; a key is left out where the
        node does not tell. Blocks while nvidia-smi works."""
        answer: Dict[str, Any] = {"t": time.time(), "gpus": self._gpus()}
        cpu = self._change("cpu", cpu_ticks(text("/proc/stat")))
        if cpu is not None and cpu[1] > 0:
            answer["cpu"] = max(0.0, min(100.0, 100.0 * cpu[0] / cpu[1]))
        memory = memory_percent(text("/proc/meminfo"))
        if memory is not None:
            answer["memory"] = memory
        for name, counted in (("net", network_bytes(text("/proc/net/dev"), real())), ("rdma", rdma_bytes())):
            moved = self._change(name, counted)
            if moved is not None:
                answer[name + "_in"], answer[name + "_out"] = moved
        return answer

    def _change(self, name: str, counted: Optional[Pair]) -> Optional[Tuple[float, float]]:
        """What two counters grew by a second since the last look; None the first time, or when they began anew."""
        if counted is None:
            return None
        now = time.monotonic()
        at, before = self._before.get(name, (now, counted))
        self._before[name] = (now, counted)
        if now <= at or counted[0] < before[0] or counted[1] < before[1]:
            return None
        return (counted[0] - before[0]) / (now - at), (counted[1] - before[1]) / (now - at)

    def _gpus(self) -> List[Dict[str, Any]]:
        now = time.monotonic()
        if now < self._gpus_at:
            return []
        if self._tool is None:
            import shutil

            self._tool = shutil.which("nvidia-smi") or ""
        if not self._tool:
            return []
        result = shell.run([self._tool, "--query-gpu=" + GPU, "--format=csv,noheader,nounits"], GPU_SECONDS)
        if result.code != 0:
            self._gpus_at = now + GPU_PAUSE
        return [gpu for gpu in map(read_gpu, result.out.splitlines()) if gpu is not None]


def text(path: str) -> str:
    """The file, or "" where there is none."""
    try:
        return proc.read(path).decode("ascii", "replace")
    except OSError:
        return ""


def cpu_ticks(stat: str) -> Optional[Pair]:
    """(busy, all) ticks of all CPUs since the boot; waiting for a disk is not busy."""
    fields = stat.split("\n", 1)[0].split()
    if len(fields) < 9 or fields[0] != "cpu":
        return None
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, fields[1:9])
    busy = user + nice + system + irq + softirq + steal
    return busy, busy + idle + iowait


def memory_percent(meminfo: str) -> Optional[float]:
    """How much of the memory is not available to new work."""
    found = {}
    for line in meminfo.splitlines():
        name, _, rest = line.partition(":")
        if name in ("MemTotal", "MemAvailable"):
            found[name] = int(rest.split()[0])
    if not found.get("MemTotal") or "MemAvailable" not in found:
        return None
    return 100.0 * (1 - found["MemAvailable"] / found["MemTotal"])


def real() -> List[str]:
    """The interfaces with a device behind them; bridges and tunnels would count the same bytes again."""
    return [path.split("/")[4] for path in glob.glob("/sys/class/net/*/device")]


def network_bytes(dev: str, interfaces: List[str]) -> Optional[Pair]:
    """(received, sent) of these interfaces, or of all but the loopback where there are none of them."""
    counts = {}
    for line in dev.splitlines()[2:]:
        name, _, rest = line.partition(":")
        fields = rest.split()
        if len(fields) >= 9 and name.strip() != "lo":
            counts[name.strip()] = (int(fields[0]), int(fields[8]))
    kept = [counts[name] for name in interfaces if name in counts] or list(counts.values())
    return (sum(pair[0] for pair in kept), sum(pair[1] for pair in kept)) if kept else None


def rdma_bytes(root: str = "/sys/class/infiniband") -> Optional[Pair]:
    """(received, sent) over all RDMA ports of this machine; None without one."""
    ports = glob.glob(root + "/*/ports/*/counters")
    if not ports:
        return None
    sums = []
    for name in ("port_rcv_data", "port_xmit_data"):
        words = [text(os.path.join(port, name)).strip() for port in ports]
        sums.append(4 * sum(int(word) for word in words if word.isdigit()))
    return sums[0], sums[1]


def read_gpu(line: str) -> Optional[Dict[str, Any]]:
    """One line of nvidia-smi: a field that it does not know ("[N/A]") is left out."""
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != 7 or not fields[0].isdigit():
        return None
    gpu: Dict[str, Any] = {"index": int(fields[0]), "name": fields[1]}
    names = (("util", 1.0), ("memory", MIB), ("memory_total", MIB), ("power", 1.0), ("temperature", 1.0))
    for (name, unit), field in zip(names, fields[2:]):
        try:
            gpu[name] = float(field) * unit
        except ValueError:
            continue
    return gpu
