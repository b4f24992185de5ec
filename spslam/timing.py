"""How long things take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Timing:
    """Milliseconds: median, 95th percentile and sum of `count` times."""

    median_ms: float
    p95_ms: float
    total_ms: float
    count: int

    @classmethod
    def of(cls, milliseconds: list[float] | NDArray[np.float64]) -> Timing:
        """The figures of (N,) times, one at least."""
        times = np.asarray(milliseconds, np.float64)
        median, p95 = np.percentile(times, [50, 95])
        return cls(float(median), float(p95), float(times.sum()), len(times))


@dataclass(frozen=True)
class EngineSpeed:
    """One engine with one network, on one image at a time.

    Attributes:
        network, engine: a name of the box or a file; such as `openvino int8`.
        width, height: of the image, pixels.
        megabytes: of the file with the parameters, 10⁶ bytes.
        inference: of the network.
        extraction: from the image to its features.
        times_as_fast: as the reference, extraction; the median over rounds in which each takes its turn.
    """

    network: str
    engine: str
    width: int
    height: int
    megabytes: float
    inference: Timing
    extraction: Timing
    times_as_fast: float
