"""How many samples a program trains on, where its arguments tell: files of JSON lines, or our own training program.

Never fewer than there are: where the number is not sure, it is an upper bound. None is told where nothing is known.
"""

from __future__ import annotations

import os
import time
from typing import Any, Dict, Iterator, List, Tuple

from engine.node import proc

LINES_BYTES = 8 << 20
FILES, SECONDS = 10000, 0.5
_ASIDE = ("eval", "val", "test", "dev", "out", "save", "log")
_OWN = "engine.train"


def look(kind: str, path: str, args: List[str], cwd: str) -> Dict[str, Any]:
    """{data, samples, share}: what the data is called, and the samples that a rank takes a step as the program's own
    settings say (0 where they do not). Empty where nothing is known."""
    try:
        if kind == "module" and path == _OWN:
            return _own(args, cwd)
        counts = {name: _lines(file) for name, file in _json_lines(args, cwd)}
    except (OSError, ValueError, TypeError, ImportError):  # not for us to judge: the program itself will say why
        return {}
    if not counts or any(count < 0 for count in counts.values()):
        return {}
    return {"data": ", ".join(counts), "samples": sum(counts.values()), "share": 0}


def _json_lines(args: List[str], cwd: str) -> Iterator[Tuple[str, str]]:
    """The arguments that are files of JSON lines to train on."""
    for before, arg in zip(["", *args], args[:100]):
        option, equals, value = arg.partition("=")
        option, value = (option, value) if equals else (before, arg)
        path = os.path.join(cwd, os.path.expanduser(value))
        words = option + os.path.basename(value)
        if value.endswith(".jsonl") and not any(word in words.lower() for word in _ASIDE) and os.path.isfile(path):
            yield value, path


def _lines(path: str) -> int:
    """How many lines a file has; -1 where it is too long to count."""
    if os.path.getsize(path) > LINES_BYTES:
        return -1
    return sum(bool(line.strip()) for line in proc.read(path, LINES_BYTES).split(b"\n"))


def _own(args: List[str], cwd: str) -> Dict[str, Any]:
    """The data of engine.train, from its CONFIG and its settings."""
    from engine.train import config

    path, settings = "", []  # type: str, List[str]
    rest = iter(args)
    for arg in rest:
        if arg in ("--set", "--launcher"):
            value = next(rest, "")
            settings += [value] if arg == "--set" else []
        elif arg.startswith("--set="):
            settings.append(arg[len("--set=") :])
        elif not arg.startswith("-"):
            path = os.path.join(cwd, os.path.expanduser(arg))
    filled = [setting for setting in settings if "{" not in setting]
    asked = config.load(path or None, filled)
    if not asked.data or ":" in asked.data or asked.data == "synthetic":
        return {}
    files = _files(os.path.join(cwd, os.path.expanduser(asked.data)), asked.data_glob)
    if not files:
        return {}
    sizes = [os.path.getsize(file) for file in files]
    length = asked.context + 1
    if all(file.endswith(".bin") for file in files):
        samples = sum(size // asked.token_bytes // length for size in sizes)
    elif any(file.endswith(".parquet") for file in files):
        return {}  # which is compressed
    else:
        samples = int(min(sum(sizes), asked.data_bytes)) // length
    share = 0 if len(filled) < len(settings) else asked.per_device_batch * asked.grad_accum
    return {"data": asked.data, "samples": samples, "share": share}


def _files(root: str, pattern: str) -> List[str]:
    """The files of a data set; none where there are too many to look through."""
    import fnmatch

    if os.path.isfile(root):
        return [root]
    found: List[str] = []
    until = time.monotonic() + SECONDS
    for here, _, names in os.walk(root):
        found += [os.path.join(here, name) for name in fnmatch.filter(names, pattern)]
        if len(found) > FILES or time.monotonic() > until:
            return []
    return [path for path in found if os.path.isfile(path)]
