"""The log view on a real pseudo-terminal, fed by another process: 100,000 lines a second, then ten million lines.

Beside it, Textual's own Log on the same feed, given its lines together ten times a second.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.bench.dashboard import drain, key
from tests.bench.figures import Figure
from tests.bench.machine import cpu, rss
from tests.tui.pty_of import Terminal

PROGRAM = str(Path(__file__).with_name("logscreen.py"))
SIZE = (200, 50)
RATE = 100_000
KEYS = 20
SECONDS = 12.0
MANY = 10_000_000
FAST = 800_000
MIB = 1 << 20


def watched(kind: str) -> tuple[float, float, float]:
    """(CPU in percent of a core, lag p99 in ms, key to picture p95 in ms) at `RATE` lines a second."""
    with tempfile.TemporaryDirectory() as folder:
        path, lags = Path(folder) / "log", Path(folder) / "lags.json"
        path.touch()
        feeder = subprocess.Popen([sys.executable, PROGRAM, "feed", str(path), str(RATE), str(10**9)])
        try:
            with _terminal(kind, path, lags) as terminal:
                process = psutil.Process(terminal.process.pid)
                drain(terminal, 3.0)
                began, busy, waits = time.monotonic(), cpu(process), []
                for number in range(KEYS):
                    drain(terminal, SECONDS / KEYS)
                    waits.append(key(terminal, f"<{number + 1}>"))
                share = 100 * (cpu(process) - busy) / (time.monotonic() - began)
                terminal.press("Q")
                terminal.wait()
        finally:
            feeder.kill()
            feeder.wait()
        lag = sorted(json.loads(lags.read_text()))
    return share, lag[int(len(lag) * 0.99)], statistics.quantiles(waits, n=20)[-1]


def grown(kind: str) -> tuple[float, float]:
    """Resident MiB after the first tenth of `MANY` lines, and after all of them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        path.touch()
        with _terminal(kind, path, Path(folder) / "lags.json") as terminal:
            process = psutil.Process(terminal.process.pid)
            drain(terminal, 2.0)
            memory = []
            for lines in (MANY // 10, MANY - MANY // 10):
                feeder = subprocess.Popen([sys.executable, PROGRAM, "feed", str(path), str(FAST), str(lines)])
                while feeder.poll() is None:
                    drain(terminal, 0.2)
                drain(terminal, 2.0)
                memory.append(rss(process) / MIB)
            terminal.process.kill()
    return memory[0], memory[1]


def _terminal(kind: str, path: Path, lags: Path) -> Terminal:
    command = [sys.executable, PROGRAM, kind, str(path)]
    return Terminal(command=command, columns=SIZE[0], lines=SIZE[1], environ={"BOARD_LAGS": str(lags)})


def measure(rounds: int) -> list[Figure]:
    ours, stock = watched("rankdeck"), watched("log")
    names = ("CPU", "loop lag p99", "key to picture p95")
    found = [
        Figure(f"log, {RATE:,} lines/s: {name}", f"{a:.1f} {unit}", f"Log {b:.1f} {unit}", a, target, "most", unit)
        for name, unit, target, a, b in zip(names, ("%", "ms", "ms"), (25, 30, 80), ours, stock, strict=True)
    ]
    first, last = grown("rankdeck")
    words = f"{first:.0f} MiB at 1 M lines, {last:.0f} at 10 M"
    found.append(Figure("log, memory over 10 M lines", words, "", last, 120, "most", "MiB"))
    found.append(
        Figure("log, memory from 1 M to 10 M lines", f"{last - first:+.1f} MiB", "", last - first, 30, unit="MiB")
    )
    return found
