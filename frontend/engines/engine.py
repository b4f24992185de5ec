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
        at_once: images that it works on at once; who comes with more waits.
    """

    name: str
    machine: str
    at_once: int

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


def shared_threads(threads: int, at_once: int) -> tuple[int, int]:
    """How many threads an engine has (0: all cores that this process may use), and how many images, no more than
    threads, it works on at once (0: one).
    """
    threads = threads or usable_cores()
    return threads, min(max(at_once, 1), threads)
