"""A changed YAML text in the user's own layout. Pure: lines in, lines out.

The writer keeps order and most comments, and lays everything out anew: other indents, lists on one line and without the
comments in them. So of what it writes only the differences are taken.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from itertools import pairwise

TEXT_LIMIT = 4_000
"""Lines beyond which alignment takes too long."""


def merged(written: str, before: str, after: str) -> str:
    """`written` with the lines changed in which `after` differs from `before`: the writer's texts of both states.

    What comes out is to be read back: a change that has no place of its own in `written` may be in the wrong one.
    """
    ours, old, new = (text.split("\n") for text in (written, before, after))
    if len(ours) + len(old) + len(new) > TEXT_LIMIT:
        return after
    begins, ends, indents = _places(ours, old)
    parts, at = [], 0
    for start, end, changed in _changes(old, new, begins):
        left, right = begins[start], max(ends[end], begins[start])
        parts += ours[at:left]
        parts += [_indented(line, start, indents) for line in changed]
        at = right
    return "\n".join([*parts, *ours[at:]])


def _places(ours: list[str], old: list[str]) -> tuple[dict[int, int], dict[int, int], list[tuple[int, int, int]]]:
    """Where the edges between lines of `old` are in `ours`: after, and before, what only `ours` has there.

    Also (line of `old`, its indent, the indent in `ours`), wherever a line is in both.
    """
    begins: dict[int, int] = {}
    ends: dict[int, int] = {}
    indents: list[tuple[int, int, int]] = []
    left, right = ([" ".join(line.split()) for line in lines] for lines in (ours, old))
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    for kind, i, i_end, j, j_end in matcher.get_opcodes():
        for more in range(j_end - j + 1) if kind == "equal" else ():
            begins[j + more] = i + more
            ends.setdefault(j + more, i + more)
        if kind == "equal":
            pairs = zip(range(j, j_end), old[j:j_end], ours[i:i_end], strict=True)
            indents += [(at, _indent(theirs), _indent(mine)) for at, theirs, mine in pairs if theirs.strip()]
        if j != j_end:
            begins.setdefault(j, i)
        begins[j_end] = i_end
        ends.setdefault(j, i)
        ends.setdefault(j_end, i_end)
    return begins, ends, indents


def _changes(old: list[str], new: list[str], edges: dict[int, int]) -> list[tuple[int, int, list[str]]]:
    """(first line, line after the last, what comes instead), each widened to lines whose place is known."""
    found: list[tuple[int, int, list[str]]] = []
    for kind, i, i_end, j, j_end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        start = max(edge for edge in edges if edge <= i)
        end = min(edge for edge in edges if edge >= i_end)
        found.append((start, end, [*old[start:i], *new[j:j_end], *old[i_end:end]]))
    # Two changes of what is one piece in the user's layout would each undo the other.
    return [] if any(left[1] > right[0] for left, right in pairwise(found)) else found


def _indented(line: str, near: int, indents: list[tuple[int, int, int]]) -> str:
    indent = _indent(line)
    alike = [(abs(at - near), mine) for at, theirs, mine in indents if theirs == indent]
    return " " * min(alike)[1] + line.lstrip(" ") if alike and line.strip() else line


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
