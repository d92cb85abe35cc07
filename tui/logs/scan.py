"""Look through a whole log for a pattern, in a process of its own: `python -m tui.logs.scan`.

One JSON object a line on stdin: first {"source", "pattern", "origin", "before", "after"}, then {"poll": true} when
there may be more bytes and {"spans": ID, "texts": […]} to ask where these lines match. On stdout {"low", "high",
"before", "after", "open", "down", "done"} as it goes on, {"spans": ID, "found": […]}, or {"problem": TEXT}.

What is found goes to two files, as native 64-bit offsets: `after` ascending from the origin, `before` descending. So
the lines around the origin are known first, nothing has to be moved, and no list is held in memory, here or there.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from array import array
from typing import TYPE_CHECKING, Any

from tui.logs import lines
from tui.logs.matching import matching
from tui.logs.pattern import Pattern
from tui.logs.sources import open_source

if TYPE_CHECKING:
    from tui.logs.source import Source

TELL_EVERY = 0.05


class Scan:
    """Everything between `low` and `high` has been looked at; `open` is the unfinished last line, if that matches.

    `down` says that there is nothing more below, `done` that there is nothing more at all, as of the last poll.
    """

    def __init__(self, source: Source, pattern: Pattern, origin: int, before: int, after: int) -> None:
        self.low = self.high = whole_line(source, origin)
        self.before = self.after = 0
        self.open: int | None = None
        self.down = self.done = False
        self._source = source
        self._pattern = pattern
        self._files = {False: before, True: after}
        self._turn = False
        self._last: tuple[int, int] | None = None

    def step(self) -> None:
        """Look at one more block, downwards and upwards in turn; OSError when what is found cannot be written."""
        self._turn = not self._turn
        moved = self._forward() or self._backward() if self._turn else self._backward() or self._forward()
        self.done = not moved

    def state(self) -> dict[str, Any]:
        names = ("low", "high", "before", "after", "open", "down", "done")
        return {name: getattr(self, name) for name in names}

    def more(self) -> None:
        """The source has grown."""
        self.down = self.done = False

    def _forward(self) -> bool:
        self.down = not self._look_below()
        return not self.down

    def _look_below(self) -> bool:
        size = self._source.size
        if self.high >= size or self._last == (self.high, size):
            self.open = self.open if self.high < size else None
            return False
        data = self._source.read(self.high, lines.BLOCK)
        end = data.rfind(b"\n") + 1
        if not end:
            found = lines.forward(self._source, self.high, 1)
            data = self._source.read(self.high, found[0].end - self.high) if found else b""
            if not data or not found[0].over:
                self._last = (self.high, size)
                self.open = self.high if matching(data, self._pattern) else None
                return False
            end = len(data)
        self.open = None
        offsets = array("Q", (self.high + at for at in matching(data[:end], self._pattern)))
        os.pwrite(self._files[True], offsets.tobytes(), 8 * self.after)
        self.after += len(offsets)
        self.high += end
        return True

    def _backward(self) -> bool:
        if not self.low:
            return False
        start = max(0, self.low - lines.BLOCK)
        data = self._source.read(start, self.low - start)
        cut = data.find(b"\n") + 1 if start else 0
        if start and cut in (0, len(data)):
            found = lines.backward(self._source, self.low, 1)
            start = found[0].at if found else self.low
            data = self._source.read(start, self.low - start)
            cut = 0
        if not data:
            return False
        offsets = array("Q", (start + cut + at for at in reversed(matching(data[cut:], self._pattern))))
        os.pwrite(self._files[False], offsets.tobytes(), 8 * self.before)
        self.before += len(offsets)
        self.low = start + cut
        return True


def whole_line(source: Source, origin: int) -> int:
    """`origin`, which begins a line or is the end; the beginning of the last line where that is unfinished."""
    last = lines.backward(source, source.size, 1)
    return last[0].at if origin >= source.size and last and not last[0].over else min(origin, source.size)


def main() -> None:
    """Scan until stdin ends."""
    os.nice(5)
    inbox = b""
    while b"\n" not in inbox:
        more = os.read(0, 1 << 16)
        if not more:
            return
        inbox += more
    first, _, inbox = inbox.partition(b"\n")
    asked = json.loads(first)
    source, pattern = open_source(asked["source"]), Pattern(asked["pattern"])
    scan = Scan(source, pattern, asked["origin"], asked["before"], asked["after"])
    generation, told = source.generation, 0.0
    while True:
        while b"\n" in inbox:
            line, _, inbox = inbox.partition(b"\n")
            request = json.loads(line)
            if "spans" in request:
                tell({"spans": request["spans"], "found": [pattern.spans(text) for text in request["texts"]]})
            elif source.poll() and source.generation == generation:
                scan.more()
            elif scan.done:
                # What the other process has seen come, this one has looked at already: it waits for these words.
                tell(scan.state())
        if not scan.done:
            try:
                scan.step()
            except OSError as error:
                tell({"problem": f"what is found cannot be kept: {error.strerror}"})
                return
            now = time.monotonic()
            if scan.done or now - told > TELL_EVERY:
                told = now
                tell(scan.state())
        if select.select([0], [], [], None if scan.done else 0.0)[0]:
            more = os.read(0, 1 << 16)
            if not more:
                return
            inbox += more


def tell(message: dict[str, Any]) -> None:
    data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        sys.exit(0)
