"""Lines a second that one core gets through, in a mix of logs in which most lines are no metric."""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.node.metrics import MetricReader

LOGS = Path(__file__).resolve().parents[1] / "unit" / "logs"
SHARE = 20  # one line in so many is a metric
LINES = 400_000
CHUNK = 64 * 1024


def mix() -> bytes:
    """Ordinary lines with, after every SHARE - 1 of them, a line of a trainer's log, formats taking turns."""
    ordinary = itertools.cycle((LOGS / "nothing.log").read_bytes().splitlines())
    trainers = [log.read_bytes().replace(b"\r", b"\n").splitlines() for log in sorted(LOGS.glob("*.log"))]
    metrics = itertools.cycle(line for log in trainers for line in log if MetricReader().feed(line + b"\n"))
    return b"\n".join(next(metrics) if number % SHARE == 0 else next(ordinary) for number in range(LINES)) + b"\n"


def main() -> None:
    data = mix()
    best = 0.0
    for _ in range(3):
        reader = MetricReader()
        began = time.process_time()
        found = sum(len(reader.feed(data[i : i + CHUNK])) for i in range(0, len(data), CHUNK))
        best = max(best, LINES / (time.process_time() - began))
    print(f"{best:,.0f} lines/s per core  ({found:,} metrics in {LINES:,} lines, {len(data) / 1e6:.0f} MB)")


if __name__ == "__main__":
    main()
