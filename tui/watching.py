"""A run under the eyes of the user: the session in this program's event loop, and what the panels are shown of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from engine import events
from engine.curves import Curves
from engine.errors import RankdeckError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.conversation import Conversation
    from engine.session import NodeStop, Session
    from engine.state import RunState

STORY_LIMIT = 2000
TOLD = (
    events.Finding, events.Unreachable, events.Lost, events.Launched, events.StopSent, events.Ended, events.WorkerExit,
    events.Stop, events.TorchrunExit, events.Swept, events.Warning, events.Clue, events.Finished, events.Reached,
)  # fmt: skip
"""The events that a human is told, one line each; metrics, streams and workers show as pictures."""


class Watching:
    """The viewer of one session. Leaving ends nothing on the nodes.

    `version` grows with everything that may change the picture, so that who draws can skip what has been drawn.
    """

    def __init__(self) -> None:
        self.curves = Curves()
        self.story: list[events.AnyEvent] = []
        self.version = 0
        self.error: RankdeckError | OSError | None = None
        self.session: Session | None = None
        self._task: asyncio.Task[RunState] | None = None

    # ---- the viewer's side of a session ---------------------------------------------------------------------------

    def event(self, event: events.AnyEvent) -> None:
        self.version += 1
        if isinstance(event, events.Metric):
            self.curves.add(event)
        elif isinstance(event, TOLD):
            self.story.append(event)
            del self.story[:-STORY_LIMIT]

    def log(self, node_rank: int, stream: str, data: bytes) -> None:
        self.version += 1

    # ---- what the screen calls ------------------------------------------------------------------------------------

    def watch(self, session: Session, conversations: Mapping[int, Conversation] | None = None) -> None:
        """Begin to read: from where this workstation's mirrors end, to the end of the run."""
        self.session = session
        self.curves, self.story = Curves(), []
        session.retell = session.sampling = True
        self._task = asyncio.create_task(self._watch(session, conversations))

    async def _watch(self, session: Session, conversations: Mapping[int, Conversation] | None) -> RunState:
        try:
            return await session.watch(conversations)
        except (RankdeckError, OSError) as error:
            self.error = error
            raise
        finally:
            self.version += 1

    @property
    def live(self) -> bool:
        """Is it still being read?"""
        return self._task is not None and not self._task.done()

    @property
    def problems(self) -> tuple[str, ...]:
        """What went wrong beside the run itself, in words."""
        told = tuple(self.session.problems) if self.session is not None else ()
        return told if self.error is None else (*told, str(self.error))

    def want(self, node_rank: int, streams: Iterable[str]) -> None:
        """Bring these logs here from now on. Of a run that is not read any more, what is here is all."""
        if self.session is not None and self.live:
            self.session.want(node_rank, streams)

    def stop(self) -> None:
        """Stop the run on every node; the watch goes on until it is over."""
        if self.session is not None:
            self.session.request_stop("the user asked")
            self.version += 1

    async def stop_for_good(self, grace: float) -> list[NodeStop]:
        """Leave, then stop the run wherever it is; what each node says is left."""
        await self.leave()
        return await self.session.stop_now(grace) if self.session is not None else []

    async def leave(self) -> None:
        """Stop reading. What runs on the nodes runs on."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self.session is not None:
            self.session.summarise()
