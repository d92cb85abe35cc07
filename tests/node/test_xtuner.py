"""XTuner's command below the node program: what it starts decides how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import time
from typing import TYPE_CHECKING

import pytest

from engine.node.xtuner import COLLECTED, COLLECTED_BYTES, collect, work_dir

if TYPE_CHECKING:
    from pathlib import Path

# A stand-in for the command: it starts `python` from the PATH, waits, and returns 0.
STANDIN = "#!/bin/sh\npython {words}\nexit 0\n"
CAREFUL = """\
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), sys.exit(7)))
print("ready", flush=True)
time.sleep(60)
"""


class Started(subprocess.Popen[str]):
    def __init__(self, program: Path, folder: Path, command: str) -> None:
        xtuner = folder / "xtuner"
        xtuner.write_text(command)
        xtuner.chmod(0o755)
        (folder / "python").symlink_to(sys.executable)
        super().__init__(
            [sys.executable, "-I", "-S", str(program), "xtuner", "train", "c"],
            env={"PATH": f"{folder}:/usr/bin:/bin", "RANKDECK_RUN_DIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def said(self) -> tuple[int, str]:
        _, err = self.communicate(timeout=60)
        return self.returncode, err


@pytest.mark.parametrize(
    ("source", "code"),
    [("pass", 0), ("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL)],
)
def test_it_ends_as_what_it_has_started(program: Path, tmp_path: Path, source: str, code: int) -> None:
    assert Started(program, tmp_path, STANDIN.format(words=f"-c '{source}'")).said()[0] == code
    assert not list(tmp_path.glob("xtuner-*")), "nothing of it stays in the run folder"


def test_a_command_that_starts_nothing_has_failed(program: Path, tmp_path: Path) -> None:
    code, err = Started(program, tmp_path, "#!/bin/sh\necho WARNING: command error >&2\n").said()
    assert code == 1
    assert "WARNING: command error" in err
    assert "xtuner has started nothing" in err


def test_a_command_that_is_not_there_is_named(program: Path, tmp_path: Path) -> None:
    code, err = Started(program, tmp_path, "#!/nowhere/python\n").said()
    assert code == 127
    assert "xtuner" in err


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (["configs/sft.py"], "work_dirs/sft"),
        (["c", "--seed", "1", "--work-dir", "a"], "a"),
        (["c", "--work-dir=a", "--work-dir=b"], "b"),
    ],
)
def test_the_work_dir_is_what_xtuner_takes_for_it(words: list[str], folder: str) -> None:
    assert work_dir(["xtuner", "train", *words]) == folder


def test_what_this_run_wrote_in_its_work_dir_is_collected_but_for_weights(tmp_path: Path) -> None:
    (tmp_path / "work/20261124/vis_data").mkdir(parents=True)
    for name in ("20261124/a.log", "20261124/vis_data/scalars.json", "iter_5.pth", "earlier.log", "huge.log"):
        (tmp_path / "work" / name).write_text("x")
    os.utime(tmp_path / "work/earlier.log", (1, 1))
    os.truncate(tmp_path / "work/huge.log", COLLECTED_BYTES + 1)
    collect(str(tmp_path / "work"), str(tmp_path / COLLECTED), time.time() - 60)
    with tarfile.open(tmp_path / COLLECTED) as archive:
        assert sorted(archive.getnames()) == ["20261124/a.log", "20261124/vis_data/scalars.json"]


@pytest.mark.parametrize("to_all", [False, True], ids=["from torchrun", "from Slurm, to every process"])
def test_what_it_has_started_is_given_the_time_to_end(program: Path, tmp_path: Path, to_all: bool) -> None:
    (tmp_path / "careful.py").write_text(CAREFUL)
    started = Started(program, tmp_path, STANDIN.format(words=tmp_path / "careful.py"))
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    (os.killpg if to_all else os.kill)(started.pid, signal.SIGTERM)
    assert started.said()[0] == 7
