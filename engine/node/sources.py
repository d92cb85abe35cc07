"""What the program is made of, so that nodes can be compared file by file: its folder's sources, and its config files.

Bounded in files, bytes and time; what is left out by a bound is left out of the answer, and only files that two nodes
have in it are compared.
"""

from __future__ import annotations

import hashlib
import os
import time
from typing import Any, Dict, Iterator, List

from engine.node import proc

FILES, FILE_BYTES, SECONDS, DEPTH = 400, 1 << 20, 1.0, 4
_SOURCES = (".py", ".yaml", ".yml", ".json", ".toml", ".sh", ".cfg", ".ini")
_SKIPPED = ("__pycache__", "node_modules", "site-packages", "venv", "env", "build", "dist")


def look(folder: str, args: List[str], cwd: str) -> Dict[str, Any]:
    """{files: {path: 12 letters of its SHA-256}, whole}: paths relative to `folder`, and the `args` that are files."""
    until = time.monotonic() + SECONDS
    found: Dict[str, str] = {}
    whole = True
    for name, path in [*_named(args, cwd), *_below(folder)]:
        if len(found) >= FILES or time.monotonic() > until:
            whole = False
            break
        try:
            if os.stat(path).st_size <= FILE_BYTES:
                found[name] = hashlib.sha256(proc.read(path, FILE_BYTES)).hexdigest()[:12]
        except OSError:
            continue
    return {"files": found, "whole": whole}


def _named(args: List[str], cwd: str) -> Iterator[Any]:
    """The arguments, or what stands after their "=", that are files here: configs, mostly."""
    for arg in args[:100]:
        for text in (arg, arg.partition("=")[2]):
            path = os.path.join(cwd, os.path.expanduser(text))
            if text and len(text) < 1000 and os.path.isfile(path):
                yield text, path


def _below(folder: str) -> Iterator[Any]:
    if not folder or folder in ("/", os.path.expanduser("~")):
        return  # no program's own folder
    for here, folders, files in os.walk(folder):
        inside = os.path.relpath(here, folder)
        depth = 0 if inside == "." else inside.count(os.sep) + 1
        folders[:] = sorted(
            name for name in folders if depth < DEPTH and not name.startswith(".") and name not in _SKIPPED
        )
        for name in sorted(files):
            if name.endswith(_SOURCES):
                yield os.path.normpath(os.path.join(inside, name)), os.path.join(here, name)
