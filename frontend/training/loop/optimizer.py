"""The optimizer, its learning rate, and the moving average of the weights."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..config import OptimizerConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW; biases and batch norms do not decay."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def learning_rate(config: OptimizerConfig, step: int, done: float) -> float:
    """The rate of a step: linear warm-up, then half a cosine.

    Args:
        config: peak, warm-up and last rate.
        step: its number, from 0.
        done: fraction of the schedule before it, 0 to 1.
    """
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1)))
    return config.learning_rate * warm * (config.final_share + (1 - config.final_share) * cosine)


def averaged_model(network: nn.Module, decay: float, step: int = 0) -> AveragedModel:
    """An exponential moving average of weights and batch norm's statistics, in evaluation mode.

    The decay of update n is at most n / (n + 9), so that the first weights are soon forgotten.

    Args:
        network: its weights are the first ones averaged.
        decay: largest decay.
        step: number of updates that these weights have seen.
    """
    average = AveragedModel(
        network, multi_avg_fn=partial(_moving_average, decay=decay), use_buffers=True
    )
    set_averaged_steps(average, step)
    return average.eval().requires_grad_(False)


def set_averaged_steps(average: AveragedModel, step: int) -> None:
    """Set how many updates an average has seen."""
    # The network's weights at the start count as the first ones: 0 would replace them at the first update.
    average.n_averaged.fill_(step + 1)


@torch.no_grad()
def _moving_average(
    averaged: tuple[Tensor, ...] | list[Tensor],
    current: tuple[Tensor, ...] | list[Tensor],
    count: Tensor | int,
    *,
    decay: float,
) -> None:
    """Average tensors of one type in place; counters are copied."""
    weight = 1 - min(decay, int(count) / (int(count) + 9))
    for old, new in zip(averaged, current, strict=True):
        if old.is_floating_point():
            old.lerp_(new, weight)
        else:
            old.copy_(new)
