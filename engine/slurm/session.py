"""A run that is a Slurm job: the same event stream, journals, metrics and logs as below torchrun over ssh.

    submit -> waits -> runs -> ended
                 attach ┘

How it fits together:
- Every task of the job begins with our supervisor (engine/node/step.py), so that the nodes write what they always
  write, into run folders on storage that login and compute nodes share. They are read through the login node, over one
  conversation, by the same watches; `NodeWatch` does not know that Slurm is there.
- The folders may not be there yet, and locks may not work on shared storage: not a lock but this session says when a
  node's part is over (`settle`): when its exit record is here, or when Slurm says that the job has ended.
- `_track` asks Slurm for the job: seldom, in one query for all jobs of the user, and seldomer while nothing changes.
  What it says is an event (`Job`) like any other.
- Slurm ends the other tasks where one fails (--kill-on-bad-exit), viewer or not. What we stop, we scancel.
- While somebody looks, a step beside the ranks tells what the nodes do (`_sample`; engine/node/overlap.py).
- A run inside a job of somebody's own (slurm.allocation) is a step of it: what we stop there is the step.
- A node that Slurm started anew (requeue) goes on in its journal, with attempts counted on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

import msgspec

from engine import events
from engine.errors import ConnectionLost, NodeRefused, PreflightFailed, RankdeckError
from engine.fleet import close_all, no
from engine.launchers.slurm import groups
from engine.plan import GRACE
from engine.runs import Record, RunFolder
from engine.session import NodeStop, Session, secret_values
from engine.slurm import jobs, words
from engine.slurm.login import Login, ask
from engine.watch import SAMPLE_EVERY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.conversation import Conversation
    from engine.fleet import Accept
    from engine.plan import Plan
    from engine.profile import Profile
    from engine.slurm.preflight import JobPreflight
    from engine.state import RunState
    from engine.transport import Connector
    from engine.watch import Viewer

LOOK_EVERY = (10.0, 10.0, 15.0, 20.0, 30.0, 60.0)
"""Seconds between looks at the queue while nothing changes; the last one repeats."""
GONE_LOOKS, GONE_AFTER = 3, 60.0
"""A job that so many answers in a row do not hold, and that has been silent for so many seconds, is gone."""
SUBMIT_TRIES = 3
SLURM_LOG = "slurm.log"
NONE_BEGAN = """\
none of its nodes began, as where the run's folder ({place}) is not on storage that login and compute nodes share
  set state_dir to a folder that all of them see"""


def job_of(plan: Plan, profile: Profile) -> dict[str, Any]:
    """What every task's supervisor is told, without secrets."""
    assert profile.slurm is not None
    return {
        "version": 1,
        "run": plan.run,
        "style": profile.slurm.style,
        "max_restarts": profile.rendezvous.max_restarts,
        "grace": GRACE,
        "metric_pattern": profile.program.metric_pattern or None,
        "allocation": str(profile.slurm.allocation or ""),
    }


class JobSession(Session):
    """A run that is a Slurm job: watch it, stop it."""

    def __init__(self, folder: RunFolder, connector: Connector, viewer: Viewer, accept: Accept = no) -> None:
        super().__init__(folder, connector, viewer, accept)
        self._login = self._fleet = Login(self.record.profile, connector, accept)
        self._look = asyncio.Event()
        self._own = self.record.profile.slurm is not None and self.record.profile.slurm.allocation is None
        self._told_at = 0.0  # unix seconds at which a node last told something
        self._settling: set[asyncio.Task[None]] = set()
        self._cancelling: asyncio.Task[list[NodeStop]] | None = None

    # ---- start ----------------------------------------------------------------------------------------------------

    @classmethod
    async def submit(
        cls, checked: JobPreflight, plan: Plan, connector: Connector, viewer: Viewer, accept: Accept = no
    ) -> tuple[JobSession, dict[int, Conversation]]:
        """Submit the job, once: a question whose answer was lost is asked again, and names the same job."""
        if checked.errors:
            raise PreflightFailed(f"preflight found {len(checked.errors)} error(s); nothing was submitted")
        values = secret_values(checked.profile, os.environ)
        folder = RunFolder.create(Record(run=plan.run, created=time.time(), profile=checked.profile, plan=plan))
        session = cls(folder, connector, viewer, accept)
        for finding in checked.findings:
            if finding.severity != "ok":
                session._say(finding.event(time.time()))
        conversation = checked.conversations[0]
        assert not isinstance(conversation, RankdeckError)
        session._login.adopt(conversation)
        try:
            conversation, number = await session._submit(conversation, values)
        except RankdeckError as error:
            session._end("failed", error.text)
            raise
        except asyncio.CancelledError:
            session._end("stopped", "left while it was submitted; rankdeck stop ends what Slurm may have taken")
            raise
        how = "submitted" if session._own else "the run begins inside it,"
        session._say(
            events.Job(
                t=time.time(), id=number, state="PENDING", submitted=time.time(),
                text=f"Slurm job {number}: {how} at {session._login.host}",
            )
        )  # fmt: skip
        return session, {0: conversation}

    async def _submit(self, conversation: Conversation, values: Mapping[str, str]) -> tuple[Conversation, str]:
        plan = self.record.plan
        fields = {
            "run": plan.run,
            "script": plan.texts["sbatch"],
            "job": job_of(plan, self.record.profile),
            "record": msgspec.json.encode(self.record).decode(),
        }
        for tries in range(1, SUBMIT_TRIES + 1):
            try:
                answer = await ask(conversation, "submit", timeout=120.0, secrets=dict(values), **fields)
                return conversation, str(answer["job"])
            except ConnectionLost:
                if tries == SUBMIT_TRIES:
                    raise
                await conversation.close()
                conversation = await self._login.dial(0)
        raise AssertionError

    # ---- stop -----------------------------------------------------------------------------------------------------

    async def stop_now(self, grace: float) -> list[NodeStop]:
        """Cancel the job, waiting or running, and wait until Slurm says that it is over."""
        found = await self._login.dial_all()
        try:
            conversation = found[0]
            if isinstance(conversation, RankdeckError):
                return [NodeStop(host=self._login.host, node_rank=-1, error=str(conversation))]
            return await self._cancel(conversation, grace)
        finally:
            await close_all(found)

    async def _cancel(self, conversation: Conversation, grace: float) -> list[NodeStop]:
        host = self._login.host
        try:
            number = await self._number(conversation)
            if not number:
                return [NodeStop(host=f"{host}: the run was never submitted", node_rank=-1)]
            self._say(events.StopSent(t=time.time(), host=f"Slurm job {number}", reason="the user asked", grace=grace))
            answer = await ask(
                conversation, "cancel", timeout=grace + 120.0, run=self.folder.run, job=number, seconds=grace + 60.0
            )
        except RankdeckError as error:
            return [NodeStop(host=host, node_rank=-1, error=str(error))]
        state = str(answer.get("state", ""))
        self._look.set()
        if state in jobs.ENDED:
            self._say(events.Job(t=time.time(), id=number, state=state, text=words.ending(number, state)[0]))
        if state and not state.startswith(tuple(jobs.ENDED)):
            text = f"Slurm job {number} is still {state}; the nodes may need attention: squeue -j {number}"
            return [NodeStop(host=host, node_rank=-1, error=text)]
        return [NodeStop(host=f"Slurm job {number} ({state.lower() or 'gone from the queue'})", node_rank=-1)]

    async def _number(self, conversation: Conversation) -> str:
        """The job's number: as it was noted here, or as the login node knows it."""
        known = self.state.job
        if known is None:
            known = next((e for e in self.folder.history({}) if isinstance(e, events.Job)), None)
        if known is not None:
            return known.id
        answer = await ask(conversation, "find", run=self.folder.run)
        return str(answer.get("job", ""))

    def _send_stops(self) -> None:
        """A wanted stop cancels the job; a failure is Slurm's to answer."""
        if self._stop is not None and self._cancelling is None:
            self._cancelling = asyncio.create_task(self._cancel_quietly(self._stop[1]))

    async def _cancel_quietly(self, grace: float) -> list[NodeStop]:
        results = await self.stop_now(grace)
        self.problems += [result.text for result in results if result.error and result.text not in self.problems]
        return results

    # ---- watch ----------------------------------------------------------------------------------------------------

    async def watch(self, conversations: Mapping[int, Conversation] | None = None, *, once: bool = False) -> RunState:
        aside = [] if once else [asyncio.create_task(self._track())]
        aside += [asyncio.create_task(self._sample())] if self.sampling and not once else []
        self.sampling = False  # the login node's own GPUs and CPUs are nobody's interest
        try:
            return await super().watch(conversations, once=once)
        finally:
            await self._end_tasks(aside)

    async def _end_tasks(self, aside: list[asyncio.Task[None]]) -> None:
        tasks = [task for task in (*aside, self._cancelling, *self._settling) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _take(self, event: events.AnyEvent) -> None:
        super()._take(event)
        if isinstance(event, events.NodeRecord):
            self._told_at = time.time()
        if isinstance(event, events.Supervisor) and self.state.job is not None and self.state.job.state in jobs.WAITING:
            self._look.set()
        if isinstance(event, events.Finished) and event.node_rank in self._tasks:
            if event.stopped and self._own:
                self._look.set()  # cancelled, out of time, or to be started anew: Slurm knows
            else:
                self._settle(event.node_rank)

    def _settle(self, rank: int) -> None:
        task = asyncio.create_task(self._watches[rank].settle())
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    def _node_ended(self, rank: int) -> None:
        self._tasks.pop(rank).result()
        node, job = self.state.nodes[rank], self.state.job
        if not node.over:
            how = f"Slurm job {job.id} is {job.state}" if job is not None else "Slurm ended it"
            text = f"left no exit record: {how}" if node.supervisor is not None else f"never began: {how}"
            self._say(events.Lost(t=time.time(), node_rank=rank, host=node.host, text=text))

    def _declare_lost(self) -> None:
        """All nodes are read through one: that it is away says nothing of them."""

    def _evidence(self, rank: int) -> set[str]:
        """Besides what failed ranks wrote, Slurm's own words."""
        job = self.state.job
        ended_badly = job is not None and job.state in jobs.ENDED and job.state != "COMPLETED"
        found = super()._evidence(rank)
        return found | {SLURM_LOG} if rank == 0 and (found or ended_badly) else found

    # ---- Slurm's view ---------------------------------------------------------------------------------------------

    async def _track(self) -> None:
        """Ask Slurm how the job is, until it has ended; a login node or a controller that is away is asked again."""
        quiet, absent, complaint = 0, 0, ""
        while True:
            try:
                seen = await self._ask_slurm()
                absent, complaint = 0 if seen is not None else absent + 1, ""
                quiet_for = time.time() - max(self.record.created, self._told_at)
                if absent >= GONE_LOOKS and quiet_for > GONE_AFTER:
                    seen = self._gone_job()
            except RankdeckError as error:
                seen = None
                if error.text != complaint and not isinstance(error, ConnectionLost):
                    complaint = error.text
                    self._say(events.Warning(t=time.time(), text=f"{self._login.host}: {complaint}"))
            before = self.state.job
            if seen is not None and (before is None or _differs(before, seen)):
                self._say(seen)
                self._changed.set()
                quiet = 0
            if seen is not None and seen.state in jobs.ENDED:
                self._over(seen)
                return
            pause = LOOK_EVERY[min(quiet, len(LOOK_EVERY) - 1)]
            quiet += 1
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._look.wait(), pause)
                quiet = 0
                await asyncio.sleep(1.0)  # what has just begun or ended takes Slurm a moment
            self._look.clear()

    async def _sample(self) -> None:
        """What the nodes of the running job do, for as long as somebody looks."""
        assert self.record.profile.slurm is not None
        parts = [group.nodes for group in groups(self.record.profile.slurm)]
        while True:
            job = self.state.job
            open = next((watch.conversation for watch in self._watches.values() if watch.answers), None)
            if open is not None and job is not None and job.state == "RUNNING":
                with contextlib.suppress(RankdeckError):
                    said = await ask(open, "sample", job=job.id, parts=parts)
                    for rank in self.state.nodes:
                        if (sample := events.decode_sample(said.get(str(rank)), rank)) is not None:
                            self._take(sample)
            await asyncio.sleep(SAMPLE_EVERY)

    async def _ask_slurm(self) -> events.Job | None:
        """The job now; None where Slurm shows nothing of it yet."""
        conversation = await self._login.dial(0)
        try:
            number = await self._number(conversation)
            if not number:
                raise NodeRefused("the run was never submitted", node=self._login.host, code="no-run")
            said = await ask(conversation, "look", jobs=[number], run=self.folder.run)
        finally:
            await conversation.close()
        job = jobs.read(said, self._sought(number, conversation.hello.clock))
        if job is None and (why := jobs.refusal(said)):
            raise words.explain(why, self._login.host)
        if job is not None and job.state == "RUNNING" and (ended := str(said.get("ended", ""))) in jobs.ENDED:
            job = msgspec.structs.replace(job, state=ended)  # the job goes on, and what we started inside it does not
        return None if job is None else told(job)

    def _sought(self, number: str, clock: float) -> jobs.Sought:
        """What to look for; `clock` is the login node's minus ours, in seconds."""
        name, since = self.record.profile.name, self.record.created + clock
        return jobs.Sought(id=number, run=self.folder.run, name=name, since=since)

    def _gone_job(self) -> events.Job:
        """The job that Slurm, asked again and again, knows no more: it forgets, and without accounting for ever."""
        known = self.state.job
        id = known.id if known is not None else ""
        return events.Job(t=time.time(), id=id, state=jobs.GONE, text=words.ending(id, jobs.GONE)[0])

    def _over(self, job: events.Job) -> None:
        """The job has ended: nothing more is written by any node."""
        how, remedy = words.ending(job.id, job.state)
        if job.state not in ("COMPLETED", "FAILED", "CANCELLED"):
            self.problems.append(f"{how}\n  {remedy}" if remedy else how)
        elif job.state == "FAILED" and all(node.supervisor is None for node in self.state.nodes.values()):
            self.problems.append(NONE_BEGAN.format(place=self.record.profile.state_dir or "in the home folder"))
        for rank in list(self._tasks):
            if rank == 0 and job.state != "COMPLETED":
                self._watches[0].want([SLURM_LOG])
            self._settle(rank)


def told(job: jobs.Job) -> events.Job:
    """A job as an event, with words for people."""
    if job.waiting:
        text = f"Slurm job {job.id} waits {words.waiting(job.reason)}"
        if words.hopeless(job.reason):
            text += "; waiting does not help"
        elif job.starts:
            text += f", expected to start {time.strftime('%d %b %H:%M', time.localtime(job.starts))}"
    elif job.state in jobs.ENDED:
        text = words.ending(job.id, job.state, job.by)[0]
    else:
        text = f"Slurm job {job.id} is {job.state.lower()} on {job.nodes or 'its nodes'}"
    if job.restarts:
        text += f", start {job.restarts + 1}"
    return events.Job(
        t=time.time(), id=job.id, state=job.state, reason=job.reason, text=text, nodes=job.nodes,
        submitted=job.submitted, starts=job.starts, ends=job.ends, restarts=job.restarts,
        code=job.code, signal=job.signal,
    )  # fmt: skip


def _differs(old: events.Job, new: events.Job) -> bool:
    """Whether there is something to tell; an expected start that moves by minutes is not."""
    fields = ("id", "state", "reason", "nodes", "restarts")
    return any(getattr(old, name) != getattr(new, name) for name in fields) or abs(old.starts - new.starts) > 600
