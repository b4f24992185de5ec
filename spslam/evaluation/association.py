"""Associate the poses of two trajectories by time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from spslam.clocks import explain_apart, nearest
from spslam.errors import TrajectoryError
from spslam.geometry import make_transform
from spslam.notices import counted
from spslam.trajectory import Trajectory
from spslam.typing import BoolArray, FloatArray, IntArray

# Largest time difference between associated poses by default, seconds.
MAX_DIFFERENCE_S = 0.01
# Tolerance on time differences, seconds: float64 rounds timestamps of 1.3e9 s to 2e-7 s.
_ROUNDING_S = 1e-6


@dataclass(frozen=True, eq=False)
class Association:
    """Pairs of poses of two trajectories.

    Attributes:
        estimate, ground_truth: (M,) int64, rows of the paired poses, both strictly increasing.
    """

    estimate: IntArray
    ground_truth: IntArray

    def __len__(self) -> int:
        return len(self.estimate)


def associate(
    estimate: Trajectory, ground_truth: Trajectory, max_difference: float = MAX_DIFFERENCE_S
) -> Association:
    """Pair poses that are mutual nearest neighbours in time, at most `max_difference` s apart.

    The pairs are one to one and in order.

    Raises:
        TrajectoryError: no two poses can be paired.
    """
    _check_some(estimate, ground_truth)
    forward = nearest(estimate.timestamps, ground_truth.timestamps)
    backward = nearest(ground_truth.timestamps, estimate.timestamps)
    mutual = backward[forward] == np.arange(len(estimate))
    pairs = mutual & in_reach(estimate.timestamps, ground_truth.timestamps, max_difference)
    if not pairs.any():
        raise _no_partner(estimate, ground_truth, max_difference)
    rows = np.flatnonzero(pairs).astype(np.int64)
    return Association(rows, forward[rows])


def interpolate(
    ground_truth: Trajectory, estimate: Trajectory, max_difference: float = MAX_DIFFERENCE_S
) -> Trajectory:
    """Interpolate the ground truth at the timestamps of the estimate.

    Positions are interpolated linearly, rotations by slerp (Shoemake, Animating rotation with
    quaternion curves, SIGGRAPH 1985). Timestamps outside the ground truth, or more than
    `max_difference` seconds from its nearest pose, are left out: gaps are not filled.

    Raises:
        TrajectoryError: no timestamp of the estimate is left.
    """
    _check_some(estimate, ground_truth)
    stamps, known = estimate.timestamps, ground_truth.timestamps
    stamps = stamps[
        (stamps >= known[0]) & (stamps <= known[-1]) & in_reach(stamps, known, max_difference)
    ]
    if len(stamps) == 0:
        raise _no_partner(estimate, ground_truth, max_difference)
    if len(known) == 1:
        return ground_truth
    rotations = np.broadcast_to(np.eye(3), (len(stamps), 3, 3))
    if ground_truth.has_rotations:
        rotations = Slerp(known, Rotation.from_matrix(ground_truth.T_world_cam[:, :3, :3]))(
            stamps
        ).as_matrix()
    positions = np.stack(
        [np.interp(stamps, known, axis) for axis in ground_truth.positions.T], axis=1
    )
    return replace(
        ground_truth, timestamps=stamps, T_world_cam=make_transform(rotations, positions)
    )


def in_reach(
    stamps: FloatArray, among: FloatArray, max_difference: float = MAX_DIFFERENCE_S
) -> BoolArray:
    """Return which timestamps have a neighbour in `among` within `max_difference` seconds.

    Args:
        stamps: (N,) seconds.
        among: (M,) seconds, sorted.
        max_difference: seconds.

    Returns:
        (N,) bool.
    """
    reached: BoolArray = (
        np.abs(among[nearest(stamps, among)] - stamps) <= max_difference + _ROUNDING_S
    )
    return reached


def _check_some(estimate: Trajectory, ground_truth: Trajectory) -> None:
    if _counted(estimate) != _counted(ground_truth) and None not in (
        estimate.origin,
        ground_truth.origin,
    ):
        raise TrajectoryError(_without_times(estimate))
    if len(estimate) == 0 or len(ground_truth) == 0:
        raise TrajectoryError(
            f"nothing to compare: {counted(len(estimate), 'pose')} in the estimate, "
            f"{len(ground_truth)} in the ground truth"
        )


def _no_partner(
    estimate: Trajectory, ground_truth: Trajectory, max_difference: float
) -> TrajectoryError:
    return TrajectoryError(
        f"no pose of the estimate ({_span(estimate)}) is within {max_difference:g} s of a pose of "
        f"the ground truth ({_span(ground_truth)}): "
        f"{_why_apart(estimate, ground_truth)}"
    )


def _why_apart(estimate: Trajectory, ground_truth: Trajectory) -> str:
    if estimate.numbered != ground_truth.numbered:
        return _without_times(estimate)
    return explain_apart(estimate.timestamps, ground_truth.timestamps)


def _counted(trajectory: Trajectory) -> bool:
    """Return whether the trajectory's file has frame numbers instead of times."""
    return trajectory.origin is not None and trajectory.origin.numbered


def _without_times(estimate: Trajectory) -> str:
    which = "estimate" if estimate.numbered else "ground truth"
    return f"only the {which} has no times, like KITTI's pose files: give --times FILE"


def _span(trajectory: Trajectory) -> str:
    return f"{trajectory.timestamps[0]:.3f} to {trajectory.timestamps[-1]:.3f} s"
