"""What README.md lists is what there is."""

from __future__ import annotations

from tests.preflight_table import BLOCK, README, table


def test_the_table_of_preflight_checks_is_the_one_that_the_code_makes() -> None:
    shown = BLOCK.search(README.read_text())
    assert shown is not None
    assert shown.group() == table(), "make it anew: python -m tests.preflight_table"
