"""The pull of new points on the pose: how large it must be to prove that they move."""

from __future__ import annotations

import numpy as np

from spslam.config import MoversConfig
from spslam.slam.moving_objects.two_motions import Cells
from spslam.typing import BoolArray, FloatArray

# Least number of new points that contradict the pose.
_LEAST_AGAINST = 5
# Least number of moving points in coherent cells.
LEAST_TOGETHER = 10
# Factor on the least chi-square of the pull if most of the new points contradict ...
_PULLED_BY_MOST = 0.4
# ... where "most" is this fraction of the new points ...
_MOST_NEW = 0.4
# ... and their residuals add up to this fraction of the sum of their lengths (one direction).
_HIGH_ALIGNMENT = 0.9
# Fraction of the contradicting points in coherent cells, which then decide alone, since a static
# point that is new and wrong contradicts, too ...
_COHERENT = 0.4
# ... and the same factor for them. Motion blur and a rolling shutter reach 1.2 (TUM fr1_rpy).
_PULLED_TOGETHER = 2.0
# The same factor if their residuals have one direction only within each cell.
_PULLED_IN_CELLS = 4.0


def alignment(off: FloatArray) -> float:
    """Length of the sum of residuals (K, 2), divided by the sum of their lengths; 0 if too few."""
    if len(off) < _LEAST_AGAINST:
        return 0.0
    return float(np.hypot(*off.sum(axis=0))) / float(np.hypot(*off.T).sum())


def least_pull(
    config: MoversConfig, off: FloatArray, against: BoolArray, cells: Cells, new: int
) -> float:
    """Least pull of new points on the pose, in variances, that proves that they move.

    Args:
        config: thresholds.
        off: (M, 2) residuals of all points, pixels.
        against: (M,) which new points contradict the pose.
        cells: of all points.
        new: number of all new points.
    """
    count = int(np.count_nonzero(against))
    if count < _LEAST_AGAINST:
        return np.inf
    most = count > _MOST_NEW * new
    aligned = alignment(off[against])
    if aligned >= config.min_alignment:
        return config.min_pull_chi2 * (
            _PULLED_BY_MOST if most and aligned >= _HIGH_ALIGNMENT else 1.0
        )
    together = cells.together(against, off)
    if np.count_nonzero(together) >= max(LEAST_TOGETHER, _COHERENT * count) and (
        alignment(off[together]) >= config.min_alignment
    ):
        return config.min_pull_chi2 * _PULLED_TOGETHER
    by_cells = np.mean(together[against])
    return (
        config.min_pull_chi2 * _PULLED_IN_CELLS
        if most and by_cells >= config.min_alignment
        else np.inf
    )
