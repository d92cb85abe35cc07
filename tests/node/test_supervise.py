"""The supervisor against real processes. Where torch is not needed, a stand-in for torchrun starts the ranks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.node import proc, sweep
from tests.node.launching import TORCHRUN, Launch, standin, torchrun

if TYPE_CHECKING:
    from collections.abc import Callable

PYTHON38 = Path("/root/.pyenv/versions/3.8.18/bin/python3")
SLEEP = "import time; time.sleep(60)"
needs_torchrun = pytest.mark.skipif(not TORCHRUN.exists(), reason="no torchrun in this environment")

IGNORES_SIGTERM = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"

# A daemon by the book: two forks, a session of its own, no descriptor and no environment of ours.
LEAVES_DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in (0, 1, 2):
            os.close(fd)
        os.execve("/bin/sleep", ["sleep", "60.1875"], {})
    os._exit(0)
os.wait()
print("left a daemon", flush=True)
"""


def one_fails(how: str) -> str:
    return f"import os, time\nif os.environ['LOCAL_RANK'] == '1':\n    time.sleep(0.3)\n    {how}\ntime.sleep(60)"


def wait_output(launch: Launch, text: str, local_rank: int = 0, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while text not in launch.output(local_rank):
        assert time.monotonic() < deadline, f"{text!r} not in {launch.output(local_rank)!r}; {launch.log()}"
        time.sleep(0.02)


def daemons() -> list[int]:
    """The processes of LEAVES_DAEMON, told by an argument that no other test uses: tests run side by side."""
    return [pid for pid in proc.table() if b"\x0060.1875\x00" in cmdline(pid)]


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


# Normal life


def test_a_job_that_ends_well_is_recorded_from_start_to_finish(launch: Launch) -> None:
    answer = launch.start(standin(2, "print('hello'); import time; time.sleep(0.5)"))
    last = launch.finish()

    assert (last["code"], last["signal"], last["stopped"]) == (0, None, False)
    types = [record["type"] for record in launch.records() if record["type"] != "warning"]
    assert types[0] == "supervisor"
    assert types[1] == "torchrun"
    assert types[-3:] == ["torchrun_exit", "swept", "finished"]
    supervisor = launch.records("supervisor")[0]
    assert answer == {"ok": True, "pid": supervisor["pid"], "start": supervisor["start"]}
    assert supervisor["boot"] == proc.boot_id()
    assert sorted((w["local_rank"], w["rank"]) for w in launch.records("worker")) == [(0, 0), (1, 1)]
    assert [(w["code"], w["signal"]) for w in launch.records("worker_exit")] == [(0, None), (0, None)]
    assert len({record["path"] for record in launch.records("stream")}) == 4
    assert launch.output(0) == launch.output(1) == "hello\n"


def test_the_answer_does_not_wait_for_the_job(launch: Launch) -> None:
    began = time.monotonic()
    launch.start("exec sleep 60")
    assert time.monotonic() - began < 30
    assert sweep.alive(str(launch.run_dir))


def test_the_supervisor_has_no_terminal_no_descriptor_of_its_starter_and_its_own_session(launch: Launch) -> None:
    pid = launch.start("exec sleep 60")["pid"]
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}/fd/{fd}").readlink() != Path(os.devnull) for fd in (0, 1, 2)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    found = proc.stat(pid)
    assert found is not None
    assert found.session not in (os.getsid(0), pid)


def test_files_are_private_and_the_job_keeps_the_umask_of_its_user(launch: Launch) -> None:
    umask = os.umask(0o022)
    try:
        launch.start("umask")
    finally:
        os.umask(umask)
    launch.finish()
    assert launch.log() == "0022\n"
    modes = {path.name: path.stat().st_mode & 0o077 for path in launch.run_dir.iterdir() if path.name != "job.json"}
    assert set(modes.values()) == {0}, modes


def test_the_program_starts_with_default_signals_an_empty_stdin_and_the_marker(launch: Launch) -> None:
    launch.start("grep -E 'Sig(Ign|Blk)' /proc/self/status; cat; echo $RANKDECK_JOB $RANKDECK_RUN_DIR; pwd")
    launch.finish()
    _, blocked, _, ignored, *rest = launch.log().split()
    # Signals 32 and 33 are the C library's own; what it does with them is inherited from whoever runs the tests.
    assert (int(blocked, 16), int(ignored, 16) & 0x7FFF_FFFF) == (0, 0)
    assert rest == [launch.job, str(launch.run_dir), str(Path.home())]


def test_secrets_reach_the_program_and_no_file(launch: Launch) -> None:
    launch.start("echo ${#TOKEN}", secrets={"TOKEN": "canary-7f3a"})
    launch.finish()
    assert launch.log() == "11\n"
    for path in launch.run_dir.rglob("*"):
        assert b"canary-7f3a" not in (path.read_bytes() if path.is_file() else b"")


def test_the_newest_metric_of_each_worker_is_journaled(launch: Launch) -> None:
    pytest.importorskip("engine.node.metrics")
    launch.start(standin(1, "for step in range(1, 301): print(f'step: {step}/300 loss: {1 / step:.4f}')"))
    launch.finish()
    assert launch.records("metric")[-1]["step"] == 300


# Refusals


def test_a_second_supervisor_is_refused_while_the_first_lives(launch: Launch) -> None:
    launch.start("exec sleep 60")
    assert launch.start("exec sleep 60")["error"] == "already"
    assert len(launch.records("supervisor")) == 1


def test_a_folder_is_used_once(launch: Launch) -> None:
    launch.start("true")
    launch.finish()
    assert launch.start("true")["error"] == "already"
    assert launch.records()[-1]["type"] == "finished"


def test_a_script_that_cannot_start_is_an_error_and_an_end(launch: Launch) -> None:
    assert launch.start("#" * 200_000)["error"] == "start"
    assert launch.finish()["code"] == 127


def test_the_job_of_another_folder_is_refused(launch: Launch, launches: Callable[[str], Launch]) -> None:
    launch.start("true")
    other = launches("lab-2")
    other.run_dir.mkdir(parents=True)
    launch.finish()
    launch.job, launch.run_dir = launch.job, other.run_dir
    assert launch.start("true")["error"] == "folder"


def test_a_link_in_the_place_of_a_file_is_not_followed(launch: Launch, tmp_path: Path) -> None:
    launch.run_dir.mkdir(parents=True)
    (launch.run_dir / "torchrun.log").symlink_to(tmp_path / "elsewhere")
    assert launch.start("echo hello")["error"] == "start"
    assert not (tmp_path / "elsewhere").exists()


# Failing ranks


@pytest.mark.parametrize(
    ("how", "code", "number"),
    [
        ("os._exit(3)", 3, None),
        ("os.kill(os.getpid(), 9)", None, signal.SIGKILL),
        ("os.kill(os.getpid(), 11)", None, signal.SIGSEGV),
    ],
)
def test_the_rank_that_fails_first_is_recorded_first_with_its_own_ending(
    launch: Launch, how: str, code: int | None, number: int | None
) -> None:
    launch.start(standin(3, one_fails(how)))
    assert launch.finish()["code"] == 1
    first = launch.records("worker_exit")[0]
    assert (first["local_rank"], first["code"], first["signal"]) == (1, code, number)
    assert {e["signal"] for e in launch.records("worker_exit")[1:]} <= {signal.SIGTERM, None}


def test_an_exit_is_seen_within_milliseconds(launch: Launch) -> None:
    launch.start(standin(1, "import time; time.sleep(0.7); print(time.time(), flush=True)\nimport os; os._exit(3)"))
    launch.finish()
    assert launch.records("worker_exit")[0]["t"] - float(launch.output(0)) < 0.05


# Stopping


def test_the_last_words_of_a_chatty_rank_are_in_its_file(launch: Launch) -> None:
    source = (
        "import signal, sys\n"
        "def end(*_):\n    print('\\nlast words', flush=True); sys.exit(0)\n"
        "signal.signal(15, end)\n"
        "while True: print('chat ' * 20)"
    )
    launch.start(standin(2, source))
    launch.wait_for("worker", 2)
    wait_output(launch, "chat")
    wait_output(launch, "chat", 1)
    launch.stop(10.0, "by hand")
    assert launch.finish()["stopped"] is True
    assert launch.records("stop")[0]["reason"] == "by hand"
    for local_rank in (0, 1):
        assert launch.output(local_rank).endswith("last words\n")


def test_a_rank_that_ignores_sigterm_is_killed_after_the_grace(launch: Launch) -> None:
    launch.start(standin(2, IGNORES_SIGTERM))
    wait_output(launch, "deaf")
    wait_output(launch, "deaf", 1)
    began = time.monotonic()
    launch.stop(1.0)
    launch.finish()
    assert 1.0 <= time.monotonic() - began < 30
    assert {end["signal"] for end in launch.records("worker_exit")} == {signal.SIGKILL}
    assert launch.records("swept")[0]["left"] == []


def test_a_second_request_shortens_the_wait(launch: Launch) -> None:
    launch.start(standin(1, IGNORES_SIGTERM))
    wait_output(launch, "deaf")
    launch.stop(60.0)
    launch.wait_for("stop")
    launch.stop(0.2)
    launch.finish(seconds=5)


def test_a_stopped_process_is_removed(launch: Launch) -> None:
    launch.start(standin(2, SLEEP))
    os.kill(launch.wait_for("worker", 2)[0]["pid"], signal.SIGSTOP)
    launch.stop(0.5)
    launch.finish()


def test_sigterm_to_the_supervisor_is_a_request_to_stop(launch: Launch) -> None:
    pid = launch.start(standin(1, SLEEP))["pid"]
    launch.wait_for("worker")
    os.kill(pid, signal.SIGHUP)
    os.kill(pid, signal.SIGTERM)
    assert launch.finish()["stopped"] is True


def test_torchrun_below_a_shell_still_ends_its_ranks_in_its_own_way(launch: Launch) -> None:
    source = "import signal, sys, time\nsignal.signal(15, lambda *_: (time.sleep(3), print('tidy'), sys.exit(0)))\n"
    launch.start(standin(1, source + "print('ready', flush=True); time.sleep(60)").replace("exec ", "", 1) + "\ntrue")
    wait_output(launch, "ready")
    launch.wait_for("worker")
    launch.stop(15.0)
    launch.finish()
    assert launch.output(0).endswith("tidy\n")


def test_stopping_one_job_leaves_the_other_of_the_same_user(launches: Callable[[str], Launch]) -> None:
    one, two = launches("lab-1"), launches("lab-2")
    one.start(standin(2, SLEEP))
    two.start(standin(2, SLEEP))
    one.wait_for("worker", 2)
    workers = two.wait_for("worker", 2)
    one.stop(5.0)
    one.finish()
    assert all(proc.is_running(worker["pid"], worker["start"]) for worker in workers)
    assert sweep.alive(str(two.run_dir))
    assert two.records("worker_exit") == []


def test_a_job_whose_folder_vanishes_is_ended(launch: Launch) -> None:
    launch.start(standin(1, SLEEP))
    launch.wait_for("worker")
    pid = launch.answer["pid"]
    launch.run_dir.rename(launch.run_dir.with_name("moved"))
    deadline = time.monotonic() + 15
    while proc.is_running(pid, launch.answer["start"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert launch.found() == []


# What escapes


def test_a_daemon_without_any_trace_of_us_is_swept(launch: Launch) -> None:
    launch.start(standin(1, LEAVES_DAEMON))
    last = launch.finish()
    assert last["code"] == 0
    assert "left a daemon" in launch.output(0)
    assert launch.records("swept")[0] == {**launch.records("swept")[0], "killed": 1, "left": []}
    assert not daemons()


def test_no_zombie_stays_below_the_supervisor(launch: Launch) -> None:
    source = (
        "import os, time\nfor _ in range(20):\n    if os.fork() == 0:\n        os.fork(); os._exit(0)\n    os.wait()\n"
    )
    pid = launch.start(standin(1, source + "print('forked', flush=True); time.sleep(60)"))["pid"]
    wait_output(launch, "forked")
    deadline = time.monotonic() + 3
    while [entry for entry in proc.descendants(pid) if entry.dead and entry.ppid == pid]:
        assert time.monotonic() < deadline, proc.descendants(pid)
        time.sleep(0.05)


def test_a_killed_torchrun_takes_its_ranks_with_it(launch: Launch) -> None:
    launch.start(standin(2, IGNORES_SIGTERM))
    launch.wait_for("worker", 2)
    wait_output(launch, "deaf")
    os.kill(launch.records("torchrun")[0]["pid"], signal.SIGKILL)
    last = launch.finish()
    assert (last["code"], last["signal"], last["stopped"]) == (None, signal.SIGKILL, False)
    assert [end["signal"] for end in launch.records("worker_exit")] == [signal.SIGKILL] * 2


def test_a_killed_supervisor_ends_torchrun_and_a_sweep_finds_the_rest(launch: Launch) -> None:
    wiped = "import os, subprocess\nsubprocess.Popen(['setsid', 'sleep', '60'], env={})\n"
    launch.start(standin(2, wiped + SLEEP))
    workers = launch.wait_for("worker", 2)
    deadline = time.monotonic() + 5
    while len([entry for entry in launch.found() if entry["comm"] == "sleep"]) < 2:
        assert time.monotonic() < deadline, launch.found()
        time.sleep(0.05)
    os.kill(launch.answer["pid"], signal.SIGKILL)
    for ended in [*workers, *launch.records("torchrun")]:
        while proc.is_running(ended["pid"], ended["start"]):
            assert time.monotonic() < deadline + 5
            time.sleep(0.05)

    assert not sweep.alive(str(launch.run_dir))
    assert launch.records("finished") == []
    left = launch.found()
    assert {(entry["comm"], entry["why"]) for entry in left} == {("sleep", "fd")}
    assert sweep.kill(left, 1.0) == {"killed": 2, "left": []}
    assert launch.found() == []


def test_a_forged_record_with_the_pid_of_an_innocent_process_harms_nobody(launch: Launch) -> None:
    with subprocess.Popen(["sleep", "60"]) as innocent:
        launch.run_dir.mkdir(parents=True)
        forged = {"t": 1.0, "type": "supervisor", "pid": innocent.pid, "start": 1, "boot": proc.boot_id()}
        (launch.run_dir / "journal.jsonl").write_text(json.dumps(forged) + "\n")
        (launch.run_dir / "lock").touch()
        assert not sweep.alive(str(launch.run_dir))
        assert launch.found() == []
        stale = {"job": launch.job, "pid": innocent.pid, "start": 1, "comm": "sleep"}
        assert sweep.kill([stale], 0.1) == {"killed": 0, "left": []}
        assert innocent.poll() is None
        innocent.kill()


# A full disk


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tiny file system needs root")
def test_a_full_disk_loses_neither_the_job_nor_its_last_record(launch: Launch) -> None:
    launch.run_dir.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(launch.run_dir)], check=True)
    try:
        launch.start(standin(1, "import time\nprint('x' * 3_000_000, flush=True)\ntime.sleep(0.5)"))
        last = launch.finish()
        assert last["type"] == "finished"
        assert not (launch.run_dir / "reserve").exists()
        assert len(launch.records("worker_exit")) == 1
    finally:
        launch.clear()
        subprocess.run(["umount", str(launch.run_dir)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tiny file system needs root")
def test_a_disk_that_is_full_from_the_start_refuses_the_job(launch: Launch) -> None:
    launch.run_dir.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(launch.run_dir)], check=True)
    try:
        assert launch.start("true")["error"] == "disk"
    finally:
        subprocess.run(["umount", str(launch.run_dir)], check=True)


# Other Pythons


@pytest.mark.skipif(not PYTHON38.exists(), reason="no Python 3.8 on this machine")
def test_python_38_sees_the_same(launch: Launch) -> None:
    launch.start(standin(3, one_fails("os._exit(3)")), python=str(PYTHON38))
    launch.finish()
    first = launch.records("worker_exit")[0]
    assert (first["local_rank"], first["code"]) == (1, 3)
    assert launch.records("supervisor")[0]["python"].startswith("3.8.")


@pytest.mark.skipif(not PYTHON38.exists(), reason="no Python 3.8 on this machine")
def test_a_python_without_ctypes_warns_and_works(launch: Launch, program: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.zip"
    bare.write_bytes(program.read_bytes())
    import zipfile

    with zipfile.ZipFile(bare, "a") as archive:
        archive.writestr("ctypes.py", "raise ImportError('a Python without ctypes')\n")
    launch.program = bare
    launch.start(standin(2, one_fails("os._exit(3)")), python=str(PYTHON38))
    launch.finish()
    assert any("prctl" in record["text"] for record in launch.records("warning"))
    assert (launch.records("worker_exit")[0]["local_rank"], launch.records("worker_exit")[0]["code"]) == (1, 3)


# The real torchrun


@needs_torchrun
def test_a_real_torchrun_with_gloo_runs_to_its_end(launch: Launch, tmp_path: Path) -> None:
    program = tmp_path / "train.py"
    program.write_text(
        "import torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "x = torch.ones(1); dist.all_reduce(x); print('sum', int(x), flush=True)\n"
        "dist.destroy_process_group()\n"
    )
    launch.start(torchrun(2, program))
    assert launch.finish(60)["code"] == 0, launch.log()
    assert launch.output(0) == launch.output(1) == "sum 2\n"
    assert [(e["code"], e["signal"]) for e in launch.records("worker_exit")] == [(0, None)] * 2
    assert len(launch.records("stream")) == 4


@needs_torchrun
def test_the_workers_of_every_attempt_of_a_real_torchrun_are_recorded(launch: Launch, tmp_path: Path) -> None:
    program = tmp_path / "train.py"
    program.write_text(one_fails("os._exit(3)"))
    launch.start(torchrun(2, program, "--max_restarts=1"))
    assert launch.finish(60)["code"] == 1, launch.log()
    workers = {(w["attempt"], w["local_rank"]) for w in launch.records("worker")}
    assert workers == {(0, 0), (0, 1), (1, 0), (1, 1)}
    for attempt in (0, 1):
        ends = [end for end in launch.records("worker_exit") if end["attempt"] == attempt]
        assert (ends[0]["local_rank"], ends[0]["code"]) == (1, 3)
    assert len(launch.records("stream")) == 8


@needs_torchrun
def test_ranks_that_die_before_anybody_looks_are_known_from_the_log_of_a_real_torchrun(
    launch: Launch, tmp_path: Path
) -> None:
    program = tmp_path / "rank.sh"
    program.write_text("#!/bin/sh\nexit 7\n")
    program.chmod(0o755)
    launch.start(torchrun(2, program, "--no_python"))
    launch.finish(60)
    ends = launch.records("worker_exit")
    assert ends
    assert {end["code"] for end in ends} == {7}
    assert len({w["pid"] for w in launch.records("worker")}) == len(launch.records("worker"))


@needs_torchrun
def test_a_killed_supervisor_leaves_no_rank_of_a_real_torchrun(launch: Launch, tmp_path: Path) -> None:
    program = tmp_path / "train.py"
    program.write_text(SLEEP)
    launch.start(torchrun(2, program))
    workers = launch.wait_for("worker", 2, seconds=60)
    os.kill(launch.answer["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 15
    while any(proc.is_running(worker["pid"], worker["start"]) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_node_side_parses_on_python_38() -> None:
    import ast

    for path in (Path(sys.modules["engine.node"].__file__ or "").parent).glob("*.py"):
        ast.parse(path.read_text(), str(path), feature_version=(3, 8))
