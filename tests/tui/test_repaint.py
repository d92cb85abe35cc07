"""How often the screen is drawn: as often as the way to the user's eyes carries."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from tests.tui import pty_of
from tests.tui.made import made_run
from tests.tui.test_dashboard import attached, shown
from tui import terminal
from tui.dashboard.header import HeaderPanel
from tui.dashboard.panel import Panel

LINK = 30_000
"""Bytes a second of a slow way to the user's eyes."""
BOARD = str(Path(__file__).parents[1] / "bench" / "board.py")


@pytest.mark.parametrize(
    ("environ", "rate"),
    [
        ({}, 10.0),
        ({"SSH_CONNECTION": "10.0.0.1 50000 10.0.0.2 22"}, 4.0),
        ({"TMUX": "/tmp/tmux-0/default,1,0"}, 4.0),
        ({"STY": "1.pts"}, 4.0),
        ({"SSH_CONNECTION": "x", "RANKDECK_FPS": "20"}, 20.0),
        ({"RANKDECK_FPS": "1000"}, 30.0),
        ({"RANKDECK_FPS": "0"}, 10.0),
        ({"RANKDECK_FPS": "often"}, 10.0),
    ],
)
def test_ten_times_a_second_here_and_four_over_a_link_unless_the_user_says_otherwise(
    environ: dict[str, str], rate: float
) -> None:
    assert terminal.repaint_rate(environ) == rate


async def test_nothing_is_drawn_while_the_terminal_is_behind_and_all_of_it_after_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with attached(made_run()) as (pilot, screen):
        monkeypatch.setattr(terminal, "congested", lambda app: True)
        await pilot.press("1", "right")
        await pilot.pause(0.3)
        assert "rank 1 ·" not in shown(screen, "ranks")
        monkeypatch.setattr(terminal, "congested", lambda app: False)
        await pilot.pause(0.5)
        assert "rank 1 ·" in shown(screen, "ranks")


async def test_pictures_do_not_become_rare_because_other_programs_have_the_processors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def waits(panel: HeaderPanel, scene: object) -> None:
        time.sleep(0.5)

    async with attached(made_run()) as (_, screen):
        monkeypatch.setattr(HeaderPanel, "draw", waits)
        screen.on_panel_chose(Panel.Chose(1))
        assert screen._rested < time.monotonic() + 2.0


def slowly(screen: pty_of.Terminal, seconds: float, mark: bytes = b"\0") -> float:
    """Take LINK bytes a second, until the mark comes; how long that was."""
    began, size = time.monotonic(), len(screen.raw)
    while mark not in screen.raw[size:] and (gone := time.monotonic() - began) < seconds:
        if len(screen.raw) - size < LINK * gone:
            screen.raw += os.read(screen._master, 512) if screen._left() else b""
        else:
            time.sleep(0.005)
    return time.monotonic() - began


def test_over_a_slow_link_a_key_does_not_wait_behind_pictures_that_nobody_needs(tmp_path: Path) -> None:
    """All of 256 ranks and the log change ten times a second, more than the link carries: 30 frames that are queued, as
    Textual would, are some ten seconds of it."""
    environ = {"RANKDECK_STATE": str(tmp_path), "RANKDECK_FPS": "10", "BOARD_LAGS": str(tmp_path / "lags")}
    command = [sys.executable, BOARD, "rankdeck", "256", "5000"]
    with pty_of.Terminal(command=command, columns=160, lines=48, environ=environ) as screen:
        screen.wait_for("following", 60)
        slowly(screen, 5.0)
        waits = []
        for number in range(1, 4):
            screen.press("K")
            waits.append(slowly(screen, 30.0, f"<{number}>".encode()))
        print(waits)
        assert sorted(waits)[1] < 8.0, waits
