"""What every command does: read the profile, ask the user, print a table, run until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from engine import profile, shelf
from engine.errors import (
    EXIT_INTERRUPTED,
    HostKeyUnknown,
)

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Coroutine, Sequence

    from engine.cli.plain import JsonLines, Plain
    from engine.profile import Profile
    from engine.transport import Connector

    View = Plain | JsonLines


def asked_profile(options: Namespace) -> Profile:
    """The profile that the command line means, with its --set changes."""
    return profile.override(profile.load(shelf.find(options.profile)), options.settings)


def emit(value: Any) -> None:
    """One JSON object on a line of stdout."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def say(text: str) -> None:
    print(text, file=sys.stderr)


class Terminal:
    """Asks the user, when there is one."""

    async def passphrase(self, path: str) -> str | None:
        return await typed(f"Passphrase for {path}: ", hidden=True) if sys.stdin.isatty() else None

    async def accept(self, unknown: HostKeyUnknown) -> bool:
        """Show an unknown host key; only a typed yes stores it."""
        if not sys.stdin.isatty():
            return False
        say(f"{unknown.node}: the host key of {unknown.host} port {unknown.port} is not known")
        say(f"  {unknown.key_type} {unknown.fingerprint}")
        return await typed("Compare it with the machine's own. Store it and go on? (yes/no) ") == "yes"

    async def consent(self, text: str) -> bool:
        """Ask before something that somebody may mind; without a terminal, the flag that it came from is the answer."""
        if sys.stdin.isatty():
            return await typed(f"{text}. Go on? (yes/no) ") == "yes"
        say(text)
        return True


async def typed(question: str, hidden: bool = False) -> str:
    """A line from the terminal, without spaces at its ends where it shows. Cancelled, it leaves the terminal as it was.

    No thread reads it: one that waits for the keyboard would hold up the end of the program.
    """
    import termios

    fd, loop, ready, line = sys.stdin.fileno(), asyncio.get_running_loop(), asyncio.Event(), b""
    before = termios.tcgetattr(fd)
    if hidden:
        termios.tcsetattr(fd, termios.TCSAFLUSH, [*before[:3], before[3] & ~termios.ECHO, *before[4:]])
    print(question, end="", file=sys.stderr, flush=True)
    loop.add_reader(fd, ready.set)
    try:
        while not line.endswith(b"\n"):
            ready.clear()
            await ready.wait()
            if not (data := os.read(fd, 4096)):
                break
            line += data
    finally:
        loop.remove_reader(fd)
        if hidden:
            termios.tcsetattr(fd, termios.TCSAFLUSH, before)
            say("")
    text = line.decode(errors="surrogateescape")
    return text.rstrip("\r\n") if hidden else text.strip()


def run_async(work: Callable[[Connector], Coroutine[Any, Any, int]]) -> int:
    """Run one asynchronous command. Ctrl-C, SIGTERM and SIGHUP cancel it: 130, and what runs on the nodes runs on.

    The second Ctrl-C or SIGTERM ends this program at once, whatever it is doing: waiting for a node that does not
    answer, or for somebody to read what it prints.
    """
    import signal

    from engine.transport import Connector

    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    async def inner() -> int:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def leave(number: int, frame: object) -> None:
            if asked and number != signal.SIGHUP:
                if os.isatty(2):  # a pipe that nobody reads could hold us up
                    os.write(2, b"\nrankdeck: left at once; what runs on the nodes runs on\n")
                os._exit(EXIT_INTERRUPTED)
            asked.append(number)
            with contextlib.suppress(RuntimeError):  # the work is over, and its loop closed
                loop.call_soon_threadsafe(task.cancel)

        for number, handler in before.items():
            # Ignored where the caller asked for it: nohup, or & in a script.
            if handler is not signal.SIG_IGN:
                signal.signal(number, leave)
        connector = Connector(ask=Terminal())
        try:
            return await work(connector)
        except asyncio.CancelledError:
            return EXIT_INTERRUPTED
        finally:
            await connector.close()

    try:
        return asyncio.run(inner())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def show_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
