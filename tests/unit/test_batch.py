"""Batch and learning-rate arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.batch import global_batch, lr_text, scaled_lr


def test_total_batch_is_the_product_of_its_three_factors() -> None:
    assert global_batch(4, 16, 2) == 128


@pytest.mark.parametrize(("per_device", "ranks", "grad_accum"), [(0, 1, 1), (1, 0, 1), (1, 1, -2)])
def test_a_factor_below_one_is_refused(per_device: int, ranks: int, grad_accum: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        global_batch(per_device, ranks, grad_accum)


@pytest.mark.parametrize(("scaling", "lr"), [("linear", "0.0008"), ("sqrt", "0.0004"), ("none", "0.0002")])
def test_four_times_the_batch_scales_the_learning_rate_by_the_rule(scaling: str, lr: str) -> None:
    assert lr_text(scaled_lr(2e-4, 16, 64, scaling)) == lr


def test_goyal_et_al_scale_a_tenth_at_256_to_3_2_at_8192() -> None:
    assert scaled_lr(0.1, 256, 8192) == pytest.approx(3.2)


@given(st.floats(1e-12, 1e3), st.integers(1, 10**6), st.sampled_from(["linear", "sqrt", "none"]))
def test_the_batch_it_is_tuned_at_leaves_the_learning_rate_alone(lr: float, batch: int, scaling: str) -> None:
    assert scaled_lr(lr, batch, batch, scaling) == pytest.approx(lr)


@pytest.mark.parametrize("lr", [0.0, -1.0, float("nan"), float("inf")])
def test_a_learning_rate_that_is_no_positive_number_is_refused(lr: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        scaled_lr(lr, 16, 16)


def test_an_unknown_rule_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="linear, sqrt, none"):
        scaled_lr(1.0, 1, 1, "cubic")


def test_the_text_has_no_binary_noise() -> None:
    assert lr_text(0.1 * 3) == "0.3"
    assert lr_text(2e-5) == "2e-05"
