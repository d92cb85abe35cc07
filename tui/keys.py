"""The keys that a user has chosen: `$XDG_CONFIG_HOME/rankdeck/keys.yaml`, an action and its key or keys on each line.

dashboard.stop: K
log.search: [slash, ctrl+f]
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from textual.binding import Binding
from textual.dom import DOMNode

from engine import shelf
from engine.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


SCREENS = ("tui.home", "tui.dashboard.screen", "tui.wizard")
"""The modules of all screens: what they import has the bindings."""


def path() -> Path:
    return shelf.home().parent / "keys.yaml"


def chosen() -> dict[str, str]:
    """Keys by action, as Textual takes them; RequestError where the file is wrong."""
    try:
        asked = YAML(typ="safe").load(path().read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise _wrong(" ".join(str(error).split())) from None
    if not isinstance(asked, dict):
        raise _wrong("it is no list of `action: key`")
    found = places()
    known = {binding.id for place in found for binding in place if binding.id}
    keys: dict[str, str] = {}
    for action, key in asked.items():
        if action not in known:
            raise _wrong(f"there is no action {action!r}", f"there are: {', '.join(sorted(known))}")
        names = key if isinstance(key, list) else [key]
        if not names or not all(isinstance(name, str) and name for name in names):
            raise _wrong(
                f"{action}: {key!r} is no key", "a key is a name, as k, K, f5, ctrl+k or slash; several: [k, f5]"
            )
        keys[action] = ",".join(names)
    for place in found:
        _told_apart(place, keys)
    return keys


def places() -> list[list[Binding]]:
    """The bindings of each place of ours that answers to keys."""
    for name in SCREENS:
        import_module(name)
    return list(_places(DOMNode))


def _places(node: type[DOMNode]) -> Iterator[list[Binding]]:
    """The bindings of each of our widgets and screens."""
    for one in node.__subclasses__():
        if one.__module__.startswith("tui."):
            yield [binding for binding in Binding.make_bindings(one.__dict__.get("BINDINGS", ()))]
        yield from _places(one)


def _told_apart(place: list[Binding], keys: dict[str, str]) -> None:
    """One key does one thing in one place. RequestError where a choice makes it two."""
    taken: dict[str, Binding] = {}
    for binding in place:
        for key in keys[binding.id].split(",") if binding.id in keys else [binding.key]:
            other = taken.setdefault(key, binding)
            if other.action != binding.action and (other.id in keys or binding.id in keys):
                names = [one.id or one.description for one in (other, binding)]
                raise _wrong(f"{key} would be {names[0]} and {names[1]}", "give one of them another key")


def _wrong(what: str, remedy: str = "") -> RequestError:
    return RequestError(f"{path()}: {what}", remedy=remedy)
