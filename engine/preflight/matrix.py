"""Preflight as a matrix, node × check: what is known of every cell at a moment. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from engine.errors import RankdeckError
from engine.preflight.findings import CHECKS, Finding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from engine.preflight.findings import Observations, Waiting
    from engine.profile import Profile

State: TypeAlias = Literal["waiting", "skipped", "unseen", "ok", "info", "warning", "error"]
ORDER: tuple[State, ...] = ("skipped", "unseen", "ok", "info", "warning", "error")
"""From what is least to what is most worth looking at."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One check on one node, or (node_rank None) what it finds about no single node.

    `waiting`: there may be more to say, and nothing bad is known yet. `unseen`: the node does not answer, so nobody
    can tell.
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
        for rank in (None, *range(len(profile.nodes))):
            here = tuple(found.get((rank, name), ()))
            state: State = max((f.severity for f in here), key=ORDER.index, default="ok")
            if name in skip:
                state = "skipped"
            elif ORDER.index(state) < ORDER.index("warning") and check.awaits(rank, waiting):
                state = "waiting"
            elif not here and isinstance(observations.get(rank) if rank is not None else None, RankdeckError):
                state = "unseen"
            cells[rank, name] = Cell(state=state, findings=here)
    return cells
