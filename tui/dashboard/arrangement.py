"""Which panels are on the screen, by its size and what the user looks at. Pure."""

from __future__ import annotations

WIDE, TALL = 120, 32
LEFT = ("ranks", "nodes", "charts", "story")


def arrangement(width: int, height: int, current: str, zoomed: bool) -> frozenset[str]:
    """The ids of the panels to show on a screen of `width` × `height` cells.

    A narrow screen shows the current panel; a wide one the ranks and the logs, and beside them as much as its height
    holds; zoom shows the current panel alone.
    """
    if zoomed or width < WIDE:
        return frozenset({current})
    if height >= TALL:
        return frozenset({*LEFT, "logs"})
    beside = current if current in ("nodes", "charts", "story") else "nodes"
    return frozenset({"ranks", "logs", beside})
