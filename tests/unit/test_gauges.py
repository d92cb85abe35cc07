from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from engine.node import gauges
from engine.node.gauges import FEED_BYTES, LEAST_FEED_BYTES, Gauges, newest, pause
from engine.node.journal import Journal, read
from engine.node.ranks import Stream

if TYPE_CHECKING:
    from pathlib import Path


class StepReader:
    """A double for MetricReader: "step N" at the beginning of a line, and how many bytes it was given."""

    fed = 0

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        StepReader.fed += len(data)
        *lines, self._held = (self._held + data).split(b"\n")
        if b"break" in data:
            raise RuntimeError("a parser bug")
        return [{"step": int(match.group(1))} for match in map(re.compile(rb"step (\d+)").match, lines) if match]


class Run:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        StepReader.fed = 0
        monkeypatch.setattr(gauges, "_reader_factory", lambda pattern, journal: StepReader)
        self._folder = folder
        self._streams: list[Stream] = []
        self._gauges = Gauges(str(folder), Journal(str(folder / "journal.jsonl")))

    def write(self, data: bytes, stream: str = "stdout", attempt: int = 0) -> None:
        name = f"{attempt}.{stream}"
        if all(known.path != name for known in self._streams):
            self._streams.append(Stream(name, attempt, 0, stream))
        with (self._folder / name).open("ab") as file:
            file.write(data)

    def round(self) -> None:
        self._gauges.read(self._streams, final=True)

    def records(self, type: str = "metric") -> list[dict[str, Any]]:
        return [r for r in read(str(self._folder / "journal.jsonl"))[0] if r["type"] == type]

    def steps(self) -> list[int]:
        return [record["step"] for record in self.records()]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path, monkeypatch)


def test_only_the_newest_metric_of_a_round_is_journaled(run: Run) -> None:
    run.write(b"step 1\nstep 2\nstep 3\n")
    run.round()
    run.write(b"step 4\n")
    run.round()
    assert run.steps() == [3, 4]


@pytest.mark.parametrize(
    ("age", "worked", "seconds"), [(0, 0, 1), (600, 0, 1), (3600, 0, 3.6), (1e6, 0, 5), (0, 0.02, 2), (1e6, 1, 10)]
)
def test_long_runs_and_chatty_ones_are_looked_at_less_often(age: float, worked: float, seconds: float) -> None:
    assert pause(age, worked) == pytest.approx(seconds)


def test_a_metric_that_has_not_changed_is_not_journaled_again(run: Run) -> None:
    run.write(b"step 1\n")
    run.round()
    run.write(b"chatter\nstep 1\n")
    run.round()
    assert run.steps() == [1]


def test_a_line_in_two_halves_is_read_once_it_is_whole(run: Run) -> None:
    run.write(b"step 1")
    run.round()
    run.write(b"2\n")
    run.round()
    assert run.steps() == [12]


def test_a_stream_that_runs_ahead_is_taken_up_near_its_end_at_a_line(run: Run) -> None:
    run.write(b"step 1")
    run.round()
    run.write(b"99\n" + b"step 5 and more words\n" * 20_000 + b"step 777\n")
    fed = StepReader.fed
    run.round()
    assert run.steps() == [777]
    assert StepReader.fed - fed <= FEED_BYTES + 1


def test_a_half_line_at_a_gap_is_no_metric(run: Run) -> None:
    run.write(b"step 12")
    run.round()
    run.write(b"345" + b"x" * 2 * FEED_BYTES)
    run.round()
    assert run.steps() == []


def test_a_stream_that_repeats_itself_is_read_less_of(run: Run) -> None:
    for number in range(8):
        run.write(b"step %d and more words\n" % number * 20_000)
        fed = StepReader.fed
        run.round()
    assert run.steps() == list(range(8))
    assert StepReader.fed - fed <= LEAST_FEED_BYTES + 1


def test_the_log_on_stdout_has_the_last_word_over_a_bar_on_stderr(run: Run) -> None:
    run.write(b"step 2\n", "stdout")
    run.write(b"step 9\n", "stderr")
    run.round()
    assert run.steps() == [2]


def test_an_attempt_that_is_over_is_read_to_its_end_and_no_further(run: Run) -> None:
    run.write(b"step 1\n")
    run.round()
    run.write(b"step 2\n")
    run.write(b"step 1\n", attempt=1)
    run.round()
    run.write(b"step 3\n")
    run.round()
    assert [(r["attempt"], r["step"]) for r in run.records()] == [(0, 1), (0, 2), (1, 1)]


def test_a_line_that_breaks_the_parser_costs_its_stream_alone(run: Run) -> None:
    run.write(b"break\n")
    run.write(b"step 1\n", "stderr")
    run.round()
    run.write(b"step 2\n", "stderr")
    run.round()
    assert run.steps() == [1, 2]
    assert len(run.records("warning")) == 1


@pytest.mark.parametrize(
    ("metrics", "merged"),
    [
        ([], {}),
        ([{"step": 1, "loss": 2.0}, {"step": 1, "rate": 3.0}], {"step": 1, "loss": 2.0, "rate": 3.0}),
        ([{"step": 1, "loss": 2.0}, {"step": 2, "rate": 3.0}], {"step": 2, "rate": 3.0}),
        ([{"loss": 2.0}, {"step": 2}], {"loss": 2.0, "step": 2}),
        ([{"loss": float("nan"), "lr": float("inf"), "extra": {"a": -float("inf")}}], None),
    ],
)
def test_lines_about_one_step_are_one_metric(metrics: list[dict[str, Any]], merged: dict[str, Any] | None) -> None:
    expected = {"loss": "nan", "lr": "inf", "extra": {"a": "-inf"}} if merged is None else merged
    assert newest(metrics) == expected


def test_a_pattern_that_a_line_sends_astray_is_given_up_and_known_formats_are_read_on(tmp_path: Path) -> None:
    log, written = tmp_path / "log", Journal(str(tmp_path / "journal.jsonl"))
    reading = Gauges(str(tmp_path), written, r"(?P<step>(a+)+)$")
    streams = [Stream("log", 0, 0, "stdout")]
    log.write_bytes(b"a" * 60 + b"!\n")
    reading.read(streams, final=True)
    log.write_bytes(log.read_bytes() + b"step: 3 loss: 2.5\n")
    reading.read(streams, final=True)
    records = read(str(tmp_path / "journal.jsonl"))[0]
    assert [(r["type"], r.get("text", ""), r.get("step")) for r in records] == [
        ("warning", "the metric pattern takes too long on a line of log, and is not used any more", None),
        ("metric", "", 3),
    ]
