"""The first screen: the profiles and the runs of this workstation."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual import work
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.screen import Screen
from textual.widgets import DataTable, Static

from engine import profile, runs, shelf
from engine.errors import RankdeckError
from engine.telling import number
from tui.dialogs import Ask
from tui.footer import Footer

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType

    from engine.runs import RunFolder
    from engine.shelf import Shelved
    from tui.app import RankdeckApp

RUNS_SHOWN = 200
TEACH = """No profiles yet. A profile says which machines, which program, how much: one YAML file.

  n   make one: Rankdeck asks for hosts and a program and finds out the rest
  i   import a hostfile (DeepSpeed, MPI, Slurm node list) into a new one
  D   see it all work first: two nodes × two ranks, trained on this machine"""


class Home(Screen[None]):
    """Profiles above, runs below, the live ones first."""

    app: RankdeckApp
    title = "home"
    help = """Profiles say what to train where; runs are what became of them.
enter opens: a profile for launching, a run for watching."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "new", "new profile", id="home.new"),
        Binding("e", "edit", "edit", id="home.edit"),
        Binding("d", "duplicate", "duplicate", id="home.duplicate"),
        Binding("delete,backspace", "delete", "delete", key_display="del", id="home.delete"),
        Binding("i", "import", "import hosts", id="home.import", show=False),
        Binding("D", "demo", "demo", id="home.demo"),
        Binding("r,f5", "reload", "reload", id="home.reload", show=False),
        Binding("q", "app.leave", "quit", id="home.quit"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._shelved: dict[str, Shelved] = {}
        self._folders: dict[str, RunFolder] = {}

    def compose(self) -> ComposeResult:
        yield Static(Content(" rankdeck   from a list of hosts to a watched training run"), id="masthead")
        with Vertical(id="profiles-box", classes="box"):
            yield DataTable(id="profiles", cursor_type="row", zebra_stripes=False)
            yield Static(Content(TEACH), id="teach")
        with Vertical(id="runs-box", classes="box"):
            yield DataTable(id="runs", cursor_type="row", zebra_stripes=False)
            yield Static(id="why")
            yield Static(Content("No runs yet. Runs that you launch stay in this list."), id="no-runs")
        yield Footer()

    def on_mount(self) -> None:
        self.query_one("#profiles-box").border_title = "profiles · enter launches"
        self.query_one("#runs-box").border_title = "runs · enter watches"
        self.query_one("#profiles", DataTable).add_columns(
            "NAME", "LAUNCHER", "NODES", "RANKS", "LAST RESULT", "LAST USED", "FROM"
        )
        self.query_one("#runs", DataTable).add_columns(
            "RUN", "STATE", "NODES", "RANKS", "STEP", "LOSS", "THROUGHPUT", "STARTED"
        )
        self.fill()
        (self.query_one("#profiles") if self._shelved else self.query_one("#runs")).focus()

    def on_screen_resume(self) -> None:
        self.fill()

    def on_data_table_row_highlighted(self, message: DataTable.RowHighlighted) -> None:
        """Say below the runs what became of the one under the cursor."""
        if message.data_table.id == "runs":
            folder = self._folders.get(str(message.row_key.value))
            summary = folder.summary() if folder is not None else None
            self.query_one("#why", Static).update(Content(summary.text if summary is not None else ""))

    # ---- the lists ------------------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Read both lists again; the cursor stays on its row."""
        last = self._fill_runs()
        table = self.query_one("#profiles", DataTable)
        with _kept(table):
            self._shelved = {}
            for shelved in shelf.listing():
                if shelved.shadowed_by is None:
                    self._shelved[str(shelved.path)] = shelved
                    table.add_row(*map(Text, self._profile_row(shelved, last)), key=str(shelved.path))
        self.query_one("#profiles").display = bool(self._shelved)
        self.query_one("#teach").display = not self._shelved
        self.set_class(not self._shelved, "-teaching")

    def _profile_row(self, shelved: Shelved, last: dict[str, tuple[str, float]]) -> tuple[str, ...]:
        if shelved.error is not None:
            mistakes = len(shelved.error.mistakes)
            return (shelved.name, "-", "-", "-", f"{self.app.glyphs.error} {mistakes} mistake(s)", "-", shelved.origin)
        read = profile.load(shelved.path)
        result, used = last.get(read.name, ("-", 0.0))
        sizes = [node.gpus for node in read.nodes]
        ranks = str(sum(n for n in sizes if isinstance(n, int))) if "auto" not in sizes else "auto"
        nodes = str(len(read.nodes))
        if read.slurm is not None and read.launcher == "slurm":
            nodes, ranks = str(read.slurm.nodes), str(read.slurm.nodes * read.slurm.gpus_per_node)
        when = _ago(used) if used else "never"
        return (shelved.name, read.launcher, nodes, ranks, result, when, shelved.origin)

    def _fill_runs(self) -> dict[str, tuple[str, float]]:
        """The table of runs; and of each profile the result and time of its newest run."""
        table = self.query_one("#runs", DataTable)
        last: dict[str, tuple[str, float]] = {}
        rows: list[tuple[bool, tuple[str, ...], str]] = []
        cells: tuple[str, ...]
        self._folders = {}
        for folder in runs.listing()[:RUNS_SHOWN]:
            try:
                record = folder.record()
            except RankdeckError:
                continue
            summary = folder.summary()
            state = summary.outcome if summary is not None else "unknown"
            last.setdefault(record.profile.name, (state, record.created))
            step = loss = rate = "-"
            if summary is not None:
                if summary.step is not None:
                    step = f"{summary.step}/{summary.total}" if summary.total else str(summary.step)
                loss, rate = number(summary.loss), summary.rate or "-"
            sign = {
                "running": self.app.glyphs.running,
                "succeeded": self.app.glyphs.ok,
                "failed": self.app.glyphs.error,
                "stopped": self.app.glyphs.stopped,
            }.get(state, self.app.glyphs.lost)
            shown = f"{sign} {state}"
            if state == "running" and summary is not None:
                shown += f", seen {_ago(summary.seen)}"
            plan = record.plan
            cells = (
                folder.run,
                shown,
                str(len(plan.nodes)),
                str(plan.world_size),
                step,
                loss,
                rate,
                _ago(record.created),
            )
            rows.append((state != "running", cells, folder.run))
            self._folders[folder.run] = folder
        with _kept(table):
            for _, cells, run in sorted(rows, key=lambda row: row[0]):
                table.add_row(*map(Text, cells), key=run)
        table.display = bool(rows)
        self.query_one("#no-runs").display = not rows
        return last

    # ---- keys -----------------------------------------------------------------------------------------------------

    def chosen(self) -> Shelved | None:
        """The profile under the cursor, when the cursor is among the profiles."""
        table = self.query_one("#profiles", DataTable)
        if not table.has_focus or not table.row_count:
            return None
        return self._shelved.get(str(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value))

    def why_not(self, action: str) -> str:
        """Why a key does nothing now; "" where it does."""
        if action in ("new", "edit", "duplicate", "delete", "demo", "import") and self.app.readonly:
            return "this was opened with --readonly"
        if action in ("edit", "duplicate") and self.chosen() is None:
            return "no profile is chosen"
        return ""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return None if self.why_not(action) else True

    def on_descendant_focus(self) -> None:
        self.refresh_bindings()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        key = str(event.row_key.value)
        if event.data_table.id == "runs":
            self.app.push_screen(self.app.dashboard(self._folders[key]))
        else:
            self.app.open_profile(self._shelved[key].path, review=True)

    def action_new(self) -> None:
        self.app.open_profile(None)

    def action_edit(self) -> None:
        if (shelved := self.chosen()) is not None:
            self.app.open_profile(shelved.path)

    def action_reload(self) -> None:
        self.fill()

    def action_demo(self) -> None:
        self.app.open_demo()

    @work
    async def action_duplicate(self) -> None:
        shelved = self.chosen()
        if shelved is None:
            return
        name = await self.app.answer(Ask("Name of the copy", value=f"{shelved.name}-copy"))
        if name:
            self._told(lambda: duplicate(shelved, name), f"{name} is a copy of {shelved.name}")

    @work
    async def action_delete(self) -> None:
        """Delete the profile's file, or what this workstation keeps of a run; nothing on the nodes."""
        shelved = self.chosen()
        if shelved is not None:
            if await self.app.confirm(f"Delete the profile {shelved.name}?", str(shelved.path), "Delete"):
                self._told(shelved.path.unlink, f"{shelved.name} is deleted")
            return
        table = self.query_one("#runs", DataTable)
        if not table.has_focus or not table.row_count:
            return
        run = str(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value)
        folder = self._folders[run]
        summary = folder.summary()
        if summary is not None and summary.outcome == "running":
            self.notify("it may still run: stop it first, or open it", severity="warning", markup=False)
            return
        detail = f"{folder.path}\nThe mirrors of its logs and its history here go; the nodes keep their own."
        if await self.app.confirm(f"Forget the run {run}?", detail, "Forget"):
            self._told(folder.forget, f"{run} is forgotten here")

    @work
    async def action_import(self) -> None:
        path = await self.app.answer(Ask("Path of a hostfile", placeholder="/job/hostfile"))
        if path:
            self.app.open_profile(None, hostfile=path)

    def _told(self, does: Any, done: str) -> None:
        try:
            does()
        except (RankdeckError, OSError) as error:
            self.notify(str(error), severity="error", markup=False)
        else:
            self.notify(done, markup=False)
        self.fill()


def duplicate(shelved: Shelved, name: str) -> None:
    """A copy of a profile under another name, in the user's own folder. RequestError when the name is taken or bad."""
    from msgspec.structs import replace

    copy = replace(profile.load(shelved.path), name=name)
    profile.save(shelf.home() / f"{name}.yaml", profile.decode(profile.to_yaml(copy), name), seen="")


class _kept:
    """Clears a table for filling, and puts the cursor back on the row it was on."""

    def __init__(self, table: DataTable[Any]) -> None:
        self._table = table
        self._row = table.cursor_row

    def __enter__(self) -> None:
        self._table.clear()

    def __exit__(self, *_: object) -> None:
        if self._table.row_count:
            self._table.move_cursor(row=min(self._row, self._table.row_count - 1), animate=False)


def _ago(then: float) -> str:
    seconds = max(0.0, time.time() - then)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "just now" if seconds < 10 else f"{seconds:.0f} s ago"
