"""The whole program on a real pseudo-terminal: it leaves no trace of itself there, whatever ends it."""

from __future__ import annotations

import base64
import os
import signal
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from engine.node.tail import STREAM
from tests.tui.made import made_run, stdout_of
from tests.tui.pty_of import Terminal

if TYPE_CHECKING:
    from pathlib import Path

TAKEN = {b"\x1b[?1049h": b"\x1b[?1049l", b"\x1b[?25l": b"\x1b[?25h", b"\x1b[?1003h": b"\x1b[?1003l"}
"""The alternate screen, the hidden cursor, the mouse; and how each is given back."""


def assert_clean(terminal: Terminal) -> None:
    for taken, given_back in TAKEN.items():
        assert terminal.raw.rfind(given_back) > terminal.raw.rfind(taken) >= 0


def test_the_first_picture_comes_and_q_leaves_a_clean_terminal() -> None:
    made_run()
    with Terminal() as terminal:
        terminal.wait_for("lab-20261124-120000-abcd")
        terminal.wait_for("No profiles yet")
        terminal.press("q")
        assert terminal.wait() == 0
        assert_clean(terminal)


def test_a_run_is_opened_from_the_list_and_left_again() -> None:
    made_run()
    with Terminal(columns=130, lines=40) as terminal:
        terminal.wait_for("lab-20261124-120000-abcd")
        terminal.press("\r")
        terminal.wait_for("SUCCEEDED")
        terminal.press("\x1b")
        terminal.wait_for("No profiles yet")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_a_clean_terminal(number: signal.Signals) -> None:
    folder = made_run()
    with Terminal("attach", folder.run) as terminal:
        terminal.wait_for("SUCCEEDED")
        terminal.process.send_signal(number)
        assert terminal.wait() == 130
        assert_clean(terminal)


def ignore_hangup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_a_lost_terminal_ends_the_program_even_under_nohup() -> None:
    folder = made_run()
    with Terminal("attach", folder.run, before=ignore_hangup) as terminal:
        terminal.wait_for("SUCCEEDED")
        process = psutil.Process(terminal.process.pid)
        before = sum(process.cpu_times()[:2])
        terminal.hang_up()
        deadline = time.monotonic() + 10
        while terminal.process.poll() is None:
            assert time.monotonic() < deadline, "it outlives its terminal"
            time.sleep(0.05)
            if terminal.process.poll() is None and process.status() != psutil.STATUS_ZOMBIE:
                assert sum(process.cpu_times()[:2]) - before < 3.0, "it spins"


def test_ctrl_z_gives_the_shell_its_terminal_back_and_fg_goes_on() -> None:
    folder = made_run()
    with Terminal("attach", folder.run) as terminal:
        terminal.wait_for("SUCCEEDED")
        terminal.press("\x1a")
        process = psutil.Process(terminal.process.pid)
        deadline = time.monotonic() + 10
        while process.status() != psutil.STATUS_STOPPED:
            assert time.monotonic() < deadline
            terminal.read()
        terminal.read(0.2)
        assert_clean(terminal)
        terminal.process.send_signal(signal.SIGCONT)
        terminal.wait_for("SUCCEEDED")


def test_a_paste_that_is_no_text_ends_nothing() -> None:
    folder = made_run(lines=50)
    with Terminal("attach", folder.run, columns=120, lines=40) as screen:
        screen.wait_for("SUCCEEDED")
        for junk in (b"\xff\xfe\x9b2J\xc3", b"\x1b[200~" + bytes(range(128, 256)) + b"\x1b[201~"):
            os.write(screen._master, junk)
            screen.settle(seconds=3.0)
        screen.type("2")
        screen.wait_for("NODE")
        assert screen.process.poll() is None


@pytest.mark.parametrize("environ", [{}, {"COLUMNS": "80", "LINES": "24"}], ids=["plain", "exported size"])
def test_it_is_drawn_anew_after_a_resize(environ: dict[str, str]) -> None:
    folder = made_run()
    with Terminal("attach", folder.run, columns=80, lines=24, environ=environ) as terminal:
        terminal.wait_for("SUCCEEDED")
        terminal.resize(50, 10)
        terminal.wait_for("needs 60x15")
        terminal.resize(140, 40)
        terminal.wait_for("5 events")


HOSTILE = {
    "osc 52": "\x1b]52;c;" + base64.b64encode(b"rm -rf /").decode() + "\x07",
    "osc 0": "\x1b]0;owned\x07",
    "clear": "\x1b[2J\x1b[H",
    "c1": "\x9b2J\x9d0;owned\x9c",
    "bidi": "\u202egpj.exe\u202c",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_rank_writes_never_reaches_the_terminal_raw(name: str) -> None:
    folder = made_run()
    assert STREAM.fullmatch(stdout_of(0, 0))
    path = folder.mirror_path(0, stdout_of(0, 0))
    with path.open("ab") as file:
        file.write(f"before {HOSTILE[name]} after [/] [bold]x\n".encode() * 50)
    folder.mark_complete(0, {stdout_of(0, 0): path.stat().st_size})
    with Terminal("attach", folder.run, columns=160, lines=48) as terminal:
        terminal.wait_for("SUCCEEDED")
        terminal.wait_for("after [/] [bold]x")
        for key in "12345":
            terminal.press(key)
            terminal.read(0.3)
        terminal.press("q")
        terminal.wait()
        raw = bytes(terminal.raw)
        assert b"52;c;" not in raw
        assert b"owned" not in raw
        assert b"\xc2\x9b" not in raw
        assert "\u202e".encode() not in raw
        assert raw.count(b"\x1b[2J") <= 2, "Textual itself clears once; a log never does"


def test_no_color_is_honoured() -> None:
    folder = made_run()
    with Terminal("attach", folder.run, environ={"NO_COLOR": "1"}) as terminal:
        terminal.wait_for("SUCCEEDED")
        colours = {cell.fg for row in terminal.screen.buffer.values() for cell in row.values()} - {"default"}
        assert all(len(colour) == 6 and colour[:2] == colour[2:4] == colour[4:] for colour in colours)


def test_without_a_terminal_attach_prints_text(tmp_path: Path) -> None:
    import subprocess

    from tests.tui.pty_of import RANKDECK

    folder = made_run()
    done = subprocess.run([RANKDECK, "attach", folder.run], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert "succeeded" in done.stderr


def test_keys_typed_ahead_of_the_end_are_no_error() -> None:
    with Terminal("attach", made_run(lines=50).run, columns=120, lines=40) as screen:
        screen.wait_for("SUCCEEDED")
        screen.type("\x10", "quit")
        screen.press("\r\r\r\x10\r\r")
        assert screen.wait() == 0
        assert "Traceback" not in screen.raw.decode("utf-8", "replace")


def test_keys_that_come_all_at_once_do_what_they_do_one_after_the_other(tmp_path: Path) -> None:
    with Terminal("new", environ={"XDG_CONFIG_HOME": str(tmp_path)}, columns=120, lines=40) as screen:
        screen.wait_for("What is it called")
        screen.settle()
        for _ in range(5):
            screen.press("lab7" + "x" * 8 + "\x7f" * 9 + "8\x1b[D-\x1b[F9")
            screen.wait_for("lab-89")
            screen.type("\x15")


def test_a_search_that_is_typed_at_once_is_searched_for() -> None:
    with Terminal("attach", made_run(lines=500).run, columns=120, lines=40) as screen:
        screen.wait_for("rank 0 line 499")
        screen.press("13/line 137\r")
        screen.wait_for("rank 0 line 137")
