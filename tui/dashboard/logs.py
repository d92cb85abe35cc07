"""The logs of a run: of the chosen rank, of its node, or of all ranks in the order in which their lines came."""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from typing import TYPE_CHECKING, ClassVar, Literal

from textual.binding import Binding
from textual.content import Content

from engine.arrivals import FILE
from tui.dashboard.panel import Panel
from tui.logs.merged import Choice, Merged, OneStream
from tui.logs.view import LogView

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType

    from tui.dashboard.panel import Scene
    from tui.logs.page import Label
    from tui.logs.source import Key, Source

Scope = Literal["rank", "node", "all"]
SCOPES: tuple[Scope, ...] = ("rank", "node", "all")
OUTPUTS = (None, "stdout", "stderr")
TORCHRUN = "torchrun.log"
MUTED = 3
"""The number of the quiet colour among those of labels; ranks take turns with the others."""


class LogsPanel(Panel, can_focus=False):
    """Shows what the chosen rank writes, and asks for it to be brought here."""

    key = "logs"
    title = "logs"
    side = "right"
    help = """Lines of several ranks stand in the order in which they came to this machine: 3 is a line of rank 3,
3e one of its stderr, n0 one of torchrun on node 0. What had been waiting on its node came together, however old."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "scope", "merge", id="logs.scope"),
        Binding("o", "output", "out/err", id="logs.output"),
        Binding("left_square_bracket", "attempt(-1)", "earlier attempt", id="logs.attempt-before", show=False),
        Binding("right_square_bracket", "attempt(1)", "later attempt", id="logs.attempt", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.scope: Scope = "rank"
        self.output: str | None = None
        self.attempt: int | None = None
        self.view = LogView()
        self._scene: Scene | None = None
        self._shown: tuple[object, ...] = ()
        self._asked: set[Key] = set()
        self._looked_for: Choice | None = None
        self._streams: dict[Key, None] = {}
        self._counted: dict[int, int] = {}

    def compose(self) -> ComposeResult:
        yield self.view

    def focus(self, scroll_visible: bool = True) -> LogsPanel:
        self.screen.set_focus(self.view, scroll_visible)
        return self

    def draw(self, scene: Scene) -> None:
        self._scene = scene
        self.view.glyphs, self.view.growing = scene.glyphs, scene.live
        choice = self._choice(scene)
        self._look_for(scene, choice)
        self._open(scene, choice)
        self.view.draw(self._empty(scene), self._remark(scene))

    # ---- what is shown --------------------------------------------------------------------------------------------

    def _choice(self, scene: Scene) -> Choice:
        node = scene.state.plan.nodes[self._node(scene)]
        return Choice(
            node_rank=None if self.scope == "all" else node.node_rank,
            local_rank=scene.selected - node.first_rank if self.scope == "rank" else None,
            kind=self.output,
            attempt=self.attempt,
        )

    def _look_for(self, scene: Scene, choice: Choice) -> None:
        """Which logs there are of what is chosen; those that are new are asked for."""
        if choice != self._looked_for:
            self._looked_for, self._streams, self._counted = choice, {}, {}
        nodes = scene.state.nodes
        for node in nodes.values() if choice.node_rank is None else (nodes[choice.node_rank],):
            if self._counted.get(node.node_rank) == len(node.streams):
                continue
            self._counted[node.node_rank] = len(node.streams)
            keys = [(node.node_rank, name) for name in (TORCHRUN, *node.streams)]
            found = [key for key in keys if choice.has(key) and key not in self._streams]
            self._streams.update(dict.fromkeys(found))
            new = [key[1] for key in found if key not in self._asked]
            self._asked.update(found)
            if new:
                self.post_message(self.Wanted(node.node_rank, new))

    def _open(self, scene: Scene, choice: Choice) -> None:
        """One log is its own file, which has every byte at once; several are read in the order of arrival."""
        alone = next(iter(self._streams)) if len(self._streams) == 1 and choice.kind is not None else None
        ordered = (scene.folder.path / FILE).exists()
        if not ordered and alone is None:
            alone = self._fullest(scene)
        shown = (choice, alone, ordered)
        if shown == self._shown:
            return
        self._shown = shown
        self.border_title = Content(self._title(scene, choice, alone))
        source: Source | None = None
        if alone is not None:
            source = OneStream(scene.folder.path, alone)
        elif ordered:
            source = Merged(scene.folder.path, choice)
        width = 0
        if alone is None:
            width = 2 if self.scope == "rank" else self._digits(scene) + 2
        self.view.show(source, self._label if width else None, width)

    def _fullest(self, scene: Scene) -> Key | None:
        """Where nobody could write down the order: the one of which there is the most here."""
        sizes = {}
        for key in self._streams:
            with contextlib.suppress(OSError):
                sizes[key] = scene.folder.mirror_path(*key).stat().st_size
        return max((key for key in sizes if sizes[key]), key=sizes.__getitem__, default=None)

    def _title(self, scene: Scene, choice: Choice, alone: Key | None) -> str:
        plan = scene.state.plan
        host = plan.nodes[choice.node_rank].host if choice.node_rank is not None else ""
        if self.scope == "rank":
            whose = f"rank {scene.selected} on {host}"
        else:
            whose = f"node {host}" if host else f"all {plan.world_size} ranks"
        kind = self.output or (Choice.of(alone).kind if alone is not None else None)
        parts = ["logs", whose, kind or "stdout and stderr"]
        if choice.attempt is not None:
            parts.append(f"attempt {choice.attempt}")
        return f" {scene.glyphs.separator} ".join(parts)

    def _label(self, key: Key) -> Label:
        """“3 ” before a line of rank 3's stdout, “3e” before its stderr, “n0” for torchrun on node 0."""
        assert self._scene is not None
        state = self._scene.state
        stream = state.nodes[key[0]].streams.get(key[1])
        wide = self._digits(self._scene)
        if stream is None:
            return f"{f'n{key[0]}':>{wide}}", MUTED
        mark = "e" if stream.stream == "stderr" else " "
        if self.scope == "rank":
            return mark, MUTED
        rank = state.rank_of(key[0], stream)
        return f"{rank:>{wide}}{mark}", rank % MUTED

    @staticmethod
    def _digits(scene: Scene) -> int:
        return max(2, len(str(scene.state.plan.world_size - 1)))

    def _empty(self, scene: Scene) -> str:
        """Why there is nothing to see."""
        node = scene.state.nodes[self._node(scene)]
        what = f"rank {scene.selected}" if self.scope == "rank" else "torchrun"
        if node.link == "broken" and not node.over:
            return f"{node.host} does not answer; nothing of this is here yet"
        if not self._streams:
            return f"{what} has not started" if not scene.state.over else f"{what} never started"
        if not scene.live:
            return f"nothing of this is on this machine: rankdeck pull {scene.folder.run}"
        return f"{what} has written nothing {f'to {self.output} ' if self.output else ''}yet"

    def _remark(self, scene: Scene) -> str:
        node = scene.state.nodes[self._node(scene)]
        if node.link == "broken" and not node.over and self.scope != "all":
            return f"{node.host} does not answer: this is what had come"
        if self.scope != "rank" and self.view.page.unordered:
            return "fetched together, order unknown"
        return ""

    @staticmethod
    def _node(scene: Scene) -> int:
        """The node of the chosen rank."""
        nodes = scene.state.plan.nodes
        return nodes[bisect_right(nodes, scene.selected, key=lambda node: node.first_rank) - 1].node_rank

    # ---- keys -----------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "attempt":
            return (self._scene is not None and self._scene.state.attempt > 0) or None
        return True

    def action_scope(self) -> None:
        self.scope = SCOPES[(SCOPES.index(self.scope) + 1) % len(SCOPES)]
        self._again()

    def action_output(self) -> None:
        self.output = OUTPUTS[(OUTPUTS.index(self.output) + 1) % len(OUTPUTS)]
        self._again()

    def action_attempt(self, way: int) -> None:
        """Among the attempts, and then all of them together."""
        if self._scene is None:
            return
        places: list[int | None] = [*range(self._scene.state.attempt + 1), None]
        self.attempt = places[(places.index(self.attempt) + way) % len(places)]
        self._again()

    def _again(self) -> None:
        if self._scene is not None:
            self.draw(self._scene)
