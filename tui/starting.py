"""Between a profile and its run: preflight on every node, then the launch; what is wrong stays on the screen."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Footer, Static

from engine import runs
from engine.check import check
from engine.errors import RankdeckError
from engine.fleet import Fleet, close_all
from engine.session import secret_values

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType

    from engine.profile import Profile
    from tui.app import RankdeckApp


class Starting(Screen[None]):
    """Checks, launches, and makes room for the dashboard; `ours` when the run is to end with this program."""

    app: RankdeckApp
    title = "start"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "again", "try again"),
        Binding("escape,q", "app.leave", "quit", key_display="esc"),
    ]

    def __init__(self, profile: Profile, skip: tuple[str, ...] = (), *, ours: bool = False) -> None:
        super().__init__()
        self._profile = profile
        self._skip = skip
        self._ours = ours

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="box"):
            yield Static(id="text")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).border_title = f"starting {self._profile.name}"
        self.start()

    def action_again(self) -> None:
        self.start()

    @work(exclusive=True)
    async def start(self) -> None:
        text = self.query_one("#text", Static)
        text.update(Content(f"preflight on {len(self._profile.nodes)} node(s) …"))
        profile = self._profile
        try:
            secret_values(profile, os.environ)
            fleet = Fleet(profile.nodes, profile.state_dir, self.app.connector, self.app.accept)
            checked = await check(profile, fleet, self._skip)
            try:
                if checked.errors:
                    await close_all(checked.conversations)
                    lines = [f"{f.host}: {f.text}\n  {f.remedy}" for f in checked.errors]
                    text.update(Content("nothing was started\n\n" + "\n\n".join(lines)))
                    return
                plan = checked.plan(runs.new_name(profile.name))
                dashboard = await self.app.launch(checked, plan, ours=self._ours)
            except BaseException:
                await close_all(checked.conversations)
                raise
        except RankdeckError as error:
            text.update(Content(str(error)))
            return
        self.app.switch_screen(dashboard)
