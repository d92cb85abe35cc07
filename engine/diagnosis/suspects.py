"""Who hung or vanished, where only others speak: ranks that waited in vain, or lost a peer.

NCCL's watchdogs accuse best, then a text that names a rank. Else the suspect is whoever has not said a word: of ranks
that only waited, one that torchrun ended afterwards is as silent as one that still hangs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from engine.diagnosis.case import EVIDENCE, Case, Verdict, about
from engine.diagnosis.explain import Incident, asked_of
from engine.diagnosis.rules import RULES
from engine.diagnosis.rules.ends import APART, HANG, SILENT
from engine.diagnosis.watchdog import Finding, compare, watchdogs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from engine.diagnosis.lines import Line
    from engine.diagnosis.rules import Rule

WAITED = frozenset({"collective-timeout", "rank-never-came", "stale-job"})
LOST_PEER = frozenset({"peer-gone", "nccl-remote", "store-lost", "peer-refused"})
ASKED_TO_END = frozenset({"terminated", "interrupted", "hangup"})


def accused(case: Case) -> Verdict | None:
    """The suspect, where one stands out."""
    finding = compare(watchdogs(_worker_lines(case)), _ranks(case))
    if finding is not None and finding.kind != "together":
        return _by_watchdog(case, finding)
    named = [incident for incident in case.incidents if incident.suspect is not None]
    if named and (place := case.place_of(named[0].suspect or 0)) is not None:
        return _suspicion(case, *place, named, HANG)
    spoke = {(i.death.failure.node_rank, i.death.failure.local_rank) for i in case.incidents if i.rule.id != "stopped"}
    whole = {node_rank for node_rank, local in spoke if local is None}
    heard = [i for i in case.incidents if i.rule.id in WAITED] or [i for i in case.incidents if i.rule.id in LOST_PEER]
    if heard:
        silent = [
            (node_rank, local)
            for node_rank, node in case.nodes.items()
            if node_rank not in whole
            for local in sorted({local for _, local in node.workers})
            if (node_rank, local) not in spoke
        ]
        if len(silent) == 1:
            return _suspicion(case, *silent[0], heard, HANG if heard[0].rule.id in WAITED else SILENT)
    # A journal knows of every end: what it does not call a failure has not vanished.
    ended = heard or [i for i in case.incidents if i.rule.id == "terminated" and not case.journaled]
    nodes = [node_rank for node_rank in case.nodes if node_rank not in {node for node, _ in spoke}]
    if ended and len(nodes) == 1:
        return _silent_node(case, nodes[0], ended)
    if finding is not None:
        return _by_watchdog(case, finding)
    waited = [i for i in heard if i.rule.id in WAITED]
    if len({i.death.failure.node_rank for i in waited}) > 1 and all(i.rule.role == "victim" for i in case.incidents):
        return case.verdict(waited[0], APART)
    return None


def _suspicion(case: Case, node_rank: int, local: int, heard: Sequence[Incident], rule: Rule) -> Verdict:
    """The verdict on a worker that nobody reported; what it wrote itself may say why."""
    lines = case.lines_of(node_rank, local)
    death = about(node_rank, lines, case.nodes[node_rank].rank(local), local)
    own = asked_of(death)
    if own is not None:
        return case.verdict(own)
    verdict = case.verdict(Incident(death, rule, {}, death.seen))
    return msgspec.structs.replace(verdict, proof=case.prove([death.seen, *(i.key for i in heard)]))


def _silent_node(case: Case, node_rank: int, heard: Sequence[Incident]) -> Verdict:
    node = case.nodes[node_rank]
    if len(node.ranks) == 1:
        return _suspicion(case, node_rank, next(iter(node.ranks)), heard, SILENT)
    lines = [line for _, lines in sorted(node.workers.items()) for line in lines] or node.shared
    death = about(node_rank, lines)
    verdict = case.verdict(Incident(death, SILENT, {}, death.seen))
    return msgspec.structs.replace(verdict, proof=case.prove([death.seen, *(i.key for i in heard)]))


def _by_watchdog(case: Case, finding: Finding) -> Verdict:
    """What comparing the watchdogs came to; where nobody stands out, all are victims."""
    rank = finding.ranks[0]
    node_rank, local = case.place_of(rank) or (0, 0)
    lines = case.lines_of(node_rank, local) if node_rank in case.nodes else []
    death = about(node_rank, lines, rank, local)
    name = {"differs": "collective-mismatch", "together": "collective-timeout"}.get(finding.kind, "hang")
    rule = next(rule for rule in (*RULES, HANG) if rule.id == name)
    verdict = case.verdict(Incident(death, rule, {}, death.seen))
    own = [death.seen] if finding.kind == "silent" else []
    others = finding.ranks[1:6] if name == "hang" else ()
    more = f" (and rank {', '.join(map(str, others))})" if others else ""
    return msgspec.structs.replace(
        verdict,
        cause=f"{case.who(death.failure)}{more} {finding.says}",
        proof=case.prove([*own, *finding.lines])[:EVIDENCE],
        confidence=finding.sure,
    )


def _ranks(case: Case) -> set[int]:
    """The global ranks that the logs show."""
    found = {node.rank(local) for node in case.nodes.values() for _, local in node.workers}
    return {rank for rank in found if rank is not None}


def _worker_lines(case: Case) -> Iterator[tuple[int | None, Line]]:
    for node in case.nodes.values():
        for (_, local), lines in node.workers.items():
            yield from ((node.rank(local), line) for line in lines)
        yield from ((None, line) for line in node.shared)
