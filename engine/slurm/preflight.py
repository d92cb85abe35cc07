"""Before a job is submitted: is the login node there, has the cluster what is asked for, would Slurm take the script?

It has what a launch and its viewers use of `engine.check.Preflight`: findings, conversations, a plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine import launchers
from engine.errors import RankdeckError, RequestError
from engine.launchers import slurm as text
from engine.preflight import Finding
from engine.preflight.findings import error, info, warning
from engine.preflight.matrix import Cell
from engine.slurm import cluster, jobs
from engine.slurm.login import Login, ask
from engine.slurm.words import explain

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from engine.conversation import Conversation
    from engine.fleet import Accept
    from engine.plan import Plan
    from engine.preflight import Observation
    from engine.preflight.findings import Note
    from engine.profile import Profile, Slurm, SlurmGroup
    from engine.transport import Connector


class JobCheck(NamedTuple):
    """A check of a job as a whole: like `engine.preflight.Check`, it is about no single node."""

    title: str
    across: bool = True


CHECKS = {
    "slurm.login": JobCheck("the login node answers, and Slurm is there"),
    "slurm.request": JobCheck("the partition has what is asked for"),
    "slurm.test": JobCheck("sbatch --test-only takes the script"),
    "slurm.track": JobCheck("Slurm finds every process of a job at its end"),
}


class JobPreflight:
    """What is known of a job before it is submitted; the one conversation is with the login node."""

    checks: Mapping[str, JobCheck] = CHECKS
    hosts: tuple[str, ...] = ()
    observations: Mapping[int, Observation | RankdeckError] = {}
    """Hosts and what they said: none, since Slurm has not chosen them yet."""

    def __init__(
        self,
        profile: Profile,
        connector: Connector,
        accept: Accept,
        skip: Collection[str] = (),
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """RequestError for a check in `skip` that is none of a job's."""
        if unknown := sorted(set(skip) - CHECKS.keys()):
            raise RequestError(
                f"{unknown[0]} is no check of a Slurm job, whose nodes are not chosen yet",
                remedy=f"--skip takes one of: {', '.join(CHECKS)}",
            )
        self.profile = profile
        self.skip = set(skip)
        self.conversations: dict[int, Conversation | RankdeckError] = {}
        self.findings: list[Finding] = []
        self.cluster = cluster.Cluster()
        self._login = Login(profile, connector, accept)
        self._changed = changed
        self._waiting = set(CHECKS)

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "error"]

    def final(self, finding: Finding) -> bool:
        """Nothing that is found is taken back."""
        return True

    def cells(self) -> dict[tuple[int | None, str], Cell]:
        """The checks, each about the job as a whole."""
        found: dict[tuple[int | None, str], Cell] = {}
        for name in CHECKS:
            here = tuple(finding for finding in self.findings if finding.check == name)
            state = "waiting" if name in self._waiting else here[0].severity if here else "ok"
            found[None, name] = Cell(state="skipped" if name in self.skip else state, findings=here)
        return found

    @property
    def waiting(self) -> Mapping[int, set[str]]:
        """What the one node that is asked, the login node, has not answered yet."""
        return {0: self._waiting}

    def plan(self, run: str) -> Plan:
        return launchers.find("slurm").make_plan(self.profile, run)

    async def close(self) -> None:
        """Leave the login node."""
        for conversation in self.conversations.values():
            if not isinstance(conversation, RankdeckError):
                await conversation.close()

    async def run(self) -> None:
        """Ask everything. When this is cancelled, the conversation is closed."""
        try:
            await self._look()
        except RankdeckError as failure:
            self.conversations.setdefault(0, failure)
            self._found("slurm.login", error(None, failure.text, remedy=failure.remedy))
        except BaseException:
            await self.close()
            raise
        self._waiting.clear()
        self._changed()

    async def retry(self, node_rank: int | None = None, check: str | None = None) -> None:
        """Ask everything anew: it is one conversation, and seconds."""
        await self.close()
        self.conversations.clear()
        self.findings.clear()
        self.skip.discard(check or "")
        self._waiting.update(CHECKS)
        await self.run()

    async def _look(self) -> None:
        conversation = self.conversations[0] = await self._login.dial(0)
        if self.profile.slurm is not None and self.profile.slurm.allocation is not None:
            await self._look_inside(conversation, str(self.profile.slurm.allocation))
            return
        tested = await ask(conversation, "test", script=self.plan("preflight").texts["sbatch"])
        self._done("slurm.login")
        self.cluster = cluster.read(await ask(conversation, "cluster"))
        for check, notes in (
            ("slurm.request", lacks(self.profile, self.cluster)),
            ("slurm.track", tracked(self.cluster)),
        ):
            for each in notes:
                self._found(check, each)
            self._done(check)
        said = str(tested.get("err", "")).strip() or str(tested.get("out", "")).strip()
        if tested.get("code") == 0:
            self._found("slurm.test", info(None, said.removeprefix("sbatch: ")))
        else:
            refusal = explain(said, self._login.host)
            self._found("slurm.test", error(None, refusal.text, remedy=refusal.remedy))

    async def _look_inside(self, conversation: Conversation, number: str) -> None:
        """Is the job there inside which the run is to be started?"""
        job = jobs.read(await ask(conversation, "look", jobs=[number]), jobs.Sought(id=number, name="", since=0.0))
        self._done("slurm.login")
        if job is not None and job.state == "RUNNING":
            self._found("slurm.request", info(None, f"job {number} runs on {job.nodes}"))
        else:
            why = f"job {number} is {job.state}" if job is not None else f"there is no job {number}"
            remedy = "salloc gives one; or leave out slurm.allocation, for a job of its own"
            self._found("slurm.request", error(None, f"{why}: nothing can be started inside it", remedy=remedy))

    def _done(self, check: str) -> None:
        self._waiting.discard(check)
        self._changed()

    def _found(self, check: str, note: Note) -> None:
        if check not in self.skip:
            finding = Finding(
                check=check,
                severity=note.severity,
                text=note.text,
                host=self._login.host,
                remedy=note.remedy,
                fix=note.fix,
            )
            self.findings.append(finding)
        self._done(check)


def lacks(profile: Profile, known: cluster.Cluster) -> Iterator[Note]:
    """What a partition does not have or allow, though sbatch may queue the job for ever."""
    slurm = profile.slurm
    if slurm is None or not known.partitions:
        return
    mine = list(dict.fromkeys(account.account for account in known.accounts))
    if slurm.account and mine and slurm.account not in mine:
        why = f"{slurm.account} is none of your accounts: {', '.join(mine[:8])}"
        yield error(None, why, fix=[f"slurm.account={mine[0]}"])
    qos = list(dict.fromkeys(each for a in known.accounts if slurm.account in ("", a.account) for each in a.qos))
    if slurm.qos and qos and slurm.qos not in qos:
        yield error(None, f"{slurm.qos} is none of your QOS: {', '.join(qos[:8])}", fix=[f"slurm.qos={qos[0]}"])
    for number, group in enumerate(text.groups(slurm)):
        where = f"slurm.groups[{number}]" if slurm.groups else "slurm"
        name = group.partition or slurm.partition
        if "," in name:
            continue  # any of several: Slurm chooses
        partition = known.partition(name)
        if partition is None:
            if name:
                names = [p.name for p in sorted(known.partitions, key=lambda p: not p.default)]
                key = f"{where if group.partition else 'slurm'}.partition"
                why = f"there is no partition {name}"
                yield error(None, why, fix=[f"{key}={names[0]}"], remedy=f"there are: {', '.join(names)}")
            continue
        yield from _limits(slurm, partition)
        yield from _machines(group, where, partition)


def _limits(slurm: Slurm, partition: cluster.Partition) -> Iterator[Note]:
    if not partition.up:
        yield warning(None, f"partition {partition.name} is not up: the job would wait", remedy="see: sinfo")
    asked, most = cluster.seconds(slurm.time), partition.max_time
    if asked is not None and most is not None and asked > most:
        hours = most / 3600
        why = f"the time limit {slurm.time} is longer than partition {partition.name} allows ({hours:g} hours)"
        yield error(None, why, fix=[f"slurm.time={most // 60}"], remedy="with this the job would wait for ever")


def _machines(group: SlurmGroup, where: str, partition: cluster.Partition) -> Iterator[Note]:
    if group.nodes > (most := min(partition.nodes, partition.max_nodes or partition.nodes)):
        why = f"{group.nodes} nodes are asked for, and partition {partition.name} gives {most} at most"
        yield error(None, why, fix=[f"{where}.nodes={most}"], remedy="or choose another partition: sinfo")
    if group.gpus_per_node > partition.gpus:
        why = f"{group.gpus_per_node} GPUs a node are asked for, and partition {partition.name} has {partition.gpus}"
        yield error(None, why, fix=[f"{where}.gpus_per_node={partition.gpus}"], remedy="or choose another partition")
    elif partition.free < group.nodes <= partition.nodes:
        yield info(None, f"{partition.free} of {partition.nodes} nodes of {partition.name} are free now: it waits")


def tracked(known: cluster.Cluster) -> Iterator[Note]:
    """Whether Slurm finds every process of a job at its end (slurm.conf(5), ProctrackType)."""
    how = known.proctrack.removeprefix("proctrack/")
    if how == "pgid":
        why = "Slurm tracks jobs by process group (proctrack/pgid): a worker in a group of its own outlives its job"
        yield warning(
            None, why, remedy="Rankdeck ends its own; the administrators could set ProctrackType=proctrack/cgroup"
        )
    elif how and how != "cgroup":
        yield info(None, f"Slurm tracks jobs by {how}, not by cgroup: it may miss a process, and Rankdeck ends its own")
