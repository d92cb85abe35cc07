"""How a source is named, so that another process can open it too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tui.logs.merged import Choice, Merged
from tui.logs.source import LogFile

if TYPE_CHECKING:
    from tui.logs.source import Source


def open_source(name: dict[str, Any]) -> Source:
    """`{"file": PATH}`, or `{"folder": PATH, "choice": {…}}` for several logs of a run in one."""
    if "file" in name:
        return LogFile(Path(name["file"]))
    return Merged(Path(name["folder"]), Choice(**name["choice"]))
