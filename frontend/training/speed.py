"""Speed of networks in training and inference on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..superpoint.superpoint import SuperPoint
from .config import NetworkConfig
from .networks import new_network
from .precision import Precision, autocast

# Timed repetitions; the median counts.
_REPEATS = 5


@dataclass(frozen=True)
class Speed:
    """Speed of one network at one image size.

    Attributes:
        network: its name.
        size: height and width of the images, pixels.
        parameters: number of trained parameters.
        train: images/s, forward and backward, without optimizer and data loading.
        infer: images/s, forward, batch norm in evaluation mode.
    """

    network: str
    size: tuple[int, int]
    parameters: int
    train: float
    infer: float


def measure_speed(
    name: str,
    config: NetworkConfig,
    size: tuple[int, int],
    batch: int,
    device: torch.device,
    precision: Precision,
) -> Speed:
    """Measure the median speed of a new network on random images (B, 1, H, W)."""
    network = new_network(config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.rand((batch, 1, *size), device=device).contiguous(
        memory_format=torch.channels_last
    )
    parameters = sum(parameter.numel() for parameter in network.parameters())
    train = _median_seconds(lambda: _forward_backward(network.train(), images, precision), device)
    infer = _median_seconds(lambda: _forward(network.eval(), images, precision), device)
    return Speed(name, size, parameters, batch / train, batch / infer)


def _forward_backward(network: SuperPoint, images: torch.Tensor, precision: Precision) -> None:
    network.zero_grad(set_to_none=True)
    with autocast(images.device, precision):
        logits, descriptors = network(images)
    (logits.float().square().mean() + descriptors.float().square().mean()).backward()


def _forward(network: SuperPoint, images: torch.Tensor, precision: Precision) -> None:
    with torch.inference_mode(), autocast(images.device, precision):
        network(images)


def _median_seconds(work: Callable[[], None], device: torch.device) -> float:
    times = []
    for _ in range(_REPEATS + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    # The first call only warms up.
    return statistics.median(times[1:])
