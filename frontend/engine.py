"""Runs SuperPoint: grey images in, probabilities and descriptors of every place out."""

from __future__ import annotations

import os

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from spslam.errors import ConfigError

from .superpoint import CELL, SuperPoint, detector_probabilities

# A strip's activations fit into the cache; must be even, for the pooling.
_STRIP_ROWS = 32


class TorchEngine:
    """SuperPoint in plain PyTorch, fp32.

    Args:
        network: with its weights, in evaluation mode.
        device: `cpu`, `cuda` or `auto` (CUDA where there is one).
        threads: of PyTorch in this process; 0: all cores this process may use.

    Raises:
        ConfigError: CUDA is asked for and there is none.
    """

    def __init__(self, network: SuperPoint, device: str = "cpu", threads: int = 0) -> None:
        available = torch.cuda.is_available()
        if device == "cuda" and not available:
            raise ConfigError("features.device is cuda, but PyTorch finds no CUDA device: use cpu or auto")
        self._device = torch.device("cuda" if device != "cpu" and available else "cpu")
        torch.set_num_threads(threads or _usable_cores())
        self._network = network.to(self._device)
        self._network.strip_rows = _STRIP_ROWS if self._device.type == "cpu" else 0
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(self, images: list[NDArray[np.uint8]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Probabilities (B, H', W') and raw descriptors (B, H'/8, W'/8, D) of (H, W) images of one size, where
        H' and W' are H and W rounded up to multiples of 8 (the last row and column repeat in the rest)."""
        height, width = images[0].shape
        batch = torch.from_numpy(np.stack(images)).to(self._device)[:, None].float() / 255.0
        batch = functional.pad(batch, (0, -width % CELL, 0, -height % CELL), mode="replicate")
        with torch.inference_mode():
            logits, descriptors = self._network(batch.contiguous(memory_format=torch.channels_last))
            heat = detector_probabilities(logits)
            rows = descriptors.permute(0, 2, 3, 1).contiguous()
        return heat.cpu().numpy(), rows.cpu().numpy()


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
