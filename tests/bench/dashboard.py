"""The dashboard of a big run on a real pseudo-terminal: every rank changes ten times a second.

Beside it, Textual's own DataTable on the same feed. What is measured: CPU of the whole program, the event loop's lag,
the time from a key to the changed picture, resident memory.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.bench.figures import Figure
from tests.tui.pty_of import Terminal

SECONDS = 12.0
KEYS = 20
PATIENCE = 5.0
"""Seconds after which a picture that has not come counts as so late."""
BOARD = str(Path(__file__).with_name("board.py"))
SIZE = (200, 50)


def one(kind: str, ranks: int) -> tuple[float, float, float, float]:
    """(CPU in percent of a core, lag p99 in ms, key to picture p95 in ms, MiB) of one program."""
    with tempfile.TemporaryDirectory() as folder:
        lags = Path(folder) / "lags.json"
        environ = {"RANKDECK_STATE": folder, "BOARD_LAGS": str(lags)}
        command = [sys.executable, BOARD, kind, str(ranks)]
        with Terminal(command=command, columns=SIZE[0], lines=SIZE[1], environ=environ) as terminal:
            process = psutil.Process(terminal.process.pid)
            drain(terminal, 5.0)
            began, busy = time.monotonic(), sum(process.cpu_times()[:2])
            waits = []
            for number in range(KEYS):
                drain(terminal, SECONDS / KEYS)
                waits.append(key(terminal, f"<{number + 1}>"))
            share = 100 * (sum(process.cpu_times()[:2]) - busy) / (time.monotonic() - began)
            memory = process.memory_info().rss / (1 << 20)
            terminal.press("Q")
            terminal.wait()
        lag = sorted(json.loads(lags.read_text()))
    return share, lag[int(len(lag) * 0.99)], statistics.quantiles(waits, n=20)[-1], memory


def drain(terminal: Terminal, seconds: float) -> None:
    """Be the terminal: take what is drawn, without the cost of understanding it."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        terminal.take(left)


def key(terminal: Terminal, mark: str) -> float:
    """Milliseconds from a key to the counter that shows it."""
    del terminal.raw[:]
    began = time.monotonic()
    terminal.press("K")
    while mark.encode() not in terminal.raw:
        terminal.take(0.5)
        if time.monotonic() - began > PATIENCE:
            break
    return 1000 * (time.monotonic() - began)


def measure(rounds: int) -> list[Figure]:
    """The targets are those of the terminal UI: 25 % of a core with 1,024 ranks, 40 % with 8,192."""
    ours = one("rankdeck", 1024)
    table = one("datatable", 1024)
    many = one("rankdeck", 8192)
    names = ("CPU", "loop lag p99", "key to picture p95", "memory")
    units, targets = ("%", "ms", "ms", "MiB"), (25, 30, 80, 120)
    found = [
        Figure(
            f"dashboard, 1,024 ranks at 10 Hz: {name}",
            f"{a:.1f} {unit}",
            f"DataTable {b:.1f} {unit}",
            a,
            target,
            "most",
            unit,
        )
        for name, unit, target, a, b in zip(names, units, targets, ours, table, strict=True)
    ]
    found.append(Figure("8,192 ranks at 10 Hz: CPU", f"{many[0]:.1f} %", "", many[0], 40, unit="%"))
    found.append(Figure("first picture of `rankdeck`", *first_paint(rounds)))
    return found


def first_paint(rounds: int) -> tuple[str, str, float, float, str, str]:
    """Milliseconds from the start of the program to its home screen."""
    times = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            with Terminal(environ={"RANKDECK_STATE": folder, "XDG_CONFIG_HOME": folder}, folder=folder) as terminal:
                while b"No profiles yet" not in terminal.raw:
                    terminal.take(1.0)
                times.append(1000 * (time.monotonic() - began))
                os.kill(terminal.process.pid, 9)
    middle = statistics.median(times)
    return f"{middle:.0f} ms", "", middle, 500, "most", "ms"
