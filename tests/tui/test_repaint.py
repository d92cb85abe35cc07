"""How often the screen is drawn: as often as the way to the user's eyes carries."""

from __future__ import annotations

import pytest

from tests.tui.made import made_run
from tests.tui.test_dashboard import attached, shown
from tui import terminal


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
