"""The programs that `tests.bench.logview` watches: python logscreen.py rankdeck|log FILE, and …feed FILE RATE LINES."""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from typing import TYPE_CHECKING

from textual.widgets import Log, Static

from tests.bench.board import Lagging
from tui import themes
from tui.logs.source import LogFile
from tui.logs.view import LogView

if TYPE_CHECKING:
    from textual.app import ComposeResult

HZ = 10.0
KEPT = 10_000
"""Lines that the Log keeps: without a limit its memory grows with the log."""


class Ours(Lagging):
    CSS = "#count { height: 1; }"

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def compose(self) -> ComposeResult:
        yield LogView()
        yield Static("<0>", id="count", markup=False)

    async def on_mount(self) -> None:
        for theme in themes.THEMES:
            self.register_theme(theme)
        self.theme = themes.OFFERED[0]
        view = self.query_one(LogView)
        view.show(LogFile(self._path))
        view.focus()
        self.set_interval(1 / HZ, view.draw)
        self.run_worker(self.watch_loop())


class Stock(Lagging):
    """What a Textual program would show the same file with: new lines together, ten times a second."""

    CSS = "#count { height: 1; }"

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._rest = ""

    def compose(self) -> ComposeResult:
        yield Log(max_lines=KEPT)
        yield Static("<0>", id="count", markup=False)

    async def on_mount(self) -> None:
        self._file = self._path.open(encoding="utf-8")
        self.set_interval(1 / HZ, self._take)
        self.run_worker(self.watch_loop())

    def _take(self) -> None:
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        if lines:
            self.query_one(Log).write_lines(lines)


def feed(path: Path, rate: int, lines: int) -> None:
    """Append lines of 118 bytes, `rate` a second, in pieces of a hundredth of a second."""
    piece, began, done = max(1, rate // 100), time.monotonic(), 0
    with path.open("ab", buffering=0) as file:
        while done < lines:
            text = (
                f"2026-11-24 08:00:00,000 INFO train step {done + n:>9} loss 2.3456 lr 2.0e-04 tokens/s 51,234"
                f" grad_norm 0.412{'':>13}\n"
                for n in range(min(piece, lines - done))
            )
            file.write("".join(text).encode())
            done += piece
            time.sleep(max(0.0, began + done / rate - time.monotonic()))


if __name__ == "__main__":
    kind, path = sys.argv[1], Path(sys.argv[2])
    if kind == "feed":
        feed(path, int(sys.argv[3]), int(sys.argv[4]))
    else:
        (Ours if kind == "rankdeck" else Stock)(path).run()
