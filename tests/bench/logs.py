"""Log bytes from a node to the mirror: as fast as `ssh host cat`, soon after they are written, in constant memory."""

from __future__ import annotations

import statistics
import time

from tests.bench.desk import RANKDECK, Desk, desk, wait_until
from tests.bench.figures import Figure, spread
from tests.bench.machine import MIB, cost, rss

SPEED_SHARE = 0.7
SPEED_MIB = 1024
STREAMED_MIB = 5 * 1000 * 1000 * 1000 // MIB
SETTLED_MIB = 512  # buffers have reached their size
GROWTH_MIB = 4.0
LATENCY_MS = 50.0
LATENCY_LINES = 300

FILL = """\
import os, sys
line = b"INFO:train: step 1234 of 100000, some words that a rank writes beside its numbers, as ranks do\\n"
block = line * (1048576 // len(line) + 1)
for _ in range(int(sys.argv[1])):
    os.write(1, block[:1048575] + b"\\n")
"""
TICK = """\
import sys, time
time.sleep(3)
for _ in range(int(sys.argv[1])):
    print(repr(time.time()), "a line", flush=True)
    time.sleep(0.0731)
"""


def measure(rounds: int) -> list[Figure]:
    figures = []
    with desk() as user:
        figures.append(speed(user, rounds))
    with desk() as user:
        figures += streamed(user)
    with desk() as user:
        figures.append(latency(user))
    return figures


def speed(user: Desk, rounds: int) -> Figure:
    """One log of a GiB, fetched by two whole commands in turn, after a round that is not counted."""
    run = user.launch(FILL, str(SPEED_MIB), ranks=1)
    user.await_end(run)
    log = user.stream(user.there(run))
    copy = user.home / "copy.log"
    ours: list[float] = []
    plain: list[float] = []
    for number in range(rounds + 1):
        spent = cost([RANKDECK, "pull", run], user.env)
        mirror = user.stream(user.here(run))
        with copy.open("wb") as file:
            beside = cost(user.ssh(f"cat {log}"), user.env, stdout=file.fileno())
        assert log.stat().st_size == mirror.stat().st_size == copy.stat().st_size
        mirror.unlink()
        copy.unlink()
        if number:
            ours.append(SPEED_MIB / spent.wall)
            plain.append(SPEED_MIB / beside.wall)
    ratio = statistics.median(ours) / statistics.median(plain)
    what = "a log of 1 GiB to its mirror / ssh cat"
    return Figure(what, spread(ours, 0, "MiB/s"), spread(plain, 0, "MiB/s"), ratio, SPEED_SHARE, "least")


def streamed(user: Desk) -> list[Figure]:
    """Resident memory of both ends while a log streams through as it is written, printed by the viewer too."""
    run = user.launch(FILL, str(STREAMED_MIB), ranks=1)
    seen: dict[str, list[float]] = {"workstation": [], "node": []}
    with user.viewer("attach", run) as viewer:
        mirror = user.stream(user.here(run))
        ends = {"workstation": viewer, "node": user.serve()}
        while (size := mirror.stat().st_size) < STREAMED_MIB * MIB and viewer.is_running():
            if size > SETTLED_MIB * MIB:
                for name, process in ends.items():
                    seen[name].append(rss(process) / MIB)
            time.sleep(0.1)
        assert mirror.stat().st_size == STREAMED_MIB * MIB, "the viewer ended before the log did"
    figures = []
    for name, sizes in seen.items():
        third = len(sizes) // 3
        growth = statistics.median(sizes[-third:]) - statistics.median(sizes[:third])
        what = f"RSS growth while 5 GB stream through, {name}"
        figures.append(Figure(what, f"RSS {spread(sizes, 1, 'MiB')}", "", growth, GROWTH_MIB, unit="MiB"))
    return figures


def latency(user: Desk) -> Figure:
    """A line that its rank stamps with the time, seen in the mirror; the looks are half a millisecond apart."""
    run = user.launch(TICK, str(LATENCY_LINES), ranks=1)
    late: list[float] = []
    with user.viewer("attach", run), user.stream(user.here(run)).open("rb") as mirror:
        wait_until(lambda: not mirror.read(), 10)
        while len(late) < LATENCY_LINES - 20:
            line = mirror.readline()
            if line.endswith(b"\n"):
                late.append(1000 * (time.time() - float(line.split()[0])))
            else:
                mirror.seek(-len(line), 1)
                time.sleep(0.0005)
    what = "write on the node to the mirror"
    return Figure(what, spread(late, 1, "ms"), "", statistics.median(late), LATENCY_MS, unit="ms")
