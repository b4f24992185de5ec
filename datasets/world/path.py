"""Camera paths through the built-in worlds, like those of a hand-held camera, smooth in time."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from spslam.geometry import euler_poses, make_transform, so3_exp
from spslam.typing import FloatArray

from .street.drive import street_drive
from .turning import turn_on_the_spot

if TYPE_CHECKING:
    from scipy.interpolate import CubicSpline

PathName = Literal["sway", "tour", "laps", "stroll", "turn", "drive"]
Path = Callable[[FloatArray], FloatArray]

# Mean height of the camera above the floor, metres.
_EYE_HEIGHT_M = 1.5


def _sway(times: FloatArray) -> FloatArray:
    """Move on an oval of 1.2 × 0.5 m in 3.6 s before the far wall of the room.

    The path starts fast sideways and with little rotation, which suits the initialization of mono.
    """
    phase = 2 * np.pi * times / 3.6
    x = 0.60 * np.sin(phase)
    y = -1.35 - 0.10 * np.cos(phase) - 0.02 * np.cos(5 * phase)
    z = -0.75 - 0.26 * np.cos(phase + 0.4) + 0.03 * np.cos(3 * phase)
    yaw = 0.20 * np.cos(phase + 0.2) + 0.02 * np.cos(4 * phase)
    pitch = -0.03 + 0.05 * np.cos(phase - 0.3) + 0.012 * np.cos(5 * phase)
    roll = 0.04 * np.cos(phase + 0.3) + 0.012 * np.cos(4 * phase)
    return euler_poses(np.stack([x, y, z], axis=1), yaw, pitch, roll)


def _tour(times: FloatArray) -> FloatArray:
    """Walk once around the hall in 15 s, looking ahead and outwards."""
    phase = 2 * np.pi * times / 15.0
    x = 2.0 * np.sin(phase) + 0.12 * np.sin(3 * phase)
    z = -1.45 * np.cos(phase) + 0.08 * np.sin(4 * phase)
    y = -_EYE_HEIGHT_M + 0.10 * np.sin(2 * phase + 0.7) + 0.018 * np.sin(23 * phase)
    # The path runs counter-clockwise seen from above; the camera looks 30° outwards from it.
    yaw = np.pi / 2 - phase + np.radians(30) + 0.12 * np.sin(3 * phase) + 0.015 * np.sin(11 * phase)
    pitch = -0.04 + 0.07 * np.sin(2 * phase) + 0.012 * np.sin(23 * phase + 1)
    roll = 0.035 * np.sin(3 * phase + 2) + 0.012 * np.sin(12 * phase)
    return euler_poses(np.stack([x, y, z], axis=1), yaw, pitch, roll)


# Duration of a lap, seconds.
_LAP_S = 28.0
# Half extents of the corridors' centre line and the radius of its corners, metres.
_LAP_HALF_X, _LAP_HALF_Z, _LAP_RADIUS = 4.7, 2.95, 1.2
# Samples of a lap for the spline.
_LAP_SAMPLES = 1024


@cache
def _lap_curve() -> CubicSpline:
    """Return (x, z, excess of the heading) over the phase of a lap, counter-clockwise from above.

    The excess is the heading minus the mean turn of -1 radian per radian.
    """
    # Import SciPy here: it takes half a second, and other worlds do not need it.
    from scipy.interpolate import CubicSpline
    from scipy.ndimage import gaussian_filter1d

    sides = np.array([_LAP_HALF_X, _LAP_HALF_Z, _LAP_HALF_X, _LAP_HALF_Z]) * 2 - 2 * _LAP_RADIUS
    arc = _LAP_RADIUS * np.pi / 2
    bounds = np.concatenate([[0.0], np.cumsum(np.stack([sides, np.full(4, arc)], axis=1).ravel())])
    along = np.arange(_LAP_SAMPLES) / _LAP_SAMPLES * bounds[-1]
    heading = np.interp(
        along, bounds, np.pi / 2 - np.array([0, 0, 1, 1, 2, 2, 3, 3, 4]) * np.pi / 2
    )
    step = bounds[-1] / _LAP_SAMPLES
    x = -sides[0] / 2 + np.cumsum(np.sin(heading)) * step
    z = -_LAP_HALF_Z + np.cumsum(np.cos(heading)) * step
    phase = 2 * np.pi * np.arange(_LAP_SAMPLES + 1) / _LAP_SAMPLES
    excess = heading - (np.pi / 2 - phase[:-1])
    # Smooth the path: people cut corners a little, and turn their heads before and after them.
    metre = _LAP_SAMPLES / bounds[-1]
    x, z = (gaussian_filter1d(values, 0.25 * metre, mode="wrap") for values in (x, z))
    excess = gaussian_filter1d(excess, 0.9 * metre, mode="wrap")
    curve = np.stack([x, z, excess], axis=1)
    return CubicSpline(phase, np.concatenate([curve, curve[:1]]), bc_type="periodic")


def _laps(times: FloatArray) -> FloatArray:
    """Walk around the ring of corridors, 28 s a lap; the second lap differs a little."""
    phase = 2 * np.pi * times / _LAP_S
    x, z, excess = _lap_curve()(np.mod(phase, 2 * np.pi)).T
    heading = np.pi / 2 - phase + excess
    # The period of the sidestep is two laps, so that the end of the path meets its start.
    sidestep = 0.16 * np.sin(phase / 2) + 0.05 * np.sin(7 * phase)
    x, z = x + sidestep * np.cos(heading), z - sidestep * np.sin(heading)
    y = -_EYE_HEIGHT_M + 0.05 * np.sin(1.5 * phase) + 0.018 * np.sin(45 * phase)
    yaw = heading + np.radians(5) * np.sin(4.5 * phase) + 0.012 * np.sin(22 * phase)
    pitch = -0.05 + 0.04 * np.sin(3.5 * phase) + 0.01 * np.sin(45 * phase + 1)
    roll = 0.03 * np.sin(5.5 * phase + 2) + 0.01 * np.sin(22.5 * phase)
    return euler_poses(np.stack([x, y, z], axis=1), yaw, pitch, roll)


def _stroll(times: FloatArray) -> FloatArray:
    """Walk along the twin corridors at 0.75 m/s, looking ahead to the left, where furniture is."""
    x = -11.0 + 0.75 * times + 0.04 * np.sin(0.9 * times)
    z = -0.22 + 0.08 * np.sin(0.7 * times) + 0.02 * np.sin(2.1 * times)
    y = -_EYE_HEIGHT_M + 0.03 * np.sin(0.8 * times) + 0.015 * np.sin(9.0 * times)
    # Yaw 90° looks along x; less turns left, towards +z.
    yaw = np.radians(50) + 0.08 * np.sin(0.6 * times) + 0.012 * np.sin(5.0 * times)
    pitch = -0.04 + 0.03 * np.sin(0.5 * times) + 0.01 * np.sin(9.0 * times + 1)
    roll = 0.02 * np.sin(0.7 * times + 2) + 0.01 * np.sin(4.5 * times)
    return euler_poses(np.stack([x, y, z], axis=1), yaw, pitch, roll)


# Largest difference of another walk from the path: along each world axis, metres, and about each
# camera axis, radians.
_WALK_SHIFT = np.array([0.16, 0.08, 0.16])
_WALK_TURN = np.array([0.05, 0.10, 0.03])


def another_walk(path: Path, walk: int) -> Path:
    """Return a path that differs from `path` by slow swings of position and rotation.

    `walk` is the seed of the swings; 0 gives the path itself.
    """
    if walk == 0:
        return path
    rng = np.random.default_rng([walk, 5])
    # The mean of three swings per axis, with periods of 5 to 20 s, stays within the largest shift.
    frequency, phase = (
        rng.uniform(2 * np.pi / 20, 2 * np.pi / 5, (6, 3)),
        rng.uniform(0, 2 * np.pi, (6, 3)),
    )

    def walked(times: FloatArray) -> FloatArray:
        swing = np.sin(times[:, None, None] * frequency + phase).mean(axis=2)
        shift, turn = swing[:, :3] * _WALK_SHIFT, swing[:, 3:] * _WALK_TURN
        poses = path(times)
        positions = poses[:, :3, 3] + shift
        return make_transform(poses[:, :3, :3] @ so3_exp(turn), positions)

    return walked


PATHS: dict[PathName, Path] = {
    "sway": _sway,
    "tour": _tour,
    "laps": _laps,
    "stroll": _stroll,
    "turn": turn_on_the_spot,
    "drive": street_drive,
}
