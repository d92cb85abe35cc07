"""What happened and when, in words; on failure the first real cause, its evidence and what to do."""

from __future__ import annotations

import itertools
import textwrap
import time
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding

from engine import events
from engine.telling import words
from tui.dashboard.drawn import Drawn, strip

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.style import Style
    from textual.binding import BindingType
    from textual.strip import Strip

    from engine.state import RunState
    from tui.dashboard.panel import Scene

BAD = (events.Lost, events.WorkerExit, events.Unreachable)
SEEN_HERE = (
    events.Finding, events.Reached, events.Unreachable, events.Lost, events.Launched, events.StopSent, events.Ended,
)  # fmt: skip
"""Events that have their time from this machine, and not from the node that they are of."""
NAMED = 4
"""Nodes that one line names; more it counts."""


class StoryPanel(Drawn):
    """The verdict first, then the newest events at the bottom; scrolling up stays where it is."""

    key = "story"
    title = "events"
    help = """What happened, oldest first. When the run failed, the first real cause stands on top:
the sentence, the lines that show it, and the remedy."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_by(1)", "older", id="move.up", show=False),
        Binding("down,j", "scroll_by(-1)", "newer", id="move.down", show=False),
        Binding("pageup,ctrl+u", "scroll_by(8)", "page up", id="move.page-up", show=False),
        Binding("pagedown,ctrl+d", "scroll_by(-8)", "page down", id="move.page-down", show=False),
        Binding("end,G", "scroll_by(-99999)", "newest", id="move.last", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._back = 0

    def rows(self, scene: Scene, width: int, height: int) -> list[Strip]:
        verdict = self._verdict(scene, width)[:height]
        room = height - len(verdict)
        told: list[Strip] = []
        story = sorted(scene.story, key=lambda event: happened(event, scene.state))
        for text, event in together((in_words(event, scene), event) for event in story):
            style = self.palette.warning if isinstance(event, BAD) else self.palette.text
            stamp = time.strftime("%H:%M:%S ", time.localtime(happened(event, scene.state)))
            told += self._wrapped(stamp, text, width, style)
        for alarm in scene.state.alarms(scene.now) if scene.live else ():
            told += self._wrapped("", alarm.text, width, self.palette.warning)
        told += [row for problem in scene.problems for row in self._wrapped("", problem, width, self.palette.bad)]
        if not told:
            told = [strip([("nothing has happened yet", self.palette.muted)])]
        self._back = max(0, min(self._back, len(told) - room))
        end = len(told) - self._back
        return verdict + told[max(0, end - room) : end]

    def _verdict(self, scene: Scene, width: int) -> list[Strip]:
        state = scene.state
        verdict = state.verdict() if state.outcome == "failed" or state.failures() else None
        if verdict is None or state.outcome in ("succeeded", "stopped"):
            return []
        hint = "" if verdict.sure else " (a victim: what went wrong is not in its evidence)"
        rows = self._wrapped(f"{scene.glyphs.error} ", f"first failure: {verdict.cause}{hint}", width, self.palette.bad)
        if verdict.remedy:
            rows += self._wrapped("  what to do: ", verdict.remedy, width, self.palette.good)
        for proof in verdict.proof:
            rows += self._wrapped("  ", proof.text, width, self.palette.text)
            place = f"{proof.file}:{proof.line}"
            if len(place) > width - 4:
                place = scene.glyphs.ellipsis + place[len(place) - width + 5 :]
            rows.append(strip([(f"    {place}", self.palette.muted)]))
        return [*rows, strip([(scene.glyphs.track * width, self.palette.muted)])]

    def _wrapped(self, stamp: str, text: str, width: int, style: Style) -> list[Strip]:
        lines = [
            piece for line in text.split("\n") for piece in textwrap.wrap(line, max(16, width - len(stamp))) or [""]
        ]
        heads = [stamp, *[" " * len(stamp)] * (len(lines) - 1)]
        return [strip([(head, self.palette.muted), (line, style)]) for head, line in zip(heads, lines, strict=True)]

    def action_scroll_by(self, lines: int) -> None:
        self._back = max(0, self._back + lines)
        self.redraw()


def happened(event: events.AnyEvent, state: RunState) -> float:
    """When it happened, in unix seconds on this machine's clock; the journals of several nodes come here in turn."""
    node = state.nodes.get(event.node_rank)
    return event.t if node is None or isinstance(event, SEEN_HERE) else event.t - node.clock


def in_words(event: events.AnyEvent, scene: Scene) -> str:
    """“gpu01: launched”; "" for what needs no words."""
    if isinstance(event, events.Finished) and event.code == 0:
        return f"{scene.state.nodes[event.node_rank].host}: ended with exit code 0"
    if isinstance(event, events.Swept) and not event.left and not event.killed:
        return f"{scene.state.nodes[event.node_rank].host}: nothing of the job is left"
    return words(event, scene.state)


def together(told: Iterable[tuple[str, events.AnyEvent]]) -> Iterator[tuple[str, events.AnyEvent]]:
    """What several nodes say one after the other as one line, with the first one's event: “gpu01, gpu02: launched”."""
    for (_, what), group in itertools.groupby(
        ((text, event) for text, event in told if text), key=lambda one: (type(one[1]), one[0].partition(": ")[2])
    ):
        lines = list(group)
        hosts = list(dict.fromkeys(text.partition(": ")[0] for text, _ in lines))
        if len(lines) == 1:
            yield lines[0]
        else:
            who = ", ".join(hosts) if len(hosts) == len(lines) <= NAMED else f"{len(lines)} nodes"
            yield f"{who}: {what}", lines[0][1]
