"""The program that `tests.bench.dashboard` watches: python board.py rankdeck|datatable RANKS."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from textual.app import App, ComposeResult
from textual.widgets import DataTable, Static

from engine import events
from engine.runs import Record, RunFolder
from engine.state import RunState
from tests.unit.runs_made_up import NodeStory, fold, made_plan, made_profile
from tui.app import RankdeckApp
from tui.dashboard.screen import Dashboard
from tui.watching import Watching

if TYPE_CHECKING:
    from engine.session import Session

NPROC = 8
HZ = 10.0


class MadeUpSession:
    """Stands in for a session: its nodes are this loop, which has a new metric for every rank ten times a second."""

    def __init__(self, ranks: int, watching: Watching) -> None:
        nodes = ranks // NPROC
        plan = made_plan(nodes, NPROC)
        self.folder = RunFolder.create(
            Record(run=plan.run, created=time.time(), profile=made_profile(nodes, NPROC), plan=plan)
        )
        self.state = fold(RunState(plan), [NodeStory(k, NPROC).starts(time.time()) for k in range(nodes)])
        self.problems: list[str] = []
        self.retell = self.sampling = False
        self._watching = watching

    async def watch(self, conversations: object = None) -> RunState:
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
            step=1,
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
    def __init__(self, ranks: int) -> None:
        self._ranks = ranks
        super().__init__()

    def first(self) -> Dashboard:
        watching = Watching()
        return Counted(watching, cast("Session", MadeUpSession(self._ranks, watching)))

    async def on_mount(self) -> None:
        self.run_worker(self.watch_loop())


class Counted(Dashboard):
    def compose(self) -> ComposeResult:
        yield from super().compose()
        yield Static("<0>", id="count", markup=False)

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#count").styles.height = 1


class Table(Lagging):
    """What a Textual program would show the same ranks with."""

    def __init__(self, ranks: int) -> None:
        super().__init__()
        self._ranks = ranks

    def compose(self) -> ComposeResult:
        yield DataTable[str]()
        yield Static("<0>", id="count", markup=False)

    async def on_mount(self) -> None:
        table = self.query_one(DataTable)
        table.add_columns("rank", "step", "step time")
        for rank in range(self._ranks):
            table.add_row(str(rank), "0", "0", key=str(rank))
        self.run_worker(self.watch_loop())
        self.run_worker(self.feed())

    async def feed(self) -> None:
        table = self.query_one(DataTable)
        columns = list(table.columns)
        step = 0
        while True:
            step += 1
            began = time.monotonic()
            for rank in range(self._ranks):
                table.update_cell(str(rank), columns[1], str(step))
                table.update_cell(str(rank), columns[2], f"{0.1 + (rank * 7 + step) % 11 / 100:.2f}")
                if rank % 256 == 255:
                    await asyncio.sleep(0)
            await asyncio.sleep(max(0.0, 1 / HZ - (time.monotonic() - began)))


if __name__ == "__main__":
    kind, ranks = sys.argv[1], int(sys.argv[2])
    (Board(ranks) if kind == "rankdeck" else Table(ranks)).run()
