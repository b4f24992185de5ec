"""The drive of `demo-street`: once around a block by car, and on along its first street."""

from __future__ import annotations

from functools import cache

import numpy as np

from spslam.geometry import euler_poses
from spslam.typing import FloatArray

# Centre lines of the four streets around the block, metres: x of two, z of two.
STREET_X, STREET_Z = (-100.0, 0.0), (0.0, 140.0)
# Distance of a lane's middle from the centre line, metres; cars drive on the right.
LANE_M = 1.3
# Height of the camera above the road, metres (KITTI).
_EYE_HEIGHT_M = 1.65
# Radius of the turns, metres, and standard deviation of the smoothing of its ends.
_RADIUS_M, _EASING_M = 13.0, 1.6
# Way on the first street before the first turn, and on it again at the end, metres.
_FIRST_M, _AGAIN_M = 108.3, 92.0
# Step of the tables, metres.
_STEP_M = 0.05
# Speed: mean, swing and reduction in turns, m/s; it stays between 8 and 14 m/s.
_MEAN_SPEED, _SPEED_SWING, _TURN_SPEED = 11.6, 2.0, 8.4


@cache
def _tables() -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return (time, way, x, z, heading) of the drive, sampled every `_STEP_M`."""
    half = np.pi / 2 * _RADIUS_M
    long = STREET_Z[1] - STREET_Z[0] + 2 * LANE_M - 2 * _RADIUS_M
    short = STREET_X[1] - STREET_X[0] + 2 * LANE_M - 2 * _RADIUS_M
    lengths = [_FIRST_M, half, short, half, long, half, short, half, long - _FIRST_M + _AGAIN_M]
    bounds = np.concatenate([[0.0], np.cumsum(lengths)])
    way = np.arange(0.0, bounds[-1], _STEP_M)
    turns = np.interp(way, bounds, np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4]) * 1.0)
    in_turn = np.isin(np.searchsorted(bounds, way, "right") - 1, (1, 3, 5, 7)).astype(np.float64)
    heading = _smooth(-np.pi / 2 * turns, _EASING_M)
    # Brake some ten metres before a turn.
    braking = _smooth(in_turn, 5.0)
    free = _MEAN_SPEED + _SPEED_SWING * np.sin(2 * np.pi * way / 83.0)
    speed = free + braking * (_TURN_SPEED - free)
    time = np.concatenate([[0.0], np.cumsum(_STEP_M / speed)[:-1]])
    x = STREET_X[1] + LANE_M + np.cumsum(np.sin(heading)) * _STEP_M
    z = STREET_Z[1] + LANE_M - _RADIUS_M - _FIRST_M + np.cumsum(np.cos(heading)) * _STEP_M
    return time, way, x, z, heading


def _smooth(values: FloatArray, sigma_m: float) -> FloatArray:
    """Smooth samples (N,) with a Gaussian of `sigma_m` metres; the ends continue their value."""
    reach = round(4 * sigma_m / _STEP_M)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * _STEP_M / sigma_m) ** 2)
    padded = np.pad(values, reach, mode="edge")
    smooth = np.convolve(padded, kernel / kernel.sum(), mode="valid")
    return smooth.astype(np.float64)


def street_drive(times: FloatArray) -> FloatArray:
    """Drive around the block, about 550 m at 8 to 14 m/s, and return to the first street.

    Args:
        times: (N,) seconds from 0.

    Returns:
        Poses (N, 4, 4), camera to world; before and after the drive the camera stands.
    """
    time, way, x, z, heading = _tables()
    s = np.interp(times, time, way)
    yaw = np.interp(s, way, heading)
    # A driver wanders in the lane by some tenths of a metre, differently on the second visit.
    aside = 0.22 * np.sin(2 * np.pi * s / 97.0) + 0.08 * np.sin(2 * np.pi * s / 31.0)
    x_there = np.interp(s, way, x) + aside * np.cos(yaw)
    z_there = np.interp(s, way, z) - aside * np.sin(yaw)
    y = -_EYE_HEIGHT_M + 0.012 * np.sin(2.1 * s / 3.0) + 0.006 * np.sin(1.9 * s)
    yaw = yaw + 0.010 * np.sin(2 * np.pi * s / 43.0)
    pitch = -0.006 + 0.005 * np.sin(s / 2.3 + 1.0) + 0.002 * np.sin(1.7 * s)
    roll = 0.005 * np.sin(s / 3.7) + 0.0015 * np.sin(1.3 * s + 2.0)
    return euler_poses(np.stack([x_there, y, z_there], axis=1), yaw, pitch, roll)


def drive_duration() -> float:
    """Duration of the drive, seconds."""
    return float(_tables()[0][-1])
