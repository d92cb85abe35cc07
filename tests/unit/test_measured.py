"""Steps measured in logs that real trainers wrote, beside what each of them reports of itself; and all of it as JSON.

The logs in measured/ come from really running the trainers that reported.json names, standard output and error in one
file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.cli import main
from engine.measured import Reading

LOGS = Path(__file__).parent / "measured"
REPORTED = json.loads((LOGS / "reported.json").read_text())
PROMISED = {"path", "rank", "step", "total", "loss", "step_time_s", "rate", "rate_unit"}


def as_json(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What `rankdeck metrics ARGV --json` says: the steps, and the summary."""
    assert main(["metrics", *argv, "--json"]) == 0
    *steps, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert all(set(step) >= PROMISED for step in steps)
    assert summary["summary"] is True
    assert summary["steps"] == len(steps)
    return steps, summary


@pytest.mark.parametrize("name", REPORTED)
def test_what_is_measured_is_what_the_trainer_reports(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = REPORTED[name]
    steps, summary = as_json(capsys, str(LOGS / f"{name}.log"))
    assert {step["rank"] for step in steps} == {said["rank"]}
    for key in ("step", "total", "loss"):
        if key in said:
            assert summary[key] == pytest.approx(said[key], rel=0.02, abs=1e-9)
    unit = next(key for key in said if key.endswith("/s"))
    assert summary["rate_unit"] == unit
    assert summary["rate"] == pytest.approx(said[unit], rel=0.02)
    assert len(steps) == said.get("measured", len(steps))
    assert summary["alarms"] == []


def test_a_loss_of_the_hugging_face_trainer_has_the_step_of_the_bar_around_it() -> None:
    steps = list(Reading([str(LOGS / "hf_trainer.log")]))
    assert [(one.step, one.total) for one in steps] == [(step, 300) for step in range(20, 301, 20)]
    assert steps[0].loss == 3.999


def test_losses_on_standard_output_have_the_steps_of_the_bar_on_standard_error() -> None:
    reading = Reading([str(LOGS / "hf_two_streams")])
    assert [(one.rank, one.step, one.total) for one in reading] == [(0, step, 300) for step in range(10, 301, 10)]
    assert (reading.summary.loss, reading.summary.rate) == (1.0705, 8.29)
    assert reading.summary.reported["step_time"] == pytest.approx(1 / 8.292, rel=1e-3)


def test_a_bar_that_is_drawn_twice_for_a_step_is_one_record_with_the_later_loss(tmp_path: Path) -> None:
    states = [(1, 9.0), (1, 8.0), (2, 8.0), (2, 7.0)]
    bars = (f"Epoch 0:  50%|##  | {step}/4 [00:01<00:01,  2.00it/s, train_loss={loss}]" for step, loss in states)
    (tmp_path / "a.txt").write_text("\r".join(bars))
    assert [(one.step, one.loss) for one in Reading([str(tmp_path / "a.txt")])] == [(1, 8.0), (2, 7.0)]


def test_the_bar_of_an_evaluation_within_the_training_gives_no_step(tmp_path: Path) -> None:
    def train(*steps: int) -> list[str]:
        return [f"{step}%|##  | {step}/100 [00:01<00:01,  2.00it/s]" for step in steps]

    drawn = [*train(1, 2, 3, 10), "{'loss': 2.5, 'epoch': 0.1}", *train(10)]
    drawn += [f"{step // 7}%|##  | {step}/700 [00:01<00:01, 90.00it/s]" for step in (1, 350, 700)]
    drawn += ["{'eval_loss': 2.25, 'epoch': 0.1}", *train(11, 20), "{'loss': 2.0, 'epoch': 0.2}"]
    (tmp_path / "a.txt").write_text("\r".join(drawn) + "\n")
    found = [(one.step, one.total, one.loss) for one in Reading([str(tmp_path / "a.txt")])]
    assert found == [(10, 100, 2.5), (20, 100, 2.0)]


def test_the_summary_is_of_the_newest_line_where_steps_are_counted_within_an_epoch(tmp_path: Path) -> None:
    line = "11/24 10:00:00 - mmengine - INFO - Epoch(train) [{}][{}/50]  lr: 1e-3  eta: 0:01:00  time: 0.5  loss: {}\n"
    (tmp_path / "a.txt").write_text(line.format(1, 40, 2.5) + line.format(2, 10, 1.5))
    reading = Reading([str(tmp_path / "a.txt")])
    assert [(one.epoch, one.step, one.loss) for one in reading] == [(1.0, 40, 2.5), (2.0, 10, 1.5)]
    assert (reading.summary.step, reading.summary.loss) == (10, 1.5)


def test_files_are_nodes_in_order_and_marks_of_torchrun_are_ranks(tmp_path: Path) -> None:
    for node in range(2):
        lines = [f"[default{local}]:step: {s} loss: {s + local}.5 tgs: 90" for s in (1, 2) for local in (0, 1)]
        (tmp_path / f"node{node}.txt").write_text("\n".join(lines) + "\n")
    found = [(one.rank, one.step) for one in Reading([str(tmp_path / f"node{node}.txt") for node in range(2)])]
    assert found == [(0, 1), (1, 1), (0, 2), (1, 2), (2, 1), (3, 1), (2, 2), (3, 2)]


def test_folders_of_log_dir_are_read(tmp_path: Path) -> None:
    for node in range(2):
        for local in range(2):
            log = tmp_path / f"node{node}" / "none_ab" / "attempt_0" / str(local) / "stdout.log"
            log.parent.mkdir(parents=True)
            log.write_text(f"step 1/8 loss: {node}.{local} time: 0.5\n")
    reading = Reading([str(tmp_path / "node0"), str(tmp_path / "node1")])
    assert [(one.rank, one.loss) for one in reading] == [(0, 0.0), (1, 0.1), (2, 1.0), (3, 1.1)]
    assert reading.summary.ranks == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("line", "rank"),
    [
        ("[default1]:[rank5]: step: 3 loss: 2.5", 5),
        ("[XTuner][RANK 3][2026-11-24 10:00:00][INFO] Step 3/9 data_time: 0.01 time: 0.5 loss: 2.5", 3),
        ("[2026-11-24 10:00:00,000] [INFO] [timer.py:1:stop] [Rank 0] step: 3, loss: 2.5", 0),
        ("step: 3 loss: 2.5", 0),
    ],
)
def test_the_rank_is_the_one_that_the_line_names(tmp_path: Path, line: str, rank: int | None) -> None:
    (tmp_path / "a.txt").write_text(line + "\n")
    (one,) = Reading([str(tmp_path / "a.txt")])
    assert (one.rank, one.step, one.loss) == (rank, 3, 2.5)


def test_the_last_rank_has_no_number_where_nobody_says_how_many_there_are(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(
        " iteration     5/   100 | elapsed time per iteration (ms): 500.0 | lm loss: 9.5E+00 |\n"
    )
    assert [one.rank for one in Reading([str(tmp_path / "a.txt")])] == [None]


def test_of_ranks_that_print_without_marks_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("step: 3 loss: 2.5\nstep: 3 loss: 2.6\n")
    assert [one.rank for one in Reading([str(tmp_path / "a.txt")])] == [None, None]


def test_megatron_prints_on_the_last_rank(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(
        "using world size: 16, data-parallel size: 4\n [2026-11-24 10:00:00] iteration    5/   100 | consumed samples: "
        "         640 | elapsed time per iteration (ms): 500.0 | global batch size:   128 | lm loss: 9.5E+00 |\n"
    )
    (one,) = Reading([str(tmp_path / "a.txt")])
    assert (one.rank, one.step, one.total, one.loss) == (15, 5, 100, 9.5)
    assert (one.step_time_s, one.rate, one.rate_unit) == (0.5, 256.0, "samples/s")


def test_losses_that_are_no_numbers_are_text_in_json_and_an_alarm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("step: 1 loss: 2.5\nstep: 2 loss: nan\n")
    steps, summary = as_json(capsys, str(tmp_path / "a.txt"))
    assert [step["loss"] for step in steps] == [2.5, "nan"]
    assert [alarm["kind"] for alarm in summary["alarms"]] == ["nan-loss"]


def test_a_log_without_metrics_has_a_summary_of_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("nothing here\n")
    steps, summary = as_json(capsys, str(tmp_path / "a.txt"))
    assert (steps, summary["loss"], summary["rate"]) == ([], None, None)
