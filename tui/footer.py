"""The last row of a screen: the keys that do something here, drawn as one line.

Textual's own footer is a widget for every key and is made anew at each change; while that goes on nothing else on the
screen is drawn, which on a busy machine takes seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from textual.content import Content
from textual.widget import Widget

if TYPE_CHECKING:
    from textual import events
    from textual.binding import Binding


class Footer(Widget):
    """What is disabled is shown dim. A click is the key."""

    DEFAULT_CSS = """
    Footer { dock: bottom; height: 1; text-wrap: nowrap; text-overflow: clip; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"footer--key", "footer--does", "footer--disabled"}

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.refresh())

    def _keys(self) -> list[tuple[Binding, str, str, bool]]:
        """From the left: the binding, how its key and what it does are written, and whether it does it now.

        Where there is no room for all, the last (help, which names them all) takes the place of those before it.
        """
        shown: dict[str, tuple[Binding, str, str, bool]] = {}
        for _, binding, enabled, _ in self.screen.active_bindings.values():
            if binding.show and binding.action not in shown:
                key = self.app.get_key_display(binding)
                shown[binding.action] = (binding, f" {key} ", f"{binding.description} ", enabled)
        keys = list(shown.values())
        while len(keys) > 1 and sum(cell_len(name + text) for _, name, text, _ in keys) > self.size.width:
            del keys[-2]
        return keys

    def render(self) -> Content:
        key, does, disabled = (self.get_visual_style(f"footer--{part}") for part in ("key", "does", "disabled"))
        return Content.assemble(
            *(
                piece
                for _, name, text, enabled in self._keys()
                for piece in ((name, key if enabled else disabled), (text, does if enabled else disabled))
            )
        )

    def on_click(self, event: events.Click) -> None:
        end = 0
        for binding, name, text, _ in self._keys():
            end += cell_len(name + text)
            if event.x < end:
                self.app.simulate_key(binding.key)
                return
