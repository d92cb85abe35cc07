"""The headless front end: stdout carries the answer, stderr everything for the human, the exit code the verdict."""

from __future__ import annotations

import codecs
import errno
import importlib
import io
import os
import sys
from typing import TYPE_CHECKING

from engine.cli.arguments import parser

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Sequence

COMMANDS = {
    "new": ("files", "new"),
    "demo": ("watching", "demo"),
    "check": ("preflight", "check"),
    "print": ("preflight", "show_plan"),
    "launch": ("watching", "launch"),
    "attach": ("watching", "attach"),
    "runs": ("history", "list_runs"),
    "stop": ("history", "stop"),
    "logs": ("history", "logs"),
    "pull": ("history", "pull"),
    "reap": ("history", "reap"),
    "metrics": ("files", "metrics"),
    "diagnose": ("diagnose", "diagnose"),
    "profiles": ("files", "profiles"),
    "completion": ("completion", "completion"),
}
"""Where each command is: module of this package, function (options -> exit code). Loaded when it is asked for."""


ELSEWHERE = "keep what Rankdeck knows of runs elsewhere: export RANKDECK_STATE=/a/folder/with/room"
REMEDIES = {
    errno.EMFILE: "raise the limit in this shell: ulimit -n 4096",
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR), ELSEWHERE),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), f"make room here, or {ELSEWHERE}"),
}
"""What to do about an error of this machine's own, by its number."""

SPELLED = {"✓": "+", "✗": "x", "·": ".", "…": "...", "×": "x", "→": "->", "“": '"', "”": '"', "–": "-", "≥": ">="}

SCREENS = frozenset({None, "new", "demo", "launch", "attach"})
"""The commands that open the terminal UI where there is a terminal."""


def main(arguments: Sequence[str] | None = None, screen: Callable[[Namespace], int] | None = None) -> int:
    """Run one command; the exit code (`engine.errors`). `screen` opens the terminal UI, for whoever has one."""
    open_streams()
    top = parser()
    options = top.parse_args(arguments)
    draw = screen if options.command in SCREENS and on_screen(options) else None
    if options.command is None and draw is None:
        top.print_help()
        return 0
    from engine.errors import EXIT_INTERRUPTED, EXIT_MACHINE, RankdeckError

    try:
        if getattr(options, "login", None) is not None:
            from engine.cli.watching import run_of_job

            options.run = run_of_job(options)
        if draw is not None:
            return draw(options)
        module, function = COMMANDS[options.command]
        code: int = getattr(importlib.import_module(f"engine.cli.{module}"), function)(options)
        sys.stdout.flush()
        return code
    except RankdeckError as error:
        print(f"rankdeck: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter must not complain about it while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_INTERRUPTED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"rankdeck: this machine: {where}{error.strerror or error}", file=sys.stderr)
        if error.errno in REMEDIES:
            print(f"  {REMEDIES[error.errno]}", file=sys.stderr)
        return EXIT_MACHINE


def open_streams() -> None:
    """Streams that take any text. Where the caller closed one, it is /dev/null: a socket would take its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
    codecs.register_error("rankdeck", spelled)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="rankdeck")


def spelled(error: UnicodeError) -> tuple[str, int]:
    """What a terminal without Unicode shows for our own signs; "?" for those of others."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(SPELLED.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


def on_screen(options: Namespace) -> bool:
    """Is there a terminal to draw on, and has nobody asked for text?"""
    as_text = any(getattr(options, name, False) for name in ("plain", "json", "detach", "fix"))
    if as_text or os.environ.get("ACCESSIBLE"):
        return False
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
