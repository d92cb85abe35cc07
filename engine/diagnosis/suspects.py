"""Who hung or vanished, where only others speak: ranks that waited in vain, or lost a peer.

NCCL's watchdogs accuse best, then a text that names a rank. Else the suspect is whoever has not said a word: of ranks
that only waited, one that torchrun ended afterwards is as silent as one that still hangs.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from engine.diagnosis.case import EVIDENCE, Case, Verdict, about
from engine.diagnosis.deaths import Death, Failure, fatal
from engine.diagnosis.explain import Incident, asked_of, explain
from engine.diagnosis.rules import RULES
from engine.diagnosis.rules.ends import APART, HANG, LEFT_EARLY, SILENT
from engine.diagnosis.traces import traces
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
    spoke = {_place(incident) for incident in case.incidents if _spoke(incident)}
    whole = {node_rank for node_rank, local in spoke if local is None}
    heard = [i for i in case.incidents if i.rule.id in WAITED] or [i for i in case.incidents if i.rule.id in LOST_PEER]
    if heard:
        silent = [
            (node_rank, local)
            for node_rank, node in case.nodes.items()
            if node_rank not in whole
            for local in node.locals
            if (node_rank, local) not in spoke
        ]
        if not silent and heard[0].rule.id in WAITED:
            # Who came after the others had given up finds them gone.
            late = [_place(incident) for incident in case.incidents if incident.rule.id in LOST_PEER]
            silent = [(node_rank, local) for node_rank, local in late if local is not None]
        if len(silent) == 1:
            return _suspicion(case, *silent[0], heard, HANG if heard[0].rule.id in WAITED else SILENT)
    # A journal knows of every end: what it does not call a failure has not vanished.
    ended = heard or [i for i in case.incidents if i.rule.id == "terminated" and not case.journaled]
    nodes = [node_rank for node_rank in case.nodes if node_rank not in {node for node, _ in spoke}]
    if ended and len(nodes) == 1 and (heard or case.nodes[nodes[0]].shared or not case.nodes[nodes[0]].empty):
        return _silent_node(case, nodes[0], ended)
    if finding is not None:
        return _by_watchdog(case, finding)
    waited = [i for i in heard if i.rule.id in WAITED]
    if len({i.death.failure.node_rank for i in waited}) > 1 and all(i.rule.role == "victim" for i in case.incidents):
        return _elsewhere(case, waited) or case.verdict(waited[0], APART)
    return None


def _elsewhere(case: Case, waited: Sequence[Incident]) -> Verdict | None:
    """Ranks that waited in different collectives at the same time: nobody is missing, they do not agree."""
    calls = [(incident, call) for incident in waited if (call := _call(incident))]
    counts = Counter(call for _, call in calls)
    if len(counts) < 2:
        return None
    usual, rare = counts.most_common()[0][0], counts.most_common()[-1][0]
    odd = next(incident for incident, call in reversed(calls) if call == rare)
    rule = next(rule for rule in RULES if rule.id == "collective-mismatch")
    verdict = case.verdict(odd, rule)
    return msgspec.structs.replace(
        verdict,
        cause=f"{case.who(odd.death.failure)} waited in {rare}, others in {usual}: the ranks do not call the same "
        f"collectives in the same order{odd.at}",
        proof=case.prove([place.line for i, _ in (calls[0], (odd, rare)) if (place := i.place)] + [odd.key]),
        confidence=0.6,
    )


def _call(incident: Incident) -> str:
    """`all_reduce`: the collective that the program itself called; "" where autograd did, or nobody knows."""
    frames = incident.raised.frames if incident.raised is not None else ()
    return next((one.function for one in reversed(frames) if one.file.endswith("distributed_c10d.py")), "")


def _suspicion(case: Case, node_rank: int, local: int, heard: Sequence[Incident], rule: Rule) -> Verdict:
    """The verdict on a worker that nobody reported; what it wrote itself may say why."""
    lines = case.lines_of(node_rank, local)
    death = about(node_rank, lines, case.nodes[node_rank].rank(local), local)
    own = asked_of(death) or _raised(death)
    if own is not None:
        return case.verdict(own)
    return _silence(case, death, heard, rule)


def _raised(death: Death) -> Incident | None:
    """An exception that a rank did not survive in spirit: in a thread of its own, with nothing after it."""
    told = traces(death.lines)
    if not told or not fatal(told[-1], death.lines):
        return None
    own = explain(msgspec.structs.replace(death, failure=UNREPORTED, traces=told[-1:]))
    own.death, own.rule = death, msgspec.structs.replace(own.rule, sure=min(own.rule.sure, 0.75))
    return own if own.rule.role == "root" else None


UNREPORTED = Failure("worker", 0.0, 0, code=1)


def _place(incident: Incident) -> tuple[int, int | None]:
    return incident.death.failure.node_rank, incident.death.failure.local_rank


def _spoke(incident: Incident) -> bool:
    """Did it say how it ended? Of those that torchrun ended, who told of a lost peer or of waiting had not hung."""
    death = incident.death
    if incident.rule.id != "stopped":
        return True
    return explain(msgspec.structs.replace(death, failure=UNREPORTED)).rule.role == "victim"


def _silent_node(case: Case, node_rank: int, heard: Sequence[Incident]) -> Verdict:
    node = case.nodes[node_rank]
    if not node.ranks and all(set(other.ranks) == {0} for other in case.nodes.values() if other is not node):
        # One rank on every other node: so it is here.
        node.ranks[0] = node_rank
    if len(node.ranks) == 1:
        return _suspicion(case, node_rank, next(iter(node.ranks)), heard, SILENT)
    lines = [line for _, lines in sorted(node.workers.items()) for line in lines] or node.shared
    return _silence(case, about(node_rank, lines), heard, SILENT)


def _silence(case: Case, death: Death, heard: Sequence[Incident], rule: Rule) -> Verdict:
    """What silence means: torchrun waits for the other nodes where its own ranks have all succeeded."""
    shared = case.nodes[death.failure.node_rank].shared
    waits = next((line for line in shared if EXIT_BARRIER.search(line.text)), None)
    verdict = case.verdict(Incident(death, LEFT_EARLY if waits and rule is SILENT else rule, {}, death.seen))
    return msgspec.structs.replace(verdict, proof=case.prove([waits, death.seen, *(i.key for i in heard)]))


EXIT_BARRIER = re.compile(r"waiting on exit barrier|WorkerState\.SUCCEEDED")


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
    found = {node.rank(local) for node in case.nodes.values() for local in node.locals}
    return {rank for rank in found if rank is not None}


def _worker_lines(case: Case) -> Iterator[tuple[int | None, Line]]:
    for node in case.nodes.values():
        for (_, local), lines in node.workers.items():
            yield from ((node.rank(local), line) for line in lines)
        yield from ((None, line) for line in node.shared)
