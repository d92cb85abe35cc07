"""The step that says what every rank runs, where, and with which environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

from textual.content import Content
from textual.widgets import Static

from tui.wizard.step import Step

if TYPE_CHECKING:
    from collections.abc import Collection

    from textual.app import ComposeResult

MASK = "••••••"


class ProgramStep(Step):
    key = "program"
    title = "What does every rank run?"
    keys: ClassVar[tuple[str, ...]] = (
        "program.kind",
        "program.path",
        "program.args",
        "program.workdir",
        "program.activate",
        "env",
        "secrets",
    )

    def compose(self) -> ComposeResult:
        yield from super().compose()
        yield Static(id="secrets-found", classes="aside")

    def settle(self, told: Collection[str]) -> None:
        super().settle(told)
        glyphs = self.app.glyphs
        lines = []
        for name in self.sheet.profile.secrets if "secrets" not in self.sheet.judged.mistakes else ():
            if name in os.environ:
                lines.append(Content.styled(f"{glyphs.ok} {name} = {MASK}  from your environment", "$secondary"))
            else:
                text = f"{glyphs.warning} {name} has no value in your environment; before the launch: export {name}=…"
                lines.append(Content.styled(text, "$warning"))
        self.query_one("#secrets-found", Static).update(Content("\n").join(lines))
