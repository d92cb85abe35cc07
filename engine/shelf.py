"""The profile files on this workstation: where they are looked for, and what is found there."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from engine.errors import ProfileError, RequestError
from engine.profile import load

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIXES = (".yaml", ".yml")


class Shelved(msgspec.Struct, frozen=True, kw_only=True):
    """A profile file: `name` is the file's, without its suffix; `origin` the folder it lies in, as a user writes it.

    `error` says why it cannot be used; `shadowed_by` is the file of the same name that is found before it.
    """

    name: str
    path: Path
    origin: str
    error: ProfileError | None = None
    shadowed_by: Path | None = None


def home() -> Path:
    """The user's own profile folder: `$XDG_CONFIG_HOME/rankdeck/profiles`, by default below ~/.config."""
    config = os.environ.get("XDG_CONFIG_HOME", "")
    # A relative XDG path is to be ignored (XDG Base Directory Specification 0.8).
    base = Path(config) if config.startswith("/") else Path.home() / ".config"
    return base / "rankdeck" / "profiles"


def folders() -> tuple[tuple[str, Path], ...]:
    """Where profiles are looked for, first match first: (as a user writes it, the folder)."""
    return (("./profiles", Path("profiles")), (_as_written(home()), home()))


def find(name_or_path: str) -> Path:
    """The file that a user means: a path if it has a slash or a suffix or is a file, otherwise a name in the folders.

    Raises RequestError saying where was looked, with the nearest name there is.
    """
    if not name_or_path:
        raise RequestError("no profile is named", remedy=_remedy(""))
    path = Path(name_or_path).expanduser() if name_or_path.startswith("~/") else Path(name_or_path)
    is_path = "/" in name_or_path or path.suffix in SUFFIXES
    try:
        if is_path and path.exists():
            return path
        if not is_path:
            for _, file in _files():
                if file.stem == name_or_path:
                    return file
            if path.is_file():
                return path
    except (OSError, ValueError) as error:
        raise RequestError(f"profile {name_or_path[:80]!r} cannot be looked up: {error}") from None
    where = "" if is_path else f" in {' or '.join(origin for origin, _ in folders())}"
    raise RequestError(f"there is no profile {name_or_path[:80]!r}{where}", remedy=_remedy(path.stem))


def listing() -> list[Shelved]:
    """Every profile file that can be found, in search order; broken ones with their error, hidden ones with why."""
    first: dict[str, Path] = {}
    found = []
    for origin, path in _files():
        error: ProfileError | None = None
        try:
            load(path)
        except ProfileError as caught:
            error = caught
        found.append(Shelved(name=path.stem, path=path, origin=origin, error=error, shadowed_by=first.get(path.stem)))
        first.setdefault(path.stem, path)
    return found


def _files() -> Iterator[tuple[str, Path]]:
    for origin, folder in folders():
        try:
            files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.name[0] != ".")
        except OSError:
            continue
        yield from ((origin, path) for path in files)


def _remedy(name: str) -> str:
    names = list(dict.fromkeys(path.stem for _, path in _files()))
    if close := difflib.get_close_matches(name, names, n=1):
        return f"did you mean {close[0]}? `rankdeck profiles list` shows them all"
    return f"there are: {', '.join(names[:20])}" if names else "make one with: rankdeck new"


def _as_written(path: Path) -> str:
    try:
        return f"~/{path.relative_to(Path.home())}"
    except ValueError:
        return str(path)
