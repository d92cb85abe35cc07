"""A log on the screen, used with keys and mouse as a user would."""

from __future__ import annotations

import base64
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from textual.app import App
from textual.events import MouseScrollUp

from tests.tui.test_logs_shown import NASTY, OBEYED
from tui import terminal, themes
from tui.glyphs import ASCII
from tui.logs.source import LogFile
from tui.logs.view import LogView

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    import pytest
    from textual.app import ComposeResult
    from textual.pilot import Pilot


class OneLog(App[None]):
    """A screen with nothing but a log."""

    ENABLE_COMMAND_PALETTE = False

    def compose(self) -> ComposeResult:
        yield LogView()

    def on_mount(self) -> None:
        for theme in themes.THEMES:
            self.register_theme(theme)
        self.theme = themes.OFFERED[0]
        self.query_one(LogView).focus()


class Screen:
    """What a user sees of the log, and does with it."""

    def __init__(self, pilot: Pilot[None], path: Path) -> None:
        self.pilot = pilot
        self.path = path
        self.view = pilot.app.query_one(LogView)

    @property
    def rows(self) -> list[str]:
        """The rows of the log without the two cells of signs, the scroll bar and the foot."""
        return [strip.text[2:].rstrip(" ┃|") for strip in self.view._strips[:-1]]

    @property
    def foot(self) -> str:
        return self.view._strips[-1].text.rstrip()

    def sign(self, text: str) -> str:
        """What stands before the row with this text."""
        return next(strip.text[:1] for strip in self.view._strips if text in strip.text)

    def write(self, text: str) -> None:
        with self.path.open("ab") as file:
            file.write(text.encode())
        self.view.draw()

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def type(self, text: str) -> None:
        await self.press(*("space" if c == " " else c for c in text), "enter")

    async def until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not true():
            assert time.monotonic() < deadline, f"{self.rows}\n{self.foot}"
            await self.pilot.pause(0.02)
            self.view.draw()


@asynccontextmanager
async def a_log(path: Path, data: str | bytes, size: tuple[int, int] = (60, 11)) -> AsyncIterator[Screen]:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    async with OneLog().run_test(size=size) as pilot:
        screen = Screen(pilot, path)
        screen.view.show(LogFile(path))
        await pilot.pause(0.15)
        screen.view.draw()
        yield screen


def steps(count: int, first: int = 0) -> str:
    return "".join(f"step {number:04} loss 0.5\n" for number in range(first, first + count))


async def test_it_follows_the_end_until_the_user_moves_up_and_then_never_moves(tmp_path: Path) -> None:
    async with a_log(tmp_path / "log", steps(100)) as screen:
        assert screen.rows[-1] == "step 0099 loss 0.5"
        assert "following" in screen.foot
        screen.write(steps(5, 100))
        assert screen.rows[-1] == "step 0104 loss 0.5"
        await screen.press("up")
        before = screen.rows
        screen.write(steps(2000, 105))
        assert screen.rows == before
        assert "paused" in screen.foot
        assert "2,000 new lines, G to follow" in screen.foot
        await screen.press("G")
        assert screen.rows[-1] == "step 2104 loss 0.5"
        assert "following" in screen.foot


async def test_keys_move_as_in_less(tmp_path: Path) -> None:
    async with a_log(tmp_path / "log", steps(100)) as screen:
        await screen.press("g")
        assert screen.rows[0] == "step 0000 loss 0.5"
        await screen.press("space")
        assert screen.rows[0] == "step 0009 loss 0.5"
        await screen.press("ctrl+d", "j", "j", "k")
        assert screen.rows[0] == "step 0014 loss 0.5"
        await screen.press("b")
        assert screen.rows[0] == "step 0005 loss 0.5"
        assert "line 6 of 100" in screen.foot
        await screen.press("colon")
        await screen.type("50")
        assert any(row.startswith("step 0049") for row in screen.rows)
        await screen.press("colon")
        await screen.type("90%")
        assert screen.rows[0] == "step 0090 loss 0.5"


async def test_a_search_goes_to_the_newest_hit_and_from_there_up_and_down(tmp_path: Path) -> None:
    async with a_log(tmp_path / "log", steps(3000)) as screen:
        await screen.press("slash")
        await screen.type("Step 0[12]00")
        await screen.until(lambda: "no “Step 0[12]00” in this log" in screen.foot)
        await screen.press("slash")
        await screen.type("step 0[12]00")
        await screen.until(lambda: "2 of 2" in screen.foot)
        assert screen.sign("step 0200") == "▶"
        await screen.press("N")
        await screen.until(lambda: "1 of 2" in screen.foot)
        assert screen.sign("step 0100") == "▶"
        await screen.press("N")
        await screen.until(lambda: "no more “step 0[12]00” above, n goes down" in screen.foot)
        await screen.press("n")
        await screen.until(lambda: "2 of 2" in screen.foot)
        await screen.press("escape")
        assert "of 2" not in screen.foot


async def test_what_matches_is_lit_up(tmp_path: Path) -> None:
    async with a_log(tmp_path / "log", steps(50)) as screen:

        def lit() -> set[str]:
            return {s.text for strip in screen.view._strips for s in strip if s.style and s.style.reverse}

        await screen.press("slash")
        await screen.type("loss 0")
        assert lit() == {"loss 0"}
        await screen.press("slash")
        await screen.type("[0-9]{4} l")
        await screen.until(lambda: "0049 l" in lit())


async def test_a_filter_shows_only_what_matches_and_goes_on_with_new_lines(tmp_path: Path) -> None:
    async with a_log(tmp_path / "log", steps(2000)) as screen:
        await screen.press("f")
        await screen.type("99 ")
        await screen.until(lambda: screen.rows[:2] == ["step 1099 loss 0.5", "step 1199 loss 0.5"])
        screen.write(steps(100, 2000))
        await screen.until(lambda: screen.rows[-1] == "step 2099 loss 0.5")
        await screen.press("f")
        await screen.type("!loss")
        await screen.until(lambda: "no line matches “!loss”" in "".join(screen.rows))
        await screen.press("escape")
        assert screen.rows[-1] == "step 2099 loss 0.5"


async def test_errors_are_marked_and_e_goes_from_one_to_the_next(tmp_path: Path) -> None:
    text = steps(100) + "RuntimeError: first\n" + steps(100, 100) + "UserWarning: hm\nValueError: last\n"
    async with a_log(tmp_path / "log", text) as screen:
        assert screen.sign("ValueError: last") == "✗"
        assert screen.sign("UserWarning") == "!"
        await screen.press("E")
        await screen.until(lambda: "error 2 of 2" in screen.foot)
        assert screen.sign("ValueError: last") == "▶"
        await screen.press("E")
        await screen.until(lambda: "error 1 of 2" in screen.foot)
        assert screen.sign("RuntimeError: first") == "▶"
        await screen.press("e")
        await screen.until(lambda: "error 2 of 2" in screen.foot)


async def test_long_lines_wrap_or_are_looked_at_sideways_and_that_stays(tmp_path: Path) -> None:
    async with a_log(tmp_path / "log", "".join(f"{n} " + "abcdefgh" * 20 + "\n" for n in range(30))) as screen:
        await screen.press("right", "right")
        assert screen.rows[0].startswith("fgh" + "abcdefgh")
        screen.write("30 " + "x" * 100 + "\n")
        assert screen.rows[-1] == "x" * 57
        assert "column 32" in screen.foot
        await screen.press("w")
        assert screen.rows[-2:] == ["30 " + "x" * 54, "x" * 46]
        assert "wrap" in screen.foot


async def test_a_progress_bar_stays_one_line(tmp_path: Path) -> None:
    async with a_log(tmp_path / "log", "start\n") as screen:
        for share in range(0, 101, 10):
            screen.write(f"\r{share:3}%|{'#' * (share // 10):10}| {share}/100")
            assert screen.rows[:3] == ["start", f"{share:3}%|{'#' * (share // 10):10}| {share}/100", ""]


async def test_dragging_selects_text_and_y_sends_it_to_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[str] = []

    def record(app: object, text: str) -> str:
        copied.append(text)
        return "sent"

    monkeypatch.setattr(terminal, "copy", record)
    async with a_log(tmp_path / "log", steps(100)) as screen:
        await screen.pilot.mouse_down(offset=(7, 2))
        await screen.pilot.hover(offset=(10, 4))
        await screen.pilot.mouse_up(offset=(10, 4))
        assert "y copies" in screen.foot
        first = screen.rows[2]
        screen.write(steps(50, 100))
        assert screen.rows[2] == first
        await screen.press("y")
        assert copied == ["0092 loss 0.5\nstep 0093 loss 0.5\nstep 0094"]
        assert "sent" in screen.foot
        await screen.press("v", "shift+up", "k", "ctrl+c")
        assert copied[-1] == "step 0097 loss 0.5\nstep 0098 loss 0.5\nstep 0099 loss 0.5"
        await screen.press("y")
        assert copied[-1] == screen.rows[-1]
        await screen.pilot.click(offset=(18, 3), times=2)
        await screen.press("y")
        assert copied[-1] == "0.5"


async def test_the_clipboard_is_reached_through_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setenv("TMUX", "/tmp/tmux-0/default,1,0")
    async with a_log(tmp_path / "log", "one\n") as screen:
        driver = screen.pilot.app._driver
        assert driver is not None
        monkeypatch.setattr(driver, "write", written.append)
        await screen.press("y")
        sequence = f"\x1b]52;c;{base64.b64encode(b'one').decode()}\a"
        assert any(text.startswith(sequence) and "\x1bPtmux;" in text for text in written)
        assert "3 bytes sent to the terminal's clipboard" in screen.foot


async def test_the_wheel_and_the_scroll_bar_move_the_view(tmp_path: Path) -> None:
    async with a_log(tmp_path / "log", steps(1000)) as screen:
        screen.view.post_message(MouseScrollUp(screen.view, 5, 5, 0, -1, 0, False, False, False))
        await screen.pilot.pause()
        assert screen.rows[-1] == "step 0996 loss 0.5"
        await screen.pilot.mouse_down(offset=(59, 0))
        await screen.pilot.mouse_up(offset=(59, 0))
        assert screen.rows[0] == "step 0000 loss 0.5"
        await screen.pilot.click(offset=(5, 10))
        assert "following" in screen.foot


async def test_an_empty_log_says_why(tmp_path: Path) -> None:
    async with a_log(tmp_path / "log", "") as screen:
        screen.view.draw(empty="rank 3 has written nothing yet")
        assert any("rank 3 has written nothing yet" in row for row in screen.rows)
        screen.write("now\n")
        assert screen.rows[0] == "now"


async def test_a_log_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    async with a_log(tmp_path / "log", steps(100)) as screen:
        await screen.press("g", "slash")
        await screen.type("loss")
        screen.path.rename(tmp_path / "log.damaged")
        screen.path.write_text("other loss\n")
        await screen.until(lambda: screen.rows[0] == "other loss")
        await screen.until(lambda: "“loss” 1" in screen.foot)


async def test_without_unicode_every_sign_is_ascii(tmp_path: Path) -> None:
    async with a_log(tmp_path / "log", steps(90) + "ValueError: x\n") as screen:
        screen.view.glyphs = ASCII
        await screen.press("up")
        assert "".join(strip.text for strip in screen.view._strips).isascii()


async def test_the_log_is_usable_on_the_smallest_screen_and_through_resizes(tmp_path: Path) -> None:
    async with a_log(tmp_path / "log", steps(100), size=(20, 4)) as screen:
        assert screen.rows[-1] == "step 0099 loss 0."
        for size in ((3, 2), (1, 1), (200, 60), (60, 11)):
            await screen.pilot.resize_terminal(*size)
            screen.view.draw()
        await screen.until(lambda: len(screen.rows) == 10)
        assert screen.rows[-1] == "step 0099 loss 0.5"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(NASTY | st.binary(max_size=300), min_size=1, max_size=6),
    st.lists(st.sampled_from("jkwhlgGeNn0bv y"), max_size=12),
)
async def test_random_bytes_and_keys_raise_nothing_and_give_the_terminal_no_orders(
    tmp_path: Path, parts: list[bytes], keys: list[str]
) -> None:
    async with a_log(tmp_path / "log", b"", size=(40, 8)) as screen:
        for part in parts:
            with screen.path.open("ab") as file:
                file.write(part)
            screen.view.draw()
            for strip in screen.view._strips:
                assert OBEYED.search(strip.text) is None
                assert strip.cell_length == 40
        await screen.press(*("space" if key == " " else key for key in keys))
