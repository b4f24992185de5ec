"""Compute drift as in the KITTI odometry benchmark.

Geiger, Lenz and Urtasun, Are we ready for autonomous driving? The KITTI vision benchmark suite,
CVPR 2012, and its development kit: the mean relative error, divided by the length, of all segments
of 100, 200, … 800 m that begin at every tenth pose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spslam.geometry import inverse, rotation_angle
from spslam.trajectory import Trajectory
from spslam.typing import BoolArray, FloatArray

# Lengths of the segments, metres.
LENGTHS_M = np.arange(100.0, 801.0, 100.0)
# Centres of the speed bins, metres a second.
SPEEDS_M_S = np.arange(2.0, 25.0, 2.0)
# Poses between the starts of segments, as in the development kit.
_BEGIN_EVERY = 10
# Half width of the speed bins, metres a second, as in the development kit; neighbours overlap.
_SPEED_REACH_M_S = 2.0
# Segments that a bin needs at least to be reported.
_FEWEST_SEGMENTS = 3
# Seconds between frames in KITTI, whose pose files have no timestamps.
_KITTI_FRAME_S = 0.1
# Largest ratio of a segment's true to its nominal length; a longer one ends behind a gap.
_LONGEST = 1.1


@dataclass(frozen=True)
class DriftBin:
    """Mean drift of the segments of one length or speed.

    Attributes:
        at: centre of the bin, metres or metres a second.
        segments: number of segments.
        t_rel_percent: translation error, percent of the length.
        r_rel_deg_per_100m: rotation error, degrees per 100 m.
    """

    at: float
    segments: int
    t_rel_percent: float
    r_rel_deg_per_100m: float


@dataclass(frozen=True, eq=False)
class Drift:
    """Errors of K segments, K >= 1.

    Attributes:
        length_m, speed_m_s: (K,) float64, nominal length and mean speed of each segment.
        translation: (K,) float64, translation errors, metres per metre.
        rotation: (K,) float64, rotation errors, radians per metre.
        left_out: number of segments left out because they end behind a gap of the estimate, more
            than 10 % past their length; the benchmark itself accepts complete trajectories only.
    """

    length_m: FloatArray
    speed_m_s: FloatArray
    translation: FloatArray
    rotation: FloatArray
    left_out: int

    @property
    def t_rel_percent(self) -> float:
        """Mean translation error, percent of the length."""
        return 100.0 * float(self.translation.mean())

    @property
    def r_rel_deg_per_100m(self) -> float:
        """Mean rotation error, degrees per 100 m."""
        return 100.0 * float(np.degrees(self.rotation.mean()))

    def per_length(self) -> list[DriftBin]:
        """Return the mean drift of each length with at least three segments."""
        return self._bins(LENGTHS_M, np.equal(self.length_m, LENGTHS_M[:, None]))

    def per_speed(self) -> list[DriftBin]:
        """Return the mean drift within 2 m/s of 2, 4, … 24 m/s, for at least three segments."""
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
    """Compute the drift between two trajectories whose poses correspond one to one.

    Args:
        estimate: M estimated poses, already scaled.
        ground_truth: M true poses; without times, speeds assume KITTI's ten poses a second.
        along_m: (M,) float64, distance along the true path at each pose, metres, including gaps of
            the estimate.

    Returns:
        None if no segment of 100 m can be compared.
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
    # Two poses may have nearly equal timestamps.
    with np.errstate(over="ignore"):
        speed = length / seconds
    return Drift(
        length_m=length,
        speed_m_s=speed,
        translation=np.linalg.norm(error[:, :3, 3], axis=1) / length,
        rotation=rotation_angle(error[:, :3, :3]) / length,
        left_out=left_out,
    )
