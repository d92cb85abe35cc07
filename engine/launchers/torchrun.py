"""torchrun on every node: a plan as text that can be read, pasted and run. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from engine import command
from engine.errors import RequestError
from engine.plan import make_plan

if TYPE_CHECKING:
    from engine.plan import NodePlan, Plan

__all__ = ["FORMATS", "make_plan", "render"]

FORMATS: tuple[str, ...] = ("shell", "json")


def render(plan: Plan, format: str) -> str:
    """The plan as `shell` (a command to paste on each node) or `json` (one object on one line), ending in a newline.

    Raises RequestError for a format that torchrun has no use for.
    """
    if format == "shell":
        return "\n".join(f"# {title(node)}\n{command.pasteable(node.script)}" for node in plan.nodes)
    if format == "json":
        return msgspec.json.encode(plan).decode() + "\n"
    raise RequestError(f"launcher torchrun has no format {format!r}", remedy=f"choose one of: {', '.join(FORMATS)}")


def title(node: NodePlan) -> str:
    """`node 0: ml@gpu01 port 2222 (8 ranks: 0-7)`."""
    login = f"{node.user}@{node.host}" if node.user else node.host
    port = f" port {node.port}" if node.port is not None else ""
    last = node.first_rank + node.nproc - 1
    ranks = f"{node.nproc} ranks: {node.first_rank}-{last}" if node.nproc > 1 else f"1 rank: {last}"
    return f"node {node.node_rank}: {login}{port} ({ranks})"
