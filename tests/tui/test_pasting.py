"""What `print` shows, pasted into shells on a real terminal."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.tui.pty_of import RANKDECK, Terminal

if TYPE_CHECKING:
    from pathlib import Path

ARGS = ["--a b", "it's", "$(touch x)", "`id`", "!!", "~root", "#c", "\\n", "tab\there", "", "*", "a\t'!!'", "日本語"]
NOTE = "one\n'two' !! \"\nRANKDECK\n"
SHELLS = {"bash": ["--norc", "-i"], "zsh": ["-f", "-i"], "sh": ["-i"]}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_command_that_is_typed_line_by_line_runs_as_it_is_written(tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    folder = tmp_path / 'it\'s "my" `folder` !!'
    folder.mkdir()
    torchrun = tmp_path / "torchrun"
    torchrun.write_text(
        "#!/usr/bin/env python3\nimport json, os, sys\n"
        "json.dump([os.getcwd(), sys.argv[1:], os.environ['NOTE']], open(os.environ['HOME'] + '/found', 'w'))\n"
    )
    torchrun.chmod(0o755)
    asked = {
        "version": 1,
        "name": "lab",
        "nodes": [{"host": "localhost", "gpus": 1}],
        "program": {"path": "train.py", "args": ARGS, "workdir": str(folder), "activate": f"PATH={tmp_path}:$PATH"},
        "env": {"NOTE": NOTE},
    }
    (tmp_path / "lab.yaml").write_text(json.dumps(asked))
    printed = subprocess.run([RANKDECK, "print", "lab.yaml"], cwd=tmp_path, capture_output=True, text=True, check=True)
    command = printed.stdout.partition("\n")[2]
    with Terminal(*SHELLS[shell], command=[shell], environ={"HOME": str(tmp_path), "PS1": "ready> "}) as terminal:
        terminal.wait_for("ready>")
        for line in command.splitlines():
            terminal.press(line + "\r")
            terminal.read()
        deadline = time.monotonic() + 30
        while not (tmp_path / "found").exists() or not (found := (tmp_path / "found").read_text()).endswith("]"):
            assert time.monotonic() < deadline, terminal.text
            terminal.read()
    where, argv, note = json.loads(found)
    assert (where, argv[-len(ARGS) :], note) == (str(folder), ARGS, NOTE)
