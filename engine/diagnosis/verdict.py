"""The verdict: of all that ended, what went wrong first, by whom it was said, and what to do.

- What kernel, scheduler, shell and ssh say of a node explains what its ranks cannot know.
- The earliest root over all nodes, where one is that yields to no other.
- Else, where ranks waited in vain or lost a peer: the rank or node that has not said a word.
- Else the heaviest root that yields: a network that does not connect, a signal from outside.
- Else a victim, and the verdict says that it is one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from engine.diagnosis.case import EVIDENCE, Case, Verdict, about
from engine.diagnosis.deaths import Failure
from engine.diagnosis.explain import Incident, lines_of_node
from engine.diagnosis.rules import NOISE, SURE
from engine.diagnosis.rules.ends import HANG, UNKNOWN
from engine.diagnosis.suspects import accused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from engine.diagnosis.lines import Source
    from engine.diagnosis.rules import Rule

SAME_TIME = 30.0
"""Seconds within which the same root on other ranks is one and the same failure."""
FIRST, LAST = 1000, 3000
"""Lines at the beginning and at the end of a node's log among which kernel, scheduler and shell are looked for."""
LAST_WORDS = 8
"""Lines at the end of a node's log, but for indented help, among which a shell's or ssh's complaint is why it ended."""
BEHIND = {
    "host-out-of-memory": {"killed", "aborted", "dataloader-worker-killed", "exit-code", "ended-silently"},
    "gpu-broken": {"cuda-error", "nccl-cuda-error", "no-gpu", "driver", "exit-code", "aborted"},
}
"""What the kernel's word explains better than the rank that it struck."""
SYSTEM = re.compile(r"(?:slurmstepd|srun): ")
"""Whose word that it is over is the last, although buffers may still run out after it."""
LEFT_BEHIND = frozenset({"store-lost", "rendezvous-closed"})
UNREACHED = frozenset({"master-unreachable", "master-is-loopback", "name-unresolved"})


def diagnose(
    sources: Sequence[Source],
    failures: Iterable[Failure] | None = None,
    hosts: Mapping[int, str] | None = None,
    run: str = "",
) -> Verdict | None:
    """The first real failure; None where nothing failed.

    `failures` are what a journal knows, on one clock; without them the text has to say who failed.
    """
    case = Case(sources, failures, hosts or {}, run)
    verdict = _by_the_node(case) or _by_the_ranks(case)
    return verdict if verdict is not None or failures is not None else _silence(case)


def _by_the_ranks(case: Case) -> Verdict | None:
    strong = [i for i in case.incidents if i.root and i.rule.weight >= SURE]
    if strong:
        first = _first(strong)
        return case.verdict(first, more=_same(first, strong))
    weak = [i for i in case.incidents if i.root]
    heaviest = max((i.rule.weight for i in weak), default=0)
    if heaviest <= HANG.weight and (suspect := accused(case)) is not None:
        return suspect
    if weak:
        return _weak(case, _first([i for i in weak if i.rule.weight == heaviest]))
    victims = [i for i in case.incidents if not i.death.failure.after_stop] or case.incidents
    if not victims:
        return None
    heaviest = max(i.rule.weight for i in victims)
    return case.verdict(_first([i for i in victims if i.rule.weight == heaviest]))


def _first(incidents: Sequence[Incident]) -> Incident:
    """The earliest; those whose time nobody knows come last."""
    return min(incidents, key=lambda i: (not i.death.timed, i.death.failure.t, i.death.failure.node_rank))


def _same(first: Incident, roots: Sequence[Incident]) -> str:
    """The other ranks with the same failure, in words."""
    one = first.death.failure
    near = [i.death.failure for i in roots if i.rule.id == first.rule.id]
    others = sorted(
        {f.rank for f in near if f.rank is not None and f.rank != one.rank and abs(f.t - one.t) <= SAME_TIME}
    )
    if not others:
        return ""
    shown = ", ".join(map(str, others[:6])) + (" …" if len(others) > 6 else "")
    return f"; the same on {len(others)} other rank(s): {shown}"


# ---- what is outside of the ranks -----------------------------------------------------------------------------------


def _by_the_node(case: Case) -> Verdict | None:
    """What kernel, scheduler, shell and ssh say."""
    for node_rank, node in sorted(case.nodes.items()):
        here = [i for i in case.incidents if i.death.failure.node_rank == node_rank]
        last = [line.place for line in node.shared if line.text.strip() and line.text[:1] != " "][-LAST_WORDS:]
        for rule, line, groups in lines_of_node([*node.shared[:-LAST][:FIRST], *node.shared[-LAST:]]):
            if rule.id in BEHIND:
                explained = next((i for i in here if i.rule.id in BEHIND[rule.id]), None)
                if explained is not None:
                    explained.rule, explained.groups, explained.key = rule, groups, line
                    break
                if any(i.root for i in case.incidents):
                    continue
            elif rule.id == "slurm-cancelled":
                if any(i.root and i.rule.weight >= SURE for i in case.incidents):
                    continue
            elif not rule.id.startswith("slurm") and (here or not node.empty or line.place not in last):
                continue
            if not SYSTEM.match(line.text) and node.went_on(line):
                continue
            around = [one for one in node.shared if abs(one.place - line.place) <= 2]
            death = about(node_rank, around)
            if here and (rule.id.startswith("slurm") or rule.id in BEHIND):
                death.failure = here[0].death.failure
            return case.verdict(Incident(death, rule, groups, line))
        if not here:
            for attempt, local in sorted(node.workers):
                lines = node.workers[attempt, local]
                final = [line for line in lines if line.text.strip() and not NOISE.search(line.text)][-1:]
                for rule, line, groups in lines_of_node(final):
                    death = about(node_rank, lines, node.rank(local), local)
                    return case.verdict(Incident(death, rule, groups, line))
    return None


# ---- roots that yield: what they mean depends on the other nodes ----------------------------------------------------


def _weak(case: Case, first: Incident) -> Verdict:
    """The verdict on a root that yields, with what the other nodes add to it."""
    same = {i.death.failure.node_rank for i in case.incidents if i.rule.id == first.rule.id}
    if first.rule.id == "nodes-missing":
        return _missing(case, first, same)
    if first.rule.id == "duplicate-node-rank" and len(same) > 1:
        # Who is not the first of the list, and still waits as node 0 does, has the wrong rank.
        wrong = max((i for i in case.incidents if i.rule.id == first.rule.id), key=lambda i: i.death.failure.node_rank)
        return case.verdict(wrong, _duplicate(first.rule))
    if first.rule.id == "master-unreachable" and len(case.nodes) > 1 and same == set(case.nodes):
        return case.verdict(min(_of(case, first), key=lambda i: i.death.failure.node_rank), _not_hosted(first.rule))
    return case.verdict(first, more=_first_node(case, first))


def _of(case: Case, first: Incident) -> list[Incident]:
    return [i for i in case.incidents if i.rule.id == first.rule.id]


def _duplicate(rule: Rule) -> Rule:
    return msgspec.structs.replace(
        rule,
        says="has the same node_rank as another node: several nodes waited as the first one (duplicate --node_rank)",
        sure=0.85,
    )


def _not_hosted(rule: Rule) -> Rule:
    return msgspec.structs.replace(
        rule,
        id="store-not-hosted",
        says="cannot connect to the master[ {master} port {port}], and neither can any other node: nobody listens "
        "there. With c10d no node took that address for its own",
        remedy="is it the first node's address? its host name must not resolve to 127.0.0.1 or 127.0.1.1 (/etc/hosts): "
        "use `rendezvous.backend: static`, or --rdzv-conf is_host=1 and --local-addr on the first node",
        sure=0.8,
    )


def _missing(case: Case, first: Incident, same: set[int]) -> Verdict:
    """Nodes that never joined: one that wrote nothing is the missing one; where all came, they do not agree."""
    reached = {i.death.failure.node_rank for i in case.incidents if i.rule.id in LEFT_BEHIND}
    if not first.groups.get("all") and reached and reached | same >= set(case.nodes):
        rule = msgspec.structs.replace(
            first.rule,
            id="nnodes-mismatch",
            says="waited in vain for the rendezvous to complete, although every node had reached it: they do not agree "
            "on --nnodes (nnodes mismatch), or on --rdzv_id",
            remedy="give every node the same --nnodes and --rdzv_id; rankdeck launch does",
            sure=0.7,
        )
        return case.verdict(first, rule)
    verdict = case.verdict(first)
    spoke = {i.death.failure.node_rank for i in case.incidents}
    gone = [node_rank for node_rank, node in case.nodes.items() if node_rank not in spoke and node.empty]
    if not gone and len(case.nodes) == 1 and (first.groups.get("here"), first.groups.get("all")) == ("1", "2"):
        gone = [1 - first.death.failure.node_rank]
    if len(gone) != 1:
        return verdict
    cause = f"{case.who(Failure('lost', 0.0, gone[0]))} never joined: {verdict.cause}"
    return msgspec.structs.replace(verdict, node_rank=gone[0], rank=None, cause=cause, host=case.hosts.get(gone[0], ""))


def _first_node(case: Case, first: Incident) -> str:
    """A word on the first node, where others cannot reach it."""
    node = case.nodes.get(0)
    if first.rule.id not in UNREACHED or node is None or first.death.failure.node_rank == 0:
        return ""
    there = {i.rule.id for i in case.incidents if i.death.failure.node_rank == 0}
    if "nodes-missing" in there:
        return (
            "; torchrun on the first node was up and waited: a firewall between them, or the wrong address or interface"
        )
    return "" if there or not node.empty else "; the first node wrote nothing: was it started?"


def _silence(case: Case) -> Verdict | None:
    """Logs without a failure: a healthy run, unless no rank has ever written a line."""
    shared = [line for node in case.nodes.values() for line in node.shared if line.text.strip()]
    spoken = any(not node.empty for node in case.nodes.values()) or any(not NOISE.search(line.text) for line in shared)
    if not case.nodes or spoken:
        return None
    proof = case.prove(shared[:EVIDENCE])
    return Verdict(
        rule=UNKNOWN.id,
        role=UNKNOWN.role,
        node_rank=None,
        rank=None,
        cause="no rank has written a line on any node, and nothing failed: nothing was started, or torchrun still "
        "waits for the nodes to meet (another program on the port, a firewall, --nnodes or --rdzv_id that differ)",
        proof=proof,
        remedy="test the way between the nodes: rankdeck check PROFILE; who has the port: ss -ltnp on the first node",
        confidence=UNKNOWN.sure,
    )
