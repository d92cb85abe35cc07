"""Preflight, run: every node is asked at once, and whatever is known is judged as it comes.

A `Preflight` grows while it runs. Viewers are told that it changed, and read `cells` and `findings`; a slow node keeps
waiting only what concerns it, and the checks that compare all nodes.

    preflight = Preflight(profile, fleet, changed=redraw)
    await preflight.run()
    await preflight.retry(node_rank=2)          # or check="ports.master", or both
    await preflight.close()                     # unless a launch takes the conversations over
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from engine import launchers, preflight
from engine.collective import SECONDS as SECONDS_COLLECTIVE
from engine.collective import collective
from engine.conversation import lefts
from engine.errors import ConnectionLost, RankdeckError, RequestError
from engine.fleet import close_all
from engine.mesh import mesh, speed
from engine.preflight import pairs
from engine.preflight.devices import ranks_of
from engine.preflight.mesh import blocked, lossy
from engine.preflight.observation import Jobs
from engine.preflight.speed import busy
from engine.waiting import within

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

    from engine.conversation import Conversation
    from engine.events import Left
    from engine.fleet import Fleet
    from engine.plan import Plan
    from engine.preflight import Cell, Collective, Finding, Observation, Speed
    from engine.preflight.observation import Job
    from engine.preflight.pairs import Pair
    from engine.profile import Profile

QUESTIONS: tuple[tuple[str, ...], ...] = (
    ("python", "program", "gpus"),
    ("addresses", "ports"),
    ("system", "limits", "fabric", "jobs"),
)
"""The parts of an observation that are asked for together: what takes a node's shell, what has to be known before it
calls others, and what it knows at once."""
REACH, MESH, SPEED, COLLECTIVE = "reach", "mesh", "speed", "collective"
PARTS = (REACH, *(part for parts in QUESTIONS for part in parts), MESH, SPEED, COLLECTIVE)
CALLABLE = {REACH, "addresses", "ports"}
"""What has to be known of a node before it calls others."""
SECONDS = 60.0
PATIENCE = 1.0
"""Seconds that a node waits for the address of node 0, to which it is asked for its way; and that nodes wait for
others before they call those that are there."""
JUDGE_EVERY = 0.05


Consent: TypeAlias = "Callable[[str], Awaitable[bool]]"


async def gladly(text: str) -> bool:
    """Whoever asked for a measurement means it."""
    return True


class Preflight:
    """What is known of the nodes of a profile: conversations (open), observations, and the findings so far.

    `waiting` holds, by node rank, the parts that are still to come. `changed` is called, from the event loop, when any
    of this has changed; at most twenty times a second, and once more at the end.
    """

    checks = preflight.CHECKS

    def __init__(
        self,
        profile: Profile,
        fleet: Fleet,
        skip: Collection[str] = (),
        changed: Callable[[], None] = lambda: None,
        conversations: Mapping[int, Conversation] | None = None,
        measure: bool | None = False,
        collective: float = 0.0,
        consent: Consent = gladly,
    ) -> None:
        """`measure` fills the lines between the nodes for a moment to see what they carry; None: where nobody works.
        `collective` lets all ranks all-reduce for real, within so many seconds (0: not at all). Where either would
        disturb somebody, `consent` is asked.

        `conversations` are open already, and ours from now on. RequestError for a launcher or check that is none.
        """
        launchers.find(profile.launcher)
        if profile.launcher == "slurm":
            raise RequestError("nodes that Slurm has not chosen yet cannot be looked at")
        skipped = preflight.known_checks(skip)
        measure = False if "speed.bandwidth" in skipped else measure
        collective = 0.0 if "collective.works" in skipped else collective
        self.profile = profile
        self._measure = measure
        self._collective = collective
        self._consent = consent
        unasked = {*([SPEED] if measure is False else []), *([COLLECTIVE] if not collective else [])}
        self._parts = tuple(part for part in PARTS if part not in unasked)
        self.skip = skipped | {
            name for name, check in preflight.CHECKS.items() if not set(check.needs) <= set(self._parts)
        }
        self.conversations: dict[int, Conversation | RankdeckError] = dict(conversations or {})
        self.observations: dict[int, Observation | RankdeckError] = {}
        self.waiting: dict[int, set[str]] = {rank: set(self._parts) for rank in range(len(profile.nodes))}
        self.findings: list[Finding] = []
        self._fleet = fleet
        self._changed = changed
        self._first = asyncio.Event()  # node 0 is connected, or is not going to be
        self._judging: asyncio.TimerHandle | None = None
        self._rest = JUDGE_EVERY
        self._random = random.Random()
        self._stays_home = preflight.Seen(profile, {}).one_machine()
        self._called: set[Pair] = set()
        self._moved = asyncio.Event()  # something has come

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(node.host for node in self.profile.nodes)

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "error"]

    def cells(self) -> dict[tuple[int | None, str], Cell]:
        """The matrix at this moment, by (node_rank or None, id of the check)."""
        return preflight.matrix(self.profile, self.observations, self.findings, self.waiting, self.skip)

    def final(self, finding: Finding) -> bool:
        """Whether what is still to come cannot change this finding."""
        return not preflight.CHECKS[finding.check].awaits(finding.node_rank, self.waiting)

    def plan(self, run: str) -> Plan:
        facts = preflight.node_facts(self.profile, self.observations)
        return launchers.find(self.profile.launcher).make_plan(self.profile, run, facts)

    async def run(self) -> None:
        """Look at every node. When this is cancelled, the conversations that are open are closed."""
        await self._look(dict.fromkeys(range(len(self.profile.nodes)), self._parts))

    async def retry(self, node_rank: int | None = None, check: str | None = None) -> None:
        """Look again: at one node or all, for one check or all. A node that did not answer is connected anew.

        A check that is asked for by its name is not skipped any more, and measures whoever works there.
        """
        ranks = range(len(self.profile.nodes)) if node_rank is None else [node_rank]
        parts = self._parts if check is None else preflight.CHECKS[check].needs
        if check is not None:
            self.skip -= {check}
            self._measure = self._measure or SPEED in parts
            self._collective = self._collective or SECONDS_COLLECTIVE
        await self._look(dict.fromkeys(ranks, parts))

    def orphans(self, node_rank: int | None) -> tuple[Job, ...]:
        """What is left on a node of runs of ours that are dead; of None, which is no node, nothing."""
        found = self.observations.get(-1 if node_rank is None else node_rank)
        jobs = found.jobs if isinstance(found, preflight.Observation) else Jobs()
        return tuple(process for process in jobs.found if process.job not in jobs.living)

    async def reap(self, node_rank: int) -> tuple[Left, ...]:
        """End what dead runs have left on a node; what could not be ended. RankdeckError where the node is away."""
        conversation = await self._converse(node_rank)
        return lefts(await conversation.ask("sweep", timeout=SECONDS, kill=True))

    async def close(self) -> None:
        """Leave the nodes."""
        await close_all(self.conversations)

    async def _look(self, wanted: dict[int, tuple[str, ...]]) -> None:
        for rank, parts in wanted.items():
            away = isinstance(self.observations.get(rank), RankdeckError)
            self.waiting[rank] = set(self._parts if away else parts)
            if MESH in self.waiting[rank]:
                self._called = {pair for pair in self._called if rank not in pair}
        self._news()
        crossing = asyncio.ensure_future(self._cross())
        try:
            await asyncio.gather(*map(self._visit, wanted))
            await crossing
            await self._pour()
            await self._reduce()
        except BaseException:
            await self.close()
            raise
        finally:
            crossing.cancel()
            await asyncio.wait([crossing])
            if self._judging is not None:
                self._judging.cancel()
        self._judge()

    async def _visit(self, rank: int) -> None:
        try:
            conversation = await self._converse(rank)
            self._came(rank, {REACH})
            if rank == 0:
                self._first.set()
            parts = [[part for part in question if part in self.waiting[rank]] for question in QUESTIONS]
            await asyncio.gather(*(self._ask(rank, conversation, some) for some in parts if some))
        except RankdeckError as error:
            self._lost(rank, error)
        if rank == 0:
            self._first.set()

    async def _converse(self, rank: int) -> Conversation:
        known = self.conversations.get(rank)
        if known is None or isinstance(known, RankdeckError) or known.ended.done():
            try:
                known = await self._fleet.dial(rank)
            except RankdeckError as error:
                self.conversations[rank] = error
                raise
        if self.conversations.get(rank) is not known or rank not in self.observations:
            self.conversations[rank] = known
            reach = preflight.Reach(**{name: getattr(known.hello, name) for name in preflight.Reach.__struct_fields__})
            self.observations[rank] = preflight.Observation(peer=known.peer, reach=reach)
        return known

    async def _ask(self, rank: int, conversation: Conversation, parts: list[str]) -> None:
        # Where the profile names no master, node 0 is it, and its own address is how we reach it.
        way = "addresses" in parts and not preflight.master_name(self.profile)
        if way:
            with contextlib.suppress(asyncio.TimeoutError):
                await within(PATIENCE, self._first.wait())
        late = way and not self._first.is_set()
        question = preflight.ask(self.profile, rank, route_to=self._master() if way else (), parts=parts)
        answer = await conversation.ask("probe", timeout=SECONDS, ask=question)
        self._saw(rank, parts, preflight.read(answer, node=conversation.host))
        if late:
            await self._first.wait()
            if self._master():
                await self._ask(rank, conversation, ["addresses"])

    def _master(self) -> tuple[str, ...]:
        first = self.observations.get(0)
        return (first.peer,) if isinstance(first, preflight.Observation) and first.peer else ()

    async def _cross(self) -> None:
        """Let the nodes call each other: all of them once everybody has answered or failed, and before that those that
        are there, when for a while nobody new has come."""
        while late := {rank for rank, parts in self.waiting.items() if MESH in parts}:
            there = self._callable()
            if not late <= there:
                self._moved.clear()
                with contextlib.suppress(asyncio.TimeoutError):
                    await within(PATIENCE if late & there else None, self._moved.wait())
                    continue
            calls = set() if self._stays_home else pairs.pairs(sorted(there), self._random) - self._called
            if calls:
                await self._call(calls)
            if late <= there:
                for rank in late:
                    self._came(rank, {MESH})
            self._news()

    def _callable(self) -> set[int]:
        return {
            rank
            for rank, found in self.observations.items()
            if isinstance(found, preflight.Observation) and CALLABLE.isdisjoint(self.waiting[rank])
        }

    async def _call(self, calls: set[Pair]) -> None:
        addresses = pairs.addresses(self.profile, self.observations)
        masters, port = pairs.master(self.profile, self.observations)
        opened = {rank: c for rank, c in self.conversations.items() if not isinstance(c, RankdeckError)}
        self._called |= calls
        able = {pair for pair in calls if addresses.keys() >= set(pair)}
        for rank, found in (await mesh(opened, addresses, able, masters, port)).items():
            old = self.observations[rank]
            if isinstance(found, ConnectionLost):
                self._lost(rank, found)
            elif isinstance(old, preflight.Observation):
                again = {link.to for link in found.links}
                links = (*(link for link in old.mesh.links if link.to not in again), *found.links)
                new = msgspec.structs.replace(found, links=links)
                self.observations[rank] = msgspec.structs.replace(old, mesh=new)

    async def _pour(self) -> None:
        """Measure the lines from neighbour to neighbour, all at once, when everything else is known."""
        wanted = {rank for rank, parts in self.waiting.items() if SPEED in parts}
        if not wanted:
            return
        there = sorted(self._callable() & pairs.addresses(self.profile, self.observations).keys())
        seen = preflight.Seen(self.profile, self.observations)
        disturbed = await self._disturbed(seen, "filling the lines between the nodes", self._measure is not None)
        calls: set[Pair] = set()
        if not (disturbed or self._stays_home or len(there) < 2):
            calls = set(zip(there, [*there[1:], there[0]], strict=True)) - blocked(seen) - lossy(seen)
        opened = {rank: c for rank, c in self.conversations.items() if not isinstance(c, RankdeckError)}
        addresses = pairs.addresses(self.profile, self.observations)
        found = await speed(opened, addresses, calls) if calls else {}
        for rank in wanted:
            self._filled(rank, SPEED, found.get(rank, preflight.Speed(left_out=disturbed)))

    async def _reduce(self) -> None:
        """A real all-reduce, after everything else, and only where nothing is known to be in its way."""
        wanted = {rank for rank, parts in self.waiting.items() if COLLECTIVE in parts}
        if not wanted:
            return
        self._judge()
        found: dict[int, Collective | ConnectionLost] = {}
        seen = preflight.Seen(self.profile, self.observations)
        left_out = f"{self.errors[0].check} has an error" if self.errors else ""
        if sum(ranks_of(node, observed) for _, node, observed in seen.nodes()) < 2:
            left_out = left_out or "there is one rank only"
        left_out = left_out or await self._disturbed(seen, "an all-reduce over all ranks", wanted=True)
        if not left_out:
            gpus = any(observed.gpus.gpus for _, _, observed in seen.nodes())
            opened = {rank: c for rank, c in self.conversations.items() if not isinstance(c, RankdeckError)}
            facts = preflight.node_facts(self.profile, self.observations)
            found = await collective(self.profile, facts, opened, gpus, self._collective)
        for rank in wanted:
            self._filled(rank, COLLECTIVE, found.get(rank, preflight.Collective(left_out=left_out)))

    async def _disturbed(self, seen: preflight.Seen, what: str, wanted: bool) -> str:
        """Who would be disturbed, or "" where nobody is, or the user has agreed to it."""
        someone = busy(seen)
        if someone and wanted and await self._consent(f"{someone}: {what} disturbs it"):
            return ""
        return someone

    def _filled(self, rank: int, part: str, new: Speed | Collective | ConnectionLost) -> None:
        """A part that is not asked of one node alone has come."""
        old = self.observations.get(rank)
        if isinstance(new, ConnectionLost):
            self._lost(rank, new)
        elif isinstance(old, preflight.Observation):
            fields: dict[str, Any] = {part: new}
            self.observations[rank] = msgspec.structs.replace(old, **fields)
        self._came(rank, {part})

    def _saw(self, rank: int, parts: Iterable[str], new: Observation) -> None:
        old = self.observations[rank]
        if isinstance(old, preflight.Observation):
            fields: dict[str, Any] = {part: getattr(new, part) for part in parts}
            self.observations[rank] = msgspec.structs.replace(old, **fields)
        self._came(rank, parts)

    def _came(self, rank: int, parts: Iterable[str]) -> None:
        self.waiting[rank].difference_update(parts)
        self._moved.set()
        self._news()

    def _lost(self, rank: int, error: RankdeckError) -> None:
        self.observations[rank] = error
        self._came(rank, PARTS)

    def _news(self) -> None:
        """Judge soon: not for every answer of a thousand nodes, and never most of the time."""
        if self._judging is None:
            self._judging = asyncio.get_running_loop().call_later(self._rest, self._judge)

    def _judge(self) -> None:
        self._judging = None
        began = time.monotonic()
        self.findings = preflight.judge(self.profile, self.observations, self.skip, self.waiting)
        self._rest = max(JUDGE_EVERY, 5 * (time.monotonic() - began))
        self._changed()
