"""The logs panel follows the chosen rank, and shows one rank, its node, or all of them in the order of arrival."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.arrivals import Arrivals
from tests.tui.made import made_run, stdout_of
from tests.tui.test_dashboard import attached
from tests.unit.runs_made_up import stderr_of
from tui.dashboard.logs import LogsPanel
from tui.dashboard.panel import Panel

if TYPE_CHECKING:
    import pytest
    from textual.pilot import Pilot

    from engine.runs import RunFolder
    from tui.dashboard.screen import Dashboard


def rows(screen: Dashboard) -> list[str]:
    view = screen.query_one(LogsPanel).view
    return [text for strip in view._strips[:-1] if (text := strip.text.rstrip(" ┃"))]


def title(screen: Dashboard) -> str:
    return str(screen.query_one(LogsPanel).border_title)


async def press(pilot: Pilot[int], *keys: str) -> None:
    await pilot.press(*keys)
    await pilot.pause()


def write(folder: RunFolder, order: Arrivals, node_rank: int, name: str, text: str) -> None:
    path = folder.mirror_path(node_rank, name)
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(text.encode())
    order.came(node_rank, name, size, text.encode(), late=False)
    order.flush()


async def test_it_shows_the_log_of_the_chosen_rank() -> None:
    async with attached(made_run()) as (pilot, screen):
        assert "rank 0 on gpu01" in title(screen)
        assert rows(screen)[-1].endswith("rank 0 line 4")
        await press(pilot, "1", "end", "3")
        assert "rank 3 on gpu02" in title(screen)
        assert rows(screen)[0].endswith("rank 3 line 0")


async def test_lines_of_a_node_and_of_all_ranks_come_with_their_rank() -> None:
    folder = made_run(lines=1)
    async with attached(folder) as (pilot, screen):
        order = Arrivals(folder.path)
        await press(pilot, "3", "m")
        assert "node gpu01" in title(screen)
        assert [row.split() for row in rows(screen)] == [[f"{n}", "rank", f"{n}", "line", "0"] for n in (0, 1)]
        await press(pilot, "m")
        assert "all 4 ranks" in title(screen)
        write(folder, order, 1, stdout_of(1, 1), "three\n")
        write(folder, order, 0, stdout_of(0, 0), "zero\n")
        write(folder, order, 1, stderr_of(1, 0), "two\n")
        screen.query_one(LogsPanel).view.draw()
        assert [row.split() for row in rows(screen)[-3:]] == [["3", "three"], ["0", "zero"], ["2e", "two"]]
        order.close()


async def test_stdout_and_stderr_are_shown_together_or_alone() -> None:
    folder = made_run()
    async with attached(folder) as (pilot, screen):
        order = Arrivals(folder.path)
        write(folder, order, 0, stderr_of(0, 0), "a warning\n")
        screen.query_one(LogsPanel).view.draw()
        assert rows(screen)[-1].split() == ["e", "a", "warning"]
        await press(pilot, "3", "o")
        assert "stdout" in title(screen)
        assert rows(screen)[-1].endswith("rank 0 line 4")
        await press(pilot, "o")
        assert rows(screen) == ["  a warning"]
        order.close()


async def test_it_asks_for_the_logs_that_it_shows_and_for_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, tuple[str, ...]]] = []
    made = Panel.Wanted.__init__

    def record(self: Panel.Wanted, node_rank: int, streams: list[str]) -> None:
        made(self, node_rank, streams)
        asked.append((node_rank, self.streams))

    monkeypatch.setattr(Panel.Wanted, "__init__", record)
    async with attached(made_run()) as (pilot, _):
        assert asked == [(0, (stderr_of(0, 0), stdout_of(0, 0)))]
        await press(pilot, "3", "m")
        assert sorted(asked[1][1]) == sorted(("torchrun.log", stderr_of(0, 1), stdout_of(0, 1)))


async def test_a_search_goes_on_in_the_log_of_the_next_rank() -> None:
    async with attached(made_run()) as (pilot, screen):
        await press(pilot, "3", "slash", *"line3"[:4], "enter")
        await press(pilot, "1", "end", "3")
        finder = screen.query_one(LogsPanel).view.page.finder
        assert finder.text("search") == "line"
        await press(pilot, "escape")
        assert not finder.text("search")


async def test_a_log_that_is_not_here_says_what_to_do() -> None:
    folder = made_run(lines=0)
    async with attached(folder) as (pilot, screen):
        await pilot.pause()
        assert any(f"rankdeck pull {folder.run}" in row for row in rows(screen))


async def test_a_line_that_is_being_written_is_shown_below_the_others() -> None:
    folder = made_run(lines=1)
    async with attached(folder) as (_, screen):
        order = Arrivals(folder.path)
        write(folder, order, 0, stderr_of(0, 0), "\r 10%|#   |")
        write(folder, order, 0, stderr_of(0, 0), "\r 20%|##  |")
        view = screen.query_one(LogsPanel).view
        view.draw()
        assert [row.strip() for row in rows(screen)] == ["rank 0 line 0", "e  20%|##  |"]
        order.close()
