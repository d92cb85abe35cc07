"""Whatever is typed, whatever a rank writes and however the terminal is pulled about: nothing is raised.

Seeded, a second or two each; `RANKDECK_FUZZ_SECONDS` and `RANKDECK_FUZZ_SEED` search for longer and elsewhere. The keys
that were pressed are printed, so that a failure can be played again.
"""

from __future__ import annotations

import asyncio
import os
import random
import string
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine.errors import Unreachable
from engine.transport import Connector
from tests.tui.made import made_run, stdout_of
from tui.app import RankdeckApp
from tui.logs.view import LogView

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textual.pilot import Pilot
    from textual.screen import Screen

    from engine.transport import Transport

SECONDS = float(os.environ.get("RANKDECK_FUZZ_SECONDS", "1.5"))
FIRST = int(os.environ.get("RANKDECK_FUZZ_SEED", "1"))
NAMED = (
    "up", "down", "left", "right", "home", "end", "pageup", "pagedown", "tab", "shift+tab", "enter", "escape", "space",
    "backspace", "delete", "f1", "f5", "f7", "f8", "f9", "f10", "ctrl+c", "ctrl+d", "ctrl+u", "ctrl+n", "ctrl+p",
    "ctrl+q", "ctrl+e", "ctrl+o", "alt+1", "alt+5", "shift+up", "shift+down", "question_mark", "slash", "colon",
    "ampersand", "exclamation_mark",
)  # fmt: skip
KEYS = (*NAMED, *NAMED, *string.ascii_letters, *string.digits)
SIZES = ((60, 15), (80, 24), (120, 34), (200, 60), (59, 14), (1, 1), (20, 3), (300, 16))
PIECES = (
    b"\x1b[31m", b"\x1b[0m", b"\x1b]52;c;cm0=\x07", b"\x1b]0;x\x07", b"\x1b[2J\x1b[H", b"\x9b2J", b"\xc2\x9b1m",
    b"\r", b"\n", b"\r\n", b"\t", b"\x00", b"\x08", b"[/]", b"[bold]", b"[rank0]: ", b"\xff\xfe", b"\xe6\xbc",
    *(text.encode() for text in ("漢字カナ", "e\u0301\u0301", "\u202egpj\u202c", "👩\u200d👩\u200d👧")),
    b"Traceback (most recent call last):\n", b"loss: nan", b"2026-11-24 08:12:33 WARNING ", b"x" * 5000, b" " * 300,
)  # fmt: skip


class Unreached(Connector):
    """Reaches nobody. Stands in for the network, so that no typed name is looked for in it."""

    async def connect(self, host: str, *, user: str = "", port: int | None = None) -> Transport:
        raise Unreachable("nobody answers here", node=host)


class Stays(RankdeckApp):
    """The program, which does not end when it is left: the fuzzing goes on."""

    CSS_PATH = str(Path(sys.modules["tui.app"].__file__ or "").with_name("app.tcss"))

    def __init__(self, **options: object) -> None:
        super().__init__(Namespace(lost_after=60.0, readonly=True, **options))

    def first(self) -> Screen[Any]:
        self.connector = Unreached(ask=self)
        return super().first()

    def exit(self, *_: object, **__: object) -> None:
        """Stays."""


def until(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield


def noise(chance: random.Random, count: int) -> bytes:
    """What a rank that has gone mad writes."""
    pieces = (chance.choice(PIECES) if chance.random() < 0.7 else chance.randbytes(9) for _ in range(count))
    return b"".join(piece + b"\n" * (chance.random() < 0.2) for piece in pieces)


async def play(pilot: Pilot[int], chance: random.Random) -> None:
    """A few seconds of keys, clicks and sizes."""
    for _ in until(SECONDS):
        what = chance.random()
        if what < 0.05:
            size = chance.choice(SIZES)
            print("size", *size)
            await pilot.resize_terminal(*size)
        elif what < 0.1:
            width, height = pilot.app.size
            at = (chance.randrange(width), chance.randrange(height))
            print("click", *at)
            await pilot.click(offset=at)
        else:
            keys = chance.choices(KEYS, k=chance.randint(1, 8))
            print(*keys)
            await pilot.press(*keys)
    await pilot.pause(0.2)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + 2))
async def test_no_key_and_no_size_breaks_the_dashboard(seed: int) -> None:
    folder = made_run(failing=2, nodes=3, nproc=4, lines=300)
    app = Stays(command="attach", run=folder.run, ascii=seed % 2 == 0)
    async with app.run_test(size=(120, 34)) as pilot:
        await pilot.pause(0.2)
        await play(pilot, random.Random(seed))


@pytest.mark.parametrize("seed", range(FIRST, FIRST + 2))
@pytest.mark.parametrize("command", [None, "new"])
async def test_no_key_and_no_size_breaks_the_home_screen_and_the_wizard(command: str | None, seed: int) -> None:
    made_run(failing=2)
    app = Stays(command=command, name="fuzzed")
    async with app.run_test(size=(120, 34)) as pilot:
        await pilot.pause(0.2)
        await play(pilot, random.Random(seed))


@pytest.mark.parametrize("seed", range(FIRST, FIRST + 2))
async def test_no_byte_of_a_log_breaks_the_view_or_reaches_the_terminal(seed: int) -> None:
    chance = random.Random(seed)
    folder = made_run()
    path = folder.mirror_path(0, stdout_of(0, 0))
    with path.open("ab") as file:
        file.write(noise(chance, 4000))
    app = Stays(command="attach", run=folder.run)
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause(0.3)
        view = pilot.app.screen_stack[1].query_one(LogView)
        view.focus()
        for _ in until(SECONDS):
            await pilot.press(
                *chance.choices("wtgGbjklhenNf", k=2), "escape", *chance.choices(("space", "b", "g"), k=2)
            )
            with path.open("ab") as file:
                file.write(noise(chance, 20))
            for y in range(view.content_size.height):
                text = view.render_line(y).text
                assert text.isprintable(), (seed, text)
            await asyncio.sleep(0)
