"""Questions at the terminal, and leaving a command: one Ctrl-C ends its work, the second one ends it at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = """\
import asyncio, sys, time
from engine.cli.asking import Terminal, run_async

async def patient(connector):
    print("ready", flush=True)
    try:
        await asyncio.sleep(60)
    finally:
        print("cleared up", flush=True)

async def stubborn(connector):
    print("ready", flush=True)
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            print("still here", flush=True)

async def deaf(connector):
    print("ready", flush=True)
    while True:
        time.sleep(0.01)

async def asking(connector):
    print(repr(await Terminal().passphrase("/home/me/.ssh/id_ed25519")), flush=True)
    return 0

sys.exit(run_async(globals()[sys.argv[1]]))
"""


def command(name: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, name],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_the_command_clear_up_and_ends_it_with_130(number: signal.Signals) -> None:
    with command("patient") as process:
        assert line(process) == "ready"
        process.send_signal(number)
        assert line(process) == "cleared up"
        assert process.wait(30) == 130


@pytest.mark.parametrize("name", ["stubborn", "deaf"])
def test_the_second_ctrl_c_ends_a_command_that_does_not_leave(name: str) -> None:
    with command(name) as process:
        assert line(process) == "ready"
        process.send_signal(signal.SIGINT)
        if name == "stubborn":
            assert line(process) == "still here"
        else:
            time.sleep(0.5)
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """The two ends of a terminal: the user's, and the program's."""
    ends = os.openpty()
    yield ends
    for fd in ends:
        os.close(fd)


def echoes(fd: int) -> bool:
    return bool(termios.tcgetattr(fd)[3] & termios.ECHO)


def await_question(process: subprocess.Popen[str], terminal: tuple[int, int]) -> None:
    assert process.stderr is not None
    question = "Passphrase for /home/me/.ssh/id_ed25519: "
    assert process.stderr.read(len(question)) == question
    assert not echoes(terminal[1])


def test_a_passphrase_is_typed_without_an_echo(terminal: tuple[int, int]) -> None:
    user, ours = terminal
    with command("asking", ours) as process:
        await_question(process, terminal)
        os.write(user, b" open sesame \n")
        assert line(process) == "' open sesame '"
        assert process.wait(30) == 0
    assert echoes(ours)


def test_ctrl_c_at_a_question_leaves_at_once_and_the_terminal_as_it_was(terminal: tuple[int, int]) -> None:
    with command("asking", terminal[1]) as process:
        await_question(process, terminal)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert echoes(terminal[1])
