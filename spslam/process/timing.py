"""Statistics of run times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Timing:
    """Median, 95th percentile and sum of `count` times, milliseconds."""

    median_ms: float
    p95_ms: float
    total_ms: float
    count: int

    @classmethod
    def of(cls, milliseconds: list[float] | NDArray[np.float64]) -> Timing:
        """Compute the statistics of times (N,), milliseconds, N at least 1."""
        times = np.asarray(milliseconds, np.float64)
        median, p95 = np.percentile(times, [50, 95])
        return cls(float(median), float(p95), float(times.sum()), len(times))


@dataclass(frozen=True)
class EngineSpeed:
    """Speed of one engine with one network, on one image at a time.

    Attributes:
        network: built-in name or file of the weights.
        engine: for example `openvino int8`.
        width, height: size of the image, pixels.
        megabytes: size of the file with the parameters, 10⁶ bytes.
        inference: times of the network.
        extraction: times from the image to its features.
        times_as_fast: speed of the extraction relative to the reference engine; median over rounds
            in which the engines take turns.
    """

    network: str
    engine: str
    width: int
    height: int
    megabytes: float
    inference: Timing
    extraction: Timing
    times_as_fast: float
