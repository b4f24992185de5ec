"""Signs that poses of a file are not what they were read as: another order of quaternions, no rotations at all, or
another unit of length.
"""

from __future__ import annotations

import logging

import numpy as np

from spslam.geometry import quaternion_to_rotation, rotation_angle, rotation_to_quaternion
from spslam.notices import notice
from spslam.trajectory import Trajectory
from spslam.typing import FloatArray

_LOG = logging.getLogger(__name__)

# Times by which sizes that should be alike may differ, and poses below which they say nothing.
_OTHER_SIZE = 3.0
_LEAST_POSES = 3
# Positions that are smaller are zero, metres.
_NOTHING_M = 1e-300
# Ratios of other units, and how near one must be, in decades.
_UNITS = {
    "it were in millimetres": 1e3,
    "it were in centimetres": 1e2,
    "the estimate were in millimetres": 1e-3,
    "the estimate were in centimetres": 1e-2,
}
_SAME_UNIT = 0.05

# How many times better rotations must fit in the other order, and how badly they must fit in this one, degrees.
_BETTER = 10.0
_BAD_DEG = 0.1
# Motions are compared from one pose to the next and over a tenth and a third of the poses: noise hides a wrong order in
# short ones, drift in long ones.
_STRETCHES = (None, 10, 3)
# Rotations that differ by less are the same; an estimate that turns by more would have shown in them, degrees.
_SAME_DEG = 1e-4
_TURNS_DEG = 5.0


def doubt_size(estimate: Trajectory, truth: Trajectory) -> None:
    """A notice where trajectories whose poses belong together one to one, and which should be of one size, are not.

    Only trajectories from files are doubted.
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
        "the ground truth is %.4g times as large as the estimate%s: are both in metres? Estimates of unknown scale are "
        "aligned by sim3",
        ratio,
        f", as if {unit}" if unit else "",
    )


def _size(positions: FloatArray) -> float:
    """Standard deviation of positions (N, 3), metres, however small they are."""
    largest = float(np.abs(positions).max())
    return (
        largest * float(np.linalg.norm(np.std(positions / largest, axis=0)))
        if largest > _NOTHING_M
        else 0.0
    )


def doubt_rotations(estimate: Trajectory, truth: Trajectory) -> None:
    """Notices where the rotations of trajectories whose poses belong together one to one fit ten times better when the
    quaternions of one file are read in the other order, or where the true ones never change while the estimate turns.

    Only trajectories from files are doubted.
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
                "%s: rotations fit %.0f times better if the quaternions of the %s are read as %s (%.3g° instead of "
                "%.3g°), not as %s: put a header above them (timestamp tx ty tz %s)",
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
            "%s: the true rotations never change while the estimate turns by %.3g°: if they are not known, relative "
            "errors and drift mean nothing; leave the quaternions out",
            truth.origin.path,
            turned,
        )


def _misfits_deg(first: FloatArray, second: FloatArray) -> FloatArray:
    """How differently rotations (N, 3, 3) turn over each stretch, RMS, degrees."""
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
    """Rotations (N, 3, 3) had the quaternions of the file been read in the other order."""
    assert trajectory.origin is not None
    carried = trajectory.origin.T_read_carried
    carry = np.eye(3) if carried is None else carried[:3, :3]
    read = rotation_to_quaternion(trajectory.T_world_cam[:, :3, :3] @ carry.T)
    # Read as x y z w, the first number is the real part in truth, and the other way round.
    rolled = np.roll(read, -1 if trajectory.origin.order == "x y z w" else 1, axis=1)
    return quaternion_to_rotation(rolled) @ carry
