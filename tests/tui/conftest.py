"""Fixtures of the terminal UI: a home of the test's own, so that nothing of the user's is read or written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """State, profiles and ssh configuration of this test alone; the working folder too."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("NO_COLOR", "TMUX", "STY", "SSH_CONNECTION", "RANKDECK_THEME", "RANKDECK_FPS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANKDECK_STATE", str(home / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("RANKDECK_SSH_CONFIG", str(home / "ssh_config"))
    (home / "ssh_config").write_text("")
    monkeypatch.chdir(home)
    return home
