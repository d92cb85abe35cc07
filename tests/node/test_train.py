"""The training engine, really run: torchrun over a zip, Slurm's variables, one process; gloo on this machine."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import sys
import zipfile

import pytest

pytest.importorskip("torch")

from typing import TYPE_CHECKING

from engine.node.metrics import MetricReader
from engine.train.errors import ConfigError
from engine.train.world import World, default_launcher, first_host, from_launcher
from tests.node.training import ROOT, TORCHRUN, Ended, end, environment, free_port, settings, start

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def zipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine as it travels: one zip."""
    path = tmp_path_factory.mktemp("agent") / "agent.zip"
    with zipfile.ZipFile(path, "w") as bundle:
        for source in [ROOT / "engine/__init__.py", ROOT / "engine/batch.py", *(ROOT / "engine/train").glob("*.py")]:
            bundle.write(source, source.relative_to(ROOT))
    return path


@pytest.fixture(scope="module")
def two_ranks(zipped: Path) -> Ended:
    """Two ranks under torchrun, the engine in a zip: 2 x 4 samples a step."""
    command = [*TORCHRUN, free_port(), "--nproc-per-node", "2", "-m", "engine.train"]
    pairs = settings("steps=25", "per_device_batch=4")
    return end(start(command + pairs, environment(zipped), zipped.parent))


@pytest.fixture(scope="module")
def one_rank() -> Ended:
    """One process without a launcher: 8 samples a step."""
    command = [sys.executable, "-m", "engine.train", *settings("steps=25", "per_device_batch=8")]
    return end(start(command, environment(ROOT), ROOT))


@pytest.fixture(scope="module")
def slurm_tasks() -> list[Ended]:
    """Two tasks with Slurm's variables and two micro-steps each: 2 x 2 x 2 samples a step."""
    command = [sys.executable, "-m", "engine.train", "--launcher", "slurm"]
    command += settings("steps=25", "per_device_batch=2", "grad_accum=2")
    job = {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "localhost", "MASTER_PORT": free_port()}
    tasks = [
        start(command, environment(ROOT, **job, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)), ROOT)
        for rank in range(2)
    ]
    return [end(task) for task in tasks]


def test_two_ranks_under_torchrun_train_from_a_zip(two_ranks: Ended) -> None:
    assert two_ranks.code == 0, two_ranks.err
    assert len(two_ranks.losses) == 25
    assert sum(two_ranks.losses[-5:]) / 5 < two_ranks.losses[0] - 1


def test_every_rank_says_who_it_is_and_how_much_it_has_to_do(two_ranks: Ended) -> None:
    starts = re.findall(
        r"^start: rank (\d)/2  local_rank (\d)  host \S+  device cpu  backend gloo .* steps (\d+) an epoch$",
        two_ranks.out,
        re.M,
    )
    assert sorted((rank, local_rank) for rank, local_rank, _ in starts) == [("0", "0"), ("1", "1")]
    assert len({steps for _, _, steps in starts}) == 1


def test_the_other_rank_writes_its_own_times_more_rarely(two_ranks: Ended) -> None:
    steps = re.findall(r"^step (\d+)/25  step_time \S+s  data_time \S+s  comm_time \S+s  rank 1$", two_ranks.out, re.M)
    assert steps == ["10", "20", "25"]


def test_all_ranks_end_with_the_same_parameters_and_leave_the_group(two_ranks: Ended) -> None:
    assert re.search(r"^done: 25 steps .* checksum [0-9a-f]{8} on 2 ranks$", two_ranks.out, re.M)
    assert "different parameters" not in two_ranks.out
    assert "destroy_process_group" not in two_ranks.err


def test_one_rank_and_two_ranks_and_accumulation_take_the_same_steps(
    one_rank: Ended, two_ranks: Ended, slurm_tasks: list[Ended]
) -> None:
    assert [one_rank.code, *(task.code for task in slurm_tasks)] == [0, 0, 0], slurm_tasks
    assert two_ranks.losses == pytest.approx(one_rank.losses, abs=2e-3)
    assert slurm_tasks[0].losses == pytest.approx(one_rank.losses, abs=2e-3)


def test_a_compiled_model_takes_the_same_steps(one_rank: Ended) -> None:
    command = [sys.executable, "-m", "engine.train"]
    command += settings("steps=25", "per_device_batch=8", "compile=aot_eager")
    compiled = end(start(command, environment(ROOT), ROOT))
    assert compiled.code == 0, compiled.err
    assert compiled.losses == pytest.approx(one_rank.losses, abs=2e-3)


def test_tensorboard_is_written_where_it_is_installed_and_asked_for_by_name_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "engine.train", *settings("steps=2", f"out={tmp_path}", "tensorboard=true")]
    ended = end(start(command, environment(ROOT), ROOT))
    if importlib.util.find_spec("tensorboard"):
        assert ended.code == 0, ended.err
        assert [path.stat().st_size > 500 for path in tmp_path.glob("tensorboard/events.out.tfevents.*")] == [True]
    else:
        assert ended.code == 2
        assert "pip install tensorboard" in ended.err


def test_lines_that_are_rarer_than_steps_leave_out_no_step(tmp_path: Path, one_rank: Ended) -> None:
    command = [sys.executable, "-m", "engine.train"]
    command += settings("steps=25", "per_device_batch=8", f"out={tmp_path}", "log_every=10")
    ended = end(start(command, environment(ROOT), ROOT))
    assert re.findall(r"^step (\d+)/25", ended.out, re.M) == ["10", "20", "25"]
    said = [json.loads(line) for line in (tmp_path / "metrics/rank0.jsonl").read_text().splitlines()]
    assert [step["step"] for step in said] == list(range(1, 26))
    assert [step["loss"] for step in said] == pytest.approx(one_rank.losses, abs=1e-4)


def test_the_step_line_holds_every_metric(one_rank: Ended) -> None:
    metric = MetricReader().feed(one_rank.out.encode())[0]
    expected = "step total loss lr step_time data_time comm_time rate rate_unit grad_norm memory_gib"
    assert set(metric) == set(expected.split())
    assert (metric["step"], metric["total"], metric["rate_unit"]) == (1, 25, "tokens/s")


def test_sigterm_ends_after_the_step_under_way_without_a_traceback() -> None:
    command = [sys.executable, "-m", "engine.train", *settings("steps=1000000")]
    process = start(command, environment(ROOT), ROOT)
    assert process.stdout
    for line in process.stdout:
        if line.startswith("step 3/"):
            process.terminate()
            break
    ended = end(process)
    assert ended.code == 128 + signal.SIGTERM
    assert re.search(r"^stopped: \d+ steps", ended.out, re.M)
    assert "Traceback" not in ended.err


def test_a_wrong_key_ends_at_once_with_the_nearest_right_one() -> None:
    command = [sys.executable, "-m", "engine.train", "--set", "step=3"]
    ended = end(start(command, environment(ROOT), ROOT))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "error: unknown key 'step'; did you mean steps?\n"


@pytest.mark.parametrize(
    ("node_list", "host"),
    [("gpu01", "gpu01"), ("gpu[03-04,07],cpu1", "gpu03"), ("a-[1,3]-ib[0-1]", "a-1-ib0"), ("n1,n2", "n1")],
)
def test_the_first_host_of_a_node_list(node_list: str, host: str) -> None:
    assert first_host(node_list) == host


def test_slurms_variables_give_rank_address_and_a_port_from_the_job_id() -> None:
    env = {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "70000"}
    world = from_launcher("slurm", {**env, "SLURM_JOB_NODELIST": "gpu[03-04]"})
    assert world == World(rank=5, local_rank=1, ranks=8, address="gpu03", port=15000 + 70000 % 16384)


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(ConfigError, match="needs RANK in the environment"):
        from_launcher("pytorch", {})


def test_torchruns_variables_choose_its_launcher() -> None:
    assert default_launcher({"RANK": "0", "WORLD_SIZE": "2"}) == "pytorch"
    assert default_launcher({"SLURM_PROCID": "0"}) == "none"
