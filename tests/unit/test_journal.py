from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING

import pytest

from engine.node.journal import RESERVE_BYTES, WAITING_BYTES, Journal, keep_reserve, read

if TYPE_CHECKING:
    from pathlib import Path


class FullDisk:
    """A double for os.write: `room` bytes fit, and removing `reserve` makes room for so many more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        self._write, self._unlink = os.write, os.unlink
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "unlink", self.unlink)

    def write(self, fd: int, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self._write(fd, data[: self.room])
        self.room -= written
        return written

    def unlink(self, path: str) -> None:
        self._unlink(path)
        self.room += RESERVE_BYTES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def types(path: Path) -> list[str]:
    return [record["type"] for record in read(str(path))[0]]


def test_a_record_is_one_line_of_json_with_its_time_and_type(path: Path) -> None:
    Journal(str(path), clock=lambda: 1700000000.1234567).append("warning", text="a\nb é")
    line = path.read_bytes()
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"t": 1700000000.123457, "type": "warning", "text": "a\nb é"}


def test_a_journal_is_private_and_made_once(path: Path) -> None:
    Journal(str(path)).close()
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        Journal(str(path))


def test_a_link_in_its_place_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        Journal(str(path))


def test_reading_goes_on_where_it_ended(path: Path) -> None:
    journal = Journal(str(path))
    journal.append("one")
    records, offset = read(str(path))
    journal.append("two")
    assert [record["type"] for record in records] == ["one"]
    assert [record["type"] for record in read(str(path), offset)[0]] == ["two"]
    assert read(str(path), path.stat().st_size) == ([], path.stat().st_size)


def test_a_torn_last_line_waits_for_its_rest(path: Path) -> None:
    path.write_bytes(b'{"type":"one"}\n{"type":"tw')
    assert read(str(path)) == ([{"type": "one"}], 15)
    with path.open("ab") as file:
        file.write(b'o"}\n')
    assert read(str(path), 15)[0] == [{"type": "two"}]


@pytest.mark.parametrize("junk", [b"", b"junk", b"\xff\xfe\x00", b"[1]", b"12", b'{"a":', b'"text"', b"[" * 100_000])
def test_a_junk_line_is_passed_over(path: Path, junk: bytes) -> None:
    path.write_bytes(b'{"type":"one"}\n' + junk + b'\n{"type":"two"}\n')
    records, offset = read(str(path))
    assert [record["type"] for record in records] == ["one", "two"]
    assert offset == path.stat().st_size


def test_a_full_disk_takes_the_reserve_for_a_record_of_consequence(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = tmp_path / "reserve"
    keep_reserve(str(reserve))
    assert reserve.stat().st_blocks * 512 >= RESERVE_BYTES
    journal = Journal(str(path), str(reserve))
    FullDisk(monkeypatch, room=0)
    journal.append("metric", step=1)
    assert reserve.exists()
    journal.append("worker_exit", code=3)
    assert types(path) == ["metric", "worker_exit"]
    assert not reserve.exists()


def test_a_half_written_record_is_completed_before_anything_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(str(path))
    disk = FullDisk(monkeypatch, room=10)
    journal.append("one")
    journal.append("two")
    assert types(path) == []
    disk.room = 10_000
    assert journal.flush()
    assert types(path) == ["one", "two"]


def test_only_metrics_are_dropped_and_they_are_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(str(path))
    disk = FullDisk(monkeypatch, room=0)
    journal.append("metric", note="x" * WAITING_BYTES)
    journal.append("metric", step=2)
    journal.append("worker_exit", code=1)
    journal.append("metric", note="x" * (WAITING_BYTES // 2))
    disk.room = 10 * WAITING_BYTES
    assert journal.flush()
    assert types(path) == ["metric", "worker_exit", "metric", "warning"]
    assert "1 metric records were dropped" in read(str(path))[0][-1]["text"]


def test_finishing_gives_the_reserve_back_and_says_whether_it_fitted(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = tmp_path / "reserve"
    keep_reserve(str(reserve))
    assert Journal(str(path), str(reserve)).finish(0.0, code=0) is True
    assert types(path) == ["finished"]
    assert not reserve.exists()
    FullDisk(monkeypatch, room=0)
    assert Journal(str(tmp_path / "other.jsonl")).finish(0.0, code=0) is False
