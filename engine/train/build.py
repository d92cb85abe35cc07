"""The model and the optimizer that a configuration asks for, the user's own included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from engine.train.config import imported
from engine.train.errors import ConfigError
from engine.train.model import GPT

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.train.config import Config


def build_model(config: Config) -> torch.nn.Module:
    """Takes a batch (its parts as arguments, or by name from a dict) and gives the mean loss over its samples."""
    if config.model == "gpt":
        return GPT(config.layers, config.heads, config.width, config.context, config.vocabulary)
    try:
        model = imported(config.model, "model")(**config.model_args)
    except TypeError as error:
        raise ConfigError(f"{config.model} does not take model_args {config.model_args}: {error}") from error
    if not isinstance(model, torch.nn.Module):
        raise ConfigError(f"{config.model} gives a {type(model).__name__}; it has to be a torch.nn.Module")
    return model


def build_optimizer(config: Config, model: torch.nn.Module, lr: float) -> torch.optim.Optimizer:
    """The loop sets the learning rate of every group, every step."""
    if ":" in config.optimizer:
        return imported(config.optimizer, "optimizer")(model, lr)  # type: ignore[no-any-return]
    groups = parameter_groups(model, config.weight_decay)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=config.momentum)
    try:
        return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)  # one kernel for all parameters
    except RuntimeError:  # this torch has none for this device
        return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95))


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices only; norms and biases are left alone."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.dim() >= 2]
    others = [p for p in parameters if p.dim() < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def loss_of(forward: Callable[..., torch.Tensor], batch: Any) -> torch.Tensor:
    if isinstance(batch, dict):
        return forward(**batch)
    return forward(*batch) if isinstance(batch, (tuple, list)) else forward(batch)
