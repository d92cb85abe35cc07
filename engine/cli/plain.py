"""What a human without the terminal UI sees: log lines on stdout; what happens, and a status line, on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, TextIO

from engine import diagnosis, events
from engine.text import clean

if TYPE_CHECKING:
    from engine.session import Session
    from engine.state import RunState

STATUS_EVERY = 0.25
CARRY_LIMIT = 64 * 1024


class Plain:
    """A viewer that prints. `session` is set once there is one."""

    def __init__(self, out: TextIO | None = None, talk: TextIO | None = None) -> None:
        self.session: Session | None = None
        self._out = out or sys.stdout
        self._talk = talk or sys.stderr
        self._carry: dict[tuple[int, str], bytes] = {}
        self._labels: dict[tuple[int, str], str] = {}
        self._live = self._talk.isatty()
        self._shown = False
        self._drawn = 0.0

    def event(self, event: events.AnyEvent) -> None:
        if text := self._words(event):
            self.say(text)
        self._status()

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

    def _words(self, event: events.AnyEvent) -> str:
        """An event in words; "" for one that needs none."""
        state = self._state()
        host = getattr(event, "host", "")
        if not host and state is not None and event.node_rank in state.nodes:
            host = state.nodes[event.node_rank].host
        match event:
            case events.Unreachable():
                return f"{host}: unreachable, the job there runs on: {event.text}"
            case events.Lost():
                return f"{host}: {event.text}"
            case events.Launched():
                return f"{host}: launched"
            case events.StopSent():
                return f"{host}: stopping ({event.reason})"
            case events.Warning():
                return f"{host}: {clean(event.text)}"
            case events.WorkerExit() if event.code != 0:
                how = diagnosis.ending(event.code, event.signal)
                return f"{host}: rank {event.rank} (local_rank {event.local_rank}) {how}"
            case events.Worker() if event.attempt and event.local_rank == 0:
                return f"{host}: torchrun restarted its ranks (attempt {event.attempt})"
            case events.Swept() if event.left:
                return f"{host}: cannot be removed: {', '.join(str(left.pid) for left in event.left)}"
            case events.Swept() if event.killed:
                return f"{host}: {event.killed} left-over process(es) removed"
            case _:
                return ""

    def _status(self) -> None:
        if not self._live or self._state() is None or time.monotonic() - self._drawn < STATUS_EVERY:
            return
        state = self._state()
        assert state is not None
        self._drawn = time.monotonic()
        self._wipe()
        with contextlib.suppress(OSError):
            self._talk.write(f"\r{progress(state, time.time())}\x1b[K")
            self._talk.flush()
        self._shown = True

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


def progress(state: RunState, now: float) -> str:
    """The run on one line: “running 0:01:07 · step 40/60 · loss 2.31 · 5,120 tokens/s · 4/4 ranks”."""
    running = sum(worker.ended is None for worker in state.workers.values() if worker.key[0] == state.attempt)
    parts: list[str] = [state.outcome]
    if state.started is not None:
        parts[0] += f" {clock(now - state.started)}"
    if (metric := state.metric) is not None:
        if metric.step is not None:
            parts.append(f"step {metric.step}" + (f"/{metric.total}" if metric.total else ""))
        if metric.loss is not None:
            parts.append(f"loss {metric.loss:.4g}" if isinstance(metric.loss, float) else f"loss {metric.loss}")
        if isinstance(metric.rate, float | int):
            parts.append(f"{metric.rate:,.0f} {metric.rate_unit}")
    parts.append(f"{running}/{state.plan.world_size} ranks")
    away = [node.host for node in state.nodes.values() if node.link == "broken" and not node.over]
    if away:
        parts.append(f"unreachable: {', '.join(away[:3])}" + (" …" if len(away) > 3 else ""))
    return " · ".join(parts)


def clock(seconds: float) -> str:
    """h:mm:ss."""
    whole = max(0, int(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
