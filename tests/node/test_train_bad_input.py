"""What cannot be trained ends at once: a clear error on the rank concerned, and the other rank names it."""

from __future__ import annotations

import concurrent.futures
import os
import time
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from engine.train.config import load
from engine.train.data import open_data
from engine.train.errors import ConfigError
from engine.train.loop import train
from engine.train.model import GPT
from engine.train.world import World
from tests.node.training import SMALL, Ended, free_port, ranks, settings

TIMEOUT = 60  # seconds that a rank waits for one that has ended without a word


def model_of_another_width(**_: Any) -> torch.nn.Module:
    """Different code on the ranks: rank 1's model has half the width."""
    return GPT(1, 2, 32 if os.environ["RANK"] == "1" else 64, 32)


def data_on_rank_0_alone() -> Any:
    return open_data(load(None, [*SMALL, "data=synthetic" if os.environ["RANK"] == "0" else "data=/data/corpus"]))


def data_that_ends_badly() -> Any:
    """On rank 1, sample for sample, the tokens get too large for the vocabulary."""
    whole: Any = open_data(load(None, [*SMALL, "data=synthetic"]))
    whole.vocabulary = 256 if os.environ["RANK"] == "0" else 255
    return whole


def two(*pairs: str) -> tuple[Ended, Ended]:
    """Two ranks, which end long before either would give the other up."""
    began = time.monotonic()
    program = ["engine.train", *settings("steps=100000", f"timeout_s={TIMEOUT}", *pairs)]
    first, second = ranks(program, range(2), 2, free_port())
    assert time.monotonic() - began < TIMEOUT
    return first, second


def test_ranks_whose_models_differ_do_not_start() -> None:
    ended = two("model=tests.node.test_train_bad_input:model_of_another_width")
    assert sorted(end.code for end in ended) == [1, 2]
    said = ended[0].err + ended[1].err
    assert "has another model than 1 of the 2 ranks" in said
    assert "are code, files and packages the same on all nodes?" in said
    assert "Traceback" not in said


def test_ranks_whose_configurations_differ_do_not_start() -> None:
    port, program = free_port(), ["engine.train", *settings("steps=100000", f"timeout_s={TIMEOUT}")]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(ranks, program, range(1), 2, port)
        second = pool.submit(ranks, [*program, "--set", "base_lr=1.0"], range(1, 2), 2, port)
    ended = [*first.result(), *second.result()]
    assert sorted(end.code for end in ended) == [1, 2]
    assert "has another configuration than 1 of the 2 ranks" in ended[0].err + ended[1].err


def test_a_rank_without_its_data_says_so_and_the_other_names_it() -> None:
    well, ill = two("data=tests.node.test_train_bad_input:data_on_rank_0_alone")
    assert (well.code, ill.code) == (1, 2)
    assert ill.err == "error: data is /data/corpus, and there is no such file or folder here\n"
    assert well.err == "error: rank 1 cannot go on, so this one ends too\n"


def test_a_rank_that_finds_bad_data_on_its_way_says_so_and_the_other_does_not_wait() -> None:
    well, ill = two("data=tests.node.test_train_bad_input:data_that_ends_badly")
    assert (well.code != 0, ill.code) == (True, 2)
    assert "the data holds token 255, and vocabulary is 255; set vocabulary" in ill.err


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        (["data=/no/such/corpus"], "there is no such file or folder here"),
        (["data_bytes=100"], "do not fill one total batch of 8"),
        (["model=tests.node.training:settings"], "it has to be a torch.nn.Module"),
        (
            ["model=tests.node.test_train_bad_input:data_on_rank_0_alone", "model_args={depth: 3}"],
            "does not take model_args",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(pairs: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        train(load(None, [*SMALL, *pairs]), World())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_asked_for_and_absent_is_named() -> None:
    with pytest.raises(ConfigError, match="device is cuda, and torch finds no GPU here; check nvidia-smi"):
        train(load(None, [*SMALL, "device=cuda"]), World())
