"""The metric reader: each log in logs/ gives exactly the metrics in the .json beside it, and nothing makes it fail."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.node.metrics import LINE_LIMIT, MetricReader, read_file

LOGS = sorted((Path(__file__).parent / "logs").glob("*.log"))


def encoded(metric: Any) -> Any:
    """nan and inf as the text that JSON carries for them, and floats without the noise of the last digits."""
    if isinstance(metric, dict):
        return {key: encoded(value) for key, value in metric.items()}
    if isinstance(metric, list):
        return [encoded(one) for one in metric]
    if isinstance(metric, float):
        return float(f"{metric:.9g}") if abs(metric) < float("inf") else str(metric)
    return metric


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.stem)
def test_a_log_gives_the_metrics_written_beside_it(log: Path) -> None:
    expected = json.loads(log.with_suffix(".json").read_text())
    assert encoded(list(read_file(str(log)))) == expected


ORDINARY = [line for log in LOGS if log.stem in ("nothing", "aside") for line in log.read_text().splitlines()]


@pytest.mark.parametrize("line", ORDINARY)
def test_an_ordinary_line_is_no_metric(line: str) -> None:
    assert MetricReader().parse(line) is None


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.stem)
def test_the_cheap_look_at_a_line_sends_no_metric_away(log: Path) -> None:
    fed, parsed = MetricReader(), MetricReader()
    for line in re.split(r"[\r\n]", log.read_text(encoding="utf-8")):
        one = parsed.parse(line)
        assert encoded(fed.feed(line.encode() + b"\n")) == encoded([] if one is None else [one])


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_where_the_bytes_are_cut_makes_no_difference(size: int) -> None:
    data = (
        b"step: 1 loss: 2.5\r 17%|\xe2\x96\x88   | 4/32 [00:01<00:07, 4.00it/s, loss=0.5]\rplain\nstep: 2 loss: nan\n"
    )
    whole, pieces = MetricReader().feed(data), MetricReader()
    found = [m for i in range(0, len(data), size) for m in pieces.feed(data[i : i + size])]
    assert encoded(found) == encoded(whole)
    assert [m["step"] for m in found] == [1, 4, 2]


def test_a_line_without_an_end_is_read_at_flush() -> None:
    reader = MetricReader()
    assert reader.feed(b"step: 3 loss: 0.5") == []
    assert reader.flush() == [{"step": 3, "loss": 0.5}]
    assert reader.flush() == []


@pytest.mark.parametrize("piece", [1000, 1 << 20])
def test_a_line_that_never_ends_is_skipped_and_holds_no_memory(piece: int) -> None:
    reader = MetricReader()
    for _ in range((1 << 20) // piece):
        assert reader.feed(b"loss=1 " * (piece // 7) + b"x" * (piece % 7)) == []
        assert len(reader._carry) <= LINE_LIMIT + piece
    assert reader.feed(b"\nstep: 1 loss: 2.0\n") == [{"step": 1, "loss": 2.0}]


def test_a_block_of_lines_is_one_metric() -> None:
    block = b"[epoch=1][batch=10/500]:\n\t Train loss/train/total: 2.5\n\t Train throughput/samples_per_sec: 100\n"
    assert MetricReader().feed(block) == [
        {"epoch": 1.0, "step": 10, "total": 500, "loss": 2.5, "rate": 100.0, "rate_unit": "samples/s"}
    ]


def test_the_users_pattern_comes_first_and_names_fields_aliases_and_its_own() -> None:
    reader = MetricReader(r"it=(?P<step>\d+) L=(?P<loss>\S+) (?P<tgs>\d+) (?P<eta>[\d:]+) q=(?P<quality>\S+)")
    assert reader.feed(b"it=4 L=0.25 900 1:00 q=0.5 loss: 99\nstep: 5 loss: 1.5\nnothing\n") == [
        {"step": 4, "loss": 0.25, "rate": 900.0, "rate_unit": "tokens/s/gpu", "eta": 60.0, "extra": {"quality": 0.5}},
        {"step": 5, "loss": 1.5},
    ]


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(re.error):
        MetricReader("(?P<loss>")


def test_a_training_bar_is_read_and_a_bar_of_other_work_is_not() -> None:
    bar = "{}:  50%|█████     | 4/8 [00:02<00:02,  2.00it/s]"
    assert MetricReader().parse(bar.format("Training")) == {
        "step": 4,
        "total": 8,
        "eta": 2.0,
        "rate": 2.0,
        "rate_unit": "it/s",
        "step_time": 0.5,
    }
    for work in (
        "Map",
        "Tokenizing",
        "Loading checkpoint shards",
        "Generating train split",
        "Downloading",
        "Fetching 3 files",
        "Sanity Checking DataLoader 0",
        "Validation DataLoader 0",
        "Evaluating",
    ):
        assert MetricReader().parse(bar.format(work)) is None, work


HOSTILE = [
    "a=",
    "9",
    " ",
    "|",
    "[",
    "loss: ",
    "loss=1,",
    "1,111",
    "100%|",
    "step 1 ",
    "\x1b[",
    "\x1b]",
    "(",
    '{"a":',
    "- ",
    "Step 1/1",
    "loss ",
    "iter 1: loss ",
    "a/",
    ": 1 ",
    "━",
    "eta: 1",
    "0: ",
    "[a0]:",
    "Epoch ",
    "e9",
    ".",
    "-",
    "1k tok/s ",
    "loss 1 ",
    "[1/1]",
    "epoch ",
    "| 1 ",
    "1% MFU",
    "batch 1/1,",
    "rank=1 ",
    "1it [00:00, ",
    "train ",
    "Train: 0 [1/1 Time: 1s, ",
    "tokens_per_",
    "(1",
]


@pytest.mark.parametrize("unit", HOSTILE)
@pytest.mark.parametrize("start", ["", "step 1 loss: 1 time: ", "100%|", "Epoch(train) [1][", "Epoch 1/1 ━", "1/1 [="])
def test_a_hostile_line_of_64_kib_takes_no_time(unit: str, start: str) -> None:
    line = start + unit * (LINE_LIMIT // len(unit.encode()) - len(start))
    began = time.thread_time()
    MetricReader().parse(line)
    MetricReader().feed(line.encode() + b"\n")
    assert time.thread_time() - began < 0.5


@pytest.mark.parametrize("unit", HOSTILE)
def test_a_hostile_key_of_a_json_object_takes_no_time(unit: str) -> None:
    line = json.dumps({unit * (LINE_LIMIT // 2 // len(json.dumps(unit))): 1, "step": 1, "loss": 2.5})
    began = time.perf_counter()
    assert (MetricReader().parse(line) or {}).get("loss", 2.5) == 2.5
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize("unit", HOSTILE)
def test_a_hostile_line_in_a_block_takes_no_time(unit: str) -> None:
    reader = MetricReader()
    reader.parse("[epoch=1][batch=10/500]:")
    began = time.perf_counter()
    reader.parse("\t " + unit * (LINE_LIMIT // len(unit.encode()) - 1))
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize("unit", HOSTILE)
def test_a_hostile_line_of_1_mib_takes_no_time(unit: str) -> None:
    line = (unit * ((1 << 20) // len(unit.encode()))).encode()
    began = time.perf_counter()
    assert MetricReader().feed(line + b"\nstep: 1 loss: 2.5\n")[-1:] == [{"step": 1, "loss": 2.5}]
    assert time.perf_counter() - began < 0.5


WORDS = st.sampled_from(
    [
        "loss",
        "step",
        "time",
        "tgs",
        "eta",
        ":",
        "=",
        " ",
        "/",
        "1",
        "9" * 30,
        "nan",
        "-inf",
        "1e999",
        ",",
        "%|",
        "|",
        "]",
        "[",
        "{",
        "}",
        '"',
        "it/s",
        "\x1b[0m",
        "Step",
        "Epoch(train)",
        "(train)",
        "batch=",
        "Train",
        "[epoch=1][batch=1/2]:",
        "ms",
        "GB",
        "day",
        "elapsed time per iteration",
        "iteration",
        "SamplesPerSec=",
        "val",
        "\u2501",
        "?",
        "<",
        "0:00",
        "-",
        "٣",
    ]
)


@given(st.lists(WORDS | st.text(max_size=5), max_size=40).map("".join))
def test_no_line_makes_the_reader_fail(line: str) -> None:
    reader = MetricReader()
    metric = reader.parse(line)
    assert metric is None or all(isinstance(metric[key], (int, float, str, dict)) for key in metric)
    reader.parse("\t Train loss: " + line)


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"\r", b"\n", b"loss: 1", b"100%|"]), max_size=20))
def test_no_bytes_make_the_reader_fail(pieces: list[bytes]) -> None:
    reader = MetricReader()
    for piece in pieces:
        reader.feed(piece)
    reader.flush()
