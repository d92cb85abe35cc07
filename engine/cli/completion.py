"""`completion`: what a shell offers after TAB: commands and flags, profiles and runs by name, files."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from engine.cli.arguments import parser
from engine.errors import EXIT_OK

if TYPE_CHECKING:
    from collections.abc import Iterator

PROFILES = "rankdeck profiles list 2>/dev/null | tail -n +2 | cut -d ' ' -f 1"
RUNS = "rankdeck runs 2>/dev/null | tail -n +2 | cut -d ' ' -f 1"
FILES = {
    "bash": "_shtab_compgen_files",
    "zsh": "_files",
    "tcsh": "f",
    "fish": "(__fish_complete_path (commandline -ct))",
}
FOLDERS = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/", "tcsh": "d", "fish": "(__fish_complete_directories)"}


def names(what: str, command: str, files: bool) -> dict[str, str | dict[str, str]]:
    """What `command` prints, a name a line, and file names where these do as well; in each shell's own words."""
    function = f"_rankdeck_{what}"
    return {
        "bash": function,
        "zsh": function,
        "tcsh": "f" if files else "n",
        "fish": f"({command}{'; __fish_complete_path (commandline -ct)' if files else ''})",
        "preamble": {
            "bash": f'{function}() {{ compgen -W "$({command})" -- "$1"{"; compgen -f -- $1" if files else ""}; }}',
            "zsh": f'{function}() {{ compadd -- ${{(f)"$({command})"}}{"; _files" if files else ""}; }}',
        },
    }


OFFERED = {
    "PROFILE": names("profiles", PROFILES, files=True),
    "RUN": names("runs", RUNS, files=False),
    "RUN|PATH": names("runs_and_files", RUNS, files=True),
    "PATH": FILES,
    "DIR": FOLDERS,
}
"""By the word that stands for an argument in `--help`."""


def completion(options: argparse.Namespace) -> int:
    import shtab

    top = parser()
    for argument in arguments(top):
        if argument.metavar in OFFERED:
            argument.complete = OFFERED[str(argument.metavar)]  # type: ignore[attr-defined]
    print(shtab.complete(top, options.shell))
    return EXIT_OK


def arguments(command: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every argument of a command and of the commands below it."""
    for action in command._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from arguments(below)
