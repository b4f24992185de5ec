"""Optimizer, learning rate and moving average of the weights."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..config import OptimizerConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Return AdamW without weight decay for biases and batch norms."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def learning_rate(config: OptimizerConfig, step: int, done: float) -> float:
    """Return the learning rate of a step: linear warm-up, then half a cosine.

    Args:
        config: peak, warm-up and last rate.
        step: number of the step, from 0.
        done: fraction of the schedule before the step, 0 to 1.
    """
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1)))
    return (
        config.learning_rate * warm * (config.final_fraction + (1 - config.final_fraction) * cosine)
    )


def averaged_model(network: nn.Module, decay: float, step: int = 0) -> AveragedModel:
    """Return an exponential moving average of weights and batch norm statistics.

    It is in evaluation mode. The decay of update n is at most n / (n + 9), so that the initial
    weights lose their influence quickly.

    Args:
        network: its weights start the average.
        decay: largest decay.
        step: number of updates that the average has had.
    """
    average = AveragedModel(
        network, multi_avg_fn=partial(_moving_average, decay=decay), use_buffers=True
    )
    set_averaged_steps(average, step)
    return average.eval().requires_grad_(False)


def set_averaged_steps(average: AveragedModel, step: int) -> None:
    """Set the number of updates that an average has had."""
    # The initial weights count as an update: with 0, the first update would replace them.
    average.n_averaged.fill_(step + 1)


@torch.no_grad()
def _moving_average(
    averaged: tuple[Tensor, ...] | list[Tensor],
    current: tuple[Tensor, ...] | list[Tensor],
    count: Tensor | int,
    *,
    decay: float,
) -> None:
    """Average floating-point tensors in place; copy counters."""
    weight = 1 - min(decay, int(count) / (int(count) + 9))
    for old, new in zip(averaged, current, strict=True):
        if old.is_floating_point():
            old.lerp_(new, weight)
        else:
            old.copy_(new)
