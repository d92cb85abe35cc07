"""What a human without the terminal UI sees: log lines on stdout; what happens, and a status line, on stderr."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, TextIO

from engine import events
from engine.telling import progress, words
from engine.text import clean

if TYPE_CHECKING:
    from engine.session import Session
    from engine.state import RunState

STATUS_EVERY = 0.25
CARRY_LIMIT = 64 * 1024
COLUMNS = 80
"""Of a terminal that does not tell."""


def redraws(stream: TextIO) -> bool:
    """Is this a terminal on which a line can be written anew?"""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Plain:
    """A viewer that prints. `session` is set once there is one."""

    def __init__(self, out: TextIO | None = None, talk: TextIO | None = None) -> None:
        self.session: Session | None = None
        self._out = out or sys.stdout
        self._talk = talk or sys.stderr
        self._carry: dict[tuple[int, str], bytes] = {}
        self._labels: dict[tuple[int, str], str] = {}
        self._live = redraws(self._talk)
        self._shown = False
        self._drawn = 0.0
        self._warned: set[str] = set()

    def event(self, event: events.AnyEvent) -> None:
        if text := words(event, self._state()):
            self.say(text)
        if isinstance(event, (events.Metric, events.Sample, events.Finished)):
            self._warn()
        self._status()

    def _warn(self) -> None:
        """Tell what is odd about the run's progress, each kind of it once."""
        state = self._state()
        for alarm in state.alarms(time.time()) if state is not None else ():
            if alarm.kind not in self._warned:
                self._warned.add(alarm.kind)
                self.say(f"! {alarm.kind}: {alarm.text}")

    def log(self, node_rank: int, stream: str, data: bytes) -> None:
        """Bytes of a log: whole lines are printed at once, the rest waits for its end."""
        key = (node_rank, stream)
        whole, newline, rest = (self._carry.pop(key, b"") + data).rpartition(b"\n")
        if len(rest) > CARRY_LIMIT:
            whole, newline, rest = whole + newline + rest, b"\n", b""
        if rest:
            self._carry[key] = rest
        if newline:
            self._print(key, whole)
        self._status()

    def flush(self) -> None:
        """Print last lines that have no end, and leave the terminal on a line of its own."""
        carried, self._carry = self._carry, {}
        for key, rest in carried.items():
            self._print(key, rest)
        self._wipe()

    def say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the terminal may be gone, and what is to be done then still is
            self._wipe()
            self._talk.write(f"{text}\n")
            self._talk.flush()

    def _print(self, key: tuple[int, str], whole: bytes) -> None:
        label = self._labels.get(key) or self._label(*key)
        self._wipe()
        lines = whole.decode("utf-8", "replace").split("\n")
        self._out.write("".join(f"{label}{clean(line)}\n" for line in lines))
        self._out.flush()

    def _label(self, node_rank: int, stream: str) -> str:
        """`3 gpu02 | ` before a line of rank 3's stdout; `!` for stderr, `torchrun` for torchrun's own lines."""
        state = self._state()
        if state is None:
            return f"{node_rank} {stream} | "
        host, width = state.nodes[node_rank].host, len(str(state.plan.world_size - 1))
        about = state.nodes[node_rank].streams.get(stream)
        if about is None:
            return f"{'-':>{width}} {host} torchrun | "
        mark = "|" if about.stream == "stdout" else "!"
        label = f"{state.rank_of(node_rank, about):>{width}} {host} {mark} "
        self._labels[node_rank, stream] = label
        return label

    def _state(self) -> RunState | None:
        return self.session.state if self.session is not None else None

    def _status(self) -> None:
        if not self._live or self._state() is None or time.monotonic() - self._drawn < STATUS_EVERY:
            return
        state = self._state()
        assert state is not None
        self._drawn = time.monotonic()
        self._wipe()
        with contextlib.suppress(OSError):
            self._talk.write(f"\r{clean(progress(state, time.time()), self._width() - 1)}\x1b[K")
            self._talk.flush()
        self._shown = True

    def _width(self) -> int:
        """Columns of the terminal; what is wider than that could not be wiped."""
        try:
            return os.get_terminal_size(self._talk.fileno()).columns or COLUMNS
        except (OSError, ValueError):
            return COLUMNS

    def _wipe(self) -> None:
        if self._shown:
            self._shown = False
            with contextlib.suppress(OSError):
                self._talk.write("\r\x1b[K")


class JsonLines:
    """A viewer for programs: every event as one JSON object a line on stdout; logs stay in the mirrors."""

    def __init__(self, out: TextIO | None = None) -> None:
        self.session: Session | None = None
        self._out = out or sys.stdout

    def event(self, event: events.AnyEvent) -> None:
        self._out.write(events.encode(event).decode())
        self._out.flush()

    def log(self, node_rank: int, stream: str, data: bytes) -> None:
        pass

    def flush(self) -> None:
        pass

    def say(self, text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{text}\n")


class Quiet(JsonLines):
    """A viewer that shows nothing: for commands that only fetch."""

    def event(self, event: events.AnyEvent) -> None:
        pass
