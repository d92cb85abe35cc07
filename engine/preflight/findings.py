"""A finding, and the table of checks that make them.

To add a check: one generator function with `@check("group.name", needs=PARTS)` in any module of this package. It takes
what was seen (see `Seen`), and yields findings through `error`, `warning` and `info`, which know the check's id. PARTS
are the fields of an `Observation` that it looks at; it sees the nodes of which they are known. A check that compares
nodes says `across=True`, and is asked only when they are known of every node.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import msgspec

from engine import events
from engine.errors import RankdeckError, RequestError
from engine.hosts import LOCAL
from engine.preflight.observation import Observation

if TYPE_CHECKING:
    from engine.profile import Node, Profile

Severity = Literal["ok", "info", "warning", "error"]
Observations: TypeAlias = Mapping[int, "Observation | RankdeckError"]
Waiting: TypeAlias = Mapping[int, Collection[str]]
"""By node rank, the parts of an observation that are still to come; "reach" is whether the node answers at all."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One judgement. `node_rank` is None where it is about no single node, and `host` "" then.

    `fix` holds changes of the profile ("rendezvous.master_port=29601", as after --set) that mend it, where some do:
    `engine.profile.override(profile, fix)` applies them.
    """

    check: str
    severity: Severity
    text: str
    node_rank: int | None = None
    host: str = ""
    evidence: tuple[str, ...] = ()
    remedy: str = ""
    fix: tuple[str, ...] = ()

    def event(self, t: float) -> events.Finding:
        """What a launch writes down of it; `t` in unix seconds."""
        return events.Finding(
            t=t,
            node_rank=-1 if self.node_rank is None else self.node_rank,
            check=self.check,
            severity=self.severity,
            host=self.host,
            text=self.text,
            evidence=self.evidence,
            remedy=self.remedy,
        )


@dataclass(frozen=True)
class Seen:
    """What a check judges: the profile, and every node's observation or the error in its place."""

    profile: Profile
    observations: Observations
    waiting: Waiting = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    def nodes(self) -> Iterator[tuple[int, Node, Observation]]:
        """The nodes that answered, by rank, and of which nothing that the check needs is still to come."""
        for rank, node in enumerate(self.profile.nodes):
            if (found := self.node(rank)) is not None:
                yield rank, node, found

    def node(self, rank: int) -> Observation | None:
        """One of `nodes`, or None."""
        found = self.observations.get(rank)
        return found if isinstance(found, Observation) and not self.awaits(rank) else None

    def awaits(self, rank: int) -> bool:
        """Whether something that the check needs is still to come from this node."""
        return not set(self.needs).isdisjoint(self.waiting.get(rank or 0, ()))

    def so_far(self) -> Seen:
        """The same, with the nodes of which something is still to come."""
        return Seen(self.profile, self.observations)

    def one_machine(self) -> bool:
        """Whether no rank's traffic leaves one machine."""
        return len(self.profile.nodes) == 1 or all(node.host == LOCAL for node in self.profile.nodes)


@dataclass(frozen=True)
class Note:
    """A finding before it knows its check and host."""

    severity: Severity
    node_rank: int | None
    text: str
    evidence: tuple[str, ...] = ()
    remedy: str = ""
    fix: tuple[str, ...] = ()


class _Noted(Protocol):
    def __call__(
        self,
        rank: int | None,
        text: str,
        *,
        evidence: Iterable[str] = (),
        remedy: str = "",
        fix: Iterable[str] = (),
    ) -> Note: ...


def _noting(severity: Severity) -> _Noted:
    def note(
        rank: int | None, text: str, *, evidence: Iterable[str] = (), remedy: str = "", fix: Iterable[str] = ()
    ) -> Note:
        """A finding about node `rank`. The words for a `fix` are put before the remedy: they are what to do first."""
        settings = tuple(fix)
        words = " ".join(f"--set {shlex.quote(setting)}" for setting in settings)
        return Note(severity, rank, text, tuple(evidence), "; ".join(filter(None, (words, remedy))), settings)

    return note


error, warning, info = _noting("error"), _noting("warning"), _noting("info")


Judgement: TypeAlias = Callable[[Seen], Iterable[Note]]


class Check:
    """A stable id, and a pure function from what was seen to findings; the docstring's first line is its title."""

    def __init__(self, name: str, judgement: Judgement, needs: tuple[str, ...], across: bool, inside: bool) -> None:
        self.id = name
        self.needs = needs
        self.across = across
        self.inside = inside
        self.title = (judgement.__doc__ or "").strip().split("\n")[0].rstrip(".")
        self._judgement = judgement

    def __repr__(self) -> str:
        return f"Check({self.id!r})"

    def awaits(self, rank: int | None, waiting: Waiting) -> bool:
        """Whether there may be more to say of this node, or (None) of the whole."""
        needs = frozenset(self.needs)
        if rank is None or self.across:
            return any(not needs.isdisjoint(parts) for parts in waiting.values())
        return not needs.isdisjoint(waiting.get(rank, ()))

    def __call__(self, profile: Profile, observations: Observations, waiting: Waiting) -> list[Finding]:
        seen = Seen(profile, observations, waiting, self.needs)
        if self.across and self.awaits(None, waiting):
            return []
        return [
            Finding(
                check=self.id,
                severity=note.severity,
                text=note.text,
                node_rank=note.node_rank,
                host="" if note.node_rank is None else profile.nodes[note.node_rank].host,
                evidence=note.evidence,
                remedy=note.remedy,
                fix=note.fix,
            )
            for note in self._judgement(seen)
        ]


CHECKS: dict[str, Check] = {}


def check(
    name: str, *, needs: tuple[str, ...], across: bool = False, inside: bool = False
) -> Callable[[Judgement], Judgement]:
    """Put a judgement into `CHECKS` under this id, which users write after --skip.

    `inside`: it is about what the activation leads to, and cannot tell where that does not come up.
    """

    def register(judgement: Judgement) -> Judgement:
        if name in CHECKS:
            raise ValueError(f"two checks are called {name}")
        CHECKS[name] = Check(name, judgement, needs, across, inside)
        return judgement

    return register


def known_checks(names: Iterable[str]) -> frozenset[str]:
    """The ids as a set; RequestError for one that no check has."""
    found = frozenset(names)
    for name in sorted(found - CHECKS.keys()):
        close = difflib.get_close_matches(name, CHECKS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the checks: {', '.join(CHECKS)}"
        raise RequestError(f"there is no check called {name[:60]!r}", remedy=hint)
    return found


def judge(
    profile: Profile, observations: Observations, skip: Iterable[str] = (), waiting: Waiting | None = None
) -> list[Finding]:
    """Every finding so far, check by check and by node rank; RequestError if `skip` names an unknown check.

    A node that neither is in `observations` nor has anything `waiting` gave no answer.
    """
    checks = [each for each in CHECKS.values() if each.id not in known_checks(skip)]
    found = [finding for each in checks for finding in each(profile, observations, waiting or {})]
    order = {name: place for place, name in enumerate(CHECKS)}
    return sorted(found, key=lambda f: (order[f.check], -1 if f.node_rank is None else f.node_rank))


def fixes(findings: Sequence[Finding]) -> list[str]:
    """The settings that mend what is found, those of errors first; of two for one key the first."""
    chosen: dict[str, str] = {}
    for severity in ("error", "warning"):
        for setting in (s for finding in findings if finding.severity == severity for s in finding.fix):
            chosen.setdefault(setting.partition("=")[0], setting)
    return list(chosen.values())


def differing(values: Mapping[int, str]) -> dict[str, list[int]]:
    """The ranks by value, the most common first, if there is more than one value; else nothing."""
    groups: dict[str, list[int]] = {}
    for rank, value in values.items():
        groups.setdefault(value, []).append(rank)
    if len(groups) < 2:
        return {}
    return dict(sorted(groups.items(), key=lambda item: (-len(item[1]), item[1][0])))


def ranks_text(ranks: Iterable[int]) -> str:
    """Ranks in words: `node 3`, `nodes 0, 1, 4`, and with many of them their number."""
    known = list(ranks)
    if len(known) == 1:
        return f"node {known[0]}"
    if len(known) > 8:
        return f"{len(known)} nodes ({', '.join(map(str, known[:3]))} …)"
    return f"nodes {', '.join(map(str, known))}"
