"""What Rankdeck costs a node whose ranks talk much and are all watched: supervisor and tail, CPU and memory."""

from __future__ import annotations

import statistics
import time

from tests.bench.desk import desk
from tests.bench.figures import Figure, spread
from tests.bench.machine import cpu, rss

RANKS = 8
LINES = 1000  # a second and rank
SECONDS = 10.0
CPU_PERCENT = 5.0
RSS_MB = 30.0

CHATTY = """\
import itertools, sys, time
rate = int(sys.argv[1])
began = time.monotonic()
for number in itertools.count():
    if number % 20 == 19:
        print(f"step {number // 20}/100000 loss 2.{number % 10000:04d} lr 3.0e-04 tokens/s 10,410 step_time 0.0815s")
    else:
        print(f"INFO:train: line {number}, some words that a rank writes beside its numbers, as ranks do")
    if number % 10 == 9:
        sys.stdout.flush()
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
"""


def measure(rounds: int) -> list[Figure]:
    """Each round is so many seconds of one run."""
    shares: list[float] = []
    sizes: list[float] = []
    with desk() as user:
        run = user.launch(CHATTY, str(LINES), ranks=RANKS)
        with user.viewer("attach", run):
            mirrors = [user.stream(user.here(run), rank) for rank in range(RANKS)]
            time.sleep(5)
            processes = [user.supervisor(run), user.serve()]
            for _ in range(max(rounds, 3)):
                here, used, began = sum(m.stat().st_size for m in mirrors), sum(map(cpu, processes)), time.monotonic()
                time.sleep(SECONDS)
                seconds = time.monotonic() - began
                shares.append(100 * (sum(map(cpu, processes)) - used) / seconds)
                sizes.append(sum(map(rss, processes)) / 1e6)
                came = (sum(m.stat().st_size for m in mirrors) - here) / seconds
                assert came > 0.8 * RANKS * LINES * 70, f"only {came:.0f} bytes/s came"
        user.run("stop", run, "--grace", "5")
    what = f"{RANKS} ranks × {LINES:,} lines/s: supervisor and tail"
    return [
        Figure(f"{what}, CPU", spread(shares, 1, "%"), "", statistics.median(shares), CPU_PERCENT, unit="% of a core"),
        Figure(f"{what}, RSS", spread(sizes, 1, "MB"), "", statistics.median(sizes), RSS_MB, unit="MB"),
    ]
