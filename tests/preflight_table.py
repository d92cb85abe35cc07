"""README's table of preflight checks, made from the checks and their corpus: `python -m tests.preflight_table`.

Each row is what the code says: the id and title of a check, how bad its findings are and whether `--fix` mends them
over all cases of the corpus, and the worst of them as an example.
"""

from __future__ import annotations

import re
from pathlib import Path

from engine.preflight import CHECKS, Finding
from engine.preflight.matrix import ORDER
from tests.unit.test_preflight import CASES, findings_of

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"(?<=<!-- preflight -->\n).*?(?=<!-- /preflight -->)", re.S)


def table() -> str:
    """The lines between the marks in README.md."""
    found: dict[str, list[Finding]] = {name: [] for name in CHECKS}
    for case in CASES.values():
        for finding in findings_of(case):
            found[finding.check].append(finding)
    lines = ["| check | in order when | if not | for example | `--fix` |", "|---|---|---|---|---|"]
    for name, findings in found.items():
        severities = sorted({finding.severity for finding in findings}, key=ORDER.index, reverse=True)
        worst = max(findings, key=lambda finding: ORDER.index(finding.severity))
        example = worst.text + (f" → {worst.remedy}" if worst.remedy else "")
        fixed = "yes" if any(finding.fix for finding in findings) else ""
        cells = [f"`{name}`", CHECKS[name].title, ", ".join(severities), example, fixed]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """README.md with the table as it is now."""
    return BLOCK.sub(lambda _: table(), text)


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
