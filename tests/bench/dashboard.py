"""The dashboard of a big run on a real pseudo-terminal: every rank changes ten times a second, and the log of the
chosen one grows by 100,000 lines a second.

Beside it, Textual's own DataTable and Log on the same feed.
What is measured: CPU of the whole program, the event loop's lag,
the time from a key to the changed picture, resident memory, at once and over ten million lines.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.bench.figures import Figure
from tests.bench.machine import MIB, cpu, rss
from tests.tui.pty_of import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 12.0
KEYS = 20
PATIENCE = 5.0
"""Seconds after which a picture that has not come counts as so late."""
BOARD = str(Path(__file__).with_name("board.py"))
SIZE = (200, 50)
RANKS, MANY_RANKS = 1024, 8192
RATE, FAST = 100_000, 400_000
LINES, LINE = 10_000_000, 118
"""How many lines, and the bytes of one."""


@contextlib.contextmanager
def board(folder: str, kind: str, *load: int) -> Iterator[tuple[Terminal, psutil.Process]]:
    environ = {"RANKDECK_STATE": folder, "BOARD_LAGS": str(Path(folder) / "lags.json")}
    command = [sys.executable, BOARD, kind, *map(str, load)]
    with Terminal(command=command, columns=SIZE[0], lines=SIZE[1], environ=environ) as terminal:
        yield terminal, psutil.Process(terminal.process.pid)


def one(kind: str, *load: int) -> tuple[float, float, float, float]:
    """(CPU in percent of a core, lag p99 in ms, key to picture p95 in ms, MiB) of one program."""
    with tempfile.TemporaryDirectory() as folder:
        with board(folder, kind, *load) as (terminal, process):
            drain(terminal, 5.0)
            began, busy = time.monotonic(), cpu(process)
            waits = []
            for number in range(KEYS):
                drain(terminal, SECONDS / KEYS)
                waits.append(key(terminal, f"<{number + 1}>"))
            share = 100 * (cpu(process) - busy) / (time.monotonic() - began)
            memory = rss(process) / MIB
            terminal.press("Q")
            terminal.wait()
        lag = sorted(json.loads((Path(folder) / "lags.json").read_text()))
    return share, lag[int(len(lag) * 0.99)], statistics.quantiles(waits, n=20)[-1], memory


def grown() -> tuple[float, float]:
    """Resident MiB after the first tenth of `LINES` log lines, and after all of them."""
    memory = []
    with tempfile.TemporaryDirectory() as folder, board(folder, "rankdeck", RANKS, FAST, LINES) as (terminal, process):
        for lines in (LINES // 10, LINES):
            while _lines(folder) < lines:
                drain(terminal, 0.2)
            drain(terminal, 2.0)
            memory.append(rss(process) / MIB)
    return memory[0], memory[1]


def _lines(folder: str) -> int:
    """How many lines of the log have come."""
    return sum(path.stat().st_size for path in Path(folder).rglob("stdout.log")) // LINE


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
    """The targets are those of the terminal UI: 25 % of a core with 1,024 ranks and a busy log, 40 % with 8,192."""
    ours = one("rankdeck", RANKS, RATE)
    stock = one("stock", RANKS, RATE)
    many = one("rankdeck", MANY_RANKS)
    first, last = grown()
    what = f"{RANKS:,} ranks at 10 Hz and {RATE:,} log lines/s"
    names = ("CPU", "loop lag p99", "key to picture p95", "memory")
    units, targets = ("%", "ms", "ms", "MiB"), (25, 30, 80, 120)
    found = [
        Figure(f"{what}: {name}", f"{a:.1f} {unit}", f"DataTable and Log {b:.1f} {unit}", a, target, unit=unit)
        for name, unit, target, a, b in zip(names, units, targets, ours, stock, strict=True)
    ]
    words = f"{first:.0f} MiB at 1 M lines, {last:.0f} at 10 M"
    found.append(Figure("… memory over 10 M lines", words, "", last, 120, unit="MiB"))
    found.append(
        Figure("… memory from 1 M to 10 M lines", f"{last - first:+.1f} MiB", "", last - first, 10, unit="MiB")
    )
    found.append(Figure(f"{MANY_RANKS:,} ranks at 10 Hz: CPU", f"{many[0]:.1f} %", "", many[0], 40, unit="%"))
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
