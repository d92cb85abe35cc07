"""The dashboard in the hands of a user. The runs are made up, their folders are real."""

from __future__ import annotations

import json
from argparse import Namespace
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from textual.widgets import Static

from engine import events
from tests.tui.made import STARTED, made_run
from tui.app import RankdeckApp
from tui.dashboard.drawn import Drawn
from tui.dashboard.screen import Dashboard
from tui.dialogs import TooSmall
from tui.leave import LOOK, Leave

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from textual.pilot import Pilot

    from engine.runs import RunFolder

WIDE = (160, 48)


@asynccontextmanager
async def attached(
    folder: RunFolder, size: tuple[int, int] = WIDE, **options: object
) -> AsyncIterator[tuple[Pilot[int], Dashboard]]:
    """`rankdeck attach RUN` on a terminal of this size."""
    app = RankdeckApp(Namespace(command="attach", run=folder.run, lost_after=60.0, **options))
    async with app.run_test(size=size) as pilot:
        await pilot.pause(0.3)
        screen = app.screen_stack[1]
        assert isinstance(screen, Dashboard)
        yield pilot, screen


def shown(screen: Dashboard, panel: str) -> str:
    """The text of a panel."""
    widget = screen.query_one(f"#{panel}", Drawn)
    height = widget.content_size.height
    return "\n".join(widget.render_line(y).text.rstrip() for y in range(height))


async def test_a_finished_run_says_how_it_ended_and_how_far_it_came() -> None:
    async with attached(made_run()) as (_, screen):
        header = shown(screen, "header")
        assert "SUCCEEDED" in header
        assert "0:00:31" in header
        assert "step 20/20" in header
        assert "loss 0.2" in header


async def test_the_first_failure_is_named_with_its_rank_and_the_map_shows_it() -> None:
    async with attached(made_run(failing=2)) as (pilot, screen):
        assert "FAILED" in shown(screen, "header")
        assert "rank 2" in shown(screen, "story")
        await pilot.press("1", "n")
        await pilot.pause()
        assert "rank 2 · gpu02 local_rank 0 · failed" in shown(screen, "ranks")
        assert "1 failed, 3 killed" in shown(screen, "ranks")


async def test_arrows_walk_over_the_ranks() -> None:
    async with attached(made_run()) as (pilot, screen):
        await pilot.press("1", "right", "right")
        await pilot.pause()
        assert "rank 2 · gpu02 local_rank 0" in shown(screen, "ranks")
        await pilot.press("end", "left")
        await pilot.pause()
        assert "rank 2 ·" in shown(screen, "ranks")


async def test_a_click_chooses_a_rank() -> None:
    async with attached(made_run()) as (pilot, screen):
        await pilot.click("#ranks", offset=(2 + len("gpu01 0✓ "), 1))
        await pilot.pause()
        assert "rank 1 · gpu01 local_rank 1" in shown(screen, "ranks")


async def test_a_narrow_terminal_shows_one_panel_and_numbers_change_it() -> None:
    async with attached(made_run(), size=(80, 24)) as (pilot, screen):
        await pilot.press("2")
        await pilot.pause()
        visible = [panel.key for panel in screen.query(Drawn) if panel.display and panel.key != "header"]
        assert visible == ["nodes"]
        assert "gpu02" in shown(screen, "nodes")


async def test_zoom_gives_the_whole_screen_to_one_panel_and_back() -> None:
    async with attached(made_run()) as (pilot, screen):
        await pilot.press("4", "z")
        await pilot.pause()
        assert screen.query_one("#charts").size.width > 150
        assert not screen.query_one("#ranks").display
        await pilot.press("z")
        await pilot.pause()
        assert screen.query_one("#ranks").display


async def test_a_terminal_that_is_too_small_says_so_and_recovers() -> None:
    async with attached(made_run()) as (pilot, screen):
        await pilot.resize_terminal(50, 12)
        await pilot.pause()
        assert isinstance(pilot.app.screen, TooSmall)
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert pilot.app.screen_stack[-1] == screen


async def test_a_run_that_is_over_cannot_be_stopped_and_the_key_and_help_say_why() -> None:
    async with attached(made_run()) as (pilot, screen):
        assert screen.check_action("stop", ()) is None
        await pilot.press("s")
        await pilot.pause()
        assert [notice.message for notice in pilot.app._notifications] == ["stop job: the run is over"]
        await pilot.press("1", "question_mark")
        await pilot.pause()
        text = "\n".join(str(widget.render()) for widget in pilot.app.screen.query("Static"))
        assert "stop job (not now: the run is over)" in text
        assert "next bad rank (not now: every rank is well)" in text


async def test_metrics_are_exported_with_their_units() -> None:
    folder = made_run()
    async with attached(folder) as (pilot, _):
        await pilot.press("x")
        await pilot.pause()
    head, *rows = (folder.path / "metrics.csv").read_text().splitlines()
    assert head == "t,step,loss,rate [tokens/s],step_time [s]"
    assert rows[-1].split(",")[1:4] == ["20", "0.2", "1000"]
    told = json.loads((folder.path / "metrics.json").read_text())
    assert told["rate_unit"] == "tokens/s"
    assert [told["points"][-1][name] for name in ("step", "loss", "rate")] == [20, 0.2, 1000.0]


@pytest.mark.parametrize("theme", ["rankdeck-light", "rankdeck-contrast", "ansi-dark", "ansi-light"])
async def test_every_theme_draws_every_panel(theme: str) -> None:
    async with attached(made_run(failing=1), theme=theme) as (pilot, screen):
        await pilot.press("1", "2", "3", "4", "5")
        assert "FAILED" in shown(screen, "header")


async def test_ascii_draws_with_ascii_only() -> None:
    async with attached(made_run(failing=1), ascii=True) as (_, screen):
        for panel in ("header", "ranks", "nodes", "charts", "story"):
            assert shown(screen, panel).isascii(), shown(screen, panel)


async def test_leaving_a_finished_run_asks_nothing() -> None:
    async with attached(made_run(failing=1)) as (pilot, _):
        await pilot.press("q")
        await pilot.pause(0.2)
    assert pilot.app.return_value == 1


async def test_help_tells_the_keys_of_the_focused_panel() -> None:
    async with attached(made_run()) as (pilot, _):
        await pilot.press("1", "question_mark")
        await pilot.pause()
        text = "\n".join(str(widget.render()) for widget in pilot.app.screen.query("Static"))
        assert "next bad rank" in text
        assert "One cell a rank" in text


async def test_what_happened_on_several_nodes_is_told_in_the_order_in_which_it_happened() -> None:
    async with attached(made_run(failing=2)) as (_, screen):
        stamps = [line[:8] for line in shown(screen, "story").splitlines() if line[2:3] == ":"]
        assert len(stamps) > 3
        assert stamps == sorted(stamps)


async def test_the_throughput_of_all_ranks_is_told_in_eighty_columns() -> None:
    async with attached(made_run(), size=(80, 24)) as (pilot, screen):
        line = events.Metric(
            t=STARTED + 40, node_rank=0, attempt=0, local_rank=0, step=99_000, total=100_000, loss=2.345,
            step_time=0.25, rate=12_345.0, rate_unit="tokens/s/gpu",
        )  # fmt: skip
        screen.session.state.apply(line)
        screen.watching.version += 1
        await pilot.pause(0.5)
        assert "49,380 tokens/s" in shown(screen, "header")


async def test_a_run_that_ends_while_the_user_is_asked_about_it_has_ended_in_the_question_too() -> None:
    said = ["running"]
    async with attached(made_run()) as (pilot, _):
        dialog = Leave("lab-1", lambda: said[0], ours=True, readonly=False)
        pilot.app.push_screen(dialog)
        await pilot.pause(2 * LOOK)
        assert "still running" in str(dialog.query_one(".question", Static).render())
        said[0] = "succeeded"
        await pilot.pause(2 * LOOK)
        assert "lab-1 has ended: succeeded" in str(dialog.query_one(".question", Static).render())
        assert not dialog.query_one("#stop").display
        assert dialog.query_one("#detach").has_focus


@pytest.mark.parametrize("size", [(80, 24), (60, 15)])
async def test_the_empty_home_screen_teaches_all_it_has_to_teach(size: tuple[int, int]) -> None:
    app = RankdeckApp(Namespace(command=None))
    async with app.run_test(size=size) as pilot:
        await pilot.pause(0.3)
        teach, box = app.screen.query_one("#teach"), app.screen.query_one("#profiles-box")
        assert teach.region.bottom <= box.content_region.bottom <= size[1] - 1
