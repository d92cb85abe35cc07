"""`--ascii`: not a sign beyond ASCII, whoever draws it."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from tests.tui.made import made_run, stdout_of
from tests.tui.test_fuzz import Stays
from tests.tui.test_pictures import drawn
from tui.plain import plain


@pytest.mark.parametrize("text", ["漢字 ×2", "e\u0301", "─│╭", "loss → 1"])
def test_each_sign_keeps_its_cells(text: str) -> None:
    assert plain(text).isascii()
    assert cell_len(plain(text)) == cell_len(text)


@pytest.mark.parametrize("keys", [("3",), ("3", "question_mark"), ("5",)], ids=",".join)
async def test_every_row_of_the_dashboard_is_ascii(keys: tuple[str, ...]) -> None:
    folder = made_run()
    with folder.mirror_path(0, stdout_of(0, 0)).open("ab") as file:
        file.write("漢字 ✓ │\n".encode())
    app = Stays(command="attach", run=folder.run, ascii=True)
    async with app.run_test(size=(120, 34)) as pilot:
        await pilot.pause(0.3)
        await pilot.press(*keys)
        await pilot.pause(0.3)
        assert [row for row in drawn(app).display if not row.isascii()] == []
