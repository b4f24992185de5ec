"""Summary statistics: of errors along a trajectory, and of a metric over several runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spslam.typing import FloatArray


@dataclass(frozen=True)
class ErrorStatistics:
    """Statistics of one kind of error, in its unit."""

    rmse: float
    mean: float
    median: float
    max: float

    @classmethod
    def of(cls, errors: FloatArray) -> ErrorStatistics:
        """Return the statistics of errors (M,), M >= 1."""
        return cls(
            rmse=float(np.sqrt(np.mean(errors**2))),
            mean=float(np.mean(errors)),
            median=float(np.median(errors)),
            max=float(np.max(errors)),
        )


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest value of one metric over several runs."""

    median: float
    min: float
    max: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one value."""
        return cls(
            float(np.median(values)), float(np.min(values)), float(np.max(values)), len(values)
        )
