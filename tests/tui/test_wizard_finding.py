"""How findings and checks are put into the columns that there are."""

from __future__ import annotations

import pytest

from engine.preflight import CHECKS, Finding
from tui.glyphs import UNICODE
from tui.wizard.finding import told
from tui.wizard.matrix import shortened


def test_every_line_of_a_remedy_stands_below_its_first() -> None:
    remedy = "see what it does there: py-spy dump; or see what its connections try: --set env.NCCL_DEBUG=INFO"
    finding = Finding(check="collective.works", severity="error", text="rank 3 never came", remedy=remedy)
    first, *rest = told(finding, UNICODE, 44)[-1].plain.split("\n")
    assert first.startswith("  remedy  see what")
    assert len(rest) >= 2
    assert all(line.startswith(" " * 10) and line[10] != " " and len(line) <= 44 for line in rest)


@pytest.mark.parametrize("room", [20, 46, 80])
def test_the_name_of_a_check_that_is_cut_ends_with_a_word(room: int) -> None:
    for check in CHECKS.values():
        short = shortened(check.title, room, "…")
        assert len(short) <= room
        assert short == check.title or check.title[len(short) - 1] in " ,:;"
