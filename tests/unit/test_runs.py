"""The folder of a run on this workstation: mirrors, observations, lists."""

from __future__ import annotations

import os
import stat
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import events, runs
from engine.errors import RequestError
from tests.unit.runs_made_up import made_plan, made_profile

if TYPE_CHECKING:
    from pathlib import Path

STREAM = "ranks/x_0/attempt_0/0/stdout.log"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANKDECK_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def made(name: str = "lab-20261124-120000-abcd", created: float = 1.0) -> runs.RunFolder:
    folder = runs.RunFolder.create(
        runs.Record(run=name, created=created, profile=made_profile(), plan=made_plan(run=name))
    )
    os.utime(folder.path / "run.json", (created, created))
    return folder


# ---- mirrors --------------------------------------------------------------------------------------------------------


@given(pieces=st.lists(st.binary(max_size=9000), max_size=6))
def test_a_mirror_holds_what_was_written_and_knows_where_to_go_on(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("mirror") / "n0/stdout.log"
    for piece in pieces:  # as many viewers, one after the other
        mirror = runs.Mirror(path)
        mirror.write(mirror.size, piece)
        whole = path.read_bytes()
        assert mirror.position() == (len(whole), zlib.crc32(whole[-4096:]))
        mirror.close()
    assert (path.read_bytes() if pieces else b"") == b"".join(pieces)


@pytest.mark.parametrize("offset", [0, 2, 4])
def test_bytes_for_another_place_are_refused_so_that_nothing_is_doubled_or_missing(tmp_path: Path, offset: int) -> None:
    mirror = runs.Mirror(tmp_path / "stdout.log")
    mirror.write(0, b"abc")
    with pytest.raises(ValueError, match="where 3 comes next"):
        mirror.write(offset, b"x")
    assert mirror.read(0, 10) == b"abc"
    mirror.close()


def test_two_viewers_write_the_same_mirror_and_it_stays_right(tmp_path: Path) -> None:
    one, other = (runs.Mirror(tmp_path / "stdout.log") for _ in range(2))
    one.write(0, b"abcdef")
    other.write(0, b"abc")
    other.write(3, b"defghi")
    one.write(6, b"g")
    assert (tmp_path / "stdout.log").read_bytes() == b"abcdefghi"
    one.close()
    other.close()


def test_a_copy_that_is_no_prefix_is_set_aside_and_begun_anew(tmp_path: Path) -> None:
    mirror = runs.Mirror(tmp_path / "stdout.log")
    mirror.write(0, b"not theirs")
    mirror.restart()
    assert mirror.position() == (0, 0)
    mirror.write(0, b"theirs")
    assert (tmp_path / "stdout.log").read_bytes() == b"theirs"
    assert (tmp_path / "stdout.log.damaged").read_bytes() == b"not theirs"
    mirror.close()


def test_a_mirror_is_private_and_follows_no_link(tmp_path: Path) -> None:
    runs.Mirror(tmp_path / "n0/stdout.log").close()
    assert stat.S_IMODE((tmp_path / "n0/stdout.log").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "n0").stat().st_mode) == 0o700
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "link.log").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        runs.Mirror(tmp_path / "link.log")


@pytest.mark.parametrize("name", ["../run.json", "/etc/passwd", "", "a\nb", "ranks/../../x", "complete.json"])
def test_a_stream_that_a_node_may_not_name_has_no_mirror(name: str) -> None:
    with pytest.raises(ValueError, match="not a stream"):
        made().mirror(0, name)


def test_a_log_counts_as_complete_while_it_has_the_size_that_was_marked() -> None:
    folder = made()
    assert not folder.complete(0, [])
    for name, data in (("journal.jsonl", b"{}\n"), (STREAM, b"hello\n")):
        mirror = folder.mirror(0, name)
        mirror.write(0, data)
        mirror.close()
    folder.mark_complete(0, {"journal.jsonl": 3})
    folder.mark_complete(0, {STREAM: 6})
    assert folder.sizes(0) == {"journal.jsonl": 3, STREAM: 6}
    assert folder.complete(0, [STREAM])
    assert not folder.complete(0, ["torchrun.log"])
    os.truncate(folder.mirror_path(0, STREAM), 5)
    assert not folder.complete(0, [STREAM])
    assert folder.complete(0, [])


# ---- what was launched, observed and became of it --------------------------------------------------------------------


def test_what_was_launched_is_read_back_and_nobody_else_may() -> None:
    folder = made()
    assert folder.record() == runs.Record(
        run=folder.run, created=1.0, profile=made_profile(), plan=made_plan(run=folder.run)
    )
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700


def test_a_run_is_never_made_twice() -> None:
    made()
    with pytest.raises(FileExistsError):
        made()


@pytest.mark.parametrize("damage", [b"", b"{", b'{"run": 3}'])
def test_a_damaged_record_says_where_the_logs_still_are(damage: bytes) -> None:
    folder = made()
    (folder.path / "run.json").write_bytes(damage)
    with pytest.raises(RequestError, match=r"run\.json cannot be read") as caught:
        folder.record()
    assert str(folder.path) in caught.value.remedy


def test_history_is_our_observations_then_each_journal_without_what_is_torn_or_junk() -> None:
    folder = made()
    folder.note(events.Launched(t=1.0, node_rank=0, host="gpu01"))
    with (folder.path / "session.jsonl").open("ab") as file:
        file.write(b'junk\n{"type": "from the future", "t": 1}\n{"torn')
    for rank in (0, 1):
        record = b'{"type": "warning", "t": 2.0, "text": "of node %d"}\n' % rank
        mirror = folder.mirror(rank, "journal.jsonl")
        mirror.write(0, record + record[:9])
        mirror.close()
    told = [(type(event).__name__, event.node_rank) for event in folder.history()]
    assert told == [("Launched", 0), ("Warning", 0), ("Warning", 1)]


def test_history_stops_where_the_reader_began_to_follow() -> None:
    folder = made()
    record = b'{"type": "warning", "t": 2.0, "text": "x"}\n'
    mirror = folder.mirror(0, "journal.jsonl")
    mirror.write(0, record * 3)
    mirror.close()
    assert len(list(folder.history({0: 2 * len(record)}))) == 2
    assert len(list(folder.history({0: 2 * len(record) + 5}))) == 2
    assert list(folder.history({})) == []


def test_a_summary_replaces_the_one_before_and_a_damaged_one_is_none() -> None:
    folder = made()
    assert folder.summary() is None
    for step in (1, 2):
        folder.summarise(runs.Summary(outcome="running", seen=3.0, step=step, loss="nan"))
    assert folder.summary() == runs.Summary(outcome="running", seen=3.0, step=2, loss="nan")
    assert sorted(path.name for path in folder.path.iterdir()) == ["run.json", "summary.json"]
    (folder.path / "summary.json").write_text("{")
    assert folder.summary() is None


def test_a_file_that_cannot_be_replaced_stays_as_it_was_and_nothing_lies_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "summary.json").write_bytes(b"old")

    def full(fd: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        runs.write_beside(tmp_path / "summary.json", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"summary.json": b"old"}


# ---- names and lists ------------------------------------------------------------------------------------------------


@given(profile=st.text(max_size=60))
def test_a_new_name_makes_a_folder_whatever_the_profile_is_called(profile: str) -> None:
    first, second = runs.new_name(profile), runs.new_name(profile)
    assert first != second
    assert first.isascii()
    assert first.replace("-", "").isalnum()
    assert len(first) <= 62


def test_runs_are_listed_the_newest_first_and_other_folders_are_none(state: Path) -> None:
    assert runs.listing() == []
    old, new = made("lab-20261124-120000-abcd", 5.0), made("lab-20261123-120000-abcd", 9.0)
    (state / "watched" / "stray").mkdir()
    assert [folder.run for folder in runs.listing()] == [new.run, old.run]
    new.forget()
    assert [folder.run for folder in runs.listing()] == [old.run]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("", "other-20261124-130000-wxyz"),
        ("lab", "lab-20261124-120001-bbbb"),
        ("Lab", "lab-20261124-120001-bbbb"),
        ("lab-20261124-120000-aaaa", "lab-20261124-120000-aaaa"),
        ("lab-20261124-120000", "lab-20261124-120000-aaaa"),
        ("oth", "other-20261124-130000-wxyz"),
        ("lab-two", "lab-two-20261124-110000-cccc"),
    ],
)
def test_a_run_is_found_by_name_beginning_or_profile(asked: str, found: str) -> None:
    names = (
        "lab-two-20261124-110000-cccc",
        "lab-20261124-120000-aaaa",
        "lab-20261124-120001-bbbb",
        "other-20261124-130000-wxyz",
    )
    for moment, name in enumerate(names):
        made(name, float(moment + 1))
    assert runs.find(asked).run == found


@pytest.mark.parametrize(("asked", "said"), [("lab-2", "names 2 runs: lab-2"), ("lba", "no run is called “lba”")])
def test_a_name_that_means_no_run_or_several_is_refused_with_a_next_step(asked: str, said: str) -> None:
    made("lab-20261124-120000-aaaa")
    made("lab-20261124-120001-bbbb")
    with pytest.raises(RequestError, match=said) as caught:
        runs.find(asked)
    assert caught.value.remedy


def test_the_state_folder_is_the_one_asked_for_or_the_xdg_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RANKDECK_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert runs.state_home() == tmp_path / "rankdeck"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert runs.state_home() == tmp_path / ".local/state/rankdeck"
    monkeypatch.setenv("RANKDECK_STATE", "~/elsewhere")
    assert runs.state_home() == tmp_path / "elsewhere"
