"""The dashboard: draws the folded state of one run a few times a second, and carries the user's wishes to it."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, ClassVar

import msgspec
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import Screen

from engine.errors import EXIT_JOB_FAILED, EXIT_OK, RankdeckError
from tui import terminal
from tui.dashboard import PANELS
from tui.dashboard.arrangement import arrangement
from tui.dashboard.header import HeaderPanel
from tui.dashboard.health import BAD, Health, health
from tui.dashboard.panel import Panel, Scene
from tui.dashboard.story import NAMED
from tui.dashboard.tabs import Tabs
from tui.footer import Footer
from tui.leave import Leave

if TYPE_CHECKING:
    from collections.abc import Mapping

    from textual import events
    from textual.app import ComposeResult
    from textual.binding import BindingType
    from textual.dom import DOMNode

    from engine.conversation import Conversation
    from engine.session import Session
    from tui.app import RankdeckApp
    from tui.watching import Watching

STILL = 1.0
"""Seconds between pictures when nothing happens: clocks go on."""
MANY = 256
"""Ranks whose map gets more room than its neighbours."""
REST = 9.0
"""A picture is followed by so many times the processor time it took without one: those of thousands of ranks come less
often, and take a tenth of a core at most, also beside a training that takes the rest of this machine. What the user
chooses is drawn at once."""


class Dashboard(Screen[None]):
    """One run, live or over."""

    app: RankdeckApp
    title = "dashboard"
    help = """Everything about one run. Leaving this screen or this terminal never harms the job."""
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(str(i), f"show('{p.key}')", p.title, id=f"dashboard.{p.key}", show=False)
            for i, p in enumerate(PANELS, 1)
        ),
        Binding("tab", "app.focus_next", "next panel", id="dashboard.next", show=False),
        Binding("shift+tab", "app.focus_previous", "previous panel", id="dashboard.before", show=False),
        Binding("z,f", "zoom", "zoom", id="dashboard.zoom"),
        Binding("n", "bad(1)", "next bad rank", id="dashboard.bad"),
        Binding("N", "bad(-1)", "previous bad rank", id="dashboard.bad-before", show=False),
        Binding("s,X", "stop", "stop job", id="dashboard.stop"),
        Binding("y", "copy", "copy command", id="dashboard.copy"),
        Binding("r", "relaunch", "relaunch with changes", id="dashboard.relaunch", show=False),
        Binding("a", "attach", "copy the attach command", id="dashboard.attach", show=False),
        Binding("x", "export", "export metrics", id="dashboard.export", show=False),
        Binding("escape,d", "leave", "back", key_display="esc", id="dashboard.back"),
        Binding("q", "app.leave", "quit", id="dashboard.quit"),
    ]

    def __init__(
        self,
        watching: Watching,
        session: Session,
        conversations: Mapping[int, Conversation] | None = None,
        *,
        ours: bool = False,
    ) -> None:
        super().__init__()
        self.watching = watching
        self.session = session
        self._conversations = conversations
        self._ours = ours
        self._panels: list[Panel] = [panel() for panel in PANELS]
        self._selected = 0
        self._chosen = False
        self._current = "logs" if any(panel.key == "logs" for panel in PANELS) else PANELS[0].key
        self._zoomed = False
        self._drawn: tuple[object, ...] = ()
        self._drawn_at = self._rested = 0.0
        self._keys: tuple[bool | None, ...] = ()
        self._ranks: list[Health] = []
        self._leaving = False

    def compose(self) -> ComposeResult:
        yield HeaderPanel()
        yield Tabs([(panel.key, panel.title) for panel in PANELS])
        with Horizontal(id="body"):
            with Vertical(id="left"):
                yield from (panel for panel in self._panels if panel.side == "left")
            with Vertical(id="right"):
                yield from (panel for panel in self._panels if panel.side == "right")
        yield Footer()

    def on_mount(self) -> None:
        self.watching.watch(self.session, self._conversations)
        self.set_class(self.session.state.plan.world_size >= MANY, "-many")
        self._arrange()
        self.call_after_refresh(self.query_one(f"#{self._current}").focus)
        self.set_interval(1.0 / terminal.repaint_rate(os.environ), self._tick)
        self._tick()

    async def on_unmount(self) -> None:
        await self.watching.leave()

    # ---- drawing --------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = time.time()
        drawn = (self.watching.version, self._selected)
        if (drawn == self._drawn and now - self._drawn_at < STILL) or terminal.congested(self.app):
            return
        if drawn[1:] == self._drawn[1:] and time.monotonic() < self._rested:
            return
        began = time.thread_time()
        self._drawn, self._drawn_at = drawn, now
        self._ranks = health(self.session.state)
        self._show_failure()
        keys = (self.check_action("stop", ()), self.check_action("bad", ()))
        if keys != self._keys:
            self._keys = keys
            self.refresh_bindings()
        scene = self.scene(now)
        self.query_one(HeaderPanel).draw(scene)
        for panel in self._panels:
            if panel.display:
                panel.draw(scene)
        self._rested = time.monotonic() + REST * (time.thread_time() - began)

    def _show_failure(self) -> None:
        """Of a failed run: room for the verdict, and the log of the rank that it names until another is chosen."""
        state = self.session.state
        if state.outcome == "failed":
            self.add_class("-failed")
            self.query_one(Tabs).alert("story", self.app.glyphs.error)
            if not self._chosen and (verdict := state.verdict()) is not None and verdict.rank is not None:
                self._selected = verdict.rank

    def scene(self, now: float) -> Scene:
        return Scene(
            state=self.session.state,
            curves=self.watching.curves,
            story=tuple(self.watching.story),
            folder=self.session.folder,
            now=now,
            ranks=self._ranks,
            selected=self._selected,
            glyphs=self.app.glyphs,
            live=self.watching.live,
            problems=self.watching.problems,
        )

    def _arrange(self) -> None:
        shown = arrangement(self.size.width, self.size.height, self._current, self._zoomed)
        for panel in self._panels:
            panel.display = panel.key in shown
            panel.set_class(panel.key == self._current, "current")
        for side in ("left", "right"):
            self.query_one(f"#{side}").display = any(p.display and p.side == side for p in self._panels)
        self.query_one(Tabs).show(self._current, shown)
        self._drawn = ()
        self.call_after_refresh(self._tick)

    def on_resize(self) -> None:
        self._arrange()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        for panel in self._panels:
            if panel is event.widget or panel in event.widget.ancestors:
                if panel.key != self._current:
                    self._current = panel.key
                    self._arrange()
                return

    # ---- what panels say ------------------------------------------------------------------------------------------

    def on_panel_chose(self, message: Panel.Chose) -> None:
        self._selected, self._chosen = message.rank, True
        self._tick()

    def on_panel_wanted(self, message: Panel.Wanted) -> None:
        self.watching.want(message.node_rank, message.streams)

    def on_tabs_picked(self, message: Tabs.Picked) -> None:
        self.action_show(message.name)

    # ---- keys -----------------------------------------------------------------------------------------------------

    def why_not(self, action: str) -> str:
        """Why a key does nothing now; "" where it does."""
        if action in ("stop", "relaunch") and self.app.readonly:
            return "this was opened with --readonly"
        if action == "stop" and self.session.state.over:
            return "the run is over"
        if action == "bad" and not any(one.word in BAD for one in self._ranks):
            return "every rank is well"
        return ""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return None if self.why_not(action) else True

    def action_show(self, name: str) -> None:
        self._current = name
        self._arrange()
        self.query_one(f"#{name}").focus()

    def reach(self, node: DOMNode) -> None:
        """Show the panel that this is in, and give it the focus."""
        for panel in self._panels:
            if panel in node.ancestors_with_self:
                self.action_show(panel.key)

    def action_zoom(self) -> None:
        self._zoomed = not self._zoomed
        self._arrange()

    def action_bad(self, way: int) -> None:
        """To the next rank that is not well."""
        ranks = self._ranks
        count = len(ranks)
        order = ((self._selected + way * step) % count for step in range(1, count + 1))
        self._selected = next((rank for rank in order if ranks[rank].word in BAD), self._selected)
        self._chosen = True
        self._tick()

    async def action_stop(self) -> None:
        hosts = list(dict.fromkeys(node.host for node in self.session.state.nodes.values()))
        self.run_worker(self._stop(", ".join(hosts) if len(hosts) <= NAMED else f"{len(hosts)} nodes"))

    async def _stop(self, hosts: str) -> None:
        detail = f"SIGTERM to torchrun on {hosts}\nafter 35 s SIGKILL to what is left, then a sweep that proves it"
        if await self.app.confirm(f"Stop {self.session.folder.run}?", detail, "Stop the job"):
            self.watching.stop()

    def action_copy(self) -> None:
        """The exact command of the selected rank's node."""
        plan = self.session.state.plan
        node = next(n for n in plan.nodes if self._selected < n.first_rank + n.nproc)
        self.notify(f"command of {node.host}: {terminal.copy(self.app, node.script)}", markup=False)

    def action_relaunch(self) -> None:
        self.app.relaunch(self.session.record.profile, self.session.folder.run)

    def action_attach(self) -> None:
        command = f"rankdeck attach {self.session.folder.run}"
        self.notify(f"{command}: {terminal.copy(self.app, command)}", markup=False)

    def action_export(self) -> None:
        """Loss and throughput of every step, as CSV and as JSON beside the run's logs."""
        folder = self.session.folder.path
        points = self.watching.curves.points
        unit = self.watching.curves.rate_unit
        rows = [f"{p.t:.3f},{p.step},{_cell(p.loss)},{_cell(p.rate)},{_cell(p.step_time)}" for p in points]
        head = f"t,step,loss,rate [{unit}],step_time [s]"
        names = ("t", "step", "loss", "rate", "step_time")
        told = [{name: getattr(p, name) for name in names} for p in points]
        whole = {"run": self.session.folder.run, "rate_unit": unit, "step_time_unit": "s", "points": told}
        try:
            (folder / "metrics.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
            # NaN and infinity are no JSON; they become null.
            (folder / "metrics.json").write_bytes(msgspec.json.encode(whole) + b"\n")
        except OSError as error:
            self.notify(f"cannot be written: {error}", severity="error", markup=False)
            return
        self.notify(f"{len(rows)} steps written to metrics.csv and metrics.json in {folder}", markup=False)

    async def action_leave(self) -> None:
        """Back to where the user came from; without such a place, out."""
        if len(self.app.screen_stack) > 2:
            self.dismiss()
        else:
            self.run_worker(self.app.action_leave())

    async def before_exit(self) -> int | None:
        """Asked before the program ends: the exit code, or None to stay."""
        state, run = self.session.state, self.session.folder.run
        if not state.over and self.watching.live and not self._leaving:
            dialog = Leave(run, lambda: state.outcome, ours=self._ours, readonly=self.app.readonly)
            answer = await self.app.answer(dialog)
            if answer is None:
                return None
        if state.over or not self.watching.live or self._leaving:
            return EXIT_OK if state.outcome in ("succeeded", "running") else EXIT_JOB_FAILED
        if answer == "stop":
            self._leaving = True
            self.notify("stopping; this waits until nothing is left", timeout=60, markup=False)
            try:
                results = await asyncio.wait_for(self.watching.stop_for_good(5.0), 60)
            except (RankdeckError, asyncio.TimeoutError) as error:
                self.app.farewell.append(f"stopping {run}: {error or 'no answer within 60 s'}")
            else:
                self.app.farewell += [result.text for result in results]
            return EXIT_JOB_FAILED
        self.app.farewell.append(
            f"left; the run goes on\n  watch it again: rankdeck attach {run}\n  stop it: rankdeck stop {run}"
        )
        return EXIT_OK


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"
