"""What the program is made of, so that nodes can be compared file by file: its folder's sources, and its config files.

Bounded in files, bytes and time; what is left out by a bound is left out of the answer, and only files that two nodes
have in it are compared.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from typing import Any, Dict, Iterator, List

from engine.node import proc

FILES, FILE_BYTES, SECONDS, DEPTH = 400, 1 << 20, 1.0, 4
_SOURCES = (".py", ".yaml", ".yml", ".json", ".toml", ".sh", ".cfg", ".ini")
_WRITTEN = ("out", "save", "log", "work", "ckpt", "checkpoint", "tmp", "cache", "resume")
_CONFIGS = ("config", "cfg", "config_file", "cfg_file", "config_path", "deepspeed", "deepspeed_config")
_CONFIG_FILES = (".yaml", ".yml", ".json", ".toml", ".py")
_SKIPPED = ("__pycache__", "node_modules", "site-packages", "venv", "env", "build", "dist")


def look(folder: str, args: List[str], cwd: str) -> Dict[str, Any]:
    """{files: {path: 12 letters of its SHA-256}, whole}: paths relative to `folder`, and the `args` that are files.

    An argument that is a folder is there with "folder" for a sum, but for those that the program writes to.
    """
    until = time.monotonic() + SECONDS
    found: Dict[str, str] = {}
    whole = True
    for name, path in itertools.chain(_named(args, cwd), _below(folder, until)):
        if len(found) >= FILES or time.monotonic() > until:
            whole = False
            break
        try:
            if os.path.isdir(path):
                found[name] = "folder"
            elif os.path.isfile(path) and os.stat(path).st_size <= FILE_BYTES:  # a pipe would keep us waiting
                found[name] = hashlib.sha256(proc.read(path, FILE_BYTES)).hexdigest()[:12]
        except OSError:
            continue
    return {"files": found, "whole": whole and time.monotonic() < until}


def missing(args: List[str], cwd: str) -> List[str]:
    """The arguments that name a config where there is none: `--config a.yaml`, or `a.yaml` before all options."""
    found = []
    for before, arg in zip(["", *args], args[:100]):
        name, equals, value = arg.partition("=")
        option, text = (name, value) if equals else (before, arg)
        first = not equals and before == ""
        plain = text.endswith(_CONFIG_FILES) and not any(sign in text for sign in "{}*:,")
        read = plain and (first or option.lstrip("-").replace("-", "_").lower() in _CONFIGS)
        if read and not os.path.exists(os.path.join(cwd, os.path.expanduser(text))):
            found.append(text)
    return found


def _named(args: List[str], cwd: str) -> Iterator[Any]:
    """The arguments, or what stands after their "=", that are files here: configs, mostly; and folders: data sets."""
    for before, arg in zip(["", *args], args[:100]):
        name, _, value = arg.partition("=")
        for option, text in ((before, arg), (name, value)):
            path = os.path.join(cwd, os.path.expanduser(text))
            if not text or len(text) >= 1000:
                continue
            read = "/" in text and not any(word in option.lower() for word in _WRITTEN)
            if os.path.isfile(path) or (read and os.path.isdir(path)):
                yield text, path


def _below(folder: str, until: float) -> Iterator[Any]:
    if not folder or folder in ("/", os.path.expanduser("~")):
        return  # no program's own folder
    for here, folders, files in os.walk(folder):
        if time.monotonic() > until:  # folders of data may hold any number of files, and none of ours
            return
        inside = os.path.relpath(here, folder)
        depth = 0 if inside == "." else inside.count(os.sep) + 1
        folders[:] = sorted(
            name for name in folders if depth < DEPTH and not name.startswith(".") and name not in _SKIPPED
        )
        for name in sorted(files):
            if name.endswith(_SOURCES):
                yield os.path.normpath(os.path.join(inside, name)), os.path.join(here, name)
