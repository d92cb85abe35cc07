"""Placeholders in a program's arguments and environment: `{lr}`, and `{{` `}}` for literal braces. Pure."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MEANINGS = {
    "per_device_batch": "samples per rank and micro-batch",
    "global_batch": "samples per optimiser step over all ranks",
    "grad_accum": "micro-batches per optimiser step",
    "lr": "the scaled learning rate",
    "world_size": "ranks in all",
    "nnodes": "nodes in all",
    "run": "the run's name",
}
NEED_BATCH = frozenset({"per_device_batch", "global_batch", "grad_accum", "lr"})

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def names(text: str) -> Iterator[str]:
    """Every known placeholder in `text`, in order."""
    return (match[1] for match in _PART.finditer(text) if match[1] in MEANINGS)


def mistakes(text: str) -> Iterator[str]:
    """What is wrong with the braces of `text`, one sentence each."""
    for match in _PART.finditer(text):
        if match[0] in ("{", "}"):
            yield f"a single '{match[0]}'; a literal brace is written '{match[0] * 2}'"
        elif match[1] is not None and match[1] not in MEANINGS:
            close = difflib.get_close_matches(match[1], MEANINGS, n=1)
            hint = f"did you mean {{{close[0]}}}?" if close else f"known: {', '.join(MEANINGS)}"
            yield f"unknown placeholder {match[0][:60]!r}; {hint} (literal braces are written '{{{{' and '}}}}')"


def fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with every placeholder replaced and doubled braces halved. Raises KeyError for one without a value."""
    return _PART.sub(lambda match: match[0][0] if match[1] is None else values[match[1]], text)
