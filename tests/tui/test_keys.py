"""Keys of the user's own: they do what they are given, and a mistake is told in one sentence before anything opens."""

from __future__ import annotations

import pytest

from engine.errors import RequestError
from tests.tui.made import made_run
from tests.tui.test_dashboard import attached
from tests.tui.test_footer import keys as footer
from tui import keys
from tui.help import Help


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
