"""The wizard on a screen, as a manual: each test is a user's way through it, key by key, with real nodes."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine import launchers, profile, runs
from engine.preflight import Observation
from tests.tui.test_wizard_draft import typed
from tui import wizard
from tui.app import RankdeckApp
from tui.dashboard.screen import Dashboard
from tui.dialogs import Confirm
from tui.wizard import kept
from tui.wizard.asking import Difference, OneNode, PickHosts
from tui.wizard.matrix import Matrix
from tui.wizard.preview import PreviewPane
from tui.wizard.question import questions
from tui.wizard.screen import Wizard
from tui.wizard.step import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from textual.pilot import Pilot

SIZE = (120, 40)
VENV = f"export PATH={Path(sys.executable).parent}:$PATH"
SMALL = f"""\
# The smallest job there is.
version: 1
name: small
nodes:
  - {{host: localhost, gpus: 1}}  # this machine
rendezvous: {{master_port: auto}}
program: {{kind: command, path: "true", activate: "{VENV}"}}
"""


class Opened(RankdeckApp):
    """The program, opened at one of its screens."""

    CSS_PATH = str(Path(sys.modules["tui.app"].__file__ or "").with_name("app.tcss"))

    def __init__(self, screen: Wizard) -> None:
        self._opened = screen
        super().__init__()

    def first(self) -> Wizard:
        return self._opened


def at(pilot: Pilot[Any]) -> Wizard:
    screen = pilot.app.screen
    assert isinstance(screen, Wizard)
    return screen


def text(pilot: Pilot[Any], selector: str) -> str:
    """What a widget of the step shows."""
    return str(at(pilot).step.query_one(selector).render())


async def until(pilot: Pilot[Any], true: Callable[[], bool], seconds: float = 60.0) -> None:
    for _ in range(int(seconds / 0.05)):
        await pilot.pause()
        if true():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"it did not come true within {seconds:g} s")


async def write(pilot: Pilot[Any], text: str) -> None:
    names = {" ": "space", "=": "equals_sign", "\n": "enter", ".": "full_stop", "-": "minus", "{": "left_curly_bracket"}
    await pilot.press(*(names.get(character, character) for character in text))


def saved(text: str = SMALL) -> Path:
    path = Path("profiles/small.yaml")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


async def test_from_nothing_to_a_launched_run() -> None:
    async with Opened(wizard.new()).run_test(size=SIZE) as pilot:
        await write(pilot, "first")
        await pilot.press("enter", "enter")
        await until(pilot, lambda: at(pilot).here == "nodes")
        await write(pilot, "localhost slots=1")
        await until(pilot, lambda: isinstance(at(pilot).sheet.observations.get(0), Observation))
        await pilot.press("f8", "tab")
        await write(pilot, "auto")
        await pilot.press("f8")
        await until(pilot, lambda: at(pilot).here == "program")
        await pilot.press("left", "enter")
        await write(pilot, "true")
        questions(at(pilot))["program.activate"].control.focus()
        await write(pilot, VENV)
        await until(pilot, lambda: at(pilot).sheet.preview.plan is not None)
        await pilot.press("f8", "f8")
        await until(pilot, lambda: at(pilot).here == "preflight" and at(pilot).checking.over)
        assert at(pilot).checking.passed
        found = at(pilot).checking.preflight
        assert found is not None and "collective.works" not in found.skip, "nobody has seen a new profile work yet"
        await pilot.press("f8")
        await until(pilot, lambda: at(pilot).here == "review")
        shown = at(pilot).sheet.preview.plan
        await pilot.press("f10")
        await until(pilot, lambda: isinstance(pilot.app.screen, Dashboard))
        record = runs.find("first").record()
        assert record.plan == shown
        dashboard = pilot.app.screen
        assert isinstance(dashboard, Dashboard)
        await until(pilot, lambda: dashboard.session.state.over_at is not None)


async def test_a_saved_profile_is_launched_with_one_more_enter() -> None:
    async with Opened(wizard.review(saved())).run_test(size=SIZE) as pilot:
        assert at(pilot).here == "review"
        await pilot.press("enter")
        assert at(pilot).armed
        await until(pilot, lambda: isinstance(pilot.app.screen, Dashboard))
        dashboard = pilot.app.screen
        assert isinstance(dashboard, Dashboard)
        await until(pilot, lambda: dashboard.session.state.over_at is not None)


async def test_a_failing_preflight_stays_with_its_remedy_and_passes_when_it_is_mended(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = own_home / "train.py"
    asked = profile.override(profile.load(saved()), ["program.kind=script", f"program.path={script}"])
    async with Opened(wizard.launching(asked)).run_test(size=SIZE) as pilot:
        await until(pilot, lambda: at(pilot).checking.over and not at(pilot).armed)
        matrix = at(pilot).query_one(Matrix)
        await until(pilot, lambda: matrix.check == "program.present")
        assert matrix.rank == 0
        finding = matrix.cells[0, "program.present"].findings[0]
        assert str(script) in finding.text
        copied: list[str] = []
        monkeypatch.setattr("tui.terminal.copy", lambda app, text: copied.append(text))
        await pilot.press("y")
        assert copied == [finding.remedy]
        script.write_text("print('here')\n")
        await pilot.press("R")
        await until(pilot, lambda: at(pilot).checking.passed)
        assert not isinstance(pilot.app.screen, Dashboard)
        await pilot.press("ctrl+q")
        await until(pilot, lambda: pilot.app.return_value is not None)
        assert pilot.app.return_value == 0


async def test_a_preflight_that_failed_is_the_exit_code_of_launch() -> None:
    asked = profile.override(profile.load(saved()), ["program.workdir=/no/such/folder"])
    async with Opened(wizard.launching(asked)).run_test(size=SIZE) as pilot:
        await until(pilot, lambda: at(pilot).checking.over and not at(pilot).armed)
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.return_value is not None)
    assert pilot.app.return_value == 3


async def test_a_fix_that_preflight_knows_is_one_key_away() -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        asked = profile.override(profile.load(saved()), [f"rendezvous.master_port={port}"])
        async with Opened(wizard.launching(asked)).run_test(size=SIZE) as pilot:
            matrix = at(pilot).query_one(Matrix)
            await until(pilot, lambda: at(pilot).checking.over and matrix.check == "ports.master")
            await pilot.press("f6")
            await until(pilot, lambda: at(pilot).checking.passed)
            assert at(pilot).sheet.profile.rendezvous.master_port not in (port, "auto")
            assert at(pilot).sheet.draft.get("nodes") == "localhost slots=1"


async def test_a_check_is_skipped_only_after_a_yes_and_that_stays_in_sight() -> None:
    asked = profile.override(profile.load(saved()), ["program.workdir=/no/such/folder"])
    async with Opened(wizard.launching(asked)).run_test(size=SIZE) as pilot:
        matrix = at(pilot).query_one(Matrix)
        await until(pilot, lambda: at(pilot).checking.over and matrix.check == "program.workdir")
        await pilot.press("s", "n")
        assert at(pilot).sheet.draft.skip == set()
        await pilot.press("s", "y")
        await until(pilot, lambda: "1 skipped (program.workdir)" in text(pilot, "#verdict"))
        assert matrix.cells[0, "program.workdir"].state == "skipped"


async def test_editing_a_saved_profile_shows_the_difference_and_keeps_its_comments() -> None:
    path = saved()
    async with Opened(wizard.edit(path)).run_test(size=SIZE) as pilot:
        await pilot.press("alt+5")
        await until(pilot, lambda: at(pilot).here == "batch")
        await write(pilot, "16")
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(pilot.app.screen, Difference))
        await pilot.press("f2")
        await until(pilot, lambda: "batch" in path.read_text())
    assert path.read_text() == SMALL + "batch:\n  per_device: 16\n"


async def test_nothing_is_saved_over_a_file_that_has_changed_meanwhile() -> None:
    path = saved()
    async with Opened(wizard.edit(path)).run_test(size=SIZE) as pilot:
        await pilot.press("alt+5")
        await until(pilot, lambda: at(pilot).here == "batch")
        await write(pilot, "16")
        path.write_text(SMALL.replace("small\n", "smaller\n"))
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(pilot.app.screen, Difference))
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(pilot.app.screen, Wizard))
    assert "smaller" in path.read_text()
    assert "16" not in path.read_text()


async def test_what_is_wrong_is_said_beside_the_field_when_it_is_left() -> None:
    async with Opened(wizard.new()).run_test(size=SIZE) as pilot:
        question = questions(at(pilot))["name"]
        await write(pilot, "My Lab")
        await asyncio.sleep(0.3)
        assert not question.has_class("-wrong")
        await pilot.press("tab")
        await until(pilot, lambda: question.has_class("-wrong"))
        assert "allowed: 1 to 40 of a-z" in str(question.query_one(".note").render())
        assert at(pilot).sheet.draft.get("name") == "My Lab"


async def test_any_step_is_a_key_or_a_click_away_and_nothing_is_lost() -> None:
    async with Opened(wizard.new()).run_test(size=SIZE) as pilot:
        await write(pilot, "lab")
        await pilot.press("alt+4")
        await until(pilot, lambda: at(pilot).here == "program")
        await pilot.press("f7")
        await until(pilot, lambda: at(pilot).here == "network")
        await pilot.click("#rail", offset=(6, 1))
        await until(pilot, lambda: at(pilot).here == "launcher")
        assert questions(at(pilot))["name"].control.value == "lab"  # type: ignore[union-attr]


async def test_what_was_typed_survives_a_crash() -> None:
    async with Opened(wizard.new()).run_test(size=SIZE) as pilot:
        await write(pilot, "lab")
        await until(pilot, lambda: kept.find("") is not None)
    assert wizard.new().sheet.draft.get("name") == "lab"


async def test_a_draft_on_disk_holds_no_secret() -> None:
    draft = typed(env="NCCL_DEBUG=INFO\nHF_TOKEN=hf_abcdefghijklmnopqrstuvwxyz")
    kept.keep(*kept.written(draft))
    assert b"hf_abc" not in kept.place("").read_bytes()
    found = kept.find("")
    assert found is not None
    assert found[0].get("env") == "NCCL_DEBUG=INFO\nHF_TOKEN="


async def test_known_hosts_are_offered_and_added_to_the_list(own_home: Path) -> None:
    (own_home / "ssh_config").write_text("Host gpu07\n  Port 1\n  HostName 127.0.0.1\n")
    async with Opened(wizard.new()).run_test(size=SIZE) as pilot:
        await pilot.press("alt+2")
        await until(pilot, lambda: at(pilot).here == "nodes")
        await pilot.press("f6")
        await until(pilot, lambda: isinstance(pilot.app.screen, PickHosts))
        await pilot.press("down", "space", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, Wizard))
        assert at(pilot).sheet.draft.get("nodes") == "gpu07"
        await until(pilot, lambda: isinstance(at(pilot).sheet.observations.get(0), Exception))
        await until(pilot, lambda: "connection refused" in text(pilot, "#node-story"))


async def test_one_node_may_differ_from_the_others() -> None:
    async with Opened(wizard.edit(saved())).run_test(size=SIZE) as pilot:
        await pilot.press("alt+2")
        await until(pilot, lambda: at(pilot).here == "nodes")
        at(pilot).query_one("#node-table").focus()
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, OneNode))
        questions(pilot.app.screen)["workdir"].control.focus()
        await write(pilot, "/data")
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(pilot.app.screen, Wizard))
        assert at(pilot).sheet.profile.nodes[0].workdir == "/data"


async def test_the_preview_is_what_the_launcher_renders(monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(SMALL.replace("  - {host", "  - {host: localhost, gpus: 1}\n  - {host"))
    copied: list[str] = []

    def copy(app: object, text: str) -> str:
        copied.append(text)
        return "copied"

    monkeypatch.setattr("tui.terminal.copy", copy)
    asked = profile.override(profile.load(path), ["rendezvous.master_port=29611"])
    path.write_text(profile.to_yaml(asked))
    async with Opened(wizard.edit(path)).run_test(size=SIZE) as pilot:
        await pilot.press("f3")
        sheet = at(pilot).sheet
        assert copied == [
            launchers.find("torchrun").render(launchers.find("torchrun").make_plan(asked, sheet.run), "shell")
        ]
        shown = at(pilot).query_one(PreviewPane)
        assert "node 1 of 2" in str(shown.border_title)
        await pilot.press("f4")
        assert "node 2 of 2" in str(shown.border_title)
        assert "--node_rank=1" in str(shown.query_one("#commands").render())


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (120, 34), (200, 60)])
async def test_every_step_can_be_shown_at_every_size(size: tuple[int, int]) -> None:
    async with Opened(wizard.new("lab")).run_test(size=size) as pilot:
        for number, step in enumerate(wizard.STEPS, start=1):
            await pilot.press(f"alt+{number}")
            await until(pilot, lambda step=step: at(pilot).here == step.key)  # type: ignore[misc]
            title = at(pilot).step.query(".title").first()
            assert title.region.bottom <= size[1]
            assert title.region.right <= size[0]


async def test_square_brackets_and_escapes_are_text_like_any_other() -> None:
    async with Opened(wizard.new()).run_test(size=SIZE) as pilot:
        screen = at(pilot)
        screen.step.post_message(Step.Answered({"name": "[/x]", "program.args": "[bold]\\[/] {lr}", "nodes": "[/a]"}))
        for number in range(1, 9):
            await pilot.press(f"alt+{number}")
            await pilot.pause(0.05)
        assert screen.sheet.draft.get("name") == "[/x]"


# ---- what is on the nodes already ---------------------------------------------------------------------------------


@contextlib.contextmanager
def left_behind(home: Path, job: str, *, alive: bool) -> Iterator[subprocess.Popen[bytes]]:
    """A process of a run of ours on this machine, whose supervisor is alive or not."""
    folder = home / "state" / "runs" / job
    folder.mkdir(parents=True)
    marked = {**os.environ, "RANKDECK_JOB": job, "RANKDECK_RUN_DIR": str(folder)}
    with (folder / "lock").open("w") as lock, subprocess.Popen(["sleep", "600"], env=marked) as process:
        if alive:
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield process
        finally:
            process.kill()


async def test_nobody_is_disturbed_without_a_yes(own_home: Path) -> None:
    asked = profile.override(profile.load(saved()), ["nodes[0].gpus=2"])
    with left_behind(own_home, "other-1/n0", alive=True):
        async with Opened(wizard.launching(asked, collective=20.0)).run_test(size=SIZE) as pilot:
            screen = at(pilot)
            await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
            said = str(pilot.app.screen.query_one(".detail").render())
            assert said == "the run other-1/n0 is on localhost: an all-reduce over all ranks disturbs it"
            await pilot.press("n")
            found = screen.checking.preflight
            assert found is not None
            await until(pilot, lambda: not any(found.waiting.values()))
            told = found.cells()[None, "collective.works"].findings
            assert [finding.text for finding in told] == [
                "the all-reduce is not tried, for the run other-1/n0 is on localhost"
            ]


async def test_what_a_dead_run_left_is_ended_with_a_key_and_a_yes(own_home: Path) -> None:
    asked = profile.override(profile.load(saved()), ["program.workdir=/no/such/folder"])
    with left_behind(own_home, "dead-1/n0", alive=False) as left:
        async with Opened(wizard.launching(asked)).run_test(size=SIZE) as pilot:
            matrix = at(pilot).query_one(Matrix)
            await until(pilot, lambda: at(pilot).checking.over and matrix.check == "program.workdir")
            await pilot.press("n")
            assert matrix.check == "jobs.ours"
            await until(pilot, lambda: "x ends it here" in text(pilot, "#finding"))
            await pilot.press("x")
            await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
            assert "run dead-1/n0" in str(pilot.app.screen.query_one(".detail").render())
            await pilot.press("y")
            await until(pilot, lambda: matrix.cells[0, "jobs.ours"].state == "ok")
        assert left.wait(10) < 0
