"""Take the pictures of screenshots/ from real runs on this machine: make screenshots.

Two nodes × two ranks train; then a rank of another run fails. Every picture is what the program showed at that moment,
as SVG and, drawn with the fonts named here, as PNG.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import resvg_py

from engine.cli.arguments import parser
from tui.app import RankdeckApp

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.pilot import Pilot

FOLDER = Path(__file__).resolve().parents[1] / "screenshots"
FONTS = [
    Path("/usr/share/fonts/truetype", name)
    for name in (
        "firacode/FiraCode-Regular.ttf",
        "firacode/FiraCode-Bold.ttf",
        "dejavu/DejaVuSans.ttf",
        "dejavu/DejaVuSansMono.ttf",
    )
]
WIDE, NARROW = (150, 44), (80, 24)
PATIENCE = 60.0
STEPS = 400

PROFILE = """\
# Two nodes on this machine: no ssh needed, a good first try.
version: 1
name: two-nodes
nodes:
  - {{host: localhost, gpus: 2}}
  - {{host: localhost, gpus: 2}}
rendezvous: {{master_port: auto}}
program:
  kind: module
  path: engine.train
  args: [--set, steps={steps}]
  activate: export PATH={bin}:$PATH
env: {{OMP_NUM_THREADS: '1'}}
batch: {{per_device: 8, base_lr: 3.0e-3, base_batch: 32}}
"""
FAILS = """\
import os, time
print("loading checkpoint shard", os.environ["RANK"], flush=True)
time.sleep(3)
if os.environ["RANK"] == "2":
    raise FileNotFoundError(2, "No such file or directory", "/data/shard-2.bin")
time.sleep(600)
"""


def save(app: RankdeckApp, name: str) -> None:
    """The screen as it is, twice."""
    svg = app.export_screenshot(title="rankdeck")
    FOLDER.joinpath(f"{name}.svg").write_text(svg, encoding="utf-8")
    drawn = svg.replace("font-family: arial", "font-family: DejaVu Sans")
    fonts = [str(font) for font in FONTS]
    png = resvg_py.svg_to_bytes(svg_string=drawn, skip_system_fonts=True, font_files=fonts)
    FOLDER.joinpath(f"{name}.png").write_bytes(bytes(png))
    print(name, flush=True)


async def until(pilot: Pilot[Any], what: str, seen: Callable[[], bool]) -> None:
    """Wait for something on the screen. TimeoutError saying what."""
    for _ in range(int(PATIENCE / 0.2)):
        if seen():
            return
        await pilot.pause(0.2)
    raise TimeoutError(f"waited {PATIENCE:.0f} s for {what}")


def words(app: RankdeckApp) -> str:
    """The text on the screen, without its colours."""
    return "".join(segment.text for line in app.screen._compositor.render_strips() for segment in line)


def step(app: RankdeckApp) -> int:
    """The step that the header tells."""
    found = re.search(r"step ([0-9,]+)/", words(app))
    return int(found[1].replace(",", "")) if found else 0


async def press(pilot: Pilot[Any], *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
        await pilot.pause(0.4)


async def from_home_to_training() -> None:
    """The wizard on a saved profile, preflight, review, and the run that it launches, stopped from its dashboard."""
    app = RankdeckApp(Namespace(command=None))
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, "home", lambda: "two-nodes" in words(app))
        await press(pilot, "down", "e")
        await press(pilot, "f8")
        await until(pilot, "the nodes' answers", lambda: "torch" in words(app))
        await pilot.pause(2)
        save(app, "wizard-nodes")
        await press(pilot, "alt+5")
        await pilot.pause(1)
        save(app, "wizard-batch")
        await press(pilot, "alt+7")
        await until(pilot, "preflight", lambda: "0 waiting" in words(app) or "nothing is wrong" in words(app))
        await pilot.pause(1)
        save(app, "preflight")
        await press(pilot, "alt+8")
        await pilot.pause(1)
        save(app, "review")
        await press(pilot, "f10")
        await until(pilot, "a third of the run", lambda: step(app) > STEPS / 3)
        save(app, "dashboard")
        await press(pilot, "3", "slash", *"step 2", "enter", "z")
        await pilot.pause(1)
        save(app, "logs-search")
        await press(pilot, "z", "escape")
        await pilot.resize_terminal(*NARROW)
        await press(pilot, "4")
        await pilot.pause(1)
        save(app, "dashboard-80x24")
        await pilot.resize_terminal(*WIDE)
        await press(pilot, "question_mark")
        save(app, "help")
        await press(pilot, "escape", "s", "y")
        await until(pilot, "the stop", lambda: "STOPPED" in words(app))


async def home() -> None:
    """Profiles and runs, with what became of them."""
    app = RankdeckApp(Namespace(command=None))
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, "home", lambda: "stopped" in words(app))
        save(app, "home")


async def to_a_verdict(path: str) -> None:
    """A rank that fails, named with its cause."""
    app = RankdeckApp(parser().parse_args(["launch", path]))
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, "the failure", lambda: "FAILED" in words(app))
        await pilot.pause(2)
        await press(pilot, "5")
        save(app, "verdict")


def main() -> None:
    if missing := [str(font) for font in FONTS if not font.exists()]:
        sys.exit(f"fonts are missing: {', '.join(missing)}\n  apt-get install fonts-firacode fonts-dejavu-core")
    FOLDER.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="rankdeck-"))
    os.environ.update(
        RANKDECK_STATE=str(folder / "state"), XDG_CONFIG_HOME=str(folder / "config"), COLORTERM="truecolor"
    )
    profiles = folder / "config" / "rankdeck" / "profiles"
    profiles.mkdir(parents=True)
    bin_folder = Path(sys.executable).parent
    text = PROFILE.format(steps=STEPS, bin=bin_folder)
    (profiles / "two-nodes.yaml").write_text(text)
    (folder / "load.py").write_text(FAILS)
    fails = text.replace("name: two-nodes", "name: shards").replace("kind: module", "kind: script")
    fails = fails.replace("path: engine.train", f"path: {folder / 'load.py'}").replace(
        "  args: [--set, steps=400]\n", ""
    )
    (profiles / "shards.yaml").write_text(fails)
    os.chdir(folder)
    try:
        asyncio.run(from_home_to_training())
        asyncio.run(to_a_verdict("shards"))
        asyncio.run(home())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
