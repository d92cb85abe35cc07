"""Gradient compression over gloo with CPU tensors: each method against the plain mean, and training with each."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import pytest

pytest.importorskip("torch")
from engine.train.hooks import TABLE
from tests.node.training import Ended, free_port, ranks

pytestmark = pytest.mark.timeout(240)  # many small collectives: slow where cores are shared
METHODS = ["fp16", "bf16", "int8", "powersgd"]


class Tried(NamedTuple):
    trained: Ended
    reduced: dict[str, Any]


@pytest.fixture(scope="module")
def tried() -> dict[str, Tried]:
    """Training and reductions with each method, on two ranks that are started once."""
    asked = [f"{name}:{free_port()}:{free_port()}" for name in ("none", *METHODS)]
    first, second = ranks(["tests.node.compressed", *asked], range(2), 2, free_port())
    assert (first.code, second.code) == (0, 0), (first.err, second.err)
    parts = re.split(r"^method (\w+)\n", first.out, flags=re.M)[1:]
    found = {}
    for name, out in zip(parts[::2], parts[1::2], strict=True):
        said = re.search(r"^{.*}$", out, re.M)
        found[name] = Tried(Ended(0, out, ""), json.loads(said.group()) if said else {})
    return found


def test_every_method_has_its_tests() -> None:
    assert sorted(TABLE) == sorted(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_the_mean_is_near_and_the_same_on_all_ranks(tried: dict[str, Tried], name: str) -> None:
    reduced = tried[name].reduced
    assert reduced["same"]
    assert 0 < reduced["first"] < {"fp16": 1e-3, "bf16": 1e-2, "int8": 1e-2, "powersgd": 0.3}[name]


@pytest.mark.parametrize("name", METHODS)
def test_error_feedback_gives_back_what_compression_took(tried: dict[str, Tried], name: str) -> None:
    reduced = tried[name].reduced
    if name in ("int8", "powersgd"):
        assert reduced["sum"] < reduced["first"] / 10, "the sum over steps is nearer than one step is"
    else:
        assert reduced["kept"] == []


@pytest.mark.parametrize("name", METHODS)
def test_training_with_a_method_reaches_the_loss_without(tried: dict[str, Tried], name: str) -> None:
    plain, compressed = (sum(tried[key].trained.losses[-5:]) / 5 for key in ("none", name))
    assert plain < tried["none"].trained.losses[0] - 2
    assert compressed == pytest.approx(plain, rel=0.05 if name == "powersgd" else 0.01)


@pytest.mark.parametrize("name", METHODS)
def test_the_ranks_end_with_the_same_parameters(tried: dict[str, Tried], name: str) -> None:
    assert tried[name].trained.checksum
    assert "different parameters" not in tried[name].trained.out
    assert tried[name].trained.checksum != tried["none"].trained.checksum


def test_powersgd_leaves_its_first_steps_alone(tried: dict[str, Tried]) -> None:
    plain, compressed = tried["none"].trained.losses, tried["powersgd"].trained.losses
    assert compressed[:6] == plain[:6]
    assert compressed[8:] != plain[8:]
