"""Where profiles are found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine import shelf
from engine.errors import RequestError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = "version: 1\nname: x\nnodes: [{host: a}]\nprogram: {path: t.py}\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a project folder of profiles, and a user's own."""
    (tmp_path / "work" / "profiles").mkdir(parents=True)
    (tmp_path / "config" / "rankdeck" / "profiles").mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def project(here: Path, name: str, text: str = GOOD) -> Path:
    path = here / "profiles" / name
    path.write_text(text)
    return path


def own(name: str, text: str = GOOD) -> Path:
    path = shelf.home() / name
    path.write_text(text)
    return path


def test_a_name_is_found_in_the_project_before_the_users_own(here: Path) -> None:
    project(here, "lab.yaml")
    own("lab.yaml")
    assert shelf.find("lab").resolve() == here / "profiles" / "lab.yaml"


def test_a_name_is_found_among_the_users_own(here: Path) -> None:
    path = own("mine.yml")
    assert shelf.find("mine") == path


def test_a_path_is_taken_as_it_is(here: Path) -> None:
    (here / "other.yaml").write_text(GOOD)
    assert str(shelf.find("other.yaml")) == "other.yaml"


def test_a_home_path_is_expanded(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    (here / "p.yaml").write_text(GOOD)
    assert shelf.find("~/p.yaml") == here / "p.yaml"


def test_a_misspelt_name_gets_the_nearest(here: Path) -> None:
    project(here, "lab-a100.yaml")
    with pytest.raises(RequestError, match="did you mean lab-a100") as caught:
        shelf.find("lab-a10")
    assert "in ./profiles or " in caught.value.text


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 5000, "no/such.yaml", "..", "/"])
def test_an_odd_name_is_a_request_error_or_a_path(here: Path, name: str) -> None:
    try:
        shelf.find(name)
    except RequestError:
        return
    assert name in ("..", "/")


def test_the_listing_says_what_is_broken_and_what_is_shadowed(here: Path) -> None:
    project(here, "lab.yaml")
    project(here, "bad.yaml", "version: 1\n")
    project(here, ".hidden.yaml")
    project(here, "notes.txt")
    own("lab.yaml")
    found = {(entry.name, entry.origin == "./profiles"): entry for entry in shelf.listing()}
    assert set(found) == {("lab", True), ("bad", True), ("lab", False)}
    assert found["lab", True].error is None
    assert found["lab", True].shadowed_by is None
    assert "program: missing" in str(found["bad", True].error)
    assert found["lab", False].shadowed_by == found["lab", True].path


def test_a_listing_without_any_folder_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    assert shelf.listing() == []


def test_a_relative_xdg_folder_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "config")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert shelf.home() == tmp_path / ".config" / "rankdeck" / "profiles"
