"""What is looked for in the log on the screen: a search, a filter, the errors; and the line that they lead to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from tui.logs.hits import FoundLines
from tui.logs.levels import ERRORS
from tui.logs.lines import AllLines
from tui.logs.searching import Search

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tui.logs.lines import Lines
    from tui.logs.searching import Spans
    from tui.logs.source import Source

Kind = Literal["search", "filter", "errors"]
NAMES: dict[Kind, str] = {"search": "“{}”", "filter": "only “{}”", "errors": "error"}
STEPS = 100
"""Hits that one look passes over because a filter hides them; the next look goes on from there."""


class Finder:
    """`mark` is the line that was last gone to. `changed` is called when more is known."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.mark: int | None = None
        self.message = ""
        self._changed = changed
        self._source: Source | None = None
        self._searches: dict[Kind, Search] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._jump: tuple[Kind, int, int] | None = None

    # ---- what is looked for ---------------------------------------------------------------------------------------

    def open(self, source: Source | None, origin: int) -> None:
        """Look for the same in another log."""
        texts = {kind: search.pattern.text for kind, search in self._searches.items()}
        for kind in tuple(self._searches):
            self.stop(kind)
        self._source, self.mark = source, None
        for kind, text in texts.items():
            if kind != "errors":
                self.look(kind, text, origin)

    def look(self, kind: Kind, text: str, origin: int) -> None:
        """Begin to look for `text`, nearest to `origin` first."""
        self.stop(kind)
        if self._source is not None and text:
            search = self._searches[kind] = Search(self._source, text, origin, self._changed)
            self.message = search.pattern.note

    def stop(self, kind: Kind) -> None:
        self._jump = None
        search = self._searches.pop(kind, None)
        if search is not None:
            task = asyncio.ensure_future(search.close())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        for kind in tuple(self._searches):
            self.stop(kind)
        await asyncio.gather(*self._leaving)

    def poll(self) -> None:
        for search in self._searches.values():
            search.poll()

    def text(self, kind: Kind) -> str:
        """What is looked for, "" for nothing."""
        search = self._searches.get(kind)
        return search.pattern.text if search is not None else ""

    @property
    def lines(self) -> Lines | None:
        """What the filter lets through; without one, everything."""
        if self._source is None:
            return None
        search = self._searches.get("filter")
        return FoundLines(self._source, search.hits) if search is not None else AllLines(self._source)

    def found_after(self, at: int) -> int:
        """How many lines that the filter lets through begin at `at` or later."""
        search = self._searches.get("filter")
        return search.hits.stop - search.hits.index(at) if search is not None else 0

    def spans(self, texts: Iterable[str]) -> dict[str, Spans]:
        """What to light up in these lines: where the search matches, else where the filter does."""
        search = self._searches.get("search") or self._searches.get("filter")
        return search.spans(texts) if search is not None else {}

    # ---- going there ----------------------------------------------------------------------------------------------

    def jump(self, kind: Kind, way: int, at: int) -> None:
        """Ask for the nearest hit below `at` (`way` 1) or above it (-1)."""
        self.message = ""
        if kind == "errors" and kind not in self._searches:
            self.look(kind, ERRORS, at)
        if kind in self._searches:
            self._jump = (kind, way, at)

    def stay(self) -> None:
        """The user moves: no jump any more that would come late."""
        self._jump = None
        self.message = ""

    def arrival(self) -> int | None:
        """Where the jump leads, once that is known."""
        if self._jump is None:
            return None
        kind, way, at = self._jump
        search, sieve = self._searches[kind], self._searches.get("filter")
        for _ in range(STEPS):
            found = search.hits.below(at) if way > 0 else search.hits.above(at)
            if found is None:
                break
            if sieve is None or sieve is search or sieve.hits.has(found):
                self._jump, self.mark = None, found
                return found
            at = found
        self._jump = (kind, way, at)
        if search.problem or (search.hits.scanned_below(at) if way > 0 else search.hits.scanned_above(at)):
            self._jump = None
            what = "errors" if kind == "errors" else NAMES[kind].format(search.pattern.text)
            side, back = ("below", "up") if way > 0 else ("above", "down")
            keys = {"up": "E", "down": "e"} if kind == "errors" else {"up": "N", "down": "n"}
            more = f"no more {what} {side}, {keys[back]} goes {back}" if len(search.hits) else f"no {what} in this log"
            self.message = search.problem or more
        return None

    # ---- words ----------------------------------------------------------------------------------------------------

    def words(self) -> list[str]:
        """What is looked for and how far that is: “loss” 12 of 340; looking, 62 %."""
        found = []
        for kind, search in self._searches.items():
            if kind == "errors" and (self.mark is None or not search.hits.has(self.mark)) and self._jump is None:
                continue
            name = NAMES[kind].format(search.pattern.text)
            count = f"{len(search.hits):,}"
            if kind != "filter" and search.hits.low == 0 and self.mark is not None and search.hits.has(self.mark):
                count = f"{search.hits.index(self.mark) - search.hits.first + 1:,} of {count}"
            if search.problem:
                found.append(f"{name} {search.problem}")
            elif search.hits.done or search.share > 0.995:
                found.append(f"{name} {count}")
            else:
                found.append(f"{name} {count} so far, {search.share:.0%} searched")
        return found
