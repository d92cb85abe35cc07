"""What a run says of its steps, from made-up steps."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch")

from engine.node.metrics import MetricReader
from engine.train.config import Config
from engine.train.record import Recorder, Step
from engine.train.world import World

if TYPE_CHECKING:
    from pathlib import Path


def steps(count: int, **times: float) -> list[Step]:
    return [
        Step(step=number, epoch=0.0, lr=0.1, samples=8, loss=2.0, step_time=0.5, **times)
        for number in range(1, count + 1)
    ]


def recorder(world: World = World(), peak: float = 0.0, **config: object) -> Recorder:  # noqa: B008 (immutable)
    return Recorder(Config(**config), world, tokens=32, flops=1e9, peak=peak)  # type: ignore[arg-type]


def test_a_run_that_waits_for_its_data_says_so_once(capfd: pytest.CaptureFixture[str]) -> None:
    slow = recorder()
    slow.write(steps(19, data_time=0.2))
    assert "data-bound" not in capfd.readouterr().out
    slow.write(steps(30, data_time=0.2))
    assert "data-bound: rank 0 waits for data 40% of its time; raise workers" in capfd.readouterr().out
    slow.write(steps(30, data_time=0.2))
    assert "data-bound" not in capfd.readouterr().out


def test_mfu_is_the_share_of_the_peak_that_the_samples_are_worth(capfd: pytest.CaptureFixture[str]) -> None:
    """Two ranks do 16 samples a second, 1 GFLOP each: 8 GFLOP/s a device, of a peak of 20."""
    recorder(World(ranks=2), peak=20e9).write(steps(1))
    (metric,) = MetricReader().feed(capfd.readouterr().out.encode())
    assert metric["mfu"] == pytest.approx(40)
    assert metric["rate"] == pytest.approx(16 * 32)


def test_where_the_time_went_is_summed_over_all_steps() -> None:
    whole = recorder()
    whole.write(steps(10, data_time=0.05, compute_time=0.3, comm_time=0.1, optimizer_time=0.05))
    assert whole.split() == "compute 60%, exposed communication 20%, data 10%, optimizer 10%"


def test_every_rank_has_a_file_of_all_its_steps(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = recorder(World(rank=3, ranks=4), out=str(tmp_path), log_every=2)
    other.write(steps(20))
    other.close()
    said = [json.loads(line) for line in (tmp_path / "metrics/rank3.jsonl").read_text().splitlines()]
    assert [step["step"] for step in said] == list(range(1, 21))
    assert {step["rank"] for step in said} == {3}
    assert capfd.readouterr().out.count("\n") == 1, "its lines for people are ten times as rare as rank 0's"
