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
        r"^\[?[EF]\d{4} \d\d:",
        r"\b(?:error|fatal|panic): ",
        r"\bSegmentation fault\b|\bcore dumped\b|\bBus error\b|^Killed$",
        r"\bSIG(?:KILL|SEGV|ABRT|BUS|FPE|ILL)\b",
        r"\b[Oo]ut of memory\b|\boom-kill|\bNo space left on device\b",
        r"\bunhandled (?:cuda|system) error\b|\bncclInternalError\b|\bXid \(",
        r"\b(?:loss|grad_norm)\b\W{1,4}(?:nan|inf)\b",
    )
)
"""A regular expression, with exact case."""
ERROR_TEXTS = (
    "Traceback (", "ERROR", "FATAL", "CRITICAL", "PANIC", "Error", "Exception", "Interrupt", "Exit", "\nE", "\nF",
    "\n[E", "\n[F", "error: ", "fatal: ", "panic: ", "Segmentation fault", "core dumped", "Bus error", "\nKilled",
    "SIG", "ut of memory", "oom-kill", "No space left", "unhandled ", "ncclInternalError", "Xid (",
    "nan", " inf", "=inf", ":inf",
)  # fmt: skip
"""Each line that matches has one of these; a newline stands for the beginning of the line."""
WARNINGS = r"\bWARN(?:ING)?\b|\b[A-Z]?\w*Warning:|^\[?W\d{4} \d\d:|\bwarning: |\bDEPRECATED\b"
WARNING_TEXTS = ("WARN", "Warning:", "\nW", "\n[W", "warning: ", "DEPRECATED")

_ERROR = re.compile(ERRORS, re.MULTILINE)
_WARNING = re.compile(WARNINGS, re.MULTILINE)
LOOKED_AT = 1000
"""Characters of a line that are looked at."""


def level(text: str) -> Level:
    """What the text of one line is."""
    text = "\n" + text[:LOOKED_AT]
    if any(part in text for part in ERROR_TEXTS) and _ERROR.search(text):
        return "error"
    return "warning" if any(part in text for part in WARNING_TEXTS) and _WARNING.search(text) else ""
