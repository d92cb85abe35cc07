"""The training engine on GPUs: NCCL, mixed precision, MFU, hooks. Skipped, visibly, where there is none."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("torch")

import torch

from engine.node.metrics import MetricReader
from tests.node.training import ROOT, TORCHRUN, Ended, end, environment, free_port, settings, start

GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(GPUS == 0, reason="needs an NVIDIA GPU, and a torch that sees it")]
two_gpus = pytest.mark.skipif(GPUS < 2, reason="needs two NVIDIA GPUs")


def trained(ranks: int, *pairs: str) -> Ended:
    command = [*TORCHRUN, free_port(), "--nproc-per-node", str(ranks)] if ranks > 1 else [sys.executable]
    ended = end(start([*command, "-m", "engine.train", *settings("steps=25", *pairs)], environment(ROOT), ROOT))
    assert ended.code == 0, ended.err
    return ended


def test_a_gpu_is_taken_and_nccl_with_it() -> None:
    out = trained(1).out
    assert "device cuda:0  backend nccl" in out
    assert "network: nccl" in out


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_each_precision_learns(precision: str) -> None:
    losses = trained(1, f"precision={precision}").losses
    assert sum(losses[-5:]) / 5 < losses[0] - 1


def test_mfu_is_told_of_a_device_whose_peak_is_given() -> None:
    last = MetricReader().feed(trained(1, "peak_tflops=1000", "precision=bf16").out.encode())[-1]
    assert 0 < last["mfu"] < 100


@two_gpus
@pytest.mark.parametrize("hook", ["none", "fp16", "bf16", "int8", "powersgd"])
def test_two_gpus_learn_with_each_hook_and_end_with_the_same_parameters(hook: str) -> None:
    ended = trained(2, f"hook={hook}", "powersgd_start=5")
    assert sum(ended.losses[-5:]) / 5 < ended.losses[0] - 1
    assert "different parameters" not in ended.out
