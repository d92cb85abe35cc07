"""One run from preflight to stop, as one event stream.

    connect -> preflight -> launch -> watch -> ended
                                 attach ┘

Rules:
- Launch is: start detached on every node, then attach. There is no second way to stream.
- A failure that no restart mends stops the other nodes; a node that stays away while others answer is declared lost.
- Every event passes `Session._take`: folded, then shown. Viewers get events and never reach in.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import time
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from engine import diagnosis, events
from engine.arrivals import Arrivals
from engine.conversation import lefts
from engine.errors import (
    MachineError,
    PreflightFailed,
    RankdeckError,
    RequestError,
)
from engine.fleet import Fleet, close_all, no
from engine.plan import GRACE, job_of
from engine.runs import Record, RunFolder, Summary
from engine.state import ERROR_FILE, RunState
from engine.throughput import paced
from engine.watch import NodeWatch, Viewer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from engine.check import Preflight
    from engine.conversation import Conversation
    from engine.fleet import Accept
    from engine.plan import Plan
    from engine.profile import Profile
    from engine.transport import Connector

LOST_AFTER = 60.0
"""Seconds that a node may stay away, while another one answers, before the run goes on without it."""
TORCHRUN_LOG = "torchrun.log"
FRESH = 10.0
"""Seconds for which a stream is new: nothing has been written to it before anyone could look."""
HEARD = 64 * 1024
"""Bytes at the end of each log from which the verdict is made."""


def secret_values(profile: Profile, environ: Mapping[str, str]) -> dict[str, str]:
    """The values of the profile's secrets, out of the user's environment; they are never written anywhere."""
    missing = [name for name in profile.secrets if name not in environ]
    if missing:
        raise RequestError(
            f"secrets without a value in your environment: {', '.join(missing)}",
            remedy=f"export {missing[0]}=… in this shell, then launch again",
        )
    return {name: environ[name] for name in profile.secrets}


class NodeStop(msgspec.Struct, frozen=True, kw_only=True):
    """What stopping came to on one node: `killed` processes had to be swept, `left` would not go, or `error`."""

    host: str
    node_rank: int
    killed: int = 0
    left: tuple[events.Left, ...] = ()
    error: str = ""

    @property
    def text(self) -> str:
        if self.error:
            return self.error
        if self.left:
            names = ", ".join(f"{process.pid} {process.comm} ({process.state})" for process in self.left)
            return f"{self.host}: cannot be removed, the node needs attention: {names}"
        swept = f", {self.killed} process(es) had to be swept" if self.killed else ""
        return f"{self.host}: stopped, nothing left{swept}"


class Session:
    """A run that exists: watch it, stop it."""

    def __init__(self, folder: RunFolder, connector: Connector, viewer: Viewer, accept: Accept = no) -> None:
        self.folder = folder
        self.record = folder.record()
        profile = self.record.profile
        self.state = RunState(self.record.plan, profile.rendezvous.max_restarts)
        self.lost_after = LOST_AFTER
        self.wants: Callable[[int, str], bool] = lambda node_rank, stream: False
        self.also: tuple[str, ...] = ()  # files of a run folder that are no logs, for `wants`
        self.replay = 0
        self.retell = False
        self.sampling = False
        self._viewer = viewer
        self._fleet = Fleet(profile.nodes, profile.state_dir, connector, accept)
        self._arrivals = Arrivals(folder.path)
        self._watches: dict[int, NodeWatch] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._stop: tuple[str, float] | None = None
        self._stopping: dict[int, asyncio.Task[None]] = {}
        self._answered_since: float | None = None
        self._changed = asyncio.Event()
        self._asked: set[tuple[int, str]] = set()
        self._gone: OSError | None = None
        self.problems: list[str] = []
        self._heard: dict[tuple[int, str], int] = {}

    # ---- start ----------------------------------------------------------------------------------------------------

    @classmethod
    async def launch(
        cls, checked: Preflight, plan: Plan, connector: Connector, viewer: Viewer, accept: Accept = no
    ) -> tuple[Session, dict[int, Conversation]]:
        """Start every node detached. When one refuses, what was started is stopped again and its error raised."""
        if checked.errors:
            raise PreflightFailed(f"preflight found {len(checked.errors)} error(s); nothing was started")
        values = secret_values(checked.profile, os.environ)
        conversations = {rank: c for rank, c in checked.conversations.items() if not isinstance(c, RankdeckError)}
        if len(conversations) < len(plan.nodes):
            raise PreflightFailed("not every node can be reached; nothing was started")
        folder = RunFolder.create(Record(run=plan.run, created=time.time(), profile=checked.profile, plan=plan))
        session = cls(folder, connector, viewer, accept)
        for finding in checked.findings:
            if finding.severity != "ok":
                session._say(finding.event(time.time()))

        async def start(rank: int) -> MachineError | None:
            job = job_of(plan, rank)
            try:
                await conversations[rank].ask(
                    "launch", timeout=40.0, run=plan.run, node_rank=rank, job=job, secrets=values
                )
            except MachineError as error:
                return error
            session._say(events.Launched(t=time.time(), node_rank=rank, host=plan.nodes[rank].host))
            return None

        starting = asyncio.gather(*map(start, conversations))
        try:
            # A start that is not waited for could come after its own stop.
            answers = await asyncio.shield(starting)
        except asyncio.CancelledError:
            await starting
            await session._undo(conversations, "the user left while it was started")
            session._end("stopped", "left while it was started")
            raise
        errors = [error for error in answers if error is not None]
        if errors:
            left = await session._undo(conversations, "another node could not start")
            session._end("failed", errors[0].text)
            errors[0].remedy = "\n  ".join(filter(None, (errors[0].remedy, *left)))
            raise errors[0]
        return session, conversations

    async def _undo(self, conversations: Mapping[int, Conversation], reason: str) -> list[str]:
        """Stop a run that did not start everywhere; what could not be stopped, in words."""
        results = await asyncio.gather(*(self._stop_node(rank, c, reason, 5.0) for rank, c in conversations.items()))
        return [result.text for result in results if result.left or result.error]

    async def stop_now(self, grace: float) -> list[NodeStop]:
        """Stop the run on every node, whatever is known of it, and sweep; what each node says is left."""
        conversations = await self._fleet.dial_all()
        try:
            return await asyncio.gather(
                *(self._stop_node(rank, c, "the user asked", grace) for rank, c in conversations.items())
            )
        finally:
            await close_all(conversations)

    # ---- watch ----------------------------------------------------------------------------------------------------

    async def watch(self, conversations: Mapping[int, Conversation] | None = None, *, once: bool = False) -> RunState:
        """Follow the run to its end, or `once`: to what is there now. Cancel to leave; the run goes on.

        `wants(node_rank, stream)` says which logs come here; the last `replay` bytes of those that are here already
        are shown first. With `retell` the viewer is told the events that are here already, too; with `sampling`, what
        the nodes' GPUs, CPUs and networks do.
        OSError when the viewer cannot write any more.
        """
        for plan in self.record.plan.nodes:
            rank = plan.node_rank
            self._watches[rank] = NodeWatch(
                self.folder,
                rank,
                plan.host,
                functools.partial(self._fleet.dial, rank),
                self._take,
                self._say,
                self._show,
                self._arrivals,
            )
            self._watches[rank].sampling = self.sampling
        sizes = {rank: watch.open_journal() for rank, watch in self._watches.items()}
        for event in self.folder.history(sizes):
            self.state.apply(event)
            if self.retell:
                self._tell(self._viewer.event, event)
        for rank, watch in self._watches.items():
            node = self.state.nodes[rank]
            wanted = [name for name in (TORCHRUN_LOG, *self.also, *node.streams) if self.wants(rank, name)]
            needed = {*wanted, *self._evidence(rank)}
            watch.open_logs(needed)
            for name in wanted:
                for piece in watch.pieces(name, self.replay):
                    self._show(rank, name, piece)
            if not (node.finished and self.folder.complete(rank, needed)):
                first = (conversations or {}).get(rank)
                self._tasks[rank] = asyncio.create_task(watch.run(first, once=once or node.over))
            else:
                self._arrivals.over(rank, self.folder.sizes(rank))
        try:
            await (self._fetch() if once else self._until_over())
            if self._gone is not None:
                raise self._gone
        finally:
            self._hear()
            await self._leave()
        outcome = self.state.outcome
        if outcome != "running":
            verdict = self.state.verdict()
            self._end(outcome, verdict.text if verdict is not None and outcome == "failed" else "")
        return self.state

    def request_stop(self, reason: str, grace: float = GRACE) -> None:
        """Stop the run on every node, those that come back later too."""
        self._stop = (reason, grace)
        self._changed.set()

    def want(self, node_rank: int, streams: Iterable[str]) -> None:
        """Bring these logs here from now on."""
        streams = tuple(streams)
        self._asked.update((node_rank, stream) for stream in streams)
        self._watches[node_rank].want(streams, self._fresh(node_rank, streams))

    async def _fetch(self) -> None:
        while self._tasks:
            for rank in [rank for rank, task in self._tasks.items() if task.done()]:
                self._tasks.pop(rank).result()
            await self._pause()

    async def _pause(self) -> None:
        """Until something changes, a second at most. OSError when the viewer cannot write any more."""
        waiting = asyncio.ensure_future(self._changed.wait())
        await asyncio.wait({waiting, *self._tasks.values()}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        self._changed.clear()
        if self._gone is not None:
            raise self._gone

    async def _until_over(self) -> None:
        while True:
            self._send_stops()
            finished = [rank for rank, task in self._tasks.items() if task.done()]
            for rank in finished:
                self._node_ended(rank)
            if not self._tasks:
                await asyncio.gather(*self._stopping.values())
                return
            await self._pause()
            self._declare_lost()
            if self.state.failures():
                self._hear()

    def _node_ended(self, rank: int) -> None:
        """A node's journal is read to its end: without an exit record, its supervisor was killed."""
        watch, node = self._watches[rank], self.state.nodes[rank]
        self._tasks.pop(rank).result()
        if node.over:
            return
        began = node.supervisor
        rebooted = began is not None and began.boot and watch.boot and began.boot != watch.boot
        text = "restarted while the run was on it" if rebooted else "lost its supervisor: killed, no exit record"
        self._say(events.Lost(t=time.time(), node_rank=rank, host=node.host, text=text))
        asked = self._stopping.get(rank)
        if watch.conversation is not None and (asked is None or asked.done()):
            sweep = self._stop_quietly(rank, watch.conversation, "the supervisor is gone", 0.0)
            self._stopping[rank] = asyncio.create_task(sweep)

    def _declare_lost(self) -> None:
        """Give up nodes that stay away while another one answers: then it is not our own network.

        When it was, the first node that is back says nothing about the others until they have had as long.
        """
        now = time.monotonic()
        if not any(watch.answers for watch in self._watches.values()):
            self._answered_since = None
            return
        self._answered_since = since = self._answered_since or now
        for rank, watch in self._watches.items():
            away = watch.broken_since
            if rank not in self._tasks or away is None or now - max(away, since) < self.lost_after:
                continue
            self._tasks.pop(rank).cancel()
            text = f"has been unreachable for {now - away:.0f} s; what ran there may run on (rankdeck reap)"
            self._say(events.Lost(t=time.time() - (now - away), node_rank=rank, host=watch.host, text=text))

    def _send_stops(self) -> None:
        """Pass a wanted stop to every node that is there, not over, and has not been asked by us."""
        if self._stop is None:
            failure = self.state.final_failure
            if failure is None:
                return
            self._stop = (diagnosis.sentence(failure), GRACE)
        reason, grace = self._stop
        for rank, watch in self._watches.items():
            conversation, node = watch.conversation, self.state.nodes[rank]
            asked = self._stopping.get(rank)
            if conversation is None or node.over or (asked is not None and not asked.done()):
                continue
            if asked is None or node.stopping is None:
                self._stopping[rank] = asyncio.create_task(self._stop_quietly(rank, conversation, reason, grace))

    async def _stop_quietly(self, rank: int, conversation: Conversation, reason: str, grace: float) -> None:
        result = await self._stop_node(rank, conversation, reason, grace)
        if (result.left or result.error) and result.text not in self.problems:
            self.problems.append(result.text)

    async def _stop_node(
        self, rank: int, conversation: Conversation | RankdeckError, reason: str, grace: float
    ) -> NodeStop:
        host = self.record.plan.nodes[rank].host
        if isinstance(conversation, RankdeckError):
            return NodeStop(host=host, node_rank=rank, error=str(conversation))
        self._say(events.StopSent(t=time.time(), node_rank=rank, host=host, reason=reason, grace=grace))
        fields = {"run": self.folder.run, "node_rank": rank, "grace": grace, "reason": reason}
        try:
            answer = await conversation.ask("stop", timeout=grace + 40.0, **fields)
        except MachineError as error:
            return NodeStop(host=host, node_rank=rank, error=str(error))
        left, killed = lefts(answer), int(answer.get("killed") or 0)
        if killed or left:
            self._say(events.Swept(t=time.time(), node_rank=rank, killed=killed, left=left))
        return NodeStop(host=host, node_rank=rank, killed=killed, left=left)

    # ---- events ---------------------------------------------------------------------------------------------------

    def _say(self, event: events.AnyEvent) -> None:
        """An observation of this workstation: written down, then taken like any other event."""
        self.folder.note(event)
        self._take(event)

    def _take(self, event: events.AnyEvent) -> None:
        self.state.apply(event)
        if isinstance(event, events.Stream) and self.wants(event.node_rank, event.path):
            self._bring(event.node_rank, event.path)
        if isinstance(event, (events.WorkerExit, events.TorchrunExit)) and event.code != 0:
            self._bring_evidence(event)
        if isinstance(event, (events.WorkerExit, events.TorchrunExit, events.Finished, events.Lost, events.Reached)):
            self._changed.set()
        self._tell(self._viewer.event, event)

    def _bring(self, node_rank: int, stream: str) -> None:
        """A log that is wanted has come into being; another viewer may have brought its beginning here already."""
        watch = self._watches.get(node_rank)
        if watch is None or stream in watch.streams:
            return
        watch.want([stream], self._fresh(node_rank, [stream]))
        for piece in watch.pieces(stream, self.replay):
            self._show(node_rank, stream, piece)

    def _fresh(self, node_rank: int, streams: Iterable[str]) -> set[str]:
        """Those that have just been made: what comes from them is new, and was not waiting there."""
        node, now = self.state.nodes[node_rank], time.time()
        made = {name: node.streams[name].t - node.clock for name in streams if name in node.streams}
        return {name for name, t in made.items() if now - t < FRESH}

    def _show(self, node_rank: int, stream: str, data: bytes) -> None:
        """Bytes of a log for the viewer, unless they came for the verdict only."""
        if (node_rank, stream) in self._asked or self.wants(node_rank, stream):
            self._tell(self._viewer.log, node_rank, stream, data)

    def _tell(self, deliver: Callable[..., None], *what: Any) -> None:
        """Give something to the viewer. Where its output has gone, that ends the watch, and no conversation."""
        if self._gone is None:
            try:
                deliver(*what)
            except OSError as gone:
                self._gone = gone
                self._changed.set()

    def _evidence(self, rank: int) -> set[str]:
        """The logs that the verdict needs: of torchrun and of the ranks that failed, where something failed."""
        failed = [w.key for w in self.state.workers.values() if w.key[1] == rank and w.failed]
        ended = self.state.nodes[rank].torchrun_exit
        if not failed and (ended is None or ended.code == 0):
            return set()
        return {TORCHRUN_LOG, *(name for key in failed for name in self._words_of(*key))}

    def _words_of(self, attempt: int, node_rank: int, local_rank: int) -> list[str]:
        """The streams in which a rank says why it failed."""
        stderr = self.state.stderr_stream(node_rank, attempt, local_rank)
        return [stderr, stderr.replace("stderr.log", ERROR_FILE)] if stderr else []

    def _bring_evidence(self, event: events.WorkerExit | events.TorchrunExit) -> None:
        """The logs of what failed come here whether somebody looks or not."""
        watch = self._watches.get(event.node_rank)
        if watch is None:
            return
        streams = [TORCHRUN_LOG]
        if isinstance(event, events.WorkerExit):
            streams += self._words_of(event.attempt, event.node_rank, event.local_rank)
        watch.want(streams)

    def _hear(self) -> None:
        """Give the state the ends of the logs that are here and have grown."""
        for rank, watch in self._watches.items():
            for stream in watch.streams:
                size = watch.size(stream)
                if size and self._heard.get((rank, stream)) != size:
                    self._heard[rank, stream] = size
                    self.state.hear(rank, stream, *watch.end(stream, HEARD))

    def _end(self, outcome: Literal["succeeded", "failed", "stopped"], text: str) -> None:
        if self.state.ended is None:
            self._say(events.Ended(t=time.time(), outcome=outcome, text=text))
        self.summarise()

    def summarise(self) -> None:
        """Write down how far the run is, for lists."""
        metric, started, ended = self.state.metric, self.state.started, self.state.ended
        verdict = self.state.verdict() if self.state.outcome == "failed" else None
        self.folder.summarise(
            Summary(
                outcome=self.state.outcome,
                seen=time.time(),
                text=verdict.text if verdict else ended.text if ended else "",
                step=metric.step if metric else None,
                total=metric.total if metric else None,
                loss=metric.loss if metric else None,
                rate=f"{paced(metric.rate)} {metric.rate_unit}"
                if metric and isinstance(metric.rate, (int, float))
                else "",
                elapsed=(self.state.over_at or time.time()) - started if started else 0.0,
            )
        )

    async def _leave(self) -> None:
        for task in (*self._tasks.values(), *self._stopping.values()):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks.values(), *self._stopping.values(), return_exceptions=True)
        await asyncio.gather(*(watch.close() for watch in self._watches.values()))
        self._arrivals.close()
