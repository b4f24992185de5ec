"""Runs SuperPoint by PyTorch: what all other engines are compared with."""

from __future__ import annotations

import torch
from torch.nn import functional

from spslam.errors import ConfigError

from ..superpoint.superpoint import CELL, SuperPoint, detector_probabilities
from .engine import Image, Maps, usable_cores

# A strip's activations fit into the cache; must be even, for the pooling.
_STRIP_ROWS = 32


class TorchEngine:
    """SuperPoint in plain PyTorch, fp32 (an `Engine`).

    Args:
        network: with its weights, in evaluation mode.
        device: `cpu`, `cuda` or `auto` (CUDA where there is one).
        threads: of PyTorch; 0: all cores this process may use.
        tuned: the first stage in strips and channels last, about half of the time; False: as networks commonly are run.

    Raises:
        ConfigError: CUDA is asked for and there is none.
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
        # With fewer threads for each of several its sums would have other last bits.
        self.at_once = 1
        kind = (
            torch.cuda.get_device_name()
            if self._device.type == "cuda"
            else torch.backends.cpu.get_cpu_capability()
        )
        # Sums are split among threads.
        self.machine = f"torch {torch.__version__}, {kind}, {self._threads} threads"
        self._network = network.to(self._device)
        self._network.strip_rows = _STRIP_ROWS if tuned and self._device.type == "cpu" else 0
        self._format = torch.channels_last if tuned else torch.contiguous_format
        self._network.to(memory_format=self._format)  # type: ignore[call-overload]

    def run(self, image: Image) -> tuple[Maps, Maps]:
        """See `Engine`."""
        # PyTorch keeps this number for each thread that calls it.
        torch.set_num_threads(self._threads)
        height, width = image.shape
        with torch.inference_mode():
            batch = torch.from_numpy(image.copy()).to(self._device)[None, None].float() / 255.0
            batch = functional.pad(batch, (0, -width % CELL, 0, -height % CELL), mode="replicate")
            logits, descriptors = self._network(batch.contiguous(memory_format=self._format))
            heat = detector_probabilities(logits)
            rows = descriptors.permute(0, 2, 3, 1).contiguous()
        return heat[0].cpu().numpy(), rows[0].cpu().numpy()
