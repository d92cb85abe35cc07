"""The terminal UI, and the `rankdeck` command: the command line of `engine.cli` with a screen to open.

Textual is imported when a screen is opened, never before: `--help` and every `--plain` command stay quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, on screen where there is a terminal to draw on; the exit code (`engine.errors`)."""
    from engine import cli

    return cli.main(arguments, screen=show)


def show(options: Namespace) -> int:
    """Open the terminal UI where the command line says."""
    from tui.app import run

    return run(options)
