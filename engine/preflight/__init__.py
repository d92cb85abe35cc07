"""Preflight: what was observed on every node, judged by a table of pure checks before anything starts.

`ask` says what to look at on a node, `read` types the answer, `judge` finds what is wrong, and `node_facts` hands what
a plan leaves open to `engine.plan.make_plan`. Every module of this package may hold checks; they register themselves.
"""

from importlib import import_module
from pkgutil import iter_modules

from engine.preflight.facts import ask, master_name, node_facts
from engine.preflight.findings import (
    CHECKS,
    Check,
    Finding,
    Observations,
    Seen,
    Severity,
    check,
    fixes,
    judge,
    known_checks,
)
from engine.preflight.matrix import MARKS, Cell, matrix, picture
from engine.preflight.observation import Collective, Observation, Reach, Speed, read

# The order of a launch, which is the order in which the findings are worth reading; a new module comes after these.
_ORDER = (
    "reach",
    "program",
    "devices",
    "ports",
    "addresses",
    "mesh",
    "speed",
    "fabric",
    "limits",
    "batch",
    "jobs",
    "collective",
)
_found = [module.name for module in iter_modules(__path__)]
for _name in sorted(_found, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)):
    import_module(f"{__name__}.{_name}")

__all__ = [
    "CHECKS",
    "MARKS",
    "Cell",
    "Check",
    "Collective",
    "Finding",
    "Observation",
    "Observations",
    "Reach",
    "Seen",
    "Severity",
    "Speed",
    "ask",
    "check",
    "fixes",
    "judge",
    "known_checks",
    "master_name",
    "matrix",
    "node_facts",
    "picture",
    "read",
]
