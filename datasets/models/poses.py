"""Make the ground truth of a recording from poses that may be missing or damaged."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.geometry import make_transform, orthonormalize, quaternion_to_rotation
from spslam.notices import counted, notice, plural
from spslam.trajectory import FileOrigin, Trajectory

from ..calibration.checks import is_rigid

_LOG = logging.getLogger(__name__)
# Reason for which a pose is no part of the ground truth.
_NO_POSE = "that are no rigid pose"
# Shortest quaternion that gives a rotation.
_SHORTEST = 1e-6
# Largest coordinate of the world, metres. Some worlds are UTM or Mercator coordinates.
_FARTHEST_M = 1e8


def truth_of_poses(
    path: Path,
    times: NDArray[np.float64],
    T_world_cam: NDArray[np.float64],
    frame: str,
    rows: int,
    left_out: dict[str, int] | None = None,
) -> Trajectory | None:
    """Make a ground truth of poses; None, with a notice, if none of them can be used.

    Positions are given relative to the first pose, because positions on the globe have many digits.

    Args:
        path: the file of the poses.
        times: (N,) seconds, strictly increasing.
        T_world_cam: (N, 4, 4), camera to world; poses that are not rigid are left out, counted
            and reported.
        frame: name of the frame that the poses describe.
        rows: number of poses in the file.
        left_out: number of poses that the caller left out, by reason.
    """
    good = np.array([_may_be_pose(T) for T in T_world_cam], dtype=bool)
    reasons = dict(left_out or {})
    if bad := int(np.count_nonzero(~good)):
        reasons[_NO_POSE] = bad
        text = "%s: %s left out of the ground truth: %s no rotation with a translation"
        what = counted(bad, "pose is", "poses are")
        notice(_LOG, "rows_left_out", text, path, what, plural(bad, "it is", "they are"), count=bad)
    if not good.any():
        text = "the run continues without ground truth: %s has no pose of any frame"
        notice(_LOG, "ground_truth_unreadable", text, path)
        return None
    T = orthonormalize(T_world_cam[good])
    T[:, :3, 3] -= T[0, :3, 3].copy()
    origin = FileOrigin(path, rows, reasons, None, False)
    return Trajectory(times[good], T, frame, origin=origin)


def pose_of_quaternion(q_wxyz: NDArray[np.float64], t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return transforms (..., 4, 4) of quaternions w x y z (..., 4) and translations (..., 3).

    A quaternion without direction gives NaN.
    """
    length = np.linalg.norm(q_wxyz, axis=-1, keepdims=True)
    usable = np.isfinite(length) & (length > _SHORTEST)
    unit = np.where(usable, np.roll(q_wxyz, -1, axis=-1), (0.0, 0.0, 0.0, 1.0))
    R = quaternion_to_rotation(unit / np.where(usable, length, 1.0))
    return make_transform(np.where(usable[..., None], R, np.nan), t)


def _may_be_pose(T: NDArray[np.float64]) -> bool:
    near = T.copy()
    if not (np.abs(T[:3, 3]) <= _FARTHEST_M).all():
        return False
    near[:3, 3] = 0.0
    return is_rigid(near)
