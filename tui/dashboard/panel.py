"""What a panel is: a widget that is given a scene and draws it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from textual.message import Message
from textual.widget import Widget

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

    from engine.curves import Curves
    from engine.events import AnyEvent
    from engine.runs import RunFolder
    from engine.state import RunState
    from tui.dashboard.health import Health
    from tui.glyphs import Glyphs


@dataclass(frozen=True)
class Scene:
    """All that panels see: the folded state and what goes with it. `now` in unix seconds; `selected` is a RANK.

    `ranks` is how each one does, by RANK;
    `story` is what happened, oldest first.
    `live` tells a run that is being watched from one that is over; `problems` are the session's own, in words.
    """

    state: RunState
    curves: Curves
    story: tuple[AnyEvent, ...]
    folder: RunFolder
    now: float
    ranks: list[Health]
    selected: int
    glyphs: Glyphs
    live: bool = True
    problems: tuple[str, ...] = ()


class Panel(Widget, can_focus=True):
    """A part of the dashboard. `draw` is called with every new scene while the panel is visible, on the UI loop."""

    key: ClassVar[str]
    """Its id, and its name in `arrangement`."""
    title: ClassVar[str]
    """What its frame says."""
    side: ClassVar[Literal["left", "right"]] = "left"
    """Where it stands on a wide screen."""

    def __init__(self) -> None:
        super().__init__(id=self.key)

    class Chose(Message):
        """The user has chosen a rank."""

        def __init__(self, rank: int) -> None:
            super().__init__()
            self.rank = rank

    class Wanted(Message):
        """Logs of a node are to come here: the names of its streams."""

        def __init__(self, node_rank: int, streams: Iterable[str]) -> None:
            super().__init__()
            self.node_rank = node_rank
            self.streams = tuple(streams)

    def on_mount(self) -> None:
        self.border_title = self.title

    def focus(self, scroll_visible: bool = True) -> Self:
        """At once, where Textual would do it after the keys that have come by now."""
        self.screen.set_focus(self, scroll_visible)
        return self

    def draw(self, scene: Scene) -> None:
        """Show this scene."""
        raise NotImplementedError
