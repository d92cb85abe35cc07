"""Drafts kept in the state folder as they are typed, so that neither a crash nor a closed terminal loses an answer."""

from __future__ import annotations

import contextlib
import hashlib
import re
from pathlib import Path

import msgspec

from engine.profile import looks_secret
from engine.runs import state_home, write_beside
from tui.wizard.draft import Draft


def place(path: str) -> Path:
    """Where the draft of a profile file is kept; of a new profile for ""."""
    name = "new"
    if path:
        digest = hashlib.sha256(str(Path(path).absolute()).encode()).hexdigest()[:12]
        name = f"{re.sub(r'[^A-Za-z0-9._-]', '_', Path(path).stem)[:40]}-{digest}"
    return state_home() / "drafts" / f"{name}.json"


def written(draft: Draft) -> tuple[Path, bytes]:
    """The file of a draft and what is to be in it; what looks like a secret's value is left out."""
    safe = msgspec.structs.replace(draft, answers={**draft.answers})
    if env := draft.get("env"):
        lines = (line.partition("=") for line in env.split("\n"))
        safe.put("env", "\n".join(f"{n}{e}{'' if looks_secret(n.strip()) else value}" for n, e, value in lines))
    return place(draft.path), msgspec.json.format(msgspec.json.encode(safe)) + b"\n"


def keep(file: Path, data: bytes) -> None:
    """Write beside, sync to the disk and rename; it may take a while. OSError when it cannot be."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_beside(file, data)


def find(path: str) -> tuple[Draft, float] | None:
    """The draft that is kept for a profile file, and when it was written [unix seconds]; None where there is none."""
    file = place(path)
    try:
        return msgspec.json.decode(file.read_bytes(), type=Draft), file.stat().st_mtime
    except (OSError, msgspec.MsgspecError):
        return None


def forget(path: str) -> None:
    """The draft has become a file, or is given up."""
    with contextlib.suppress(OSError):
        place(path).unlink()
