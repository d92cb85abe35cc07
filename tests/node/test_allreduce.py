"""The collective benchmark, really run: figures, wrong requests, and ranks that never come."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

pytest.importorskip("torch")

from engine.train.allreduce import read_sizes
from engine.train.errors import ConfigError
from engine.train.meeting import ranks_text
from tests.node.training import Ended, free_port, ranks


def allreduce(here: range, world: int, *more: str) -> list[Ended]:
    return ranks(["engine.train.allreduce", *more], here, world, free_port())


def objects(ended: Ended) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ended.out.splitlines()]


def test_two_ranks_measure_every_size_and_rank_0_says_so() -> None:
    first, second = allreduce(range(2), 2, "--sizes", "8,1K,1M", "--rounds", "5", "--json")
    assert (first.code, second.code, second.out) == (0, 0, "")
    start, *sizes, last = objects(first)
    assert (start["type"], start["ranks"], start["backend"], start["device"]) == ("start", 2, "gloo", "cpu")
    assert [(line["type"], line["bytes"], line["right"]) for line in sizes] == [
        ("size", 8, True), ("size", 1024, True), ("size", 1 << 20, True),
    ]  # fmt: skip
    assert all(line["algbw"] == pytest.approx(line["bytes"] / line["time_s"] / 1e9) for line in sizes)
    assert all(line["busbw"] == pytest.approx(line["algbw"]) for line in sizes), "2(n-1)/n is 1 for two ranks"
    assert last["type"] == "end"


def test_ranks_that_never_come_are_named_within_the_timeout() -> None:
    began = time.monotonic()
    first, second = allreduce(range(2), 4, "--timeout", "14", "--json")
    assert time.monotonic() - began < 20
    assert (first.code, second.code) == (1, 1)
    (stuck,) = objects(first)
    assert (stuck["type"], stuck["rank"], stuck["stage"]) == ("stuck", 0, "group")
    assert set(stuck["missing"]) >= {2, 3}
    assert "not arrived: " in stuck["text"]


def test_a_store_that_nobody_serves_is_reported_with_its_address() -> None:
    (second,) = allreduce(range(1, 2), 2, "--timeout", "10", "--json")
    assert second.code == 1
    (stuck,) = objects(second)
    assert (stuck["type"], stuck["stage"], stuck["unreachable"]) == ("stuck", "store", True)
    assert "127.0.0.1:" in stuck["text"]


@pytest.mark.parametrize(("text", "sizes"), [("8", [8]), ("4,64k, 1M", [4, 65536, 1 << 20]), ("1G", [1 << 30])])
def test_sizes_are_read_in_powers_of_1024(text: str, sizes: list[int]) -> None:
    assert read_sizes(text) == sizes


@pytest.mark.parametrize("text", ["", "0", "6", "1T", "-8", "1.5M"])
def test_a_size_that_is_no_whole_number_of_floats_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="a multiple of 4, like 8,64K,16M"):
        read_sizes(text)


def test_ranks_are_written_as_ranges() -> None:
    assert ranks_text((3,)) == "rank 3"
    assert ranks_text((7, 0, 2, 1, 3)) == "ranks 0-3, 7"
