"""The row of keys at the foot of a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.tui.made import made_run
from tests.tui.test_dashboard import attached
from tui.dialogs import Confirm, TooSmall
from tui.footer import Footer
from tui.help import Help

if TYPE_CHECKING:
    from tui.dashboard.screen import Dashboard


def keys(screen: Dashboard) -> str:
    return screen.query_one(Footer).render().plain


async def test_the_keys_of_the_focused_panel_come_first() -> None:
    async with attached(made_run()) as (pilot, screen):
        await pilot.press("3")
        await pilot.pause()
        assert keys(screen).startswith(" / search")
        await pilot.press("1")
        await pilot.pause()
        assert "/ search" not in keys(screen)


@pytest.mark.parametrize("width", [60, 80, 100])
async def test_help_has_its_place_however_narrow_it_is(width: int) -> None:
    async with attached(made_run(), size=(width, 24)) as (_, screen):
        assert keys(screen).endswith(" ? help ")
        assert len(keys(screen)) <= width


async def test_the_ways_out_have_their_place_at_80_columns() -> None:
    async with attached(made_run(), size=(80, 24)) as (pilot, screen):
        await pilot.press("3")
        await pilot.pause()
        assert all(name in keys(screen) for name in (" / search ", " s stop job ", " q quit ", " ? help "))


async def test_keys_that_would_be_typed_are_not_offered_while_something_is_typed() -> None:
    async with attached(made_run()) as (pilot, screen):
        await pilot.press("3", "slash")
        await pilot.pause()
        assert "? help" not in keys(screen)
        assert " esc back " in keys(screen)


async def test_what_cannot_be_done_now_is_dim() -> None:
    async with attached(made_run()) as (_, screen):
        footer = screen.query_one(Footer)
        content = footer.render()
        at = content.plain.index("stop job")
        dim = footer.get_visual_style("footer--disabled")
        assert [span.style for span in content.spans if span.start <= at < span.end] == [dim]


async def test_a_click_is_the_key() -> None:
    async with attached(made_run()) as (pilot, screen):
        await pilot.click(Footer, offset=(keys(screen).index("? help") + 2, 0))
        await pilot.pause()
        assert isinstance(pilot.app.screen, Help)


async def test_a_terminal_that_grows_behind_a_dialog_is_not_too_small_after_it() -> None:
    async with attached(made_run()) as (pilot, screen):
        await pilot.resize_terminal(50, 12)
        await pilot.pause()
        assert isinstance(pilot.app.screen, TooSmall)
        pilot.app.push_screen(Confirm("Sure?"))
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        await pilot.press("y")
        await pilot.pause()
        assert pilot.app.screen_stack[-1] == screen


async def test_a_terminal_too_small_from_the_start_says_so() -> None:
    async with attached(made_run(), size=(50, 10)) as (pilot, screen):
        assert isinstance(pilot.app.screen, TooSmall)
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert pilot.app.screen_stack[-1] == screen
