"""Runs SuperPoint: grey images in, probabilities and descriptors of every place out."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from spslam.errors import ConfigError

from .superpoint import CELL, SuperPoint, detector_probabilities

# A strip's activations fit into the cache; must be even, for the pooling.
_STRIP_ROWS = 32

Image = NDArray[np.uint8]
Maps = NDArray[np.float32]
Result = TypeVar("Result")


class Engine(Protocol):
    """Runs a network.

    Attributes:
        name: what runs it and how exactly, for logs and figures: `torch fp32`, `openvino int8` …
        machine: all of the machine that its last bits depend on: versions, processor, threads.
    """

    name: str
    machine: str

    def for_each(self, images: list[Image], finish: Callable[[Image, Maps, Maps], Result]) -> list[Result]:
        """What `finish` makes of each image, its probabilities (H', W') and its raw descriptors (H'/8, W'/8, D).

        H' and W' are the H and W of the images, which must be of one size, rounded up to multiples of 8; the last
        row and column repeat in the rest. The maps are lent: they are valid until `finish` returns.
        """
        ...


class TorchEngine:
    """SuperPoint in plain PyTorch, fp32 (an `Engine`).

    Args:
        network: with its weights, in evaluation mode.
        device: `cpu`, `cuda` or `auto` (CUDA where there is one).
        threads: of PyTorch; 0: all cores this process may use.

    Raises:
        ConfigError: CUDA is asked for and there is none.
    """

    name = "torch fp32"

    def __init__(self, network: SuperPoint, device: str = "cpu", threads: int = 0) -> None:
        available = torch.cuda.is_available()
        if device == "cuda" and not available:
            raise ConfigError("features.device is cuda, but PyTorch finds no CUDA device: use cpu or auto")
        self._device = torch.device("cuda" if device != "cpu" and available else "cpu")
        self._threads = threads or usable_cores()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="superpoint")
        kind = torch.cuda.get_device_name() if self._device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
        # Sums are split among threads.
        self.machine = f"torch {torch.__version__}, {kind}, {self._threads} threads"
        self._network = network.to(self._device)
        self._network.strip_rows = _STRIP_ROWS if self._device.type == "cpu" else 0
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def for_each(self, images: list[Image], finish: Callable[[Image, Maps, Maps], Result]) -> list[Result]:
        """See `Engine`.

        On the CPU every image has a thread of its own: no layer waits for the slower half. On a busy two-core
        machine a stereo pair took between half and all of the time of one batch in two threads.
        """
        if self._device.type != "cpu" or len(images) == 1 or self._threads == 1:
            heat, descriptors = self._run(images, self._threads)
            return [finish(image, heat[i], descriptors[i]) for i, image in enumerate(images)]
        share = max(1, self._threads // len(images))

        def work(image: Image) -> Result:
            heat, descriptors = self._run([image], share)
            return finish(image, heat[0], descriptors[0])

        return list(self._pool.map(work, images))

    def _run(self, images: list[Image], threads: int) -> tuple[Maps, Maps]:
        # PyTorch keeps this number for each thread that calls it.
        torch.set_num_threads(threads)
        height, width = images[0].shape
        with torch.inference_mode():
            batch = torch.from_numpy(np.stack(images)).to(self._device)[:, None].float() / 255.0
            batch = functional.pad(batch, (0, -width % CELL, 0, -height % CELL), mode="replicate")
            logits, descriptors = self._network(batch.contiguous(memory_format=torch.channels_last))
            heat = detector_probabilities(logits)
            rows = descriptors.permute(0, 2, 3, 1).contiguous()
        return heat.cpu().numpy(), rows.cpu().numpy()


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
