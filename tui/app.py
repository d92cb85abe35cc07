"""The application: themes, the connection to the outside, and which screen is opened first.

What a screen needs is imported when it is opened, and before that when there is nothing else to do: the first picture
does not wait for it.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App, SystemCommand
from textual.await_complete import AwaitComplete
from textual.binding import Binding
from textual.command import CommandPalette
from textual.content import Content
from textual.events import Key, Paste
from textual.widget import Widget

from engine.errors import EXIT_INTERRUPTED, EXIT_OK, RankdeckError, RequestError
from engine.transport import Connector
from tui import keys, terminal, themes
from tui.dialogs import Ask, Confirm, HostKey, TooSmall
from tui.glyphs import ASCII, UNICODE
from tui.help import KEYS, Help, why_not
from tui.plain import Plain

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType
    from textual import events
    from textual.binding import BindingType
    from textual.dom import DOMNode
    from textual.filter import LineFilter
    from textual.geometry import Size
    from textual.screen import Screen
    from textual.types import CSSPathType

    from engine.errors import HostKeyUnknown
    from engine.launching import AnyPreflight
    from engine.plan import Plan
    from engine.profile import Profile
    from engine.runs import RunFolder
    from tui.dashboard.screen import Dashboard


PLAIN = Plain()
YOUNG = 20_000
"""New objects between looks for garbage: a picture of thousands of ranks is as many, and they go by themselves."""
SOON = 0.3
"""Seconds after the first picture, when the user reads it."""


class RankdeckApp(App[int]):
    """Rankdeck on a terminal. `return_value` is the exit code."""

    TITLE = "rankdeck"
    CSS_PATH: ClassVar[CSSPathType | None] = Path(__file__).with_name("app.tcss")
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide"), (180, "-huge")]  # noqa: RUF012  # Textual declares it so
    VERTICAL_BREAKPOINTS = [(0, "-low"), (32, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q", "leave", "quit", id="app.quit", show=False),
        Binding("ctrl+c", "copy_or_leave", "copy or quit", id="app.copy", show=False),
        Binding("f1,question_mark", "help", "help", id="app.help", key_display="?"),
        Binding("ctrl+z", "suspend_process", "suspend", id="app.suspend", show=False),
        Binding("f12", "picture", "save a picture", id="app.picture", show=False),
    ]

    def __init__(self, options: Namespace | None = None) -> None:
        super().__init__()
        self.options = options
        self.readonly = bool(getattr(options, "readonly", False))
        self.glyphs = ASCII if getattr(options, "ascii", False) or not _speaks_unicode() else UNICODE
        self.animation_level = "none"
        self.connector = Connector(ask=self)
        self.farewell: list[str] = []
        self._undrawn = False
        self.set_keymap(keys.chosen())
        self._first = self.first()
        for theme in themes.THEMES:
            self.register_theme(theme)
        asked = getattr(options, "theme", None) or os.environ.get("RANKDECK_THEME", "")
        self.theme = asked if asked in self.available_themes else themes.OFFERED[0]

    # ---- life -----------------------------------------------------------------------------------------------------

    async def on_mount(self) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN and not self.is_headless:
                asyncio.get_running_loop().add_signal_handler(number, partial(self.exit, EXIT_INTERRUPTED))
        if not self.is_headless:
            self.set_interval(2.0, self._look_for_terminal)
        self.push_screen(self._first)
        self._fit(self.size)
        self.set_timer(SOON, self._import_the_rest)

    async def _import_the_rest(self) -> None:
        """So that no screen takes its time to open; and what is there now for good need not be looked through again."""
        for name in keys.SCREENS:
            await asyncio.to_thread(importlib.import_module, name)
        if not self.is_headless:
            gc.freeze()
            gc.set_threshold(YOUNG, *gc.get_threshold()[1:])

    def first(self) -> Screen[Any]:
        """The screen that the command line asks for."""
        command = getattr(self.options, "command", None)
        if self.options is None or command is None:
            from tui.home import Home

            return Home()
        if command == "attach":
            from engine import runs

            return self.dashboard(runs.find(self.options.run))
        from tui import wizard

        if command == "demo":
            from engine.demo import STEPS_ON_SCREEN, demo_profile

            steps = STEPS_ON_SCREEN if self.options.steps is None else self.options.steps
            return wizard.launching(demo_profile(steps), ours=True)
        if command == "launch":
            from engine import profile, shelf

            asked = profile.override(profile.load(shelf.find(self.options.profile)), self.options.settings)
            return wizard.launching(asked, tuple(self.options.skip), collective=self.options.collective)
        return wizard.new(self.options.name)

    async def _look_for_terminal(self) -> None:
        """Without a terminal there is nobody to draw for; Textual's own way out would wait for it forever."""
        if terminal.lost():
            for screen in self.screen_stack:
                if (watching := getattr(screen, "watching", None)) is not None:
                    await watching.leave()
            os._exit(EXIT_INTERRUPTED)

    def on_resize(self, event: events.Resize) -> None:
        if len(self.screen_stack) > 1:
            self._fit(event.size)

    def _fit(self, size: Size) -> None:
        if not TooSmall.fits(size) and not isinstance(self.screen, TooSmall):
            self.push_screen(TooSmall())
        elif TooSmall.fits(size) and isinstance(self.screen, TooSmall):
            self.pop_screen()

    def pop_screen(self) -> AwaitComplete:
        """A dialog closes; one that gets a key typed ahead after the program has ended is gone already."""
        if len(self._screen_stack) < 2:
            return AwaitComplete()
        return super().pop_screen()

    def get_line_filters(self) -> Sequence[LineFilter]:
        return [*super().get_line_filters(), PLAIN] if self.glyphs is ASCII else super().get_line_filters()

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        self._undrawn |= self._batch_count > 0
        super()._display(screen, renderable)

    def _end_batch(self) -> None:
        """Textual forgets what it was to draw within a batch of changes: a screen just opened, a new size."""
        super()._end_batch()
        if not self._batch_count and self.screen_stack:
            if self._undrawn:
                self._undrawn = False
                self.screen.refresh()
            else:
                self.screen.check_idle()

    async def on_unmount(self) -> None:
        await self.connector.close()

    def _fatal_error(self) -> None:
        """Textual would print the local variables of every frame, and with them what nobody should read."""
        import traceback

        self.bell()
        error = self._exception or sys.exc_info()[1]
        text = "".join(traceback.format_exception(error)) if error is not None else "unknown error\n"
        self._exit_renderables.append(
            Content(f"{text}\nThis is a bug in rankdeck. What runs on the nodes runs on.\n").plain
        )
        self._close_messages_no_wait()

    # ---- the outside ----------------------------------------------------------------------------------------------

    async def passphrase(self, path: str) -> str | None:
        """The passphrase of a key, for the connector."""
        given: str | None = await self.answer(Ask(f"Passphrase for {path}", secret=True))
        return given

    async def accept(self, unknown: HostKeyUnknown) -> bool:
        """An unknown host key: shown, and stored on an explicit yes only."""
        return bool(unknown.entry) and bool(await self.answer(HostKey(unknown)))

    async def confirm(self, question: str, detail: str = "", yes: str = "Yes") -> bool:
        """A question with a consequence."""
        return bool(await self.answer(Confirm(question, detail=detail, yes=yes)))

    async def answer(self, dialog: Screen[Any]) -> Any:
        """What a dialog is dismissed with."""
        given: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.push_screen(dialog, lambda value: None if given.done() else given.set_result(value))
        return await given

    # ---- runs -----------------------------------------------------------------------------------------------------

    def dashboard(self, folder: RunFolder) -> Dashboard:
        """The dashboard of a run that is known here, live or over."""
        from engine import launching
        from tui.dashboard.screen import Dashboard
        from tui.watching import Watching

        watching = Watching()
        session = launching.opened(folder, self.connector, watching, self.accept)
        session.lost_after = getattr(self.options, "lost_after", session.lost_after)
        return Dashboard(watching, session)

    async def launch(self, checked: AnyPreflight, plan: Plan, *, ours: bool = False) -> Dashboard:
        """Launch, and give the dashboard to show; `ours` when the run is to end with this program.

        RankdeckError when it could not be started on every node; nothing runs then.
        """
        from engine import launching
        from tui.dashboard.screen import Dashboard
        from tui.watching import Watching

        watching = Watching()
        session, conversations = await launching.launch(checked, plan, self.connector, watching, self.accept)
        session.lost_after = getattr(self.options, "lost_after", session.lost_after)
        return Dashboard(watching, session, conversations, ours=ours)

    def open_profile(self, path: Path | None, *, review: bool = False, hostfile: str = "") -> None:
        """A profile for changing, or with `review` for launching; without a path a new one, from a hostfile's hosts."""
        from tui import wizard

        try:
            if path is None:
                self.push_screen(wizard.new(hosts=_hostfile(hostfile) if hostfile else ""))
            else:
                self.push_screen(wizard.review(path) if review else wizard.edit(path))
        except RankdeckError as error:
            self.notify(str(error), severity="error", timeout=10, markup=False)

    def relaunch(self, asked: Profile, run: str) -> None:
        """What a run was launched with, for changing and launching again."""
        from tui import wizard

        self.push_screen(wizard.again(asked, run))

    def open_demo(self) -> None:
        from engine.demo import STEPS_ON_SCREEN, demo_profile
        from tui import wizard

        try:
            self.push_screen(wizard.launching(demo_profile(STEPS_ON_SCREEN), ours=True))
        except RankdeckError as error:
            self.notify(str(error), severity="error", markup=False)

    # ---- keys -----------------------------------------------------------------------------------------------------

    async def on_event(self, event: events.Event) -> None:
        """What is typed is done with before what is typed after it is looked at, also where it comes all at once."""
        if not isinstance(event, (Key, Paste)) or event.is_forwarded:
            await super().on_event(event)
            return
        self.app_focus = True
        if not isinstance(event, Key) or not await self._check_bindings(event.key, priority=True):
            await terminal.deliver(event, self.focused or self.screen)
            await asyncio.sleep(0)

    def on_key(self, event: events.Key) -> None:
        """A key that nothing answers to: if it is one that does not work now, say why."""
        active = self.screen.active_bindings.get(event.key)
        if active is not None and (why := why_not(active)):
            self.notify(f"{active.binding.description}: {why}", markup=False)

    async def action_leave(self) -> None:
        """Out, when every screen agrees; a run goes on unless the user says otherwise."""
        self.run_worker(self._leave(), name="leave", exclusive=True)

    async def _leave(self) -> None:
        code = EXIT_OK
        for screen in reversed(self.screen_stack):
            if (before_exit := getattr(screen, "before_exit", None)) is not None:
                answer: int | None = await before_exit()
                if answer is None:
                    return
                code = answer
        self.exit(code)

    async def action_copy_or_leave(self) -> None:
        """ctrl+c copies what is selected; without a selection it asks to leave, as everywhere in a terminal."""
        if text := self.screen.get_selected_text():
            self.notify(terminal.copy(self, text), markup=False)
        else:
            await self.action_leave()

    def action_help(self) -> None:
        if not isinstance(self.screen, Help):
            self.push_screen(Help(self.screen))

    def action_picture(self) -> None:
        """Save what is on the screen as SVG, in the folder that rankdeck was started in."""
        try:
            self.notify(f"saved {self.save_screenshot()}", markup=False)
        except OSError as error:
            self.notify(f"cannot be saved: {error}", severity="error", markup=False)

    def action_command_palette(self) -> None:
        """One at a time, wherever it is; Textual looks at the top screen only and falls over a second of its name."""
        if not any(isinstance(screen, CommandPalette) for screen in self.screen_stack):
            self.push_screen(CommandPalette())

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        for name in themes.OFFERED:
            yield SystemCommand(f"Theme: {name}", "the colours", partial(setattr, self, "theme", name))
        yield SystemCommand("Save a picture", "what is on the screen, as SVG (f12)", self.action_picture)
        yield SystemCommand("Help", "the keys of this place (?)", self.action_help)
        yield SystemCommand("Quit", "what runs on the nodes runs on (ctrl+q)", partial(self.run_action, "leave"))
        known: set[tuple[DOMNode, str]] = set()
        for node in (screen, *screen.walk_children()):
            for binding in Binding.make_bindings(type(node).__dict__.get("BINDINGS", ())):
                if binding.id and not binding.id.startswith("move.") and (node, binding.action) not in known:
                    known.add((node, binding.action))
                    place, key = getattr(node, "title", ""), KEYS.get(binding.key, binding.key)
                    does = partial(self._do_there, node, binding)
                    yield SystemCommand(binding.description.capitalize(), f"{place}: {key}" if place else key, does)

    def _do_there(self, node: DOMNode, binding: Binding) -> None:
        """What a key does where its place has the focus: that is shown, and gets it."""
        if (reach := getattr(self.screen, "reach", None)) is not None:
            reach(node)
        elif isinstance(node, Widget):
            node.focus()
        self.screen.call_after_refresh(self._do, node, binding)

    async def _do(self, node: DOMNode, binding: Binding) -> None:
        if not await self.run_action(binding.action, default_namespace=node):
            why = node.why_not(binding.action.partition("(")[0]) if hasattr(node, "why_not") else ""
            self.notify(f"{binding.description}: {why or 'there is nothing to do it with'}", markup=False)


def _hostfile(path: str) -> str:
    """The text of a host list in a file. RequestError where it cannot be read."""
    try:
        return Path(path).expanduser().read_text(errors="replace").strip()
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from None


def _speaks_unicode() -> bool:
    """Whether the locale that the terminal was started in is UTF-8."""
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def run(options: Namespace) -> int:
    """Open the screen; the exit code."""
    terminal.keep_alt_digits()
    terminal.take_any_bytes()
    terminal.measure_anew()
    app = RankdeckApp(options)
    app.run()
    for text in app.farewell:
        print(text, file=sys.stderr)
    if app.return_value is not None:
        return app.return_value
    return app.return_code or EXIT_OK
