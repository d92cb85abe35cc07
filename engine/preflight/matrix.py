"""Preflight as a matrix, node × check: what is known of every cell at a moment. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from engine.errors import RankdeckError
from engine.preflight.findings import CHECKS, Check, Finding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from engine.preflight.findings import Observations, Waiting
    from engine.preflight.observation import Observation
    from engine.profile import Profile

State: TypeAlias = Literal["waiting", "skipped", "unseen", "ok", "info", "warning", "error"]
ORDER: tuple[State, ...] = ("skipped", "unseen", "ok", "info", "warning", "error")
"""From what is least to what is most worth looking at."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One check on one node, or (node_rank None) what it finds about no single node.

    `waiting`: there may be more to say, and nothing bad is known yet. `unseen`: the node does not answer, or its
    environment does not come up, so nobody can tell.
    """

    state: State
    findings: tuple[Finding, ...] = ()


def matrix(
    profile: Profile,
    observations: Observations,
    findings: Iterable[Finding],
    waiting: Waiting,
    skip: Collection[str] = (),
) -> dict[tuple[int | None, str], Cell]:
    """Every cell: the keys are all of (None, 0, 1, … the nodes) × `CHECKS`, check by check."""
    found: dict[tuple[int | None, str], list[Finding]] = {}
    for finding in findings:
        found.setdefault((finding.node_rank, finding.check), []).append(finding)
    cells: dict[tuple[int | None, str], Cell] = {}
    for name, check in CHECKS.items():
        whole = check.awaits(None, waiting)  # looked at once: it is of all nodes
        for rank in (None, *range(len(profile.nodes))):
            here = tuple(found.get((rank, name), ()))
            state: State = max((f.severity for f in here), key=ORDER.index, default="ok")
            if name in skip:
                state = "skipped"
            elif ORDER.index(state) < ORDER.index("warning") and (
                whole if rank is None or check.across else check.awaits(rank, waiting)
            ):
                state = "waiting"
            elif not here and rank is not None and _unseen(check, observations.get(rank)):
                state = "unseen"
            cells[rank, name] = Cell(state=state, findings=here)
    return cells


def _unseen(check: Check, found: Observation | RankdeckError | None) -> bool:
    """Whether a check could not look at a node."""
    return isinstance(found, RankdeckError) or (check.inside and found is not None and not found.python.looked)


MARKS: dict[State, str] = {
    "waiting": "…", "skipped": "-", "unseen": "?", "ok": "✓", "info": "·", "warning": "!", "error": "✗"
}  # fmt: skip
SHOWN = 24
"""Nodes up to which the picture has a row for each; beyond, those with trouble have one."""


def picture(profile: Profile, cells: Mapping[tuple[int | None, str], Cell]) -> list[str]:
    """The matrix as lines of text, a row a node and a column a group of checks ("reach" for reach.ssh and its like).

    The last row, "all", is for what is about no single node.
    """
    groups = list(dict.fromkeys(name.partition(".")[0] for name in CHECKS))
    rows: dict[int | None, list[State]] = {}
    for rank in (*range(len(profile.nodes)), None):
        states = {
            group: [cells[rank, name].state for name in CHECKS if name.startswith(f"{group}.")] for group in groups
        }
        rows[rank] = [_worst(states[group]) for group in groups]
    names = {rank: "all" if rank is None else f"{rank} {profile.nodes[rank].host}" for rank in rows}
    bad = [rank for rank in rows if rank is not None and set(rows[rank]) - {"ok", "info", "skipped"}]
    shown = list(rows) if len(rows) <= SHOWN else [*bad[:SHOWN], None]
    width = max(len(names[rank]) for rank in shown)
    lines = [" " * width + "  " + " ".join(groups)]
    for rank in shown:
        marks = (f"{MARKS[state]:^{len(group)}}" for state, group in zip(rows[rank], groups, strict=True))
        lines.append(f"{names[rank]:<{width}}  {' '.join(marks)}".rstrip())
    if len(shown) < len(rows):
        more = f"{len(bad) - SHOWN} nodes with trouble, and " if len(bad) > SHOWN else ""
        lines.append(f"and {more}{len(profile.nodes) - len(bad)} nodes without trouble")
    return lines


def _worst(states: list[State]) -> State:
    """What a group of cells comes to: trouble first, then what is still to come."""
    if "waiting" in states and not {"warning", "error"} & set(states):
        return "waiting"
    return max((state for state in states if state != "waiting"), key=ORDER.index)
