"""Many figures in a few: one kind of error over the poses of a trajectory, one figure over several runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spslam.typing import FloatArray


@dataclass(frozen=True)
class ErrorStatistics:
    """Summary of one kind of error, in its unit."""

    rmse: float
    mean: float
    median: float
    max: float

    @classmethod
    def of(cls, errors: FloatArray) -> ErrorStatistics:
        """The summary of errors (M,), at least one."""
        return cls(
            rmse=float(np.sqrt(np.mean(errors**2))),
            mean=float(np.mean(errors)),
            median=float(np.median(errors)),
            max=float(np.max(errors)),
        )


@dataclass(frozen=True)
class Spread:
    """One figure over several runs: with the smallest and the largest, so that no lucky run stands for all."""

    median: float
    min: float
    max: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(
            float(np.median(values)), float(np.min(values)), float(np.max(values)), len(values)
        )
