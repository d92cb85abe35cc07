"""Keys of the user's own: they do what they are given, and a mistake is told in one sentence before anything opens."""

from __future__ import annotations

import pytest

from engine.errors import RequestError
from tests.tui.made import made_run
from tests.tui.test_dashboard import attached
from tests.tui.test_footer import keys as footer
from tui import keys
from tui.help import Help
from tui.logs.view import LogView


def choose(text: str) -> None:
    keys.path().parent.mkdir(parents=True)
    keys.path().write_text(text)


async def test_a_key_of_ones_own_does_what_it_is_given_and_is_shown_in_the_footer_and_in_help() -> None:
    choose("dashboard.zoom: [K, ctrl+k]\nlog.search: ctrl+f\n")
    async with attached(made_run()) as (pilot, screen):
        await pilot.press("4", "K")
        await pilot.pause()
        assert not screen.query_one("#ranks").display
        await pilot.press("ctrl+k")
        await pilot.pause()
        assert screen.query_one("#ranks").display
        await pilot.press("z")
        await pilot.pause()
        assert screen.query_one("#ranks").display
        assert " K zoom " in footer(screen)
        await pilot.press("question_mark")
        await pilot.pause()
        assert isinstance(pilot.app.screen, Help)
        assert "K, ctrl+k" in "\n".join(str(widget.render()) for widget in pilot.app.screen.query("Static"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("dashboard.explode: K", "there is no action 'dashboard.explode'"),
        ("dashboard.stop: y", "y would be dashboard.stop and dashboard.copy"),
        ("dashboard.stop: 5.5", "dashboard.stop: 5.5 is no key"),
        ("- a\n- b", "it is no list of `action: key`"),
        ("a: [", "expected"),
    ],
)
def test_a_mistake_is_told_before_anything_opens(text: str, told: str) -> None:
    choose(text)
    with pytest.raises(RequestError) as caught:
        keys.chosen()
    assert told in str(caught.value)
    assert "keys.yaml" in str(caught.value)


def test_a_place_whose_keys_can_be_chosen_names_all_of_them() -> None:
    """Dialogs and fields for typing have none that can be."""
    for place in keys.places():
        if any(binding.id for binding in place):
            assert not [binding for binding in place if not binding.id]


async def test_help_names_each_action_and_the_file_that_gives_it_another_key() -> None:
    async with attached(made_run()) as (pilot, _):
        await pilot.press("question_mark")
        await pilot.pause()
        text = "\n".join(str(widget.render()) for widget in pilot.app.screen.query("Static"))
        assert any(line.split()[:2] == ["/", "search"] and line.endswith(" log.search") for line in text.splitlines())
        assert str(keys.path()) in text


async def test_the_palette_reaches_what_is_in_another_panel() -> None:
    async with attached(made_run(lines=50), size=(80, 24)) as (pilot, screen):
        await pilot.press("4", "ctrl+p", *"errors of log")
        await pilot.pause()
        commands = {command.title: command for command in pilot.app.get_system_commands(screen)}
        assert {"Search", "Merge", "Stop job", "Its gpus", "Export metrics", "Next bad rank"} <= commands.keys()
        await pilot.press("escape")
        commands["Search"].callback()
        await pilot.pause(0.3)
        await pilot.press(*"line 7", "enter")
        await pilot.pause(0.3)
        assert screen.query_one("#logs").display
        assert "“line 7”" in "".join(strip.text for strip in screen.query_one(LogView)._strips)


async def test_what_the_palette_cannot_do_now_says_why() -> None:
    async with attached(made_run()) as (pilot, screen):
        commands = {command.title: command for command in pilot.app.get_system_commands(screen)}
        commands["Stop job"].callback()
        await pilot.pause(0.3)
        assert [notice.message for notice in pilot.app._notifications] == ["stop job: the run is over"]
