"""A log in the user's own pager, while the application steps aside. What it shows is as harmless as what we show.

`less` gets the file itself, with options that let colours through and no other sequence. Any other pager gets clean
text on its standard input: it may pass on what it reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.text import clean
from tui.logs.lines import forward
from tui.logs.sources import open_source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from textual.app import App

    from tui.logs.source import Source

AT_ONCE = 500
SAFE_LESS = ("-+r", "-R")
"""Colours, and no other sequence."""


def command(environ: Mapping[str, str]) -> list[str]:
    """The user's pager. FileNotFoundError when it is not there, ValueError for what is no command."""
    asked = shlex.split(environ.get("PAGER", "")) or ["less"]
    if shutil.which(asked[0]) is None:
        raise FileNotFoundError(f"there is no pager {asked[0]}: set PAGER to one, or install less")
    return asked


def less_arguments(path: str, at: int | None) -> list[str]:
    """Open this file at a byte, or at its end."""
    return [*SAFE_LESS, "+G" if at is None else f"+{at}P", "--", path]


async def page(app: App[Any], source: Source, at: int | None) -> str:
    """Show the source in the pager, from the line at `at` or its end, until the user leaves it.

    What went wrong, in words; "" for nothing.
    """
    try:
        argv = command(os.environ)
    except (FileNotFoundError, ValueError) as error:
        return str(error)
    feed = True
    environ = dict(os.environ)
    if Path(argv[0]).name == "less" and "file" in source.name:
        argv, feed = [*argv, *less_arguments(source.name["file"], at)], False
        environ.pop("LESSOPEN", None)  # a preprocessor would run on a node's bytes
    before = signal.getsignal(signal.SIGINT)
    # The whole window steps aside, so nothing may be drawn; what is watched is watched on meanwhile.
    with app.batch_update(), app.suspend():
        # ctrl+c is for the pager then; a handler, unlike ignoring, is not inherited.
        signal.signal(signal.SIGINT, lambda *_: None)
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=asyncio.subprocess.PIPE if feed else None, env=environ
            )
            if process.stdin is not None:
                with contextlib.suppress(ConnectionError):
                    await _feed(source, process.stdin)
            code = await process.wait()
        except OSError as error:
            return f"{argv[0]} cannot be started: {error.strerror}"
        finally:
            signal.signal(signal.SIGINT, before)
    return f"{argv[0]} ended with {code}" if code not in (0, 141, -signal.SIGPIPE) else ""


async def _feed(shown: Source, pipe: asyncio.StreamWriter) -> None:
    """What there is now of the source, read by itself: the screen may turn to another one meanwhile."""
    source, at, end = open_source(shown.name), 0, shown.size
    try:
        while at < end:
            lines = forward(source, at, AT_ONCE)
            if not lines and not source.poll():
                break
            pipe.write("".join(f"{clean(line.raw.decode('utf-8', 'replace'))}\n" for line in lines).encode())
            await pipe.drain()
            at = lines[-1].end if lines else at
    finally:
        source.close()
        pipe.close()
        with contextlib.suppress(ConnectionError):
            await pipe.wait_closed()
