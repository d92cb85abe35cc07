"""Fixtures of the Slurm tier: a real Slurm of three nodes on hosts in network namespaces, for which pytest is root.

    slurm_session   session    one Slurm for all tests
    slurm           function   the same, healed after the test; jobs that a test leaves are that test's failure

Without root or Slurm's programs every test here is skipped with a line that says so; RANKDECK_CLUSTER=required makes
that a failure, as for the cluster tier.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.cluster.workstation import Workstation
from tests.slurm.slurm import Slurm, slurm_obstacle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and "slurm_session" in item.fixturenames:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def slurm_session() -> Iterator[Slurm]:
    reason = slurm_obstacle()
    if reason and os.geteuid() == 0 and os.environ.get("RANKDECK_CLUSTER") == "required":
        pytest.fail(f"Slurm tier: required, and cannot run ({reason})", pytrace=False)
    if reason:
        pytest.skip(f"Slurm tier: not run ({reason})")
    running = Slurm()
    yield running
    running.close()


@pytest.fixture
def slurm(slurm_session: Slurm) -> Iterator[Slurm]:
    yield slurm_session
    if left := slurm_session.heal():
        pytest.fail("the test left jobs:\n" + "\n".join(left), pytrace=False)


@pytest.fixture
def user(slurm: Slurm, tmp_path: Path) -> Workstation:
    """Someone at a workstation who logs in to node4 over ssh, and runs the real `rankdeck` here."""
    return Workstation(slurm.cluster, slurm.cluster.user_env(tmp_path / "workstation"))
