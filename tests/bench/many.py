"""Many connections held open: what each costs the workstation to open and to keep, and what all of them cost idle."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.bench.figures import Figure, spread
from tests.bench.machine import loopback

COUNTS = (250, 1000)
CPU_MS = 5.0
RSS_KIB = 100.0
IDLE_SECONDS = 20.0
IDLE_PERCENT = 5.0
DIALS = 48  # at once: the nodes' Pythons all start on this machine


async def hold(config: Path, hosts: list[str]) -> dict[str, float]:
    """Open conversations with all hosts, stay a while, leave. The first one is for what is loaded only once."""
    import psutil

    from engine.fleet import Fleet, close_all
    from engine.profile import Node
    from engine.transport import Connector

    me = psutil.Process()
    connector = Connector(config=config)
    fleet = Fleet([Node(host=host) for host in hosts], "", connector)
    first = await fleet.dial(0)
    slots = asyncio.Semaphore(DIALS)

    async def one(rank: int) -> Any:
        async with slots:
            return await fleet.dial(rank)

    gc.collect()
    memory, cpu, wall = me.memory_info().rss, time.process_time(), time.monotonic()
    conversations = dict(enumerate([first, *await asyncio.gather(*(one(rank) for rank in range(1, len(hosts))))]))
    opened_cpu, opened_wall = time.process_time() - cpu, time.monotonic() - wall
    gc.collect()
    opened_memory = me.memory_info().rss - memory
    await asyncio.sleep(5)
    cpu, wall = time.process_time(), time.monotonic()
    await asyncio.sleep(IDLE_SECONDS)
    idle = (time.process_time() - cpu) / (time.monotonic() - wall)
    kept = me.memory_info().rss - memory
    assert not any(c.ended.done() for c in conversations.values())
    await close_all(conversations)
    await connector.close()
    others = len(hosts) - 1
    return {
        "cpu_ms": 1000 * opened_cpu / others,
        "rss_kib": max(opened_memory, kept) / 1024 / others,
        "idle_percent": 100 * idle,
        "wall": opened_wall,
    }


def measure(rounds: int) -> list[Figure]:
    """The large count once or twice: a thousand real sessions take this machine a minute."""
    figures = []
    for count in COUNTS:
        seen: list[dict[str, float]] = []
        with loopback(count) as (lab, _, hosts):
            for _ in range(min(rounds, 3 if count < 500 else 1)):
                argv = [sys.executable, "-m", "tests.bench.many", str(lab.config), *hosts]
                done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": ""})
                if done.returncode:
                    raise RuntimeError(done.stderr[-3000:])
                seen.append(json.loads(done.stdout))
        for key, what, target, unit in (
            ("cpu_ms", "CPU to open one", CPU_MS, "ms"),
            ("rss_kib", "RSS of one", RSS_KIB, "KiB"),
            ("idle_percent", "idle CPU of all", IDLE_PERCENT, "% of a core"),
        ):
            values = [one[key] for one in seen]
            opened = f"opened in {spread([one['wall'] for one in seen], 1)}" if key == "cpu_ms" else ""
            what = f"{count} connections, {what}"
            figures.append(Figure(what, spread(values, 2, unit), opened, statistics.median(values), target, unit=unit))
    return figures


if __name__ == "__main__":
    print(json.dumps(asyncio.run(hold(Path(sys.argv[1]), sys.argv[2:]))))
