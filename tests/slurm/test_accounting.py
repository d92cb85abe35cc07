"""With accounting: who cancelled a job, which account and QOS there are, limits, and what happens while it is away."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.cluster.workstation import Workstation, wait_until
from tests.slurm.accounting import Accounting, accounting_obstacle
from tests.slurm.test_jobs import await_line, counting, ended, job_of, outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.slurm.slurm import Slurm


@pytest.fixture(scope="module")
def books(slurm_session: Slurm) -> Iterator[Accounting]:
    if reason := accounting_obstacle():
        if os.environ.get("RANKDECK_CLUSTER") == "required":
            pytest.fail(f"accounting: required, and cannot run ({reason})", pytrace=False)
        pytest.skip(f"accounting: not run ({reason})")
    running = Accounting(slurm_session)
    yield running
    running.close()


def test_who_cancelled_a_job_is_told_by_accounting(slurm: Slurm, books: Accounting, user: Workstation) -> None:
    run = user.launch(counting(slurm, user, "theirs", "600"))
    await_line(slurm, run, "step 3 ")
    job = job_of(slurm, run)
    slurm.login.run(["scancel", job], root=True)
    wait_until(lambda: "CANCELLED by 0" in slurm.sh(f"sacct -X -n -P -j {job} -o State"), seconds=60)
    seen = user.run("attach", run)
    assert (seen.returncode, "cancelled by user id 0" in seen.stderr) == (1, True), seen.stderr
    assert outcome(user, run) == "stopped"


def test_accounts_and_qos_that_are_not_there_are_named_with_those_that_are(
    slurm: Slurm, books: Accounting, user: Workstation
) -> None:
    for wrong, mine, said in (
        ({"account": "nobody"}, "nobody is none of your accounts: lab", "the account does not exist"),
        ({"qos": "fast"}, "fast is none of your QOS: normal, one", "there is no such QOS for this account"),
    ):
        refused = user.run("check", counting(slurm, user, "wrong", "1", **wrong))
        told = refused.stdout + refused.stderr
        assert (refused.returncode, mine in told, said in told) == (3, True, True), told


def test_a_job_at_a_limit_waits_and_says_so(slurm: Slurm, books: Accounting, user: Workstation) -> None:
    first = user.launch(counting(slurm, user, "one", "600", qos="one", nodes=1))
    await_line(slurm, first, "step 3 ")
    second = user.launch(counting(slurm, user, "two", "600", qos="one", nodes=1))
    viewer = user.start("attach", second)
    told = user.home / "viewer-0.err"
    wait_until(lambda: "your account or QOS is at a limit" in told.read_text(), seconds=60)
    assert user.run("stop", second).returncode == user.run("stop", first, "--grace", "3").returncode == 0
    assert ended(viewer, user)[0] == 1


def test_accounting_that_is_away_is_no_obstacle(slurm: Slurm, books: Accounting, user: Workstation) -> None:
    books.stop()
    done = user.run("launch", counting(slurm, user, "alone", "2"), timeout=150)
    assert done.returncode == 0, done.stderr
    books.start()
