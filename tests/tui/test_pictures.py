"""Each screen as it looks, at each size and in each theme, compared with the picture of it that is kept.

A picture is text: what is written, then with which colours. After a change that is meant,

    RANKDECK_PICTURES=make pytest tests/tui/test_pictures.py

makes them anew; what `git diff` shows then is what the user will see change.
"""

from __future__ import annotations

import asyncio
import difflib
import io
import os
import time
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyte
import pytest
from rich.console import Console

from engine import runs
from engine.preflight import CHECKS
from tests.tui.made import STARTED, made_run
from tests.tui.test_fuzz import Stays
from tui import themes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tui.app import RankdeckApp

KEPT = Path(__file__).with_name("pictures")
SIZES = ((60, 15), (80, 24), (120, 34), (200, 60))
PROFILE = """\
version: 1
name: small
nodes: [{host: gpu01, gpus: 2}, {host: gpu02, gpus: 2}]
program: {kind: script, path: train.py}
"""
NAMES = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


class View(NamedTuple):
    """What is opened, which keys are pressed there, and what is on the screen when it is whole; `failing` is the rank
    of the run that fails, if one does."""

    options: dict[str, object]
    keys: tuple[str, ...]
    whole: str
    failing: int | None = None


RUN: dict[str, object] = {"command": "attach", "run": "lab-20261124-120000-abcd"}
VIEWS = {
    "home": View({"command": None}, (), "lab-20261124"),
    "dashboard": View(RUN, (), "SUCCEEDED"),
    "ranks": View(RUN, ("1",), "gpu01"),
    "logs": View(RUN, ("3", "z"), "line 49"),
    "help": View(RUN, ("3", "question_mark"), "keys"),
    "failed": View(RUN, (), "FAILED", 3),
    "verdict": View(RUN, ("5",), "first failure", 3),
    "wizard-nodes": View({"command": None}, ("e", "alt+2"), "gpu[01-02] (2"),
    "wizard-program": View({"command": None}, ("e", "alt+4"), "train.py"),
    "wizard-batch": View({"command": None}, ("e", "alt+5"), "Per device"),
    "wizard-preflight": View({"command": None}, ("e", "alt+7"), "2 errors"),
    "wizard-review": View({"command": None}, ("e", "alt+8"), "2 errors"),
}
THEMED = ("home", "dashboard", "logs", "verdict", "wizard-nodes")
SHOWN = {"reach.ssh", "reach.shell", "node.python", "node.state", "program.workdir", "program.torch", "ports.master"}
PLAIN, NO_COLOR = "ascii", "no-color"
PICTURES = [
    *((view, size, themes.OFFERED[0]) for view in VIEWS for size in SIZES),
    *((view, (80, 24), theme) for view in THEMED for theme in (*themes.OFFERED[1:], PLAIN, NO_COLOR)),
    ("dashboard", (50, 10), themes.OFFERED[0]),
]


@pytest.fixture(autouse=True)
def fixed_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An hour after the made-up run began, in Greenwich; a new run has a name that is known, and checks to come
    change no picture."""
    monkeypatch.setattr(time, "time", lambda: STARTED + 3600.0)
    every = dict(CHECKS)
    for name in every.keys() - SHOWN:
        del CHECKS[name]
    monkeypatch.setattr(runs, "new_name", lambda profile: f"{profile}-20261124-130000-abcd")
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    CHECKS.clear()
    CHECKS.update(every)  # in their order
    monkeypatch.undo()
    time.tzset()


def drawn(app: RankdeckApp) -> pyte.Screen:
    """What a terminal of this size would show, out of what the program would write."""
    width, height = app.size
    file = io.StringIO()
    console = Console(
        width=width, height=height, file=file, force_terminal=True, color_system="truecolor", legacy_windows=False
    )
    background = app._background_screens
    console.print(app.screen._compositor.render_update(full=True, screen_stack=background))
    screen = pyte.Screen(width, height)
    pyte.Stream(screen).feed(file.getvalue().rstrip("\n").replace("\n", "\r\n"))
    return screen


def picture(screen: pyte.Screen) -> list[str]:
    """The text row by row; then each row's colours by letters and how often each, and what the letters mean."""
    letters: dict[str, str] = {}
    colours = []
    for y in range(screen.lines):
        row = []
        for x in range(screen.columns):
            cell = screen.buffer[y][x]
            marks = [mark for mark in ("bold", "italics", "underscore", "reverse") if getattr(cell, mark)]
            ink = "" if cell.data == " " and not marks else cell.fg
            style = " ".join([ink or "any", "on", cell.bg, *marks])
            row.append(letters.setdefault(style, NAMES[len(letters)]))
        colours.append(" ".join(f"{letter}{len(list(times))}" for letter, times in groupby(row)))
    text = [line.rstrip() for line in screen.display]
    return [*text, "--", *colours, "--", *(f"{letter} {style}" for style, letter in letters.items())]


async def whole(app: RankdeckApp, text: str) -> list[str]:
    """The picture, when this text is on it and nothing moves any more."""
    before: list[str] = []
    for _ in range(300):
        await asyncio.sleep(0.1)
        now = picture(drawn(app))
        if now == before and text in "\n".join(now):
            return now
        before = now
    raise AssertionError(f"no {text!r} on:\n" + "\n".join(before))


@pytest.mark.parametrize(
    ("view", "size", "theme"), PICTURES, ids=lambda value: str(value).replace(", ", "x").strip("()")
)
async def test_it_looks_as_it_did(
    view: str, size: tuple[int, int], theme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, keys, text, failing = VIEWS[view]
    made_run(lines=50, failing=failing)
    Path("profiles").mkdir()
    Path("profiles/small.yaml").write_text(PROFILE)
    if theme == NO_COLOR:
        monkeypatch.setenv("NO_COLOR", "1")
    app = Stays(**{**options, "theme": theme, "ascii": theme == PLAIN})
    app.readonly = False
    async with app.run_test(size=size) as pilot:
        small = size < (60, 15)
        await whole(app, "needs 60x15" if small else "lab-20261124")
        for key in () if small else keys:
            await pilot.press(key)
        seen = await whole(app, "needs 60x15" if small else text)
    path = KEPT / f"{'too-small' if small else view}-{size[0]}x{size[1]}-{theme}.txt"
    if os.environ.get("RANKDECK_PICTURES") == "make":
        KEPT.mkdir(exist_ok=True)
        path.write_text("\n".join(seen) + "\n", encoding="utf-8")
    kept = path.read_text(encoding="utf-8").splitlines()
    changes = "\n".join(difflib.unified_diff(kept, seen, "kept", "seen", lineterm="", n=0))
    assert not changes, f"{path.name} looks different now:\n{changes}\n\n" + "\n".join(seen[: size[1]])
