"""XTuner over SSH, by a stand-in whose command is as silent about failures as the real one."""

from __future__ import annotations

import json
import re
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.cluster.standin_xtuner import profile
from tests.cluster.workstation import node_folder

if TYPE_CHECKING:
    from tests.cluster.hosts import Host
    from tests.cluster.workstation import Workstation


def nodes(hosts: tuple[Host, ...], ranks: int) -> list[dict[str, str | int]]:
    return [{"host": host.name, "addr": host.address, "gpus": ranks} for host in hosts]


def test_two_nodes_train_by_its_contract_and_a_second_run_goes_on_where_the_first_ended(
    user: Workstation, hosts: tuple[Host, ...]
) -> None:
    two = nodes(hosts[:2], 2)
    own = ("--cfg-options=optim_wrapper.optimizer.lr=0.5", "--cfg-options", "a=1", "b=2")
    done = user.run("launch", profile(user, "first", *own, nodes=two))
    assert done.returncode == 0, done.stderr
    assert "4 ranks, launcher pytorch, resumed from nothing" in done.stdout
    said = json.loads(re.findall(r"nothing, ({.*})", done.stdout)[0])
    assert said == {
        "iters": 20,
        "train_dataloader.batch_size": "2",
        "optim_wrapper.accumulative_counts": "4",
        "optim_wrapper.optimizer.lr": "0.5",
        "a": "1",
        "b": "2",
    }
    assert re.search(r"succeeded .* step 20/20 .* loss 0.45", done.stderr), done.stderr
    (run,) = re.findall(r"first-\d+-\d+-\w+", done.stderr)[:1]
    for host, ranks in zip(hosts[:2], ("01", "01"), strict=True):
        logs = node_folder(host, run).glob("n*/ranks/*/attempt_0/*/stdout.log")
        assert sorted(log.parent.name for log in logs) == list(ranks)

    pulled = user.run("pull", run, "pulled")
    assert pulled.returncode == 0, pulled.stderr
    with tarfile.open(user.home / "pulled/n0/work_dir.tar.gz") as work:
        assert sorted(work.getnames()) == ["last_checkpoint", "standin.log"], "the texts, and no weights"

    again = profile(user, "again", "--cfg-options", "resume=True", "iters=25", nodes=two)
    done = user.run("launch", again)
    assert done.returncode == 0, done.stderr
    assert "resumed from work/iter_20.pth" in done.stdout
    assert "step 25/25" in done.stderr


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_rank_that_fails_is_found_though_the_command_returns_0(
    user: Workstation, hosts: tuple[Host, ...], ranks: int
) -> None:
    failing = profile(user, "fails", "--cfg-options", f"fails={ranks - 1}", nodes=nodes(hosts[:1], ranks))
    done = user.run("launch", failing)
    assert done.returncode == 1, done.stderr
    assert f"the data of rank {ranks - 1} is damaged" in done.stderr


def test_a_run_is_stopped_with_nothing_left(user: Workstation, hosts: tuple[Host, ...]) -> None:
    run = user.launch(profile(user, "long", "--cfg-options", "iters=100000", nodes=nodes(hosts[:1], 2)))
    user.await_text("Iter(train)", run, ranks=1)
    stopped = user.run("stop", run, "--grace", "20")
    assert stopped.returncode == 0, stopped.stderr
    assert "nothing left" in stopped.stdout + stopped.stderr


def test_a_command_that_cannot_start_anything_has_failed_and_its_words_are_shown(
    user: Workstation, hosts: tuple[Host, ...]
) -> None:
    broken = profile(user, "broken", nodes=nodes(hosts[:1], 2), env={"STANDIN_XTUNER_BROKEN": "1"})
    done = user.run("launch", broken)
    assert done.returncode == 1, done.stderr
    assert "libcudart.so.12: cannot open shared object file" in done.stderr
