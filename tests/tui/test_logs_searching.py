"""A search runs in a process of its own and reports while it goes on; no pattern can hold up the screen."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import psutil

from tui.logs import searching
from tui.logs.searching import Search
from tui.logs.source import LogFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


async def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def searching_processes() -> list[int]:
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "tui.logs.scan" in child.cmdline():
                found.append(child.pid)
    return found


async def test_a_search_finds_follows_and_leaves_no_process(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"step %d loss\n" % number for number in range(50_000)))
    source = LogFile(path)
    changes: list[int] = []
    search = Search(source, r"step \d*99 ", source.size, lambda: changes.append(1))
    await until(lambda: search.hits.done)
    assert len(search.hits) == 500
    assert source.read(search.hits.at(-1), 10) == b"step 49999"
    assert (search.share, search.problem) == (1.0, "")
    with path.open("ab") as more:
        more.write(b"step 99 again\n")
    source.poll()
    search.poll()
    await until(lambda: search.hits.stop == 1)
    assert changes
    children = psutil.Process().children()
    await search.close()
    source.close()
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


async def test_where_lines_match_is_asked_of_the_other_process_when_it_may_take_time(tmp_path: Path) -> None:
    source = LogFile(tmp_path / "log")
    search = Search(source, "l.ss", 0, lambda: None)
    assert search.spans(["a loss", "none"]) == {}
    await until(lambda: bool(search.spans(["a loss"])))
    assert search.spans(["a loss", "none"]) == {"a loss": [(2, 6)], "none": []}
    await search.close()
    plain = Search(source, "loss", 0, lambda: None)
    assert plain.spans(["a loss"]) == {"a loss": [(2, 6)]}
    await plain.close()


async def test_a_pattern_that_never_ends_is_given_up_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "PATIENCE", 0.5)
    path = tmp_path / "log"
    path.write_bytes(b"a" * 60 + b"!\n")
    source = LogFile(path)
    search = Search(source, "(a+)+$", 0, lambda: None)
    worst = 0.0

    def given_up() -> bool:
        search.poll()
        return bool(search.problem)

    while not given_up():
        before = time.monotonic()
        await asyncio.sleep(0.005)
        worst = max(worst, time.monotonic() - before)
    assert "takes too long" in search.problem
    assert worst < 0.5
    await search.close()
    source.close()


async def test_a_search_that_is_left_at_once_leaves_nothing(tmp_path: Path) -> None:
    source = LogFile(tmp_path / "log")
    await Search(source, "x", 0, lambda: None).close()
    assert not searching_processes()


async def test_a_search_is_not_given_up_because_its_process_saw_the_new_bytes_first(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"loss 1\n" * 100)
    source = LogFile(path)
    search = Search(source, "loss", source.size, lambda: None)
    await until(lambda: search.hits.done and not search._busy)
    search._told -= 1  # bytes that come here are news; the process has looked at them already
    search.poll()
    assert search._busy
    await until(lambda: not search._busy)
    assert (len(search.hits), search.problem) == (100, "")
    await search.close()
    source.close()
