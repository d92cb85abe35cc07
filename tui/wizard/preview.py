"""What will run, byte for byte, beside the questions; or what is missing until it can be said."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

import msgspec
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.highlight import highlight
from textual.widgets import Static

from tui.wizard.sheet import render

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType

    from tui.app import RankdeckApp
    from tui.wizard.sheet import Preview


_FED = re.compile(r"(.*?bash <<'(?:\w+)')\n(.*)\n(RANKDECK_*)", re.DOTALL)


class PreviewPane(VerticalScroll, can_focus=True):
    """One node's commands at a time; `[` and `]`, or F4, go from node to node."""

    app: RankdeckApp
    title = "what runs"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left_square_bracket", "turn(-1)", "previous node", id="commands.before", show=False),
        Binding("right_square_bracket", "turn(1)", "next node", id="commands.next", show=False),
        Binding("y", "screen.copy", "copy", id="commands.copy", show=False),
    ]

    def __init__(self) -> None:
        super().__init__(id="preview", classes="box")
        self._preview: Preview | None = None
        self._node = 0

    def compose(self) -> ComposeResult:
        yield Static(id="commands")

    def show(self, preview: Preview) -> None:
        """Show another preview; the same node of it, when there is one."""
        if preview != self._preview:
            self._preview = preview
            self._draw()

    def action_turn(self, step: int) -> None:
        """Show another node's commands."""
        if self._preview is not None and self._preview.plan is not None:
            self._node = (self._node + step) % len(self._preview.plan.nodes)
            self._draw()
            self.scroll_home(animate=False)

    def _draw(self) -> None:
        preview = self._preview
        assert preview is not None
        commands = self.query_one("#commands", Static)
        if preview.plan is None:
            sign = self.app.glyphs.bullet
            lines = [Content.styled("still missing", "bold"), *(Content(f"{sign} {line}") for line in preview.missing)]
            self.border_title, self.border_subtitle = "what runs", ""
            commands.update(Content("\n").join(lines))
            return
        nodes = preview.plan.nodes
        self._node = min(self._node, len(nodes) - 1)
        whole = len(nodes) == 1 or bool(preview.plan.texts)
        text = preview.text if whole else ""
        if not whole:
            text = render(preview.launcher, msgspec.structs.replace(preview.plan, nodes=(nodes[self._node],)))
        self.border_title = "what runs" if whole else f"what runs · node {self._node + 1} of {len(nodes)}"
        self.border_subtitle = "F3 copies" if whole else "F4 next node · F3 copies all"
        commands.update(_coloured(text.rstrip("\n")))


def _coloured(text: str) -> Content:
    """Shell text; what a here-document feeds to bash is shell too, and coloured as such."""
    found = _FED.fullmatch(text)
    if found is None:
        return highlight(text, language="bash")
    before, body, after = found.groups()
    # The colours alone are ours: highlighting keeps neither the last line break nor an empty first line.
    return Content("\n").join([highlight(before, language="bash"), highlight(body, language="bash"), Content(after)])
