"""Batch and learning-rate arithmetic: pure and standard library only: the training engine uses it on the nodes."""

from __future__ import annotations

import math

LR_SCALINGS = ("linear", "sqrt", "none")


def global_batch(per_device: int, ranks: int, grad_accum: int = 1) -> int:
    """Samples that one optimiser step sees: per_device [samples/rank] * ranks * grad_accum [micro-batches/step].

    Raises ValueError when a factor is below 1.
    """
    for name, value in (("per_device", per_device), ("ranks", ranks), ("grad_accum", grad_accum)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it is at least 1")
    return per_device * ranks * grad_accum


def scaled_lr(base_lr: float, base_batch: int, batch: int, scaling: str = "linear") -> float:
    """The learning rate for `batch` samples a step, from one that was tuned at `base_batch` samples a step.

    linear  base_lr * batch / base_batch          SGD: Goyal et al. 2017, "Accurate, Large Minibatch SGD: Training
                                                  ImageNet in 1 Hour", arXiv:1706.02677
    sqrt    base_lr * sqrt(batch / base_batch)    Krizhevsky 2014, "One weird trick for parallelizing convolutional
                                                  neural networks", arXiv:1404.5997; Adam and RMSProp: Malladi et al.
                                                  2022, "On the SDEs and Scaling Rules for Adaptive Gradient
                                                  Algorithms", arXiv:2205.10287
    none    base_lr

    Raises ValueError for an unknown rule, a batch below 1, or a base_lr that is not a positive finite number.
    """
    if not (math.isfinite(base_lr) and base_lr > 0):
        raise ValueError(f"base_lr is {base_lr}; it is a positive number")
    if scaling == "none":
        return base_lr
    if base_batch < 1 or batch < 1:
        raise ValueError(f"base_batch is {base_batch} and batch is {batch}; both are at least 1")
    if scaling == "linear":
        return base_lr * batch / base_batch
    if scaling == "sqrt":
        return base_lr * math.sqrt(batch / base_batch)
    raise ValueError(f"unknown lr_scaling {scaling!r}; known: {', '.join(LR_SCALINGS)}")


def learning_rate(step: int, steps: int, peak: float, *, warmup: int, min_ratio: float) -> float:
    """The learning rate of optimiser step `step` (from 0) of `steps`: linear warm-up to `peak`, then a cosine down to
    `min_ratio` of it. Warm-up: Goyal et al. 2017; cosine: Loshchilov and Hutter 2017, arXiv:1608.03983.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return peak * (min_ratio + (1 - min_ratio) * (1 + math.cos(math.pi * progress)) / 2)


def lr_text(lr: float) -> str:
    """`lr` for a command line: ten significant digits, no binary noise (0.1 * 3 is `0.3`), as short as it gets."""
    return format(lr, ".10g")
