"""The programs that `tests.bench.dashboard` watches: python board.py rankdeck|stock RANKS [LINES/S [LINES]].

Every rank changes ten times a second; in the log of rank 0 there come so many lines a second, LINES in all.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from textual.app import App, ComposeResult
from textual.containers import Horizontal
from textual.widgets import DataTable, Log, Static

from engine import events
from engine.arrivals import Arrivals
from engine.runs import Record, RunFolder
from engine.state import RunState
from tests.tui.made import stdout_of
from tests.unit.runs_made_up import NodeStory, fold, made_plan, made_profile
from tui.app import RankdeckApp
from tui.dashboard.screen import Dashboard
from tui.watching import Watching

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from engine.session import Session

NPROC = 8
HZ = 10.0
FRAME = 256 * 1024
KEPT = 10_000
"""Lines that the Log keeps: without a limit its memory grows with the log."""
FEED = Path(__file__).with_name("logscreen.py")


class Load(NamedTuple):
    """What comes: metrics of so many ranks, and in all `lines` log lines at `rate` a second."""

    ranks: int
    rate: int = 0
    lines: int = 10**9

    async def pieces(self) -> AsyncIterator[bytes]:
        """The log, as it comes out of another process."""
        if self.rate:
            feeder = await asyncio.create_subprocess_exec(
                sys.executable, FEED, "feed", "/dev/stdout", str(self.rate), str(self.lines),
                stdout=asyncio.subprocess.PIPE, limit=FRAME,
            )  # fmt: skip
            assert feeder.stdout is not None
            while piece := await feeder.stdout.read(FRAME):
                yield piece


class MadeUpSession:
    """Stands in for a session: its nodes are this loop, which has a new metric for every rank ten times a second, and
    writes what comes of the log into the mirror, as a session does."""

    def __init__(self, load: Load, watching: Watching) -> None:
        self._load = load
        nodes = load.ranks // NPROC
        plan = made_plan(nodes, NPROC)
        self.folder = RunFolder.create(
            Record(run=plan.run, created=time.time(), profile=made_profile(nodes, NPROC), plan=plan)
        )
        stories = [NodeStory(k, NPROC).starts(time.time()) for k in range(nodes)]
        stream = {"path": stdout_of(0, 0), "attempt": 0, "local_rank": 0, "stream": "stdout"}
        self.state = fold(RunState(plan), [stories[0].add(events.Stream, time.time(), **stream), *stories[1:]])
        self.problems: list[str] = []
        self.retell = self.sampling = False
        self._watching = watching

    async def mirror(self) -> None:
        mirror, arrivals, at = self.folder.mirror(0, stdout_of(0, 0)), Arrivals(self.folder.path), 0
        async for piece in self._load.pieces():
            mirror.write(at, piece)
            arrivals.came(0, stdout_of(0, 0), at, piece, late=False)
            self._watching.log(0, stdout_of(0, 0), piece)
            at += len(piece)

    async def watch(self, conversations: object = None) -> RunState:
        mirror = asyncio.create_task(self.mirror())
        try:
            return await self._metrics()
        finally:
            mirror.cancel()

    async def _metrics(self) -> RunState:
        turns = [
            [self._metric(key, (number * 7 + turn) % 11) for number, key in enumerate(self.state.workers)]
            for turn in range(11)
        ]
        while True:
            for turn in turns:
                began = time.monotonic()
                for number, metric in enumerate(turn):
                    self.state.apply(metric)
                    if number % 512 == 511:
                        await asyncio.sleep(0)
                self._watching.event(turn[0])
                await asyncio.sleep(max(0.0, 1 / HZ - (time.monotonic() - began)))

    def _metric(self, key: tuple[int, int, int], pace: int) -> events.Metric:
        return events.Metric(
            t=time.time(),
            node_rank=key[1],
            attempt=0,
            local_rank=key[2],
            step=pace + 1,
            total=100_000,
            loss=3.0,
            step_time=0.1 + pace / 100,
            rate=1e5,
            rate_unit="tokens/s",
        )

    def want(self, node_rank: int, streams: object) -> None: ...
    def summarise(self) -> None: ...


class Lagging(App[int]):
    """Counts keys and keeps how late the event loop is."""

    lags: list[float]
    pressed = 0

    async def watch_loop(self) -> None:
        self.lags = []
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.005)
            self.lags.append(1000 * (time.monotonic() - began - 0.005))

    def on_key(self, event: Any) -> None:
        if event.key == "K":
            self.pressed += 1
            self.screen.query_one("#count", Static).update(f"<{self.pressed}>", layout=False)
        elif event.key == "Q":
            Path(os.environ["BOARD_LAGS"]).write_text(json.dumps(self.lags[400:]))
            os._exit(0)


class Board(RankdeckApp, Lagging):
    def __init__(self, load: Load) -> None:
        self._load = load
        super().__init__()

    def first(self) -> Dashboard:
        watching = Watching()
        return Counted(watching, cast("Session", MadeUpSession(self._load, watching)))

    async def on_mount(self) -> None:
        self.run_worker(self.watch_loop())


class Counted(Dashboard):
    def compose(self) -> ComposeResult:
        yield from super().compose()
        yield Static("<0>", id="count", markup=False)

    def on_mount(self) -> None:
        """Textual calls the dashboard's own as well: a second call from here would feed everything twice."""
        self.query_one("#count").styles.height = 1


class Stock(Lagging):
    """What a Textual program would show the same with: new lines of the log together, ten times a second."""

    CSS = "#count { height: 1; } DataTable, Log { width: 1fr; }"

    def __init__(self, load: Load) -> None:
        super().__init__()
        self._load = load
        self._came: list[bytes] = []
        self._rest = b""

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield DataTable[str]()
            if self._load.rate:
                yield Log(max_lines=KEPT)
        yield Static("<0>", id="count", markup=False)

    async def on_mount(self) -> None:
        table = self.query_one(DataTable)
        table.add_columns("rank", "step", "step time")
        for rank in range(self._load.ranks):
            table.add_row(str(rank), "0", "0", key=str(rank))
        self.run_worker(self.watch_loop())
        self.run_worker(self.metrics())
        if self._load.rate:
            self.run_worker(self.log_lines())
            self.set_interval(1 / HZ, self.write)

    async def metrics(self) -> None:
        table = self.query_one(DataTable)
        columns = list(table.columns)
        step = 0
        while True:
            step += 1
            began = time.monotonic()
            for rank in range(self._load.ranks):
                table.update_cell(str(rank), columns[1], str(step))
                table.update_cell(str(rank), columns[2], f"{0.1 + (rank * 7 + step) % 11 / 100:.2f}")
                if rank % 256 == 255:
                    await asyncio.sleep(0)
            await asyncio.sleep(max(0.0, 1 / HZ - (time.monotonic() - began)))

    async def log_lines(self) -> None:
        async for piece in self._load.pieces():
            self._came.append(piece)

    def write(self) -> None:
        *lines, self._rest = (self._rest + b"".join(self._came)).split(b"\n")
        self._came.clear()
        self.query_one(Log).write_lines(line.decode() for line in lines)


if __name__ == "__main__":
    load = Load(*map(int, sys.argv[2:]))
    (Board(load) if sys.argv[1] == "rankdeck" else Stock(load)).run()
