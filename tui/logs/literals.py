"""Text that a line must have for a pattern to match it: looking for that first is a hundred times faster.

Only patterns that are easy to understand are: no group but one around the whole, no counted repetition. For any other
there is no such text, and the pattern itself is looked for everywhere.
"""

from __future__ import annotations

import re

SHORTEST = 2
"""Characters; a single one is in most lines."""
_ATOM = re.compile(r"\\(?P<escape>.)|(?P<class>\[\^?\]?(?:[^\]\\]|\\.)*\])|(?P<any>[.^$])|(?P<literal>.)", re.DOTALL)
_WHOLE_GROUP = re.compile(r"\((?:\?:)?([^()]*)\)")


def required(expression: str) -> tuple[str, ...]:
    """Texts of which every match of this regular expression has one; () where that is not known."""
    whole = _WHOLE_GROUP.fullmatch(expression)
    alternatives = _split(whole.group(1) if whole else expression)
    found = tuple(map(_longest, alternatives))
    return found if all(len(text) >= SHORTEST for text in found) else ()


def _split(expression: str) -> list[str]:
    """The alternatives; one that cannot be understood is empty."""
    alternatives = [""]
    for atom in _ATOM.finditer(expression):
        if atom["literal"] == "|":
            alternatives.append("")
        else:
            alternatives[-1] += atom[0]
    return alternatives


def _longest(alternative: str) -> str:
    runs, run = [""], ""
    for atom in _ATOM.finditer(alternative):
        literal, escape = atom["literal"], atom["escape"]
        if literal is not None and literal in "(){":
            return ""
        if literal is not None and literal in "*?":
            # What stands before it need not be there.
            runs.append(run[:-1])
            run = ""
        elif literal == "+":
            runs.append(run)
            run = ""
        elif literal is not None or (escape is not None and not escape.isalnum()):
            run += literal or escape or ""
        else:
            runs.append(run)
            run = ""
    return max([run, *reversed(runs)], key=len)
