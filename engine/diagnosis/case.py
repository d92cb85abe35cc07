"""One run that is judged: its deaths, explained, and the words of a verdict about one of them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import msgspec

from engine.diagnosis.deaths import Death, Failure, deaths_of
from engine.diagnosis.explain import LOOK_BACK, Incident, explain, signal_name
from engine.diagnosis.lines import SHOWN, Line, Source
from engine.diagnosis.nodes import Node, nodes_of
from engine.diagnosis.rules import NOISE, SURE, Role, Rule, fill
from engine.diagnosis.rules.rule import compiled
from engine.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

EVIDENCE = 3
QUOTED = 200
"""Characters of an exception in a sentence."""
SELF_SPOKEN = frozenset({"bad-option", "import-error", "torch-missing", "syntax-error", "port-in-use", "file-missing"})
"""Rules whose sentence has all that the exception says."""


class Proof(msgspec.Struct, frozen=True):
    """One line of evidence: its file, line (from 1) and byte offset."""

    file: str
    line: int
    text: str
    offset: int = 0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong first: `cause` in one sentence, `confidence` from 0 to 1; `t` in seconds, as failures have it.

    `role` is victim where only victims are left: what went wrong is not in the evidence.
    """

    rule: str
    role: Role
    node_rank: int | None
    rank: int | None
    cause: str
    proof: tuple[Proof, ...] = ()
    remedy: str = ""
    confidence: float = 0.0
    t: float = 0.0
    host: str = ""

    @property
    def text(self) -> str:
        return self.cause

    @property
    def evidence(self) -> tuple[str, ...]:
        return tuple(proof.text for proof in self.proof)

    @property
    def sure(self) -> bool:
        """Is it more than a victim's word?"""
        return self.role == "root"


class Case:
    """`failures` are what a journal knows; None where the text has to say who failed. `run` is for the remedies."""

    def __init__(
        self, sources: Sequence[Source], failures: Iterable[Failure] | None, hosts: Mapping[int, str], run: str
    ) -> None:
        self.nodes: dict[int, Node] = nodes_of(sources)
        self.hosts = dict(hosts)
        self.run = run
        known = None if failures is None else list(failures)
        self.journaled = known is not None
        for failure in known or ():
            self.hosts.setdefault(failure.node_rank, failure.host)
        deaths = deaths_of(self.nodes, known)
        failed = {d.failure.node_rank for d in deaths if d.failure.kind == "worker" and not d.failure.after_stop}
        # A torchrun that ended because one of its own ranks failed is no failure of its own.
        self.incidents = [
            explain(death)
            for death in deaths
            if death.failure.kind != "torchrun" or death.failure.signal or death.failure.node_rank not in failed
        ]
        for incident in self.incidents:
            self._sent_to_one(incident)

    def _sent_to_one(self, incident: Incident) -> None:
        """A signal that a rank got, and its torchrun did not, was meant for that rank: it yields to nothing."""
        failure = incident.death.failure
        node = self.nodes.get(failure.node_rank)
        if failure.kind != "worker" or not failure.signal or node is None or node.agent.death is not None:
            return
        # A journal does not say which of the pids that torchrun closed was this rank's.
        if not (self.journaled and node.agent.closed):
            incident.rule = msgspec.structs.replace(incident.rule, weight=max(incident.rule.weight, SURE))

    def lines_of(self, node_rank: int, local_rank: int) -> list[Line]:
        """All that one worker wrote, over all attempts."""
        workers = self.nodes[node_rank].workers
        return [line for (_, local), lines in sorted(workers.items()) if local == local_rank for line in lines]

    def place_of(self, rank: int) -> tuple[int, int] | None:
        """(node_rank, local_rank) of a global rank; None where no log tells."""
        for node_rank, node in self.nodes.items():
            for local, known in node.ranks.items():
                if known == rank:
                    return node_rank, local
        return None

    # ---- words ----------------------------------------------------------------------------------------------------

    def who(self, failure: Failure) -> str:
        return subject(msgspec.structs.replace(failure, host=self.hosts.get(failure.node_rank, "")))

    def verdict(self, incident: Incident, rule: Rule | None = None, more: str = "") -> Verdict:
        """The verdict on one incident; `rule` instead of its own where all of them together tell more."""
        failure, used, raised = incident.death.failure, rule or incident.rule, incident.raised
        values = self._values(incident)
        said = fill(used.says, values)
        if raised is not None and not {"{exc}", "{detail}"} & set(used.says.split()) and used.id not in SELF_SPOKEN:
            said += f": {values['exc']}"
        return Verdict(
            rule=used.id,
            role=used.role,
            node_rank=failure.node_rank,
            rank=failure.rank if failure.rank is None or failure.rank >= 0 else None,
            cause=f"{self.who(failure)} {said}{incident.at}{more}",
            proof=self.prove(self._evidence(incident)),
            remedy=fill(used.remedy, values),
            confidence=round(used.sure, 2),
            t=failure.t,
            host=self.hosts.get(failure.node_rank, ""),
        )

    def _values(self, incident: Incident) -> dict[str, str | None]:
        """What the words of a rule may name."""
        failure, raised, key = incident.death.failure, incident.raised, incident.key
        text = headline(raised.text) if raised is not None else key.text.strip() if key is not None else ""
        words = spoken(incident.death.lines)
        last = clean(words[-1].text, QUOTED) if words and words[-1] is not incident.death.seen else None
        see = "its log"
        if self.run and failure.rank is not None:
            see = f"rankdeck logs {self.run} --rank {failure.rank} --stderr"
        groups = {name: clean(value, QUOTED).strip() for name, value in incident.groups.items()}
        host = self.hosts.get(failure.node_rank) or f"NODE{failure.node_rank}"
        return {
            **groups,
            "host": host,
            "exc": clean(text, QUOTED),
            "detail": clean(text, QUOTED),
            "see": see,
            "last": last,
        }

    def _evidence(self, incident: Incident) -> list[Line | None]:
        """The deciding line, what else fits, where in the program it was, how torchrun saw it, and the last words."""
        death, also = incident.death, incident.rule.also
        more = [line for line in death.lines if also and compiled(also).search(line.text)][:2]
        words = spoken(death.lines)
        place = incident.place
        return [incident.key, *more, place.line if place is not None else None, death.seen, *words[-3:]]

    def prove(self, lines: Iterable[Line | None]) -> tuple[Proof, ...]:
        """The first three different lines, safe to show."""
        kept: list[Proof] = []
        for line in lines:
            if line is None or not line.text.strip() or any((p.file, p.line) == (line.file, line.number) for p in kept):
                continue
            kept.append(Proof(line.file, line.number, clean(line.shown, SHOWN), line.offset))
        return tuple(kept[:EVIDENCE])


def headline(text: str) -> str:
    """The first line of an exception; with the second, where the first only announces it."""
    first, _, rest = text.partition("\n")
    return f"{first} {rest.strip().partition(chr(10))[0]}" if first.rstrip().endswith(":") and rest else first


def spoken(lines: Sequence[Line]) -> list[Line]:
    """The last lines that say something."""
    said = (line for line in reversed(lines) if line.text.strip() and not NOISE.search(line.text))
    return list(itertools.islice(said, LOOK_BACK))[::-1]


def subject(failure: Failure) -> str:
    """“rank 3 (local_rank 1) on gpu02 (node_rank 1)”."""
    where = f"{failure.host} (node_rank {failure.node_rank})" if failure.host else f"node_rank {failure.node_rank}"
    if failure.kind == "lost":
        return where
    if failure.kind == "torchrun":
        return f"torchrun on {where}"
    rank = "a rank" if failure.rank is None or failure.rank < 0 else f"rank {failure.rank}"
    local = f" (local_rank {failure.local_rank})" if failure.local_rank is not None else ""
    return f"{rank}{local} on {where}"


def ending(code: int | None, signal: int | None) -> str:
    """How a process ended, in words."""
    if signal is not None:
        return f"was killed by {signal_name(signal)}"
    return "ended, nobody saw how" if code is None else f"exited with code {code}"


def sentence(failure: Failure) -> str:
    """Who ended how, while nobody knows why: “rank 3 (local_rank 1) on gpu02 (node_rank 1) exited with code 1”."""
    if failure.kind == "lost":
        return f"{subject(failure)} {failure.tail[0] if failure.tail else 'was lost'}"
    return f"{subject(failure)} {ending(failure.code, failure.signal)}"


def about(node_rank: int, lines: list[Line], rank: int | None = None, local_rank: int | None = None) -> Death:
    """A death that nobody reported: of a worker, or of a whole node."""
    kind = "lost" if local_rank is None else "worker"
    words = spoken(lines)
    failure = Failure(kind, 0.0, node_rank, local_rank=local_rank, rank=rank)  # type: ignore[arg-type]
    return Death(failure, words, [], words[-1] if words else None, timed=False)
