"""Drift as the KITTI odometry benchmark measures it.

Geiger, Lenz and Urtasun, Are we ready for autonomous driving? The KITTI vision benchmark suite, CVPR 2012, and the
evaluation in its development kit: relative errors of all segments of 100, 200, … 800 m that begin at every tenth pose,
divided by their length and averaged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spslam.geometry import inverse, rotation_angle
from spslam.trajectory import Trajectory
from spslam.typing import BoolArray, FloatArray

LENGTHS_M = np.arange(100.0, 801.0, 100.0)
SPEEDS_M_S = np.arange(2.0, 25.0, 2.0)
_BEGIN_EVERY = 10
# As wide as in the development kit, where neighbouring bins overlap, too.
_SPEED_REACH_M_S = 2.0
_FEWEST_SEGMENTS = 3
# The benchmark's cameras take ten images a second, and its pose files carry no stamps.
_KITTI_FRAME_S = 0.1
# A segment that is so much too long ends behind a gap of the estimate.
_LONGEST = 1.1


@dataclass(frozen=True)
class DriftBin:
    """Mean drift of the segments of one length or speed.

    Attributes:
        at: metres or metres a second, the middle of the bin.
        segments: how many.
        t_rel_percent: error of the translation.
        r_rel_deg_per_100m: error of the rotation.
    """

    at: float
    segments: int
    t_rel_percent: float
    r_rel_deg_per_100m: float


@dataclass(frozen=True, eq=False)
class Drift:
    """Errors of K segments, at least one.

    Attributes:
        length_m, speed_m_s: (K,) float64, nominal length and mean speed of each.
        translation: (K,) float64, metres a metre.
        rotation: (K,) float64, radians a metre.
        left_out: segments that end in a gap of the estimate, more than 10 % past their length; the benchmark itself
            takes complete trajectories only.
    """

    length_m: FloatArray
    speed_m_s: FloatArray
    translation: FloatArray
    rotation: FloatArray
    left_out: int

    @property
    def t_rel_percent(self) -> float:
        """Mean error of the translation, per cent of the length."""
        return 100.0 * float(self.translation.mean())

    @property
    def r_rel_deg_per_100m(self) -> float:
        """Mean error of the rotation, degrees per 100 m."""
        return 100.0 * float(np.degrees(self.rotation.mean()))

    def per_length(self) -> list[DriftBin]:
        """The mean over the segments of each length that at least three have."""
        return self._bins(LENGTHS_M, np.equal(self.length_m, LENGTHS_M[:, None]))

    def per_speed(self) -> list[DriftBin]:
        """The mean over the segments within 2 m/s of 2, 4, … 24 m/s, where there are at least three."""
        return self._bins(
            SPEEDS_M_S, np.abs(self.speed_m_s - SPEEDS_M_S[:, None]) < _SPEED_REACH_M_S
        )

    def _bins(self, middles: FloatArray, members: BoolArray) -> list[DriftBin]:
        return [
            DriftBin(
                at=float(at),
                segments=int(inside.sum()),
                t_rel_percent=100.0 * float(self.translation[inside].mean()),
                r_rel_deg_per_100m=100.0 * float(np.degrees(self.rotation[inside].mean())),
            )
            for at, inside in zip(middles, members, strict=True)
            if inside.sum() >= _FEWEST_SEGMENTS
        ]


def drift(estimate: Trajectory, ground_truth: Trajectory, along_m: FloatArray) -> Drift | None:
    """Drift of trajectories whose poses belong together one to one.

    Args:
        estimate: with the size it is to be judged by.
        ground_truth: of as many poses; where its stamps only number them, speeds are KITTI's, at ten poses a second.
        along_m: (M,) float64, metres along the true path at each pose, gaps of the estimate included.

    Returns:
        None where no segment of 100 m can be compared.
    """
    begin = np.arange(0, len(along_m), _BEGIN_EVERY)
    first, length = (grid.ravel() for grid in np.meshgrid(begin, LENGTHS_M, indexing="ij"))
    last = np.searchsorted(along_m, along_m[first] + length, side="right")
    reached = last < len(along_m)
    first, last, length = first[reached], last[reached], length[reached]
    whole = along_m[last] - along_m[first] <= _LONGEST * length
    if not whole.any():
        return None
    left_out = int(np.count_nonzero(~whole))
    first, last, length = first[whole], last[whole], length[whole]
    true, estimated = ground_truth.T_world_cam, estimate.T_world_cam
    error = inverse(inverse(estimated[first]) @ estimated[last]) @ (
        inverse(true[first]) @ true[last]
    )
    if ground_truth.numbered:
        seconds = _KITTI_FRAME_S * (last - first + 1)
    else:
        seconds = ground_truth.timestamps[last] - ground_truth.timestamps[first]
    # Poses may be no time apart to speak of.
    with np.errstate(over="ignore"):
        speed = length / seconds
    return Drift(
        length_m=length,
        speed_m_s=speed,
        translation=np.linalg.norm(error[:, :3, 3], axis=1) / length,
        rotation=rotation_angle(error[:, :3, :3]) / length,
        left_out=left_out,
    )
