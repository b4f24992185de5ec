"""The interface of engines, which run SuperPoint: from a grey image to its maps."""

from __future__ import annotations

import os
from typing import Protocol

from spslam.typing import Float32Array, UInt8Array


class Engine(Protocol):
    """An engine that runs a network; several threads may call it at the same time.

    Attributes:
        name: runtime and precision, for logs and metrics: `torch fp32`, `openvino int8` …
        machine: everything of the machine that decides the last bits: versions, processor, threads.
        max_concurrency: images that it processes concurrently; further callers wait.
    """

    name: str
    machine: str
    max_concurrency: int

    def run(self, image: UInt8Array) -> tuple[Float32Array, Float32Array]:
        """Compute the maps of an image (H, W).

        Returns:
            Probabilities (H', W') and descriptors (H'/8, W'/8, D), not normalised. H' and W' are
            H and W rounded up to multiples of 8; the last row and column of the image are repeated.
        """
        ...


def usable_cores() -> int:
    """Count the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def shared_threads(threads: int, max_concurrency: int) -> tuple[int, int]:
    """Return the threads of an engine, and the images that it processes concurrently.

    Args:
        threads: 0: all cores that this process may use.
        max_concurrency: requested number of concurrent images, at most one for each thread;
            0: one.
    """
    threads = threads or usable_cores()
    return threads, min(max(max_concurrency, 1), threads)
