"""A finding, and the table of checks that make them.

To add a check: one generator function with `@check("group.name")` in any module of this package. It takes the profile
and what was seen (see `Seen`), and yields findings through `error`, `warning` and `info`, which know the check's id.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from engine.errors import RankdeckError, RequestError
from engine.hosts import LOCAL
from engine.preflight.observation import Observation

if TYPE_CHECKING:
    from engine.profile import Node, Profile

Severity = Literal["ok", "info", "warning", "error"]
Observations: TypeAlias = Mapping[int, "Observation | RankdeckError"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One judgement. `node_rank` is None where it is about no single node, and `host` "" then."""

    check: str
    severity: Severity
    text: str
    node_rank: int | None = None
    host: str = ""
    evidence: tuple[str, ...] = ()
    remedy: str = ""


@dataclass(frozen=True)
class Seen:
    """What a check judges: the profile, and every node's observation or the error in its place."""

    profile: Profile
    observations: Observations

    def nodes(self) -> Iterator[tuple[int, Node, Observation]]:
        """The nodes that answered, by rank."""
        for rank, node in enumerate(self.profile.nodes):
            found = self.observations.get(rank)
            if isinstance(found, Observation):
                yield rank, node, found

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


def error(rank: int | None, text: str, *, evidence: Iterable[str] = (), remedy: str = "") -> Note:
    return Note("error", rank, text, tuple(evidence), remedy)


def warning(rank: int | None, text: str, *, evidence: Iterable[str] = (), remedy: str = "") -> Note:
    return Note("warning", rank, text, tuple(evidence), remedy)


def info(rank: int | None, text: str, *, evidence: Iterable[str] = (), remedy: str = "") -> Note:
    return Note("info", rank, text, tuple(evidence), remedy)


Judgement: TypeAlias = Callable[[Seen], Iterable[Note]]


class Check:
    """A stable id, and a pure function from what was seen to findings; the docstring's first line is its title."""

    def __init__(self, name: str, judgement: Judgement) -> None:
        self.id = name
        self.title = (judgement.__doc__ or "").strip().split("\n")[0].rstrip(".")
        self._judgement = judgement

    def __repr__(self) -> str:
        return f"Check({self.id!r})"

    def __call__(self, profile: Profile, observations: Observations) -> list[Finding]:
        return [
            Finding(
                check=self.id,
                severity=note.severity,
                text=note.text,
                node_rank=note.node_rank,
                host="" if note.node_rank is None else profile.nodes[note.node_rank].host,
                evidence=note.evidence,
                remedy=note.remedy,
            )
            for note in self._judgement(Seen(profile, observations))
        ]


CHECKS: dict[str, Check] = {}


def check(name: str) -> Callable[[Judgement], Judgement]:
    """Put a judgement into `CHECKS` under this id, which users write after --skip."""

    def register(judgement: Judgement) -> Judgement:
        if name in CHECKS:
            raise ValueError(f"two checks are called {name}")
        CHECKS[name] = Check(name, judgement)
        return judgement

    return register


def judge(profile: Profile, observations: Observations, skip: Iterable[str] = ()) -> list[Finding]:
    """Every finding, check by check and by node rank; RequestError if `skip` names a check that does not exist."""
    skipped = set(skip)
    for name in sorted(skipped - CHECKS.keys()):
        close = difflib.get_close_matches(name, CHECKS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the checks: {', '.join(CHECKS)}"
        raise RequestError(f"there is no check called {name[:60]!r}", remedy=hint)
    found = [finding for each in CHECKS.values() if each.id not in skipped for finding in each(profile, observations)]
    order = {name: place for place, name in enumerate(CHECKS)}
    return sorted(found, key=lambda f: (order[f.check], -1 if f.node_rank is None else f.node_rank))


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
