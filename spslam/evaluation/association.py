"""Which poses of two trajectories belong together: those at the same time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from spslam.clocks import explain_apart, nearest
from spslam.errors import TrajectoryError
from spslam.geometry import make_transform
from spslam.trajectory import Trajectory
from spslam.typing import BoolArray, FloatArray, IntArray

MAX_DIFFERENCE_S = 0.01
# A hair of tolerance: stamps of 1.3e9 s are rounded to 2e-7 s.
_ROUNDING_S = 1e-6


@dataclass(frozen=True, eq=False)
class Association:
    """Which poses of two trajectories belong together.

    Attributes:
        estimate, ground_truth: (M,) int64, row numbers, both strictly increasing.
    """

    estimate: IntArray
    ground_truth: IntArray

    def __len__(self) -> int:
        return len(self.estimate)


def associate(
    estimate: Trajectory, ground_truth: Trajectory, max_difference: float = MAX_DIFFERENCE_S
) -> Association:
    """Pair poses that are each other's nearest in time, no more than `max_difference` seconds apart.

    The pairs are one to one and in order.

    Raises:
        TrajectoryError: no pose has a partner.
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
    """The ground truth at the stamps of the estimate: positions on straight lines, rotations by slerp (Shoemake,
    Animating rotation with quaternion curves, SIGGRAPH 1985).

    Only between poses of the ground truth, and only where one of them is within `max_difference` seconds: no truth is
    made up in its gaps.

    Raises:
        TrajectoryError: no stamp of the estimate is such a place.
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
    """(N,) bool: which of `stamps` (N,) have one of `among` (M,), sorted, within `max_difference` seconds."""
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
            f"nothing to compare: {len(estimate)} poses in the estimate, {len(ground_truth)} in the ground truth"
        )


def _no_partner(
    estimate: Trajectory, ground_truth: Trajectory, max_difference: float
) -> TrajectoryError:
    return TrajectoryError(
        f"no pose of the estimate ({_span(estimate)}) is within {max_difference:g} s of one of the ground truth "
        f"({_span(ground_truth)}): {_why_apart(estimate, ground_truth, max_difference)}"
    )


def _why_apart(estimate: Trajectory, ground_truth: Trajectory, max_difference: float) -> str:
    if estimate.numbered != ground_truth.numbered:
        return _without_times(estimate)
    return explain_apart(estimate.timestamps, ground_truth.timestamps, max_difference)


def _counted(trajectory: Trajectory) -> bool:
    """Whether a file had numbers of frames instead of times."""
    return trajectory.origin is not None and trajectory.origin.numbered


def _without_times(estimate: Trajectory) -> str:
    which = "estimate" if estimate.numbered else "ground truth"
    return f"the {which} has no times, as KITTI's pose files have none, and the other one has: give --times FILE"


def _span(trajectory: Trajectory) -> str:
    return f"{trajectory.timestamps[0]:.3f} to {trajectory.timestamps[-1]:.3f} s"
