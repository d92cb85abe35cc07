"""Completion as a user meets it: sourced as `--help` says, and TAB pressed in real shells."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.tui.pty_of import Terminal

SETUP = {
    "bash": (["--norc", "-i"], 'eval "$(rankdeck completion bash)"'),
    "zsh": (["-f", "-i"], 'autoload -U compinit; compinit -D -u; eval "$(rankdeck completion zsh)"'),
    "fish": (["-i", "--no-config"], "function fish_prompt; echo '% '; end; rankdeck completion fish | source"),
    "tcsh": (["-f"], "rankdeck completion tcsh > c.tcsh; source c.tcsh"),
}
PRESSED = [
    ("rankdeck lau\t", "rankdeck launch"),
    ("rankdeck launch my-o\t", "rankdeck launch my-own-lab"),
    ("rankdeck launch lab --deta\t", "rankdeck launch lab --detach"),
    ("rankdeck print lab --format sba\t", "--format sbatch"),
    ("rankdeck metrics a-lo\t", "rankdeck metrics a-long.log"),
    ("rankdeck profiles val\t", "rankdeck profiles validate"),
]


@pytest.mark.parametrize("shell", SETUP)
def test_tab_completes_commands_flags_profiles_and_files(tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "my-own-lab.yaml").write_text("version: 1\n")
    (tmp_path / "a-long.log").touch()
    flags, setup = SETUP[shell]
    environ = {"HOME": str(tmp_path), "PS1": "% ", "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    with Terminal(*flags, command=[shell], environ=environ, folder=str(tmp_path), columns=150) as terminal:
        terminal.settle()
        terminal.press(f"{setup}; echo re''ady\r")
        terminal.wait_for("\nready", seconds=60)
        for typed, shown in PRESSED:
            if shell == "tcsh" and "my-o" in typed:
                continue  # there, files alone
            terminal.press(typed)
            terminal.wait_for(shown, seconds=30)
            terminal.press("\x15")
            terminal.settle(quiet=0.1)
