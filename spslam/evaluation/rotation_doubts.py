"""Warn about pose files that were probably misread.

Checks for another order of quaternions, constant rotations and another unit of length.
"""

from __future__ import annotations

import logging

import numpy as np

from spslam.geometry import quaternion_to_rotation, rotation_angle, rotation_to_quaternion
from spslam.notices import notice
from spslam.trajectory import Trajectory
from spslam.typing import FloatArray

_LOG = logging.getLogger(__name__)

# Ratio of two trajectories' sizes from which a notice appears.
_OTHER_SIZE = 3.0
# Poses that a comparison of sizes needs at least.
_LEAST_POSES = 3
# Positions up to this count as zero, metres.
_NOTHING_M = 1e-300
# Size of the truth divided by the size of the estimate, by the unit that explains it.
_UNITS = {
    "it were in millimetres": 1e3,
    "it were in centimetres": 1e2,
    "the estimate were in millimetres": 1e-3,
    "the estimate were in centimetres": 1e-2,
}
# Largest distance of a size ratio from a unit's ratio, decades (log10).
_SAME_UNIT = 0.05

# A quaternion order is doubted if the other order reduces the misfit at least by this factor ...
_BETTER = 10.0
# ... and the misfit as read is at least this large, degrees.
_BAD_DEG = 0.1
# Compare rotations from one pose to the next (None), and over a tenth and a third of the poses:
# noise hides a wrong order over short stretches, drift over long ones.
_STRETCHES = (None, 10, 3)
# Rotations that differ by less than this are equal, degrees.
_SAME_DEG = 1e-4
# Constant true rotations are doubted if the estimate turns by more than this, degrees.
_TURNS_DEG = 5.0


def doubt_size(estimate: Trajectory, truth: Trajectory) -> None:
    """Give a notice if two trajectories with corresponding poses differ in size three times.

    Args:
        estimate: M estimated poses.
        truth: M true poses; at least one of the two trajectories must be from a file.
    """
    if len(truth) < _LEAST_POSES or (estimate.origin is None and truth.origin is None):
        return
    sizes = [_size(trajectory.positions) for trajectory in (truth, estimate)]
    if min(sizes) <= 0 or 1 / _OTHER_SIZE < sizes[0] / sizes[1] < _OTHER_SIZE:
        return
    ratio = sizes[0] / sizes[1]
    unit = next(
        (name for name, times in _UNITS.items() if abs(np.log10(ratio / times)) < _SAME_UNIT), ""
    )
    notice(
        _LOG,
        "other_size",
        "the ground truth is %.4g times as large as the estimate%s: are both in metres? "
        "Use sim3 alignment for estimates of unknown scale",
        ratio,
        f", as if {unit}" if unit else "",
    )


def _size(positions: FloatArray) -> float:
    """Return the standard deviation of positions (N, 3), metres, without underflow."""
    largest = float(np.abs(positions).max())
    return (
        largest * float(np.linalg.norm(np.std(positions / largest, axis=0)))
        if largest > _NOTHING_M
        else 0.0
    )


def doubt_rotations(estimate: Trajectory, truth: Trajectory) -> None:
    """Give a notice if rotations of two trajectories with corresponding poses look misread.

    A notice appears if the rotations fit ten times better with the quaternions of one file in the
    other order, or if the true rotations never change while the estimate turns.

    Args:
        estimate: M estimated poses.
        truth: M true poses; at least one of the two trajectories must be from a file.
    """
    if len(truth) < 2 or (estimate.origin is None and truth.origin is None):
        return
    as_read = _misfits_deg(estimate.T_world_cam[:, :3, :3], truth.T_world_cam[:, :3, :3])
    for whose, trajectory, other in (
        ("ground truth", truth, estimate),
        ("estimate", estimate, truth),
    ):
        order = None if trajectory.origin is None else trajectory.origin.order
        if order is None:
            continue
        otherwise = _misfits_deg(_in_other_order(trajectory), other.T_world_cam[:, :3, :3])
        best = int(np.argmax(as_read / np.maximum(otherwise, _SAME_DEG)))
        if as_read[best] >= max(_BAD_DEG, _BETTER * otherwise[best]):
            assert trajectory.origin is not None
            notice(
                _LOG,
                "quaternion_order",
                "%s: rotations fit %.0f times better if the quaternions of the %s are read as %s "
                "(%.3g° instead of %.3g°), not as %s: add a header (timestamp tx ty tz %s)",
                trajectory.origin.path,
                as_read[best] / max(otherwise[best], _SAME_DEG),
                whose,
                "x y z w" if order == "w x y z" else "w x y z",
                otherwise[best],
                as_read[best],
                order,
                "qx qy qz qw" if order == "w x y z" else "qw qx qy qz",
            )
            return
    still = np.degrees(
        rotation_angle(truth.T_world_cam[0, :3, :3].T @ truth.T_world_cam[:, :3, :3])
    ).max()
    turned = np.degrees(
        rotation_angle(estimate.T_world_cam[0, :3, :3].T @ estimate.T_world_cam[:, :3, :3])
    ).max()
    if truth.origin is not None and still < _SAME_DEG and turned > _TURNS_DEG:
        notice(
            _LOG,
            "constant_rotations",
            "%s: the true rotations never change while the estimate turns by %.3g°: if they are "
            "not known, relative errors and drift mean nothing; leave the quaternions out",
            truth.origin.path,
            turned,
        )


def _misfits_deg(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the RMS difference of two rotations (N, 3, 3) over each stretch, degrees."""
    misfits = []
    for part in _STRETCHES:
        step = 1 if part is None else max(1, len(first) // part)
        turns = [
            rotations[:-step].swapaxes(1, 2) @ rotations[step:] for rotations in (first, second)
        ]
        angles = rotation_angle(turns[0].swapaxes(1, 2) @ turns[1])
        misfits.append(np.sqrt(np.mean(angles**2)))
    return np.degrees(misfits)


def _in_other_order(trajectory: Trajectory) -> FloatArray:
    """Return rotations (N, 3, 3) with the quaternions of the file in the other order."""
    assert trajectory.origin is not None
    carried = trajectory.origin.T_read_carried
    carry = np.eye(3) if carried is None else carried[:3, :3]
    read = rotation_to_quaternion(trajectory.T_world_cam[:, :3, :3] @ carry.T)
    # If x y z w was read, the first number is the real part in the other order, and vice versa.
    rolled = np.roll(read, -1 if trajectory.origin.order == "x y z w" else 1, axis=1)
    return quaternion_to_rotation(rolled) @ carry
