"""The step of preflight: the matrix, and below it what was found where the cursor stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from engine import profile
from engine.check import Preflight
from engine.errors import RankdeckError
from engine.preflight import mesh
from tui import terminal
from tui.wizard.draft import Draft
from tui.wizard.fields import FIELDS
from tui.wizard.finding import told
from tui.wizard.matrix import BAD, Matrix
from tui.wizard.step import Step

if TYPE_CHECKING:
    from collections.abc import Collection

    from textual.app import ComposeResult
    from textual.binding import BindingType
    from textual.widget import Widget

    from engine.launching import AnyPreflight
    from engine.preflight import Cell
    from engine.preflight.observation import Job
    from tui.rows import Rows
    from tui.wizard.checking import Checking
    from tui.wizard.sheet import Sheet

STATES = {
    "waiting": "being looked at",
    "skipped": "skipped: you chose not to check it",
    "unseen": "not looked at: the node does not answer, or its environment does not come up",
    "ok": "in order",
}


LEFT_BEHIND = ("jobs.ours", "devices.busy", "ports.master")
"""Checks that what a dead run of ours has left makes itself felt in."""
LISTED = 6


class Detail(VerticalScroll, can_focus=True):
    """Evidence and remedy of one cell."""

    title = "finding"

    def compose(self) -> ComposeResult:
        yield Static(id="finding")

    def show(self, text: Content) -> None:
        self.query_one(Static).update(text)
        self.scroll_home(animate=False)


class PreflightStep(Step):
    key = "preflight"
    title = "Is everything in place?"
    previews: ClassVar[bool] = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f6", "fix", "apply the fix", id="preflight.fix"),
        Binding("y", "copy", "copy the remedy", id="preflight.copy", show=False),
        Binding("x", "reap", "end what a dead run left", id="preflight.reap"),
        Binding("f9,s", "skip", "skip this check", id="preflight.skip", show=False),
        Binding("r", "retry(True)", "retry this check", id="preflight.retry", show=False),
        Binding("R", "retry(False)", "retry this node", id="preflight.retry-node", show=False),
    ]

    def __init__(self, sheet: Sheet, checking: Checking) -> None:
        super().__init__(sheet)
        self.checking = checking
        self._shown: AnyPreflight | None = None
        self._offered: tuple[object, ...] = ()
        self._arrived: tuple[int, int] | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="verdict", classes="title")
        yield Static(id="why-not")
        yield Matrix()
        yield Detail(id="detail", classes="box")

    def first(self) -> Widget | None:
        return self.query_one(Matrix)

    def settle(self, told: Collection[str]) -> None:
        checking = self.checking
        matrix = self.query_one(Matrix)
        found = checking.preflight
        if found is not None:
            matrix.show(found.checks, found.cells(), found.hosts)
            if found is not self._shown:
                self._shown = found
                matrix.go_to(0 if found.hosts else None, next(iter(found.checks)))
                self._arrived = (matrix.cursor, matrix.column)
            if checking.over and self._arrived == (matrix.cursor, matrix.column):
                # Nobody has moved: what is worst is what they want to see.
                self._arrived = None
                self.go_to_worst()
        matrix.display = found is not None
        self.query_one(Detail).display = found is not None
        self.query_one("#verdict", Static).update(self.verdict())
        why = self.query_one("#why-not", Static)
        why.display = found is None
        why.update(self._why_not())
        self.look()

    def go_to_worst(self) -> None:
        """Put the cursor on the first error, or else the first warning."""
        found = self.checking.preflight
        if found is not None:
            for severity in BAD:
                for finding in found.findings:
                    if finding.severity == severity:
                        self.query_one(Matrix).go_to(finding.node_rank, finding.check)
                        return

    def look(self) -> None:
        """Show what was found where the cursor stands."""
        matrix = self.query_one(Matrix)
        cell = matrix.cells.get((matrix.rank, matrix.check))
        if cell is not None:
            detail = self.query_one(Detail)
            host = "all nodes" if matrix.rank is None else f"node {matrix.rank}, {matrix.hosts[matrix.rank]}"
            detail.border_subtitle = "n next problem · y copy remedy · r retry · s skip"
            detail.border_title = f"{matrix.check} · {host}"
            detail.show(self._told(matrix.check, cell))

    def on_resize(self) -> None:
        self.call_after_refresh(self.look)

    def on_rows_moved(self, event: Rows.Moved) -> None:
        event.stop()
        self.look()
        if self.working() != self._offered:
            self._offered = self.working()
            self.refresh_bindings()

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        event.stop()
        self.query_one(Detail).focus()

    def working(self) -> tuple[object, ...]:
        return (*self.fixes(), *self.orphans())

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "retry":
            return None if self.checking.running else True
        if action == "reap":
            return bool(self.orphans()) and (None if self.app.readonly or self.checking.running else True)
        return action != "fix" or bool(self.fixes())

    def action_retry(self, one: bool) -> None:
        """Look again at the node under the cursor: for the check there, or for all."""
        matrix = self.query_one(Matrix)
        self.post_message(self.Retry(matrix.rank, matrix.check if one else None))

    @work
    async def action_skip(self) -> None:
        """Leave a check out after a question, or take it in again."""
        check, skip = self.query_one(Matrix).check, self.sheet.draft.skip
        if check in skip:
            skip.discard(check)
        elif await self.app.confirm(
            f"Launch without the check {check}?", "It stays marked as skipped here and in the review.", "Skip it"
        ):
            skip.add(check)
        else:
            return
        self.post_message(self.Answered({}, look=True))

    def action_copy(self) -> None:
        """Copy what there is to do about the cell under the cursor."""
        matrix = self.query_one(Matrix)
        cell = matrix.cells.get((matrix.rank, matrix.check))
        remedies = [finding.remedy for finding in cell.findings if finding.remedy] if cell is not None else []
        said = terminal.copy(self.app, "\n".join(remedies)) if remedies else "there is no remedy to copy here"
        self.notify(said, markup=False)

    @work
    async def action_reap(self) -> None:
        """End what a dead run of ours has left on the node under the cursor, after a question, and look again."""
        found, rank, orphans = self.checking.preflight, self.query_one(Matrix).rank, self.orphans()
        if not isinstance(found, Preflight) or rank is None or not orphans:
            return
        listed = [f"{process} of run {process.job}" for process in orphans]
        more = [f"and {len(listed) - LISTED} more"] if len(listed) > LISTED else []
        question = f"End what is left of ours on {found.hosts[rank]}?"
        if not await self.app.confirm(question, "\n".join([*listed[:LISTED], *more]), "End it"):
            return
        try:
            left = await found.reap(rank)
        except RankdeckError as error:
            self.notify(str(error), severity="warning", markup=False)
            return
        for process in left:
            text = f"cannot be ended: {process.pid} {process.comm} ({process.state})"
            self.notify(text, severity="warning", markup=False)
        self.post_message(self.Retry(rank, None))

    def orphans(self) -> tuple[Job, ...]:
        """What a dead run of ours has left on the node under the cursor, where the check there is about that."""
        found, matrix = self.checking.preflight, self.query_one(Matrix)
        if not isinstance(found, Preflight) or matrix.check not in LEFT_BEHIND:
            return ()
        return found.orphans(matrix.rank)

    def action_fix(self) -> None:
        """Change the answers as the finding under the cursor says, and look again."""
        draft = self.sheet.draft
        try:
            # What the fix changes, and nothing else: the rest stays as it was typed.
            now = Draft.of(self.sheet.profile)
            mended = Draft.of(profile.override(self.sheet.profile, self.fixes()))
        except RankdeckError as error:
            self.notify(str(error), severity="warning", markup=False)
            return
        if mended.per_node != now.per_node:
            draft.per_node = mended.per_node
        changed = {key: mended.get(key) for key in FIELDS if mended.get(key) != now.get(key)}
        self.post_message(self.Answered(changed, look=True))

    def fixes(self) -> tuple[str, ...]:
        """What would mend the cell under the cursor: changes of the profile, as after --set."""
        matrix = self.query_one(Matrix)
        cell = matrix.cells.get((matrix.rank, matrix.check))
        return tuple(fix for finding in cell.findings for fix in finding.fix) if cell is not None else ()

    def verdict(self) -> Content:
        """One line on the whole of it."""
        return verdict(self.checking, self.sheet, self.app.glyphs.ok, self.app.glyphs.error, self.app.glyphs.warning)

    def _why_not(self) -> Content:
        if self.checking.failure is not None:
            return Content.styled(str(self.checking.failure), "$error")
        if self.sheet.judged.mistakes:
            lines = (f"{self.app.glyphs.pending} {line}" for line in self.sheet.preview.missing)
            return Content("\n").join([Content("There is something to answer first:"), *map(Content, lines)])
        return Content("F5 looks at every node; nothing is started.")

    def _told(self, check: str, cell: Cell) -> Content:
        parts = [Content.styled(self.query_one(Matrix).checks[check].title, "bold")]
        for finding in cell.findings:
            parts += told(finding, self.app.glyphs, self.query_one(Detail).scrollable_content_region.width)
        if self.orphans():
            parts.append(Content.styled("  x ends it here, after a question", "$primary"))
        if check.startswith("mesh."):
            parts += self._connections()
        if cell.state == "skipped" and check not in self.sheet.draft.skip:
            parts.append(Content.styled("made only when it is asked for: r does it now", "$secondary"))
        elif not cell.findings:
            parts.append(Content.styled(STATES.get(cell.state, ""), "$secondary"))
        elif cell.state == "waiting":
            parts.append(Content.styled(STATES[cell.state], "$secondary"))
        return Content("\n").join(parts)

    def _connections(self) -> list[Content]:
        """Who can connect to whom, where somebody cannot."""
        found = self.checking.preflight
        if not isinstance(found, Preflight):
            return []
        if not any(each.check.startswith("mesh.") and each.severity in BAD for each in found.findings):
            return []
        head = Content.styled("connections, from row to column, ms of a round trip", "bold")
        return [Content(""), head, *map(Content, mesh.picture(found.profile, found.observations))]


def verdict(checking: Checking, sheet: Sheet, ok: str, wrong: str, warning: str) -> Content:
    """How preflight stands, in one line."""
    found = checking.preflight
    if checking.failure is not None:
        return Content.styled(f"{wrong} preflight: {checking.failure.text}", "bold $error")
    if found is None:
        return Content.styled("preflight has not been run", "$secondary")
    count = len(found.hosts)
    nodes = "Slurm" if not count else "1 node" if count == 1 else f"{count:,} nodes"
    if checking.running:
        open_ = sum(1 for parts in found.waiting.values() if parts)
        return Content.styled(f"preflight: looking at {nodes}, {open_} still to answer", "$primary")
    errors, warnings = len(found.errors), sum(finding.severity == "warning" for finding in found.findings)
    said = f"{len(found.checks) - len(found.skip)} checks on {nodes}"
    if skipped := sorted(found.skip & sheet.draft.skip):
        said += f", {len(skipped)} skipped ({', '.join(skipped)})"
    told = [_count(errors, "error")] if errors else []
    told += [_count(warnings, "warning")] if warnings else []
    stale = "" if checking.fits(sheet.profile, sheet.draft.skip) else "; the answers have changed since, F5 looks again"
    if errors:
        return Content.styled(f"{wrong} preflight: {', '.join(told)}; {said}{stale}", "bold $error")
    if warnings:
        return Content.styled(f"{warning} preflight: {', '.join(told)}; {said}{stale}", "$warning")
    return Content.styled(f"{ok} preflight: nothing is wrong; {said}{stale}", "$success")


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")
