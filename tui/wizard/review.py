"""The last step: what is going to happen, on one page, and from where it is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Button, Static

from engine import batch
from engine.errors import RankdeckError
from engine.hosts import fold
from engine.launchers import slurm
from engine.profile import difference
from tui.wizard.preflight import verdict
from tui.wizard.step import Step

if TYPE_CHECKING:
    from collections.abc import Collection

    from textual.app import ComposeResult
    from textual.widget import Widget

    from tui.wizard.checking import Checking
    from tui.wizard.sheet import Sheet


class ReviewStep(Step):
    key = "review"
    title = "Ready?"

    def __init__(self, sheet: Sheet, checking: Checking) -> None:
        super().__init__(sheet)
        self.checking = checking
        self.armed = False

    def compose(self) -> ComposeResult:
        yield Static(Content(self.title), classes="title")
        yield Static(id="summary")
        yield Static(id="verdict")
        yield Static(id="file")
        with Horizontal(classes="buttons"):
            yield Button("Launch (F10)", id="launch", variant="primary")
            yield Button("Save (F2)", id="save")

    def first(self) -> Widget | None:
        return self.query_one("#launch")

    def settle(self, told: Collection[str]) -> None:
        glyphs = self.app.glyphs
        self.query_one("#summary", Static).update(self._summary())
        said = verdict(self.checking, self.sheet, glyphs.ok, glyphs.error, glyphs.warning)
        if self.armed:
            said = Content.assemble(said, ("  launches when it is through; esc stops that", "bold $primary"))
        self.query_one("#verdict", Static).update(said)
        self.query_one("#file", Static).update(self._file())
        self.query_one("#launch", Button).disabled = bool(self.sheet.judged.mistakes)

    def _summary(self) -> Content:
        profile, plan = self.sheet.profile, self.sheet.preview.plan
        rows = [("profile", f"{profile.name or '-'}, launched by {profile.launcher}")]
        if profile.launcher == "slurm" and profile.slurm is not None:
            asked = slurm.groups(profile.slurm)
            rows.append(("machines", " + ".join(f"{kind.nodes} × {kind.gpus_per_node} GPUs" for kind in asked)))
        elif profile.nodes:
            rows.append(
                ("nodes", f"{len(profile.nodes):,}: {fold(dict.fromkeys(node.host for node in profile.nodes))[:120]}")
            )
        if plan is not None:
            rows.append(("ranks", str(plan.world_size)))
            if plan.master_addr:
                rows.append(("master", f"{plan.master_addr} port {plan.master_port}"))
        program = " ".join((profile.program.path, *profile.program.args))
        rows.append(("program", f"{profile.program.kind}: {program[:160]}"))
        if plan is not None and plan.global_batch is not None:
            lr = f", learning rate {batch.lr_text(plan.lr)}" if plan.lr is not None else ""
            rows.append(("batch", f"{plan.global_batch:,} samples a step{lr}"))
        rows.append(("run", self.sheet.run))
        return Content("\n").join(Content.assemble((f"{name:<9} ", "$secondary"), (value, "")) for name, value in rows)

    def _file(self) -> Content:
        """Whether the file on disk says the same."""
        glyphs, path = self.app.glyphs, self.sheet.draft.path
        if self.sheet.judged.mistakes:
            count = len(self.sheet.judged.mistakes)
            left = "one question is" if count == 1 else f"{count} questions are"
            return Content.styled(f"{glyphs.error} {left} still open: see the steps with {glyphs.error}", "$error")
        if not path:
            return Content.styled(f"{glyphs.info} not saved as a profile yet: F2 saves it", "$secondary")
        try:
            changes = [line for line in difference(path, self.sheet.profile).splitlines()[2:] if line[:1] in "+-"]
        except RankdeckError as error:
            return Content.styled(f"{glyphs.warning} {error.text}", "$warning")
        if not changes:
            return Content.styled(f"{glyphs.ok} as saved in {path}", "$secondary")
        lines = "one line differs" if len(changes) == 1 else f"{len(changes)} lines differ"
        return Content.styled(f"{glyphs.warning} {lines} from {path}: F2 shows and saves", "$warning")
