from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.node.launching import Launch, build_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_program(tmp_path_factory.mktemp("program"))


@pytest.fixture
def launches(program: Path, tmp_path: Path) -> Iterator[Callable[[str], Launch]]:
    """Makes run folders by run id; whatever runs in them at the end of the test is ended."""
    made: list[Launch] = []

    def make(run: str) -> Launch:
        made.append(Launch(program, tmp_path / "state", run))
        return made[-1]

    yield make
    for launch in made:
        launch.clear()


@pytest.fixture
def launch(launches: Callable[[str], Launch]) -> Launch:
    return launches("lab-1")
