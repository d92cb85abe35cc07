"""One node of a run, watched: its journal becomes events, its logs become mirrors, a broken link is opened again.

Nothing here decides about the run; `Session` does. A watch ends when the node's part is over and every byte that was
asked for is here, or when the session declares the node lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Protocol

from engine import events
from engine.errors import (
    AuthenticationFailed,
    ConnectionLost,
    HostKeyChanged,
    HostKeyUnknown,
    MachineError,
    NodeRefused,
    NoPython,
    Unreachable,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator

    from engine.arrivals import Arrivals
    from engine.conversation import Conversation
    from engine.runs import Mirror, RunFolder

JOURNAL = "journal.jsonl"
BACKOFF = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts to open a broken link again; the last one repeats."""
PIECE = 1 << 20
SAMPLE_EVERY = 2.0
"""Seconds between looks at a node's GPUs, CPU and network."""


class Viewer(Protocol):
    """Who looks: every event, and the bytes of the logs that it asked for."""

    def event(self, event: events.AnyEvent) -> None: ...
    def log(self, node_rank: int, stream: str, data: bytes) -> None: ...


class NodeWatch:
    """Follow one node. `dial` opens a conversation with it; `record` takes the journal's events in
    their order, `observe` what is seen from here, `show` the bytes of the logs (node_rank, stream, bytes), `arrivals`
    writes down in which order they come."""

    def __init__(
        self,
        folder: RunFolder,
        node_rank: int,
        host: str,
        dial: Callable[[], Awaitable[Conversation]],
        record: Callable[[events.AnyEvent], None],
        observe: Callable[[events.AnyEvent], None],
        show: Callable[[int, str, bytes], None],
        arrivals: Arrivals,
    ) -> None:
        self.node_rank = node_rank
        self.host = host
        self.conversation: Conversation | None = None
        self.broken_since: float | None = None
        self.boot = ""
        self.finished = False
        self._tries = 0
        self._folder = folder
        self._dial = dial
        self._record = record
        self._observe = observe
        self._show = show
        self._mirrors: dict[str, Mirror] = {}
        self._counted: dict[str, tuple[int, int]] = {}
        self._follow: int | None = None
        self._settled = asyncio.Event()
        self._torn = b""
        self._over = False
        self.sampling = False
        self._adding: set[asyncio.Task[None]] = set()
        self._arrivals = arrivals
        self._live_from: dict[str, int] = {}

    # ---- what the session calls -----------------------------------------------------------------------------------

    def open_journal(self) -> int:
        """Open the mirror of the journal. Its size in bytes: so much is for the session to fold, the rest comes."""
        journal = self._mirror(JOURNAL)
        size, step = journal.size, 1 << 16
        while size and b"\n" not in self._torn:
            start = max(0, size - step)
            self._torn = journal.read(start, size - start) + self._torn
            size = start
        self._torn = self._torn.rpartition(b"\n")[2]
        return journal.size

    def open_logs(self, wanted: Iterable[str]) -> None:
        """Open the mirrors of what earlier viewers brought here."""
        for stream in wanted:
            self._mirror(stream)

    @property
    def answers(self) -> bool:
        """Is there a conversation with this node right now?"""
        return self.conversation is not None and not self.conversation.ended.done() and self.broken_since is None

    async def run(self, conversation: Conversation | None = None, once: bool = False) -> None:
        """Watch until the node's part is over and read; a broken link is opened again, however long that takes.

        With `once`, what is there now is fetched, and a link that breaks stays so.
        MachineError when the mirror here cannot be written.
        """
        self._tries = 0
        while True:
            try:
                conversation = conversation or await self._dial()
                await self._one_conversation(conversation, once)
                return
            except NodeRefused as refused:
                if refused.code == "no-run":
                    self._observe(
                        events.Lost(t=time.time(), node_rank=self.node_rank, host=self.host, text=refused.text)
                    )
                    return
                self._broken(refused.text)
            except (ConnectionLost, Unreachable) as lost:
                self._broken(lost.text)
            except (AuthenticationFailed, HostKeyUnknown, HostKeyChanged, NoPython) as barred:
                self._broken(barred.text)
                if not once:
                    # Asking again would only get us banned there; the session decides how long a node may stay away.
                    await asyncio.Event().wait()
            if once:
                return
            self.conversation = None
            if conversation is not None:
                await conversation.close()
                conversation = None
            await asyncio.sleep(BACKOFF[min(self._tries, len(BACKOFF) - 1)])
            self._tries += 1

    def _broken(self, text: str) -> None:
        if self.broken_since is None:
            self.broken_since = time.monotonic()
            self._observe(events.Unreachable(t=time.time(), node_rank=self.node_rank, host=self.host, text=text))

    def want(self, streams: Iterable[str], fresh: Collection[str] = ()) -> None:
        """Bring these streams here, from where their mirrors end; those that come already stay as they are.

        Of the `fresh` ones nothing waits there: they have just been made.
        """
        self._live_from.update((name, 0) for name in streams if name in fresh and name not in self._mirrors)
        new = {name: self._mirror(name).position() for name in streams if name not in self._mirrors}
        self._add(new)

    async def settle(self) -> None:
        """Nothing more is written there: read to the end, and be done."""
        self._over = True
        if self.conversation is not None and self._follow is not None:
            with contextlib.suppress(ConnectionLost):  # the next conversation is asked again
                await self.conversation.ask("settle", timeout=30.0, sub=self._follow)

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that come here, the journal among them."""
        return tuple(self._mirrors)

    def size(self, stream: str) -> int:
        """Bytes of a stream that are here."""
        return self._mirrors[stream].size

    def end(self, stream: str, size: int) -> tuple[bytes, int, int]:
        """The last `size` bytes of a stream from a whole line on, and at which line (from 1) and byte they begin."""
        mirror = self._mirrors[stream]
        start = max(0, mirror.size - size)
        data = mirror.read(start, mirror.size - start)
        if start:
            cut = data.find(b"\n") + 1
            data, start = data[cut:], start + cut
        at, lines = self._counted.get(stream, (0, 0))
        while at < start and (piece := mirror.read(at, min(PIECE, start - at))):
            lines += piece.count(b"\n")
            at += len(piece)
        self._counted[stream] = (at, lines)
        return data, lines + 1, start

    def pieces(self, stream: str, size: int) -> Iterator[bytes]:
        """The last `size` bytes of a stream in pieces that fit into memory; a cut begins with a whole line."""
        mirror = self._mirrors.get(stream)
        if mirror is None:
            return
        end = mirror.size
        start = max(0, end - size)
        cut = start > 0
        while start < end and (piece := mirror.read(start, min(PIECE, end - start))):
            start += len(piece)
            if cut:
                piece = piece.partition(b"\n")[2] or piece
                cut = False
            yield piece

    async def close(self) -> None:
        for task in self._adding:
            task.cancel()
        if self.conversation is not None:
            await self.conversation.close()
        for mirror in self._mirrors.values():
            mirror.close()

    # ---- one conversation -----------------------------------------------------------------------------------------

    async def _one_conversation(self, conversation: Conversation, once: bool) -> None:
        hello = conversation.hello
        self.conversation = conversation
        self._observe(
            events.Reached(
                t=time.time(),
                node_rank=self.node_rank,
                host=self.host,
                latency=hello.latency,
                clock=hello.clock,
                clock_error=hello.clock_error,
            )
        )
        self.broken_since = None
        self.boot = hello.boot
        positions = {name: mirror.position() for name, mirror in self._mirrors.items()}
        self._follow = None
        self._live_from = {}
        self._follow = await conversation.watch(self._folder.run, self.node_rank, positions, self, once)
        self._tries = 0
        # The journal's first records may come with the answer, and name streams before the follow has a number.
        self._add({name: mirror.position() for name, mirror in self._mirrors.items() if name not in positions})
        if self._over:
            await self.settle()
        settled = asyncio.ensure_future(self._settled.wait())
        sampling = asyncio.ensure_future(self._sample(conversation)) if self.sampling else None
        try:
            waiting: set[asyncio.Future[Any]] = {settled, conversation.ended}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            settled.cancel()
            if sampling is not None:
                sampling.cancel()
        if not self._settled.is_set():
            raise await conversation.ended

    async def _sample(self, conversation: Conversation) -> None:
        """Ask the node now and then what it does; one that cannot tell is not asked again."""
        with contextlib.suppress(ConnectionLost, NodeRefused):
            while True:
                sample = events.decode_sample(await conversation.ask("sample", timeout=30.0), self.node_rank)
                if sample is not None:
                    self._record(sample)
                await asyncio.sleep(SAMPLE_EVERY)

    def _add(self, new: dict[str, tuple[int, int]]) -> None:
        """Ask for more streams; where no follow is open, the next one begins with them."""
        if new and self.conversation is not None and self._follow is not None:
            task = asyncio.ensure_future(self._ask_more(self.conversation, self._follow, new))
            self._adding.add(task)
            task.add_done_callback(self._adding.discard)

    async def _ask_more(self, conversation: Conversation, follow: int, new: dict[str, tuple[int, int]]) -> None:
        try:
            await conversation.watch_more(follow, self._folder.run, self.node_rank, new)
        except MachineError as error:
            conversation.give_up(error)  # the next one asks for all of them; this one would never be drained

    def _mirror(self, stream: str) -> Mirror:
        if stream not in self._mirrors:
            self._mirrors[stream] = self._folder.mirror(self.node_rank, stream)
        return self._mirrors[stream]

    # ---- the sink of the conversation -----------------------------------------------------------------------------

    def reset(self, stream: str) -> None:
        self._mirrors[stream].restart()
        self._live_from.pop(stream, None)
        self._counted.pop(stream, None)
        if stream == JOURNAL:
            self._torn = b""
        else:
            self._arrivals.restart(self.node_rank, stream)
        text = f"the copy of {stream} here was not a prefix of the node's file; it is set aside as {stream}.damaged"
        self._observe(events.Warning(t=time.time(), node_rank=self.node_rank, text=text))

    def frame(self, stream: str, end: int, more: bool) -> None:
        if not more:
            # What waits there is here with this; what comes from then on comes when it is written.
            self._live_from.setdefault(stream, end)

    def data(self, stream: str, offset: int, data: bytes) -> None:
        self._mirrors[stream].write(offset, data)
        if stream != JOURNAL:
            live_from = self._live_from.get(stream)
            self._arrivals.came(self.node_rank, stream, offset, data, live_from is None or offset < live_from)
            self._show(self.node_rank, stream, data)
            return
        *lines, self._torn = (self._torn + data).split(b"\n")
        if len(self._torn) > events.RECORD_LIMIT:
            raise ValueError("a journal line without an end")
        for line in lines:
            if (record := events.decode_record(line, self.node_rank)) is not None:
                self.finished = self.finished or isinstance(record, events.Finished)
                self._record(record)

    def alive(self, alive: bool) -> None:
        pass

    def drained(self, streams: int) -> None:
        if streams == len(self._mirrors):
            sizes = {name: mirror.size for name, mirror in self._mirrors.items()}
            self._folder.mark_complete(self.node_rank, sizes)
            self._arrivals.over(self.node_rank, sizes)
            self._settled.set()
