"""Python environments with a torchrun where people keep them, for when the launch's own does not do.

Bounded in time and number. Nothing is run: versions are read from files.
"""

from __future__ import annotations

import glob
import os
import re
import time
from typing import Any, Dict, List

from engine.node import proc

SECONDS, MOST = 0.3, 16
_NEAR = (".venv", "venv", "env")
_HOME = (*_NEAR, ".local", "venvs/*", "envs/*", ".virtualenvs/*", ".conda/envs/*", ".pyenv/versions/*")
_CONDAS = ("miniconda3", "anaconda3", "miniforge3", "mambaforge", "conda")
_ROOTS = ("/opt", "/venv", "/usr/local", "/opt/*")


def look(workdir: str, python: str) -> List[Dict[str, Any]]:
    """[{prefix, venv, torch}]: `venv` says that it has a bin/activate; torch is "" where it is not known.

    The one that `python` belongs to comes first.
    """
    until = time.monotonic() + SECONDS
    found: Dict[str, Dict[str, Any]] = {}
    own = [os.path.dirname(os.path.dirname(python))] if python else []
    for prefix in [*own, *_places(workdir)]:
        if len(found) >= MOST or time.monotonic() > until:
            break
        if prefix not in found and os.access(prefix + "/bin/torchrun", os.X_OK):
            venv = os.path.isfile(prefix + "/bin/activate") and os.path.isfile(prefix + "/pyvenv.cfg")
            found[prefix] = {"prefix": prefix, "venv": venv, "torch": _torch(prefix)}
    return list(found.values())


def _places(workdir: str) -> List[str]:
    home = os.path.expanduser("~")
    patterns = [os.path.join(workdir, name) for name in _NEAR] + [os.path.join(home, name) for name in _HOME]
    for above in (home, "/opt"):
        for name in _CONDAS:
            patterns += [os.path.join(above, name), os.path.join(above, name, "envs/*")]
    found = (sorted(glob.glob(pattern)) if "*" in pattern else [pattern] for pattern in [*patterns, *_ROOTS])
    return [os.path.normpath(path) for paths in found for path in paths]


def _torch(prefix: str) -> str:
    for path in sorted(glob.glob(prefix + "/lib/python3*/site-packages/torch/version.py")):
        try:
            match = re.search(rb"^__version__ = '([^'\n]{1,80})'", proc.read(path, 1 << 16), re.MULTILINE)
        except OSError:
            continue
        if match:
            return match.group(1).decode("utf-8", "replace")
    return ""
