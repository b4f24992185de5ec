"""Views of a path from above and from the side, for any orientation of its world."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spslam.trajectory import Trajectory
from spslam.typing import BoolArray, FloatArray

# Names of the axes.
AXES = "xyz"
# Descriptions of the alignments, for people.
ALIGNMENT_WORDS = {
    "se3": "aligned by SE(3)",
    "sim3": "aligned by Sim(3)",
    "first-pose": "aligned by the first pose",
    "none": "not aligned",
}
# Minimum time between poses that is a gap in the path, ratio to the median.
_GAP_FACTOR = 10.0
# Minimum component of the cameras' mean down vector along an axis that makes the axis vertical.
_UPRIGHT = 0.7


@dataclass(frozen=True)
class View:
    """Two of a world's axes as the axes of a picture.

    Attributes:
        title: for example `Top view (x–z)`.
        across: world axis (0 x, 1 y, 2 z) that points to the right.
        vertical: world axis along the height of the picture.
        turned: whether `vertical` points down.
    """

    title: str
    across: int
    vertical: int
    turned: bool


def choose_views(shown: Trajectory, truth: Trajectory | None = None) -> tuple[View, View]:
    """Choose the views from above and from the side of a trajectory.

    Args:
        shown: the trajectory.
        truth: ground truth in the same world, or None.
    """
    everything = (
        shown.positions if truth is None else np.concatenate([shown.positions, truth.positions])
    )
    # If the path is straight, the alignment may roll the cameras of the estimate, but not those of
    # the ground truth.
    across, along, up, up_sign = _axes(
        everything, truth if truth is not None and truth.has_rotations else shown
    )
    # From above, the up axis must point at the viewer; otherwise flip one of the others.
    mirrored = (-1.0 if (across - along) % 3 == 1 else 1.0) != up_sign
    return (
        View(f"Top view ({AXES[across]}–{AXES[along]})", across, along, mirrored),
        View(f"Side view ({AXES[across]}–{AXES[up]})", across, up, up_sign < 0),
    )


def during(trajectory: Trajectory, stamps: FloatArray) -> Trajectory:
    """The poses between the first and the last of stamps (N,), seconds, with a margin of 1 %."""
    margin = 1e-3 + 0.01 * float(stamps[-1] - stamps[0])
    inside = (trajectory.timestamps >= stamps[0] - margin) & (
        trajectory.timestamps <= stamps[-1] + margin
    )
    return trajectory.select(np.flatnonzero(inside))


def gaps(timestamps: FloatArray) -> BoolArray:
    """Whether a path is interrupted after each of its poses but the last, (N-1,) bool."""
    steps = np.diff(timestamps)
    long: BoolArray = (
        steps > _GAP_FACTOR * np.median(steps) if len(steps) else np.zeros(0, dtype=bool)
    )
    return long


def broken(timestamps: FloatArray, values: FloatArray) -> FloatArray:
    """Insert a row of NaN into values (N, …) at every gap, so that no line is drawn across it."""
    return np.insert(values, np.flatnonzero(gaps(timestamps)) + 1, np.nan, axis=0)


def _axes(positions: FloatArray, trajectory: Trajectory) -> tuple[int, int, int, float]:
    """The two horizontal axes, the vertical axis, and the sign of its up direction.

    If the cameras were mostly upright, they give the vertical axis; otherwise it is the axis of the
    smallest extent.
    """
    extent = np.ptp(positions, axis=0) if len(positions) else np.ones(3)
    up, up_sign = int(np.argmin(extent)), 1.0
    if len(trajectory) and trajectory.has_rotations and trajectory.frame != "body":
        down = trajectory.T_world_cam[:, :3, 1].mean(axis=0)
        if np.abs(down).max() > _UPRIGHT:
            up = int(np.argmax(np.abs(down)))
        up_sign = -1.0 if down[up] > 0 else 1.0
    ground = [axis for axis in range(3) if axis != up]
    across, along = sorted(ground, key=lambda axis: -extent[axis])
    # Keep the order of the axes, unless the path is much longer along the other one.
    if extent[along] > 0.6 * extent[across]:
        across, along = ground
    return across, along, up, up_sign
