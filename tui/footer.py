"""The last row of a screen: the keys that do something here, drawn as one line.

Textual's own footer is a widget for every key and is made anew at each change; while that goes on nothing else on the
screen is drawn, which on a busy machine takes seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from textual.content import Content
from textual.widget import Widget

from tui.help import KEYS

if TYPE_CHECKING:
    from textual import events
    from textual.binding import Binding

WAYS_OUT = (".stop", ".quit", ".leave", ".launch")
"""The ends of the names of what nobody should have to look for."""


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

        Where there is no room for all, those go first that are in help too: the last ones but the ways out.
        """
        shown: dict[str, tuple[Binding, str, str, bool]] = {}
        for _, binding, enabled, _ in self.screen.active_bindings.values():
            key = self.app.get_key_display(binding)
            if self._types(key):
                key = binding.key
            if binding.show and binding.action not in shown and not self._types(KEYS.get(key, key)):
                shown[binding.action] = (binding, f" {key} ", f"{binding.description} ", enabled)
        keys = list(shown.values())
        room = self.size.width - sum(cell_len(name + text) for _, name, text, _ in keys)
        for one in reversed(keys[:-1]):
            if room < 0 and not (one[0].id or "").endswith(WAYS_OUT):
                keys.remove(one)
                room += cell_len(one[1] + one[2])
        while len(keys) > 1 and room < 0:
            room += cell_len(keys[-2][1] + keys[-2][2])
            del keys[-2]
        return keys

    def _types(self, key: str) -> bool:
        """Is this a character that goes to where something is being typed?"""
        focused = self.screen.focused
        return focused is not None and len(key) == 1 and focused.check_consume_key(key, key)

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
