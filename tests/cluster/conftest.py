"""Fixtures of the cluster tier: real hosts in network namespaces, for which pytest has to be root.

    cluster    session    the Cluster, three hosts node1..node3
    hosts      function   its hosts, as new before the test; what a test leaves running on them is that test's failure
    user_env   function   the environment of a user at the workstation, with a home that is the test's own

Without root, or without the commands and the kernel that hosts need, every test that asks for one of these is skipped
with a line that says so, and the loopback tier (sshd as an ordinary user on 127.0.0.x) is what runs. With
RANKDECK_CLUSTER=required in the environment, as in CI, root without hosts is a failure and never a skip.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING

import pytest

from tests.cluster.cluster import Cluster, obstacle
from tests.cluster.patient import Patient
from tests.cluster.workstation import Workstation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.hosts import Host

why_not = lru_cache(maxsize=1)(obstacle)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "leaves_processes: the test means to leave marked processes on its hosts; they are ended in silence"
    )


def pytest_report_header() -> str:
    reason = why_not()
    return (
        f"cluster tier: not run ({reason}); loopback tier only" if reason else "cluster tier: network namespaces (root)"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and {"cluster", "hosts"} & set(item.fixturenames):
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Three running hosts, shared by the whole session: ask for `hosts` to have them as new."""
    reason = why_not()
    if reason and os.geteuid() == 0 and os.environ.get("RANKDECK_CLUSTER") == "required":
        pytest.fail(f"cluster tier: required, and cannot run ({reason})", pytrace=False)
    if reason:
        pytest.skip(f"cluster tier: not run ({reason})")
    running = Cluster()
    yield running
    running.close()


@pytest.fixture
def hosts(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[tuple[Host, ...]]:
    """The hosts, healed after the test: power, links, sshd, homes and the shared folder are as at the start."""
    yield cluster.hosts
    left = cluster.heal()
    if left and not request.node.get_closest_marker("leaves_processes"):
        lines = [f"  {name}: {process}" for name, processes in left.items() for process in processes]
        pytest.fail("the test left processes of Rankdeck on its hosts:\n" + "\n".join(lines), pytrace=False)


@pytest.fixture
def user_env(cluster: Cluster, tmp_path: Path) -> dict[str, str]:
    """Run `rankdeck` with this as its whole environment: a fresh home, and the cluster's ssh config."""
    return cluster.user_env(tmp_path / "workstation")


@pytest.fixture
def user(cluster: Cluster, user_env: dict[str, str]) -> Workstation:
    """Someone at the workstation who runs the real `rankdeck`."""
    return Workstation(cluster, user_env)


@pytest.fixture
def patient(user: Workstation, hosts: tuple[Host, ...]) -> Patient:
    """A profile for one rank on each host."""
    made = Patient(user, hosts)
    made.write()
    return made
