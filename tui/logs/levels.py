"""Which lines of a log are errors and warnings, whoever wrote them: Python, torch, glog, NCCL, shells, the kernel."""

from __future__ import annotations

import re
from typing import Literal

Level = Literal["", "warning", "error"]

ERRORS = "|".join(
    (
        r"Traceback \(most recent call last\)",
        r"\b(?:ERROR|FATAL|CRITICAL|PANIC)\b",
        r"\b(?:[A-Z]\w*)?(?:Error|Exception|Interrupt|Exit)(?::|$)",
        r"^\s*\[?[EF]\d{4} \d\d:",
        r"\b(?:error|fatal|panic): ",
        r"\bSegmentation fault\b|\bcore dumped\b|\bBus error\b|^Killed$",
        r"\bSIG(?:KILL|SEGV|ABRT|BUS|FPE|ILL)\b",
        r"\b[Oo]ut of memory\b|\boom-kill|\bNo space left on device\b",
        r"\bunhandled (?:cuda|system) error\b|\bncclInternalError\b|\bXid \(",
        r"\b(?:loss|grad_norm)\b\W{1,4}(?:nan|inf)\b",
    )
)
"""A regular expression, with exact case."""
WARNINGS = r"\bWARN(?:ING)?\b|\b[A-Z]?\w*Warning:|^\s*\[?W\d{4} \d\d:|\bwarning: |\bDEPRECATED\b"

_ERROR = re.compile(ERRORS)
_WARNING = re.compile(WARNINGS)
LOOKED_AT = 1000
"""Characters of a line: neither pattern goes back over what it has read, so that a line takes microseconds."""


def level(text: str) -> Level:
    """What the text of one line is."""
    text = text[:LOOKED_AT]
    if _ERROR.search(text):
        return "error"
    return "warning" if _WARNING.search(text) else ""
