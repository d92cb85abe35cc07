"""The log view on a real terminal: the pager, the clipboard, also inside tmux, and nothing raw on the way."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from textual.app import App

from tests.tui.made import made_run, stdout_of
from tests.tui.pty_of import RANKDECK, Terminal
from tui.logs.pager import page
from tui.logs.source import LogFile

if TYPE_CHECKING:
    from pathlib import Path

    from engine.runs import RunFolder

HOSTILE = "\x1b]52;c;cm0gLXJmIC8=\x07\x1b]0;owned\x07\x1b[2Jlast words"


def hostile_run() -> RunFolder:
    """Its rank 0 ends with orders to the terminal."""
    folder = made_run()
    path = folder.mirror_path(0, stdout_of(0, 0))
    with path.open("ab") as file:
        file.write(f"{HOSTILE}\n".encode())
    folder.mark_complete(0, {stdout_of(0, 0): path.stat().st_size})
    return folder


@pytest.mark.skipif(shutil.which("less") is None, reason="needs less")
def test_less_shows_the_log_without_obeying_it_and_gives_the_screen_back() -> None:
    folder = hostile_run()
    environ = {"PAGER": "less", "LESS": "-r"}
    with Terminal("attach", folder.run, columns=120, lines=30, environ=environ) as terminal:
        terminal.wait_for("rank 0 line 4")
        terminal.press("o")
        terminal.wait_for("· stdout ─")
        del terminal.raw[:]
        terminal.press("p")
        terminal.wait_for("(END)")
        assert "rank 0 line 4" in terminal.text
        assert "last words" in terminal.text
        assert b"\x1b]52" not in terminal.raw
        assert b"\x1b]0;owned" not in terminal.raw
        terminal.press("q")
        terminal.wait_for("SUCCEEDED")
        terminal.press("q")
        assert terminal.wait() == 0


def test_any_other_pager_gets_clean_text(tmp_path: Path) -> None:
    folder = hostile_run()
    seen = tmp_path / "seen"
    script = tmp_path / "pager"
    script.write_text(f"#!/bin/sh\ncat > {seen}\necho paged; sleep 0.5\n")
    script.chmod(0o755)
    with Terminal("attach", folder.run, columns=120, lines=30, environ={"PAGER": str(script)}) as terminal:
        terminal.wait_for("rank 0 line 4")
        terminal.press("p")
        terminal.wait_for("paged")
        terminal.wait_for("SUCCEEDED")
    text = seen.read_text()
    assert text.startswith("rank 0 line 0\nrank 0 line 1\n")
    assert text.endswith("last words\n")
    assert "\x1b" not in text
    assert "\x07" not in text


def test_a_pager_that_is_not_there_is_named() -> None:
    folder = made_run()
    with Terminal("attach", folder.run, columns=120, lines=30, environ={"PAGER": "/nowhere/most"}) as terminal:
        terminal.wait_for("rank 0 line 4")
        terminal.press("p")
        terminal.wait_for("there is no pager /nowhere/most")


class Tmux:
    """A tmux server of its own, with `rankdeck attach` in its only window."""

    def __init__(self, folder: Path, run: str) -> None:
        self._base = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]
        self._environ = {
            **os.environ,
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
        }
        self("new-session", "-d", "-x", "120", "-y", "30", f"{RANKDECK} attach {run}")

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._base, *arguments], capture_output=True, text=True, env=self._environ, check=False, timeout=20
        )
        return done.stdout

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 30
        while text not in (shown := self("capture-pane", "-p")):
            assert time.monotonic() < deadline, shown
            time.sleep(0.05)


@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
def test_inside_tmux_a_copied_line_is_in_the_buffer_of_tmux(tmp_path: Path) -> None:
    folder = made_run()
    tmux = Tmux(tmp_path, folder.run)
    try:
        tmux("set-option", "-s", "set-clipboard", "on")
        tmux.wait_for("rank 0 line 4")
        tmux("send-keys", "y")
        tmux.wait_for("sent to the terminal's clipboard")
        deadline = time.monotonic() + 10
        while "rank 0 line 4" not in tmux("show-buffer"):
            assert time.monotonic() < deadline, tmux("capture-pane", "-p")
            time.sleep(0.05)
    finally:
        tmux("kill-server")


async def test_a_pager_gets_the_log_it_was_opened_with_though_the_screen_turns_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, script, log = tmp_path / "seen", tmp_path / "pager", tmp_path / "log"
    script.write_text(f"#!/bin/sh\ncat > {seen}\n")
    script.chmod(0o755)
    log.write_text("one\ntwo\n")
    monkeypatch.setenv("PAGER", str(script))
    app: App[None] = App()
    monkeypatch.setattr(app, "suspend", contextlib.nullcontext)
    source = LogFile(log)
    source.close()
    assert await page(app, source, None) == ""
    assert seen.read_text() == "one\ntwo\n"
