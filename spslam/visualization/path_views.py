"""How a path in space is looked at: from above and from the side, whichever way its world lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spslam.trajectory import Trajectory
from spslam.typing import BoolArray, FloatArray

AXES = "xyz"
ALIGNMENT_WORDS = {
    "se3": "aligned by SE(3)",
    "sim3": "aligned by Sim(3)",
    "first-pose": "aligned by the first pose",
    "none": "not aligned",
}
# A pause this many times longer than usual is a gap in the path, not a step of it.
_GAP_FACTOR = 10.0
# How much of a unit vector along one axis says that cameras stood upright in it.
_UPRIGHT = 0.7


@dataclass(frozen=True)
class View:
    """Two of a world's axes as the axes of a picture.

    Attributes:
        title: for example `Top view (x–z)`.
        across, vertical: which axes (0 x, 1 y, 2 z) go to the right and along the picture's height.
        turned: whether `vertical` grows downwards.
    """

    title: str
    across: int
    vertical: int
    turned: bool


def choose_views(shown: Trajectory, truth: Trajectory | None = None) -> tuple[View, View]:
    """The views from above and from the side of a trajectory, or of it and the ground truth in the same world."""
    everything = (
        shown.positions if truth is None else np.concatenate([shown.positions, truth.positions])
    )
    # Along a straight line the alignment may roll the estimate's cameras any way round, not the truth's.
    across, along, up, up_sign = _axes(
        everything, truth if truth is not None and truth.has_rotations else shown
    )
    # Seen from above, the axis pointing at the viewer is "up": else one of the others has to be turned round.
    mirrored = (-1.0 if (across - along) % 3 == 1 else 1.0) != up_sign
    return (
        View(f"Top view ({AXES[across]}–{AXES[along]})", across, along, mirrored),
        View(f"Side view ({AXES[across]}–{AXES[up]})", across, up, up_sign < 0),
    )


def during(trajectory: Trajectory, stamps: FloatArray) -> Trajectory:
    """The poses of a trajectory between the first and the last of stamps (N,), seconds, and a little beyond."""
    margin = 1e-3 + 0.01 * float(stamps[-1] - stamps[0])
    inside = (trajectory.timestamps >= stamps[0] - margin) & (
        trajectory.timestamps <= stamps[-1] + margin
    )
    return trajectory.select(np.flatnonzero(inside))


def gaps(timestamps: FloatArray) -> BoolArray:
    """(N-1,) bool: where a path is interrupted after its n-th pose."""
    steps = np.diff(timestamps)
    long: BoolArray = (
        steps > _GAP_FACTOR * np.median(steps) if len(steps) else np.zeros(0, dtype=bool)
    )
    return long


def broken(timestamps: FloatArray, values: FloatArray) -> FloatArray:
    """Values (N, …) over time with a row of NaN in every gap, so that no line is drawn across."""
    return np.insert(values, np.flatnonzero(gaps(timestamps)) + 1, np.nan, axis=0)


def _axes(positions: FloatArray, trajectory: Trajectory) -> tuple[int, int, int, float]:
    """Axes across and along the ground, the vertical one, and which way is up on it.

    Cameras that mostly stood upright tell where down is; otherwise the ground is the plane of greatest extent.
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
    # As maps are drawn, unless the path is much longer the other way.
    if extent[along] > 0.6 * extent[across]:
        across, along = ground
    return across, along, up, up_sign
