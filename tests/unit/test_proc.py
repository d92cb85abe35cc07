from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from engine.node import proc

HAS_PIDFD = proc.open_pidfd(os.getpid()) is not None


def start_of(pid: int) -> int:
    found = proc.stat(pid)
    assert found is not None
    return found.start


def until_dead(pid: int) -> None:
    deadline = time.monotonic() + 5
    while (found := proc.stat(pid)) is not None and not found.dead:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_name_with_spaces_and_parentheses_does_not_confuse_the_fields() -> None:
    line = b"42 (a) R 1 (b)) S 7 1 9 " + b" ".join(b"%d" % n for n in range(7, 53))
    found = proc.parse_stat(line)
    assert (found.pid, found.comm, found.state, found.ppid) == (42, "a) R 1 (b)", "S", 7)
    assert (found.session, found.start, found.exit_code) == (9, 22, 52)


@pytest.mark.parametrize("line", [b"", b"42", b"42 (a) S 1", b"x (a) " + b"y " * 60])
def test_anything_else_is_no_stat_line(line: bytes) -> None:
    with pytest.raises(ValueError):
        proc.parse_stat(line)


def test_this_process_is_found_with_its_parent() -> None:
    found = proc.stat(os.getpid())
    assert found is not None
    assert found.ppid == os.getppid() == proc.ancestors(os.getpid())[0]
    assert not found.dead
    assert os.getpid() in proc.pids()


def test_a_pid_that_nobody_has_is_nothing() -> None:
    assert proc.stat(2**22 + 1) is None
    assert proc.environ(2**22 + 1) == {}
    assert proc.command(2**22 + 1) == ""
    assert proc.open_pidfd(2**22 + 1) is None


def test_a_recycled_pid_is_another_process() -> None:
    assert proc.is_running(os.getpid(), start_of(os.getpid()))
    assert not proc.is_running(os.getpid(), start_of(os.getpid()) + 1)


def test_a_signal_reaches_the_process_that_is_meant() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert proc.send(child.pid, start_of(child.pid), signal.SIGTERM)
        assert child.wait(5) == -signal.SIGTERM


def test_a_signal_for_another_start_time_reaches_nobody() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert not proc.send(child.pid, start_of(child.pid) - 1, signal.SIGKILL)
        assert child.poll() is None
        child.kill()


@pytest.mark.parametrize("pid", [-1, 0, 1])
def test_no_signal_goes_to_a_group_to_everybody_or_to_init(pid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def must_not_be_called(*_: object) -> None:
        raise AssertionError("a signal was sent")

    monkeypatch.setattr(os, "kill", must_not_be_called)
    monkeypatch.setattr(proc, "_send_through", must_not_be_called)
    assert not proc.send(pid, start_of(1), signal.SIGTERM)


@pytest.mark.skipif(not HAS_PIDFD, reason="the kernel has no pidfds")
def test_pidfds_work_where_python_does_not_know_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    monkeypatch.delattr(signal, "pidfd_send_signal", raising=False)
    monkeypatch.setattr(os, "kill", None)
    with subprocess.Popen(["sleep", "60"]) as child:
        assert proc.send(child.pid, start_of(child.pid), signal.SIGTERM)
        assert child.wait(5) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("source", "ending"),
    [
        ("raise SystemExit(0)", (0, None)),
        ("raise SystemExit(3)", (3, None)),
        ("import os; os._exit(255)", (255, None)),
        ("import os; os.kill(os.getpid(), 9)", (None, 9)),
        ("import os; os.kill(os.getpid(), 11)", (None, 11)),
    ],
)
def test_a_zombie_tells_how_it_ended(source: str, ending: proc.Ending) -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", source]) as child:
        start = start_of(child.pid)
        until_dead(child.pid)
        assert proc.observed_ending(child.pid, start) == ending
        assert proc.observed_ending(child.pid, start + 1) == (None, None)
        child.wait()
        assert proc.observed_ending(child.pid, start) == (None, None)


def test_a_running_process_has_no_ending() -> None:
    assert proc.observed_ending(os.getpid(), start_of(os.getpid())) == (None, None)


def test_descendants_come_parents_first() -> None:
    with subprocess.Popen(["sh", "-c", "sh -c 'sleep 60; true'; true"], start_new_session=True) as child:
        deadline = time.monotonic() + 5
        while len(found := proc.descendants(child.pid)) < 2 or found[-1].comm != "sleep":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert [entry.comm for entry in found] == ["sh", "sleep"]
        assert found[0].ppid == child.pid
        os.killpg(child.pid, signal.SIGKILL)


def test_the_environment_and_command_of_another_process_are_read() -> None:
    with subprocess.Popen(["sleep", "60"], env={"A": "1=2", "B": "é"}) as child:
        deadline = time.monotonic() + 5
        while proc.command(child.pid) != "sleep 60":
            assert time.monotonic() < deadline
        assert proc.environ(child.pid) == {"A": "1=2", "B": "é"}
        assert proc.command(child.pid, 3) == "sle"
        child.kill()


def test_a_boot_has_an_id() -> None:
    assert len(proc.boot_id()) == 36
