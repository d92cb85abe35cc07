"""The wizard: a rail of steps, the questions of one, and what will run, in view all the time.

Typed text goes to the draft at once; the sheet is settled a moment after the last key, and every part of the screen is
shown from it. Keys that move the focus are priority bindings: what is typed ahead over a slow line goes where it is
meant to. Nodes are looked at when the host list, or what they are asked, has been left alone for a while: half a
host name is never dialled, and half an activation line never run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import work
from textual.binding import Binding
from textual.containers import Container, Horizontal
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from engine.errors import EXIT_OK, EXIT_PREFLIGHT, RankdeckError
from engine.session import secret_values
from tui import terminal
from tui.footer import Footer
from tui.wizard import kept
from tui.wizard.checking import Checking
from tui.wizard.draft import Draft, step_of
from tui.wizard.fields import FIELDS
from tui.wizard.preflight import PreflightStep
from tui.wizard.preview import PreviewPane
from tui.wizard.prober import Prober
from tui.wizard.question import Choice, Line, Question, questions
from tui.wizard.rail import Rail, marks
from tui.wizard.review import ReviewStep
from tui.wizard.saving import save
from tui.wizard.sheet import Sheet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult
    from textual.binding import BindingType
    from textual.timer import Timer
    from textual.widgets import Button

    from engine.errors import HostKeyUnknown
    from tui.app import RankdeckApp
    from tui.rows import Rows
    from tui.wizard.step import Step

SETTLE = 0.15
"""Seconds after the last key until what was typed is judged and shown."""
NAMED = 0.8
"""Seconds after the last key until a node counts as named, and is looked at."""
QUIET = 1.5
"""Seconds without a key until a dialog may open by itself."""
RUN_THERE = ("program.path", "program.workdir", "program.activate")
"""What a look at a node makes use of there: never half of it."""
LOOKING = ("preflight", "review")
"""The steps that preflight is run for."""
KEEP = 1.0
"""Seconds until what was typed is on disk."""


class Wizard(Screen[None]):
    """A profile from nothing, or another one; launched from here."""

    app: RankdeckApp
    title = "wizard"
    help = """Any step can be reached at any time: F7 and F8, alt and a digit, a click; nothing is lost by it.
What will run is shown as you answer. Enter goes to the next question; F10 launches, from review."""
    CSS_PATH = "wizard.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "save", "save", id="wizard.save"),
        Binding("f3", "copy", "copy commands", id="wizard.copy", show=False),
        Binding("f4", "turn", "next node's commands", id="wizard.turn", show=False),
        Binding("f5", "look", "look again", id="wizard.look"),
        Binding("f7", "step(-1)", "back", id="wizard.back", priority=True),
        Binding("f8,ctrl+n", "step(1)", "next", key_display="f8", id="wizard.next", priority=True),
        Binding("f10,ctrl+l", "launch", "launch", key_display="f10", id="wizard.launch"),
        Binding("escape", "leave_step", "leave", id="wizard.leave"),
        *(
            Binding(f"alt+{n}", f"go({n - 1})", f"step {n}", id=f"wizard.step-{n}", show=False, priority=True)
            for n in range(1, 9)
        ),
        Binding("enter", "done", "next question", id="wizard.done", show=False, priority=True),
        Binding("tab", "app.focus_next", "next field", id="wizard.field", show=False, priority=True),
        Binding("shift+tab", "app.focus_previous", "field before", id="wizard.field-before", show=False, priority=True),
    ]

    def __init__(
        self,
        draft: Draft,
        steps: Sequence[type[Step]],
        *,
        start: str = "",
        armed: bool = False,
        ours: bool = False,
        note: str = "",
        collective: float = 0.0,
    ) -> None:
        """`start` is the step to begin at; `armed` launches as soon as preflight has found no error; `collective` is
        how long [s] its all-reduce may take, 0 for none."""
        super().__init__()
        self.sheet = Sheet(draft)
        self.steps = {step.key: step for step in steps}
        self.here = start or next(iter(self.steps))
        self.armed = self._launched_at_once = armed
        self._ours = ours
        self._note = note
        self._collective = collective
        self._told: set[str] = set(FIELDS) if draft.visited else set()
        self._soons: dict[str, Timer] = {}
        self._typed_at = 0.0
        self._launching = False
        self._dirty = False
        self._working: tuple[object, ...] = ()
        self._rest = 0.0

    def compose(self) -> ComposeResult:
        yield Static(id="masthead")
        with Horizontal(id="wizard"):
            yield Rail(list(self.steps))
            with Container(id="work"):
                yield Container(id="form")
                yield PreviewPane()
        yield Footer()

    async def on_mount(self) -> None:
        app = self.app
        self.prober = Prober(app.connector, self._accept, self._heard)
        self.checking = Checking(app.connector, self._accept, self.prober, self._heard, self._consent)
        await self._show_step(self.here)
        if self._note:
            self.notify(self._note, markup=False)
        if self.here in LOOKING:
            self.action_look()
        elif not self._note:  # what comes back from a crash may be half a line
            self._look_at_named()

    async def on_unmount(self) -> None:
        self._keep_now()
        await self.checking.close()
        await self.prober.close()

    # ---- one model, shown -----------------------------------------------------------------------------------------

    @property
    def step(self) -> Step:
        """The step that is shown."""
        return self.query_one(f"#step-{self.here}")  # type: ignore[return-value]

    def settle(self) -> None:
        """Judge what was typed, with what is known of the nodes, and show it."""
        self.sheet.judge()
        self._show()

    def _show(self) -> None:
        """Show the sheet with what is known of the nodes by now."""
        shown = self.query(f"#step-{self.here}")
        if not self.is_attached or not shown or not shown.first().is_mounted:
            return  # what a step is made of is not all there yet; it is shown when it is
        sheet, checking = self.sheet, self.checking
        sheet.hear({**self.prober.observations(sheet.profile), **checking.observations(sheet.profile)})
        self.query_one(PreviewPane).show(sheet.preview)
        for review in self.query(ReviewStep):
            review.armed = self.armed
        self.step.settle(self._told)
        self.query_one(Rail).show(self.here, marks(self.steps.values(), sheet, checking))
        self._show_keys()
        name = sheet.profile.name or "new profile"
        saved = sheet.draft.path.replace(str(Path.home()), "~", 1) or "not saved yet"
        self.query_one("#masthead", Static).update(
            Content.assemble(
                (f" {name}", "bold"),
                (f"   {saved}", "$secondary"),
                ("   draft kept" if self._dirty else "", "$secondary"),
            )
        )

    def _show_keys(self) -> None:
        """Show other keys at the foot where other keys work; drawing them costs more than all the rest."""
        working = (self.here, self.checking.running, *self.step.working())
        if working != self._working:
            self._working = working
            self.refresh_bindings()

    async def _show_step(self, key: str, *, focus: bool = True) -> None:
        form = self.query_one("#form")
        self.here = key
        for other in form.children:
            other.display = other.id == f"step-{key}"
        if not form.query(f"#step-{key}"):
            await form.mount(self._make(key))
        self.query_one(PreviewPane).set_class(not self.steps[key].previews, "-aside")
        self.settle()
        if focus and (target := self.step.first()) is not None:
            self.set_focus(target)

    def _make(self, key: str) -> Step:
        step = self.steps[key]
        if issubclass(step, (PreflightStep, ReviewStep)):
            return step(self.sheet, self.checking)
        return step(self.sheet)

    def _soon(self, name: str, seconds: float, what: Any) -> None:
        """Do it when nobody has asked for it again for that long."""
        if (timer := self._soons.pop(name, None)) is not None:
            timer.stop()
        self._soons[name] = self.set_timer(seconds, what)

    # ---- answers --------------------------------------------------------------------------------------------------

    def on_question_changed(self, event: Question.Changed) -> None:
        if self.sheet.draft.put(event.key, event.text):
            self._typed_at = time.monotonic()
            self._touched()

    def _touched(self) -> None:
        self._dirty = True
        self.armed = False
        self._soon("settle", SETTLE, self.settle)
        self._soon("keep", KEEP, self._keep)
        self._soon("named", NAMED, self._look_at_named)

    def on_question_left(self, event: Question.Left) -> None:
        self._told.add(event.key)
        self.settle()
        if self._dirty:
            self._soon("named", SETTLE, self._look_at_named)

    async def action_done(self) -> None:
        """Enter: the next question of this step, or the next step after the last."""
        asked = questions(self.step)
        keys = list(asked)
        after = keys[keys.index(self._focused_question()) + 1 :]
        if after:
            self.set_focus(asked[after[0]].control)
        else:
            await self.action_step(1)

    def _focused_question(self) -> str:
        """The question that has the focus, where enter goes on from; "" for any other place."""
        found = self.focused
        return next((key for key, asked in questions(self).items() if asked.control is found), "")

    def _look_at_named(self) -> None:
        """Look at the nodes as they are named now, unless a line that would be run there is still being typed."""
        if self.here in LOOKING:
            return
        if self._focused_question() in RUN_THERE:
            self._soon("named", NAMED, self._look_at_named)
            return
        if "nodes" not in self.sheet.judged.mistakes:
            self.prober.want(self.sheet.profile)

    def _heard(self) -> None:
        """A node has said something, or preflight has."""
        if not self.is_mounted or "heard" in self._soons:
            return

        def told() -> None:
            self._soons.pop("heard", None)
            began = time.monotonic()
            self._show()
            # With a thousand nodes a look at all of them takes its time: it is never most of it.
            self._rest = 4 * (time.monotonic() - began)
            self._after_preflight()

        self._soons["heard"] = self.set_timer(max(self._rest, 1 / terminal.repaint_rate(os.environ)), told)

    async def _accept(self, unknown: HostKeyUnknown) -> bool:
        """Show an unknown host key, when no key of what is being typed can be taken for the answer."""
        while (quiet := time.monotonic() - self._typed_at) < QUIET:
            await asyncio.sleep(QUIET - quiet)
        return await self.app.accept(unknown)

    async def _consent(self, text: str) -> bool:
        """Ask before preflight disturbs somebody."""
        return await self.app.confirm("Measure all the same?", text, "Measure")

    # ---- steps ----------------------------------------------------------------------------------------------------

    async def on_rows_chosen(self, event: Rows.Chosen) -> None:
        if isinstance(event.rows, Rail):
            await self.action_go(event.index)

    async def action_go(self, index: int) -> None:
        """Show a step by its place."""
        keys = list(self.steps)
        if 0 <= index < len(keys):
            await self._leave_for(keys[index])

    async def action_step(self, direction: int) -> None:
        """The step after or before this one that has to do with the launcher."""
        keys = list(self.steps)
        at = keys.index(self.here) + direction
        while 0 <= at < len(keys) and not self.steps[keys[at]].used(self.sheet.profile):
            at += direction
        if 0 <= at < len(keys):
            await self._leave_for(keys[at])

    async def _leave_for(self, key: str) -> None:
        self.sheet.draft.visited.add(self.here)
        self._told |= {field for field in FIELDS if step_of(field) == self.here}
        self._look_at_named()
        await self._show_step(key)
        if key in LOOKING and not self.checking.running and not self._fits():
            self.action_look()

    def _fits(self) -> bool:
        return self.checking.fits(self.sheet.profile, self.sheet.draft.skip)

    async def action_leave_step(self) -> None:
        """Not to launch after all; or out, with everything kept."""
        if self.armed:
            self.armed = False
            self.settle()
            return
        if self._dirty:
            self.notify("what you typed is kept; open it again to go on", markup=False)
        if len(self.app.screen_stack) > 2:
            self.dismiss()
        else:
            await self.app.action_leave()

    async def before_exit(self) -> int | None:
        """The exit code: that of a failed preflight where this is all that a launch came to."""
        found = self.checking.preflight
        refused = self._launched_at_once and found is not None and found.errors
        return EXIT_PREFLIGHT if refused else EXIT_OK

    # ---- actions --------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that do nothing at this step are hidden; those that cannot work now are dimmed."""
        match action:
            case "launch" if self.here not in LOOKING:
                return False
            case "done":
                return isinstance(self.focused, (Line, Choice))
            case "launch" | "save":
                return None if self.app.readonly else True
            case _:
                return True

    def action_copy(self) -> None:
        text = self.sheet.preview.text
        said = terminal.copy(self.app, text) if text else "there is nothing to copy until every question is answered"
        self.notify(said, markup=False)

    def action_turn(self) -> None:
        self.query_one(PreviewPane).action_turn(1)

    @work(exclusive=True, group="look")
    async def action_look(self) -> None:
        """Look at the nodes again: all of preflight there, and what the wizard asks in the other steps."""
        if self.here not in LOOKING:
            self._look_at_named()
            self.prober.again()
            return
        self.sheet.judge()
        if not self.sheet.judged.mistakes:
            await self.checking.start(self.sheet.profile, self.sheet.draft.skip, self._collective)
        self.settle()

    def on_step_answered(self, event: Step.Answered) -> None:
        """Answers that come from elsewhere than the keyboard."""
        shown = questions(self)
        for key, text in event.answers.items():
            self.sheet.draft.put(key, text)
            if key in shown:
                shown[key].show(text)
        self._touched()
        if event.look:
            self.action_look()
        self.settle()

    def on_step_retry(self, event: Step.Retry) -> None:
        """Look again at a node, for a check, or both."""
        if self.checking.retry(event.rank, event.check) and event.check is not None:
            self.sheet.draft.skip.discard(event.check)
        self.settle()

    # ---- keeping and saving ---------------------------------------------------------------------------------------

    @work(exclusive=True, group="keep")
    async def _keep(self) -> None:
        """Put the draft on disk, off the loop that draws."""
        try:
            await asyncio.to_thread(kept.keep, *kept.written(self.sheet.draft))
        except OSError as error:
            self.notify(f"what you type cannot be kept: {error}", severity="warning", markup=False)

    def _keep_now(self) -> None:
        if self._dirty:
            with contextlib.suppress(OSError):
                kept.keep(*kept.written(self.sheet.draft))

    @work
    async def action_save(self) -> None:
        """Show what saving changes in the file, and save on a yes."""
        self.settle()
        if await save(self.app, self.sheet):
            self._dirty = False
            self.settle()

    # ---- launch ---------------------------------------------------------------------------------------------------

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "launch":
            self.action_launch()
        elif event.button.id == "save":
            self.action_save()

    def action_launch(self) -> None:
        """Launch when preflight has found no error; run it first where it has not been run on this very profile."""
        self.settle()
        if self.sheet.judged.mistakes:
            self.notify("there are questions to answer first: see the steps on the left", markup=False)
            return
        self.armed = True
        if self.checking.running:
            self.settle()
        elif self._fits():
            self._after_preflight()
        else:
            self.action_look()

    def _after_preflight(self) -> None:
        """Launch if that is what preflight was run for and it found no error; else show what it found."""
        if not self.armed or self._launching or not self.checking.over or not self._fits():
            return
        if self.checking.passed:
            self._launch()
            return
        self.armed = False
        self._show_failures()

    @work(exclusive=True, group="steps")
    async def _show_failures(self) -> None:
        await self._show_step("preflight")
        self.query_one(PreflightStep).go_to_worst()

    @work(exclusive=True, group="launch")
    async def _launch(self) -> None:
        found = self.checking.preflight
        assert found is not None
        self._launching = True
        try:
            secret_values(found.profile, os.environ)
            plan = found.plan(self.sheet.run)
            if plan != self.sheet.preview.plan:
                self.settle()
            dashboard = await self.app.launch(found, plan, ours=self._ours)
        except RankdeckError as error:
            self.notify(str(error), severity="error", timeout=15, markup=False)
            return
        finally:
            self.armed = self._launching = False
        self.checking.hand_over()
        self.app.switch_screen(dashboard)
