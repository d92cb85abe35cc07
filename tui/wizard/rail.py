"""The steps beside each other, each with how it stands; any of them is a key or a click away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.style import Style

    from tui.rows import Piece
    from tui.wizard.checking import Checking
    from tui.wizard.sheet import Sheet
    from tui.wizard.step import Step


def marks(steps: Iterable[type[Step]], sheet: Sheet, checking: Checking) -> dict[str, str]:
    """How every step stands, for the rail."""
    found: dict[str, str] = dict(sheet.draft.states(sheet.judged))
    for step in steps:
        if not step.used(sheet.profile) and found.get(step.key) != "mistakes":
            found[step.key] = "unused"
    preflight = checking.preflight
    if checking.running:
        found["preflight"] = "running"
    elif preflight is not None:
        clean = all(finding.severity != "warning" for finding in preflight.findings)
        fits = checking.fits(sheet.profile, sheet.draft.skip)
        found["preflight"] = "mistakes" if preflight.errors else "ok" if fits and clean else "warning"
    return found


class Rail(Rows):
    """`marks` holds, by step, one of ok, mistakes, warning, running, untouched, unused."""

    title = "steps"

    def __init__(self, steps: Sequence[str]) -> None:
        super().__init__(id="rail")
        self._steps = tuple(steps)
        self.marks: dict[str, str] = {}
        self.here = ""

    def show(self, here: str, marks: dict[str, str]) -> None:
        """Where the user is, and how every step stands."""
        if (here, marks) != (self.here, self.marks):
            if here != self.here:
                self.set_reactive(Rows.cursor, self._steps.index(here))
            self.here, self.marks = here, marks
            self.changed()

    def count(self) -> int:
        return len(self._steps)

    def row(self, index: int, width: int) -> Sequence[Piece]:
        step = self._steps[index]
        mark = self.marks.get(step, "untouched")
        glyphs, palette = self.app.glyphs, self.palette
        sign, style = {
            "ok": (glyphs.ok, palette.good),
            "mistakes": (glyphs.error, palette.bad),
            "warning": (glyphs.warning, palette.warning),
            "running": (glyphs.spinner[0], palette.primary),
            "unused": (glyphs.track, palette.muted),
        }.get(mark, (glyphs.pending, palette.muted))
        name_style: Style = palette.strong if step == self.here else palette.text
        if mark == "unused" and step != self.here:
            name_style = palette.muted
        return [(f" {index + 1} ", palette.muted), (f"{sign} ", style), (step, name_style)]
