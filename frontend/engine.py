"""What runs SuperPoint: a grey image in, probabilities and descriptors of every place out."""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Maps = NDArray[np.float32]


class Engine(Protocol):
    """Runs a network; several threads may ask at once.

    Attributes:
        name: what runs it and how exactly, for logs and figures: `torch fp32`, `openvino int8` …
        machine: all of the machine that its last bits depend on: versions, processor, threads.
    """

    name: str
    machine: str

    def run(self, image: Image) -> tuple[Maps, Maps]:
        """Probabilities (H', W') and raw descriptors (H'/8, W'/8, D) of an image (H, W).

        H' and W' are H and W rounded up to multiples of 8; the last row and column repeat in the rest.
        """
        ...


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
