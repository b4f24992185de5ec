"""The engine with PyTorch, the reference of all other engines."""

from __future__ import annotations

import torch
from torch.nn import functional

from spslam.errors import ConfigError
from spslam.typing import Float32Array, UInt8Array

from ..superpoint.superpoint import CELL, SuperPoint, detector_probabilities
from .engine import usable_cores

# Rows of a strip of the image; its activations fit into the cache. Must be even, for the pooling.
_STRIP_ROWS = 32


class TorchEngine:
    """SuperPoint in plain PyTorch, fp32 (an `Engine`).

    Args:
        network: a network in evaluation mode.
        device: `cpu`, `cuda` or `auto` (CUDA if available).
        threads: PyTorch's threads; 0: all cores that this process may use.
        tuned: whether to run the first stage in strips and with channels last, which takes about
            half the time; False: plain PyTorch.

    Raises:
        ConfigError: CUDA is requested but not available.
    """

    def __init__(
        self, network: SuperPoint, device: str = "cpu", threads: int = 0, tuned: bool = True
    ) -> None:
        self.name = "torch fp32" if tuned else "torch eager"
        available = torch.cuda.is_available()
        if device == "cuda" and not available:
            raise ConfigError(
                "features.device is cuda, but PyTorch finds no CUDA device: use cpu or auto"
            )
        self._device = torch.device("cuda" if device != "cpu" and available else "cpu")
        self._threads = threads or usable_cores()
        # Concurrent images would get fewer threads each, which changes the last bits of sums.
        self.max_concurrency = 1
        kind = (
            torch.cuda.get_device_name()
            if self._device.type == "cuda"
            else torch.backends.cpu.get_cpu_capability()
        )
        # PyTorch splits sums among threads, so their number decides the last bits.
        self.machine = f"torch {torch.__version__}, {kind}, {self._threads} threads"
        self._network = network.to(self._device)
        self._network.strip_rows = _STRIP_ROWS if tuned and self._device.type == "cpu" else 0
        self._format = torch.channels_last if tuned else torch.contiguous_format
        self._network.to(memory_format=self._format)  # type: ignore[call-overload]

    def run(self, image: UInt8Array) -> tuple[Float32Array, Float32Array]:
        """See `Engine`."""
        # PyTorch stores this number per calling thread.
        torch.set_num_threads(self._threads)
        height, width = image.shape
        with torch.inference_mode():
            batch = torch.from_numpy(image.copy()).to(self._device)[None, None].float() / 255.0
            batch = functional.pad(batch, (0, -width % CELL, 0, -height % CELL), mode="replicate")
            logits, descriptors = self._network(batch.contiguous(memory_format=self._format))
            heat = detector_probabilities(logits)
            rows = descriptors.permute(0, 2, 3, 1).contiguous()
        return heat[0].cpu().numpy(), rows[0].cpu().numpy()
