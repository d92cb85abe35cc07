"""A draft becomes a file: after a look at what that changes there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engine import profile, shelf
from engine.errors import RankdeckError
from tui.wizard import kept
from tui.wizard.asking import Difference

if TYPE_CHECKING:
    from tui.app import RankdeckApp
    from tui.wizard.sheet import Sheet


async def save(app: RankdeckApp, sheet: Sheet) -> bool:
    """Save after a yes; whether the file now says what the draft says. What stands in the way is notified."""
    draft = sheet.draft
    if sheet.judged.mistakes:
        app.notify("there are mistakes; a profile is saved when it is whole (the draft is kept)", markup=False)
        return False
    path = draft.path or str(shelf.home() / f"{sheet.profile.name}.yaml")
    try:
        new = not Path(path).exists()
        if changes := profile.difference(path, sheet.profile):
            if not await app.answer(Difference(path, changes, new=new)):
                return False
            profile.save(path, sheet.profile, seen=draft.seen)
        kept.forget(draft.path)
        draft.path, draft.seen = path, profile.fingerprint(path)
    except RankdeckError as error:
        app.notify(str(error), severity="error", timeout=10, markup=False)
        return False
    app.notify(f"saved as {path}" if changes else f"{path} says this already", markup=False)
    return True
