"""A finding of preflight in words: what is wrong, the evidence, the remedy, each behind its own margin. Pure."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from textual.content import Content

if TYPE_CHECKING:
    from engine.preflight import Finding
    from tui.glyphs import Glyphs

LEAST = 24
"""Columns below which nothing is broken here: the place is not laid out yet."""


def told(finding: Finding, glyphs: Glyphs, width: int) -> list[Content]:
    """The paragraphs of a finding, on a place of `width` columns."""
    sign, style = {
        "error": (glyphs.error, "bold $error"),
        "warning": (glyphs.warning, "$warning"),
    }.get(finding.severity, ("i", "$primary"))
    found = [Content.styled(hanging(f"{sign} ", finding.text, width), style)]
    found += [Content.styled(hanging("  ", line, width), "$secondary") for line in finding.evidence]
    if finding.remedy:
        head = "  remedy  "
        found.append(Content.assemble((head, "$secondary"), hanging(head, finding.remedy, width)[len(head) :]))
    if finding.fix:
        found.append(Content.styled(hanging("  ", f"F6 does it here: {', '.join(finding.fix)}", width), "$primary"))
    return found


def hanging(head: str, text: str, width: int) -> str:
    """`text` behind `head`, and what does not fit on the line below it, as far from the left."""
    if width < LEAST:
        return head + text
    lines = [
        broken
        for line in text.split("\n")
        for broken in textwrap.wrap(line, width - len(head), break_on_hyphens=False, drop_whitespace=True) or [""]
    ]
    return head + f"\n{' ' * len(head)}".join(lines)
