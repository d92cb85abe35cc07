"""The preflight of a draft: run, looked at again, handed to a launch. No Textual in here.

The conversations that the wizard has open already are used on; those of a preflight that is given up are closed.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from engine.check import Preflight
from engine.errors import RankdeckError
from engine.fleet import Fleet
from engine.slurm.preflight import JobPreflight

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Mapping
    from typing import Any

    from engine.check import Consent
    from engine.conversation import Conversation
    from engine.fleet import Accept
    from engine.launching import AnyPreflight
    from engine.preflight import Observation
    from engine.profile import Profile
    from engine.transport import Connector
    from tui.wizard.prober import Prober


class _Borrowing(Fleet):
    """A fleet that first takes what the prober has open."""

    def __init__(self, profile: Profile, connector: Connector, accept: Accept, prober: Prober) -> None:
        super().__init__(profile.nodes, profile.state_dir, connector, accept)
        self._profile = profile
        self._prober = prober

    async def dial(self, node_rank: int) -> Conversation:
        lent = await self._prober.lend(self.nodes[node_rank], self._profile)
        return lent if lent is not None else await super().dial(node_rank)


class Checking:
    """At most one preflight at a time; `changed` is called in the event loop when there is something to show."""

    def __init__(
        self, connector: Connector, accept: Accept, prober: Prober, changed: Callable[[], None], consent: Consent
    ) -> None:
        self.preflight: AnyPreflight | None = None
        self.failure: RankdeckError | None = None
        self._connector = connector
        self._accept = accept
        self._prober = prober
        self._changed = changed
        self._consent = consent
        self._skipped: frozenset[str] = frozenset()
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def over(self) -> bool:
        """Whether every check has been made."""
        return self.preflight is not None and not self.running and self.failure is None

    @property
    def passed(self) -> bool:
        return self.over and self.preflight is not None and not self.preflight.errors

    def fits(self, profile: Profile, skip: Collection[str]) -> bool:
        """Whether it is of this very profile."""
        found = self.preflight
        return found is not None and found.profile == profile and self._skipped == frozenset(skip)

    def observations(self, profile: Profile) -> Mapping[int, Observation | RankdeckError]:
        """What the nodes that have been looked at from end to end said, if they are the nodes of this profile."""
        found = self.preflight
        if found is None or (found.profile.nodes, found.profile.state_dir) != (profile.nodes, profile.state_dir):
            return {}
        return {rank: seen for rank, seen in found.observations.items() if not found.waiting[rank]}

    async def start(self, profile: Profile, skip: Collection[str], collective: float = 0.0) -> None:
        """Look at every node of this profile, anew; with `collective` [s] an all-reduce and the speed of the lines."""
        await self.close()
        self._skipped = frozenset(skip)
        fleet = _Borrowing(profile, self._connector, self._accept, self._prober)
        try:
            if profile.launcher == "slurm":
                asked = self._skipped & JobPreflight.checks.keys()
                self.preflight = JobPreflight(profile, self._connector, self._accept, asked, self._changed)
            else:
                self.preflight = Preflight(
                    profile,
                    fleet,
                    skip,
                    self._changed,
                    measure=None if collective else False,
                    collective=collective,
                    consent=self._consent,
                )
        except RankdeckError as error:
            self.failure = error
            self._changed()
            return
        self._begin(self.preflight.run)

    def retry(self, rank: int | None = None, check: str | None = None) -> bool:
        """Look again at a node, for a check, or both; whether that could be done now."""
        if self.preflight is None or self.running:
            return False
        if check is not None:
            self._skipped -= {check}
        self._begin(partial(self.preflight.retry, rank, check))
        return True

    def hand_over(self) -> AnyPreflight | None:
        """The preflight and its conversations, which are the caller's from now on."""
        given, self.preflight = self.preflight, None
        return given

    async def close(self) -> None:
        """Stop looking, and leave the nodes."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
        if self.preflight is not None:
            await self.preflight.close()
            self.preflight = None
        self.failure = None

    def _begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def run() -> None:
            try:
                await work()
            except RankdeckError as error:
                self.failure = error

        self._task = asyncio.create_task(run())
        self._task.add_done_callback(lambda task: self._changed() if not task.cancelled() else None)
