"""Checkpoints of the training engine: interrupted runs go on bit for bit, damage is found, nothing is overwritten."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch")

from engine.train.config import load
from engine.train.errors import ConfigError
from engine.train.loop import train
from engine.train.world import World
from tests.node.training import ROOT, SMALL, TORCHRUN, Ended, end, environment, free_port, ranks, settings, start

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Train = Callable[..., Ended]

WORK = ["data=synthetic", "steps=12", "layers=1"]


@pytest.fixture
def alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Train:
    """Trains in this process, as the only rank, with `out` in the test's folder."""

    def trained(*pairs: str, resume: str | None = None) -> Ended:
        capfd.readouterr()
        code = train(load(None, [*SMALL, *WORK, f"out={tmp_path}", *pairs]), World(), resume)
        return Ended(code, capfd.readouterr().out, "")

    return trained


def kept(out: Path) -> list[str]:
    """The checkpoints in `out`: `step part`, without the checksums."""
    found = (re.fullmatch(r"step-(\d+)\.(\w+)\.[0-9a-f]{8}\.pt", path.name) for path in out.glob("checkpoints/*"))
    return sorted(f"{int(match.group(1))} {match.group(2)}" if match else "another file" for match in found)


def file(out: Path, step: int, part: str) -> Path:
    return next(out.glob(f"checkpoints/step-{step:08d}.{part}.*.pt"))


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def faulty(batch: int, number: int, mark: Path) -> list[str]:
    build = {"batch": batch, "signal": int(number), "mark": str(mark)}
    return ["data=tests.node.faulty_data:build", *(f"data_args.{key}={value}" for key, value in build.items())]


def two(out: Path, *pairs: str, resume: tuple[str, ...] = ()) -> list[Ended]:
    program = [
        "engine.train",
        *resume,
        *settings(*WORK, "per_device_batch=4", "powersgd_start=3", f"out={out}", *pairs),
    ]
    return ranks(program, range(2), 2, free_port())


@pytest.fixture(scope="module", params=["none", "powersgd"])
def hook(request: pytest.FixtureRequest) -> str:
    return f"hook={request.param}"


@pytest.fixture(scope="module")
def whole(hook: str, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Two ranks that nobody interrupts."""
    first, second = two(tmp_path_factory.mktemp("whole"), hook)
    assert (first.code, second.code) == (0, 0), (first.err, second.err)
    return first


def test_a_run_that_sigterm_stops_on_one_rank_goes_on_bit_for_bit(whole: Ended, hook: str, tmp_path: Path) -> None:
    pairs = [hook, *faulty(7, signal.SIGTERM, tmp_path / "mark")]
    first, second = two(tmp_path, *pairs)
    assert (first.code, second.code) == (128 + signal.SIGTERM,) * 2, (first, second)
    stopped = len(first.losses)
    assert 6 <= stopped < 12
    assert kept(tmp_path) == sorted([f"{stopped} main", f"{stopped} rank0", f"{stopped} rank1"])
    resumed, _ = two(tmp_path, *pairs, resume=("--resume",))
    assert f"resumed: from step {stopped}\n" in resumed.out
    assert first.losses + resumed.losses == whole.losses
    assert resumed.checksum == whole.checksum


def test_a_rank_that_dies_under_torchrun_is_restarted_from_the_last_checkpoint(
    whole: Ended, hook: str, tmp_path: Path
) -> None:
    pairs = [hook, *faulty(10, signal.SIGKILL, tmp_path / "mark"), "checkpoint_every=4"]
    command = [*TORCHRUN, free_port(), "--nproc-per-node", "2", "--max-restarts", "1", "-m", "engine.train"]
    command += settings(*WORK, "per_device_batch=4", "powersgd_start=3", f"out={tmp_path}", *pairs)
    ended = end(start(command, environment(ROOT), ROOT))
    assert ended.code == 0, ended.err
    assert "resumed: from step 8\n" in ended.out
    assert ended.losses[-4:] == whole.losses[-4:]
    assert ended.checksum == whole.checksum


def test_one_rank_goes_on_with_the_checkpoint_of_two_where_the_total_batch_is_the_same(
    whole: Ended, hook: str, tmp_path: Path, alone: Train
) -> None:
    two(tmp_path, hook, *faulty(7, signal.SIGTERM, tmp_path / "mark"))
    with pytest.raises(
        ConfigError, match=r"has 8 samples a step \(2 ranks\), this run 4 .* per_device_batch x grad_accum"
    ):
        alone("per_device_batch=4", resume="")
    resumed = alone("per_device_batch=8", resume="")
    assert resumed.losses == pytest.approx(whole.losses[-len(resumed.losses) :], rel=0.02)


def test_the_newest_checkpoints_are_kept_and_the_metrics_beside_them(tmp_path: Path, alone: Train) -> None:
    ended = alone("checkpoint_every=3", "keep=2")
    assert ended.code == 0
    assert kept(tmp_path) == ["12 main", "12 rank0", "9 main", "9 rank0"]
    lines = (tmp_path / "metrics/rank0.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 13))
    assert [round(json.loads(line)["loss"], 4) for line in lines] == ended.losses


@pytest.mark.parametrize("part", ["main", "rank0"])
def test_a_damaged_checkpoint_is_found_out_and_the_one_before_is_used(tmp_path: Path, alone: Train, part: str) -> None:
    whole = alone("checkpoint_every=4")
    for path in tmp_path.glob("checkpoints/step-00000012.*"):
        path.unlink()
    flip_a_bit(file(tmp_path, 8, part))
    resumed = alone("checkpoint_every=4", resume="")
    assert re.search(rf"warning: \S+step-00000008\.{part}\.\w+\.pt is passed over", resumed.out)
    assert "resumed: from step 4\n" in resumed.out
    assert resumed.checksum == whole.checksum


def test_a_checkpoint_that_is_cut_short_is_found_out(tmp_path: Path, alone: Train) -> None:
    alone("checkpoint_every=6")
    path = file(tmp_path, 12, "main")
    path.write_bytes(path.read_bytes()[:1000])
    assert "resumed: from step 6\n" in alone("checkpoint_every=6", resume="").out


def test_a_named_checkpoint_starts_a_run_in_another_folder(tmp_path: Path, alone: Train) -> None:
    whole = alone("checkpoint_every=6")
    resumed = alone(f"out={tmp_path / 'other'}", resume=str(file(tmp_path, 6, "main")))
    assert resumed.checksum == whole.checksum
    assert alone(f"out={tmp_path / 'third'}", resume=str(tmp_path)).losses == []


def test_a_new_run_does_not_write_among_anothers_checkpoints(tmp_path: Path, alone: Train) -> None:
    alone("checkpoint_every=6")
    before = kept(tmp_path)
    for resume in (None, str(file(tmp_path, 6, "main"))):
        with pytest.raises(
            ConfigError, match=r"holds the checkpoints of a run up to step 12; go on with it \(--resume\)"
        ):
            alone("checkpoint_every=5", resume=resume)
    assert kept(tmp_path) == before


@pytest.mark.parametrize(
    ("pairs", "resume", "says"),
    [
        (["width=32"], "", "the checkpoint is of another model or optimizer"),
        (["optimizer=sgd"], "", "the checkpoint is of another optimizer: AdamW, and this run has SGD"),
        (["context=16"], "", "the checkpoint is of another model or optimizer"),
        (["out="], "", "--resume without a path looks in out, and out is not set"),
        ([], "/no/such/folder", "there is no whole checkpoint in /no/such/folder/checkpoints"),
        ([], "/no/such/file.pt", "there is no whole checkpoint in /no/such/file.pt"),
    ],
)
def test_what_cannot_be_resumed_says_why(alone: Train, pairs: list[str], resume: str, says: str) -> None:
    alone("checkpoint_every=12")
    with pytest.raises(ConfigError, match=re.escape(says)):
        alone(*pairs, resume=resume)


def test_a_run_that_is_always_started_with_resume_starts_anew_the_first_time(alone: Train) -> None:
    assert len(alone("checkpoint_every=12", resume="").losses) == 12


def test_a_checkpoint_that_cannot_be_written_costs_the_checkpoint_and_not_the_run(tmp_path: Path, alone: Train) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    ended = alone("checkpoint_every=6")
    assert ended.code == 0
    assert "warning: rank 0 cannot write the checkpoint of step 6" in ended.out
    assert len(ended.losses) == 12


def test_checkpoints_by_the_minute_are_written(tmp_path: Path, alone: Train) -> None:
    alone("checkpoint_minutes=1e-9", "keep=100")
    assert len(kept(tmp_path)) > 10
