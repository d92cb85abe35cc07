"""`metrics` and `profiles`: files of this machine, no node asked."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from engine import profile, shelf
from engine.cli.asking import emit, say, show_table
from engine.errors import (
    EXIT_OK,
    EXIT_REQUEST,
    ProfileError,
    RequestError,
)

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from engine.cli.plain import JsonLines, Plain

    View = Plain | JsonLines


def new(options: Namespace) -> int:
    """The questions are asked on a screen; without one, a profile is a file to write."""
    raise RequestError(
        "the wizard needs a terminal",
        remedy=f"copy an example of profiles/ to {shelf.home()}/NAME.yaml, then: rankdeck profiles validate NAME",
    )


def metrics(options: Namespace) -> int:
    import re

    from engine.measured import Reading

    if options.pattern is not None:
        try:
            re.compile(options.pattern)
        except re.error as error:
            raise RequestError(f"--pattern is not a regular expression: {error}") from None
    reading = Reading(options.paths, options.pattern)
    for one in reading:
        record = spoken(msgspec.to_builtins(one))
        if options.json:
            emit(record)
        else:
            shown = {name: value for name, value in record.items() if name not in UNSHOWN and value is not None}
            fields = (f"{name} {show_number(value)}" for name, value in shown.items())
            print(f"{one.path}:{one.line}: {'  '.join(fields)}")
    summary = spoken(msgspec.to_builtins(reading.summary))
    if options.json:
        emit(summary)
    elif summary["steps"]:
        kept = ("steps", "step", "total", "loss", "step_time_s", "rate", "rate_unit")
        print("all: " + "  ".join(f"{name} {show_number(summary[name])}" for name in kept if summary[name] is not None))
        for alarm in summary["alarms"]:
            print(f"  {alarm['kind']}: {alarm['text']}")
    if not summary["steps"]:
        say("no metrics found; a --pattern with named groups reads any format: --pattern 'step (?P<step>\\d+) …'")
    return EXIT_OK


UNSHOWN = frozenset({"path", "line", "extra"})
PROMISED = frozenset({"rank", "step", "total", "loss", "step_time_s", "rate", "rate_unit"})
"""Keys that are there in JSON whatever a log says."""


def spoken(record: Any) -> Any:
    """A record as JSON carries it: nan and inf as text, and nothing that is unknown and not promised."""
    if isinstance(record, dict):
        return {name: spoken(value) for name, value in record.items() if name in PROMISED or value not in (None, {})}
    if isinstance(record, (list, tuple)):
        return [spoken(value) for value in record]
    if isinstance(record, float) and not math.isfinite(record):
        return str(record)
    return record


def show_number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def profiles(options: Namespace) -> int:
    verb = options.verb or "list"
    return PROFILE_VERBS[verb](options)


def profiles_list(options: Namespace) -> int:
    shelved = shelf.listing()
    as_json = getattr(options, "json", False)
    for entry in shelved if as_json else ():
        emit(
            {
                "name": entry.name,
                "path": str(entry.path),
                "origin": entry.origin,
                "error": entry.error.text if entry.error else None,
                "shadowed_by": str(entry.shadowed_by) if entry.shadowed_by else None,
            }
        )
    if as_json:
        return EXIT_OK
    rows = []
    for entry in shelved:
        note = ""
        if entry.error:
            note = f"{len(entry.error.mistakes)} mistake(s): rankdeck profiles validate {entry.path}"
        elif entry.shadowed_by:
            note = f"hidden by {entry.shadowed_by}"
        rows.append((entry.name, entry.origin, note))
    if rows:
        show_table(("NAME", "FROM", ""), rows)
    else:
        say(f"no profiles in {' or '.join(origin for origin, _ in shelf.folders())}")
    return EXIT_OK


def profiles_show(options: Namespace) -> int:
    asked = profile.load(shelf.find(options.profile))
    if options.json:
        emit(asked)
    else:
        sys.stdout.write(profile.to_yaml(asked))
    return EXIT_OK


def profiles_validate(options: Namespace) -> int:
    code = EXIT_OK
    for name in options.profiles:
        mistakes: list[str] = []
        try:
            profile.load(shelf.find(name))
        except RequestError as error:
            mistakes = error.mistakes if isinstance(error, ProfileError) else [error.text]
            if not options.json:
                say(str(error))
        if options.json:
            emit({"profile": name, "mistakes": mistakes})
        elif not mistakes:
            print(f"{name}: no mistakes")
        code = EXIT_REQUEST if mistakes else code
    return code


PROFILE_VERBS: dict[str, Callable[[Namespace], int]] = {
    "list": profiles_list,
    "show": profiles_show,
    "validate": profiles_validate,
}
