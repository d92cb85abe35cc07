from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from engine.node import proc, sweep

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Strays:
    """Starts sleeping processes that belong, or seem to belong, to jobs below one state root."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._started: list[subprocess.Popen[bytes]] = []

    def run_dir(self, job: str) -> Path:
        folder = self.state / "runs" / job
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def start(self, *argv: str, env: dict[str, str] | None = None, **options: Any) -> int:
        argv = argv or ("sleep", "60")
        self._started.append(subprocess.Popen(argv, env=env or {}, start_new_session=True, **options))
        pid = self._started[-1].pid
        deadline = time.monotonic() + 5
        while not proc.command(pid).startswith(" ".join(argv)[:100]):
            assert time.monotonic() < deadline
        return pid

    def marked(self, job: str, *argv: str) -> int:
        return self.start(*argv, env={"RANKDECK_JOB": job, "RANKDECK_RUN_DIR": str(self.run_dir(job))})

    def found(self, *jobs: str) -> dict[int, str]:
        return {entry["pid"]: entry["why"] for entry in sweep.find(str(self.state), set(jobs) or None)}

    def clear(self) -> None:
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def strays(tmp_path: Path) -> Iterator[Strays]:
    made = Strays(tmp_path / "state")
    yield made
    made.clear()


def test_a_marked_process_is_found_and_described(strays: Strays) -> None:
    pid = strays.marked("lab-1/n0")
    (entry,) = sweep.find(str(strays.state))
    assert (entry["job"], entry["pid"], entry["why"]) == ("lab-1/n0", pid, "environ")
    assert (entry["comm"], entry["cmd"], entry["ppid"]) == ("sleep", "sleep 60", os.getpid())
    assert proc.is_running(pid, entry["start"])


def test_a_process_that_writes_into_the_run_folder_is_found_without_any_environment(strays: Strays) -> None:
    with (strays.run_dir("lab-1/n0") / "out").open("wb") as file:
        pid = strays.start(stderr=file)
    assert strays.found() == {pid: "fd"}


def test_a_child_that_shows_nothing_is_found_by_descent(strays: Strays) -> None:
    parent = strays.marked("lab-1/n0", "sh", "-c", "env -i sleep 60 >/dev/null 2>&1; true")
    deadline = time.monotonic() + 5
    while "child" not in (found := strays.found()).values():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert found.pop(parent) == "environ"
    assert set(found.values()) == {"child"}


@pytest.mark.parametrize(
    "env",
    [
        {"RANKDECK_JOB": "lab-1/n0"},
        {"RANKDECK_JOB": "lab-1/n0", "RANKDECK_RUN_DIR": "/elsewhere/runs/lab-1/n0"},
        {"RANKDECK_JOB": "lab-1/n0/../n1", "RANKDECK_RUN_DIR": "{runs}/lab-1/n0"},
        {"RANKDECK_JOB": "lab-1/n1", "RANKDECK_RUN_DIR": "{runs}/lab-1/n0"},
        {"RANKDECK_RUN_DIR": "{runs}/lab-1/n0"},
        {"NOTE": "RANKDECK_JOB=lab-1/n0"},
    ],
)
def test_half_a_marker_proves_nothing(strays: Strays, env: dict[str, str]) -> None:
    runs = str(strays.run_dir("lab-1/n0").parents[1])
    strays.start(env={name: value.replace("{runs}", runs) for name, value in env.items()})
    assert strays.found() == {}


def test_the_name_of_a_run_in_the_arguments_proves_nothing(strays: Strays) -> None:
    strays.start("sh", "-c", "sleep 60; true", "torchrun", "RANKDECK_JOB=lab-1/n0")
    assert strays.found() == {}


def test_a_reader_of_a_log_is_not_of_the_job(strays: Strays) -> None:
    log = strays.run_dir("lab-1/n0") / "out"
    log.touch()
    strays.start("tail", "-f", str(log), stdout=subprocess.DEVNULL)
    assert strays.found() == {}


def test_a_node_rank_is_not_the_beginning_of_another(strays: Strays) -> None:
    with (strays.run_dir("lab-1/n10") / "out").open("wb") as file:
        pid = strays.start(stdout=file)
    assert strays.found("lab-1/n1") == {}
    assert strays.found("lab-1/n10") == {pid: "fd"}


def test_only_the_jobs_that_are_asked_for_are_found(strays: Strays) -> None:
    one, two = strays.marked("lab-1/n0"), strays.marked("lab-2/n0")
    assert strays.found("lab-1/n0") == {one: "environ"}
    assert strays.found() == {one: "environ", two: "environ"}


def test_this_process_and_its_ancestors_are_never_found(strays: Strays, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "_job_by_environ", lambda pid, runs: "lab-1/n0")
    found = strays.found()
    assert not {os.getpid(), *proc.ancestors(os.getpid())} & set(found)


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_the_processes_of_another_user_are_not_found(strays: Strays) -> None:
    env = {"RANKDECK_JOB": "lab-1/n0", "RANKDECK_RUN_DIR": str(strays.run_dir("lab-1/n0"))}
    strays.start(env=env, user=65534)
    assert strays.found() == {}


def test_killing_asks_first_and_reports_what_it_did(strays: Strays) -> None:
    pid = strays.marked(
        "lab-1/n0", "sh", "-c", "trap 'echo asked > $RANKDECK_RUN_DIR/asked; exit' TERM; while :; do :; done"
    )
    time.sleep(0.2)
    assert sweep.kill(sweep.find(str(strays.state)), 5.0) == {"killed": 1, "left": []}
    assert (strays.run_dir("lab-1/n0") / "asked").read_text() == "asked\n"
    assert not proc.is_running(pid, 0)


def test_killing_does_not_stop_at_a_process_that_ignores_sigterm_or_is_stopped(strays: Strays) -> None:
    strays.marked("lab-1/n0", "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
    os.kill(strays.marked("lab-1/n0"), signal.SIGSTOP)
    time.sleep(0.2)
    began = time.monotonic()
    assert sweep.kill(sweep.find(str(strays.state)), 0.3)["left"] == []
    assert time.monotonic() - began < 30
    assert strays.found() == {}


def test_a_process_that_took_over_the_pid_is_left_alone(strays: Strays) -> None:
    pid = strays.marked("lab-1/n0")
    (entry,) = sweep.find(str(strays.state))
    assert sweep.kill([{**entry, "start": entry["start"] - 1}], 0.0) == {"killed": 0, "left": []}
    assert proc.is_running(pid, entry["start"])


def test_an_unkillable_process_is_reported_in_bounded_time(strays: Strays, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = strays.marked("lab-1/n0")
    monkeypatch.setattr(sweep, "KILL_SECONDS", 0.3)
    monkeypatch.setattr(proc, "send", lambda pid, start, number: True)  # stands in for uninterruptible sleep
    found = sweep.find(str(strays.state))
    assert sweep.kill(found, 0.1) == {"killed": 0, "left": [{"pid": pid, "comm": "sleep", "state": "S"}]}


# The lock


def test_no_lock_no_folder_and_a_free_lock_are_all_dead_and_nothing_is_made(tmp_path: Path) -> None:
    assert not sweep.alive(str(tmp_path / "nowhere"))
    assert not sweep.alive(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "lock").touch()
    assert not sweep.alive(str(tmp_path))


def test_a_held_lock_is_alive_until_it_is_closed(tmp_path: Path) -> None:
    fd = sweep.take_lock(str(tmp_path))
    assert sweep.alive(str(tmp_path))
    assert sweep.alive(str(tmp_path))
    os.close(fd)
    assert not sweep.alive(str(tmp_path))


def test_a_second_taker_is_refused(tmp_path: Path) -> None:
    fd = sweep.take_lock(str(tmp_path))
    with pytest.raises(BlockingIOError):
        sweep.take_lock(str(tmp_path), patience=0.05)
    os.close(fd)


def test_readers_that_ask_all_the_time_do_not_keep_a_supervisor_from_starting(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    enough = threading.Event()

    def ask() -> None:
        while not enough.is_set():
            sweep.alive(str(tmp_path))

    readers = [threading.Thread(target=ask) for _ in range(4)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(50):
            os.close(sweep.take_lock(str(tmp_path)))
    finally:
        enough.set()
        for reader in readers:
            reader.join()


def test_a_shared_lock_of_a_reader_is_not_taken_for_life(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    with (tmp_path / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert not sweep.alive(str(tmp_path))


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    assert not sweep.alive(str(tmp_path))
    with pytest.raises(OSError):
        sweep.take_lock(str(tmp_path))
    assert not (tmp_path / "elsewhere").exists()
