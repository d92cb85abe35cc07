"""A search in progress: the process that scans, what it has found so far, and where lines on the screen match."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from tui.logs.hits import Hits, unnamed_file
from tui.logs.pattern import Pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tui.logs.source import Source

PATIENCE = 10.0
"""Seconds that a scan may be silent while it works. A regular expression can take for ever (`(a+)+$`)."""
REMEMBERED = 2000
"""Lines of which it is known where they match."""

Spans = list[tuple[int, int]]


class Search:
    """Looks for `text` in a source, from `origin` both ways. `changed` is called on the loop when more is known.

    `problem` says why the search has ended before its time.
    """

    def __init__(self, source: Source, text: str, origin: int, changed: Callable[[], None]) -> None:
        self.pattern = Pattern(text)
        self.source = source
        self.generation = source.generation
        self.problem = ""
        self._files: tuple[int, ...] = (before := unnamed_file(), after := unnamed_file())
        self.hits = Hits(before, after, origin)
        self._changed = changed
        self._spans: dict[str, Spans] = {}
        self._asked: list[list[str]] = []
        self._number = 0
        self._heard = time.monotonic()
        self._process: asyncio.subprocess.Process | None = None
        self._waiting: list[dict[str, Any]] = []
        self._told = source.size
        self._busy = True
        self._closed = False
        request = {"source": source.name, "pattern": text, "origin": origin, "before": before, "after": after}
        self._task = asyncio.ensure_future(self._run(request))

    @property
    def share(self) -> float:
        """How much of the source has been looked at, from 0 to 1."""
        return min(1.0, (self.hits.high - self.hits.low) / self.source.size) if self.source.size else 1.0

    def poll(self) -> None:
        """The source may have grown; also the moment to lose patience."""
        if self.source.size != self._told and not self._busy:
            self._told = self.source.size
            self._work({"poll": True})
        elif (self._busy or self._asked) and not self.problem and time.monotonic() - self._heard > PATIENCE:
            self._end(f"“{self.pattern.text}” takes too long: {PATIENCE:.0f} s without getting through one piece")

    def spans(self, texts: Iterable[str]) -> dict[str, Spans]:
        """Where these lines match, as far as it is known now; the rest is asked for, and `changed` is called then."""
        if self.pattern.plain:
            return {text: self.pattern.spans(text) for text in texts}
        missing = [text for text in texts if text not in self._spans]
        if missing and not self._asked and not self.problem:
            self._asked.append(missing)
            self._number += 1
            self._work({"spans": self._number, "texts": missing})
        return {text: self._spans[text] for text in texts if text in self._spans}

    async def close(self) -> None:
        """End the process and forget what it has found."""
        self._closed = True
        self._end(self.problem)
        await self._task
        for fd in self._files:
            os.close(fd)
        self._files = ()

    def _end(self, problem: str) -> None:
        self.problem = problem
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _run(self, request: dict[str, Any]) -> None:
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tui.logs.scan",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                pass_fds=self._files, limit=1 << 24,
            )  # fmt: skip
            if self._closed:
                process.kill()
            for message in (request, *self._waiting):
                self._tell(message)
            assert process.stdout is not None
            while line := await process.stdout.readline():
                self._heard = time.monotonic()
                self._take(json.loads(line))
                if not self._closed:
                    self._changed()
            await process.wait()
            self.problem = self.problem or "the process that searches has ended"
        except OSError as error:
            self.problem = f"the search cannot be started: {error}"
        if not self._closed:
            self._changed()

    def _work(self, message: dict[str, Any]) -> None:
        """Tell the process to do something, and begin to wait for its answer."""
        self._busy = self._busy or "poll" in message
        self._heard = time.monotonic()
        self._tell(message)

    def _tell(self, message: dict[str, Any]) -> None:
        if self._process is None:
            self._waiting.append(message)
        elif self._process.stdin is not None and self._process.returncode is None:
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(json.dumps(message).encode() + b"\n")

    def _take(self, message: dict[str, Any]) -> None:
        if "problem" in message:
            self.problem = message["problem"]
        elif "spans" in message:
            texts = self._asked.pop(0)
            for text, found in zip(texts, message["found"], strict=True):
                self._spans[text] = [(start, end) for start, end in found]
            while len(self._spans) > REMEMBERED:
                del self._spans[next(iter(self._spans))]
        else:
            self.hits.update(message)
            self._busy = not self.hits.done
