"""What every command does: read the profile, ask the user, print a table, run until Ctrl-C."""

from __future__ import annotations

import asyncio
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
        if not sys.stdin.isatty():
            return None
        import getpass

        return await asyncio.to_thread(getpass.getpass, f"Passphrase for {path}: ", sys.stderr)

    async def accept(self, unknown: HostKeyUnknown) -> bool:
        """Show an unknown host key; only a typed yes stores it."""
        if not sys.stdin.isatty():
            return False
        say(f"{unknown.node}: the host key of {unknown.host} port {unknown.port} is not known")
        say(f"  {unknown.key_type} {unknown.fingerprint}")
        sys.stderr.write("Compare it with the machine's own. Store it and go on? (yes/no) ")
        sys.stderr.flush()
        answer: str = await asyncio.to_thread(sys.stdin.readline)
        return answer.strip() == "yes"


def run_async(work: Callable[[Connector], Coroutine[Any, Any, int]]) -> int:
    """Run one asynchronous command. Ctrl-C and SIGTERM cancel it: 130, and what runs on the nodes runs on."""
    from engine.transport import Connector

    async def inner() -> int:
        import signal

        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Ignored where the caller asked for it: nohup, or & in a script.
            if signal.getsignal(number) is not signal.SIG_IGN:
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        connector = Connector(ask=Terminal())
        try:
            return await work(connector)
        except asyncio.CancelledError:
            return EXIT_INTERRUPTED
        finally:
            await connector.close()

    return asyncio.run(inner())


def show_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
