"""A hand that turns a camera on the spot: fast rotations, and hardly any translation.

Modelled on the hand-held recordings that rotate about the principal axes, one after the other
(Sturm et al., A benchmark for the evaluation of RGB-D SLAM systems, IROS 2012).
"""

from __future__ import annotations

import numpy as np

from spslam.geometry import make_transform
from spslam.typing import FloatArray

# Time, seconds, and yaw, pitch and roll, degrees, at which the hand rests for a moment. Between
# them it turns by up to 130° a second. Yaw turns right, pitch up, roll clockwise.
_RESTS = np.array(
    [
        (0.0, 0, 0, 0),
        (1.0, 0, 0, 0),
        (1.9, 60, 0, 0),
        (2.8, 0, 0, 0),
        (3.6, -50, 0, 0),
        (4.4, 0, 0, 0),
        (4.9, 0, 28, 0),
        (5.7, 0, -26, 0),
        (6.1, 0, 0, 0),
        (6.6, 0, 0, 34),
        (7.4, 0, 0, -20),
        (7.8, 0, 0, 0),
        (9.0, 80, 12, 10),
        (9.7, 80, 8, 0),
        (10.9, 0, 0, 0),
    ]
)
# Time, seconds, and x, y, z of the hand, metres: it moves sideways before the first turn, so that a
# single camera can start a map, and again while it looks to the right of the first view.
_MOVES = np.array(
    [
        (0.0, 1.00, -1.45, 0.05),
        (1.0, 1.40, -1.50, 0.10),
        (9.0, 1.40, -1.50, 0.10),
        (9.7, 1.37, -1.44, 0.34),
        (10.9, 1.37, -1.44, 0.34),
    ]
)
# From the hand's centre of rotation to the camera along the optical axis, metres.
_LEVER_M = 0.04
# Amplitudes of the hand's tremor: metres, and radians.
_TREMOR_M, _TREMOR_RAD = 0.004, 0.006


def turn_on_the_spot(times: FloatArray) -> FloatArray:
    """Return poses (N, 4, 4), camera to world, of a camera that a hand turns in the hall.

    Args:
        times: (N,) seconds.
    """
    angles = np.radians(_between(_RESTS, times)) + _TREMOR_RAD * _tremor(times, 2.3)
    yaw, pitch, roll = angles.T
    rotation = _turn(yaw, 1) @ _turn(pitch, 0) @ _turn(roll, 2)
    hand = _between(_MOVES, times) + _TREMOR_M * _tremor(times, 1.7)
    return make_transform(rotation, hand + _LEVER_M * rotation[:, :, 2])


def _between(rests: FloatArray, times: FloatArray) -> FloatArray:
    """Interpolate rows (time, values...) with speed and acceleration zero at each of them.

    Source: Flash & Hogan, The coordination of arm movements, J. Neuroscience 1985: movements of
    least jerk.
    """
    stamps, values = rests[:, 0], rests[:, 1:]
    i = np.clip(np.searchsorted(stamps, times, side="right") - 1, 0, len(stamps) - 2)
    s = np.clip((times - stamps[i]) / (stamps[i + 1] - stamps[i]), 0.0, 1.0)
    done = s**3 * (10.0 - 15.0 * s + 6.0 * s**2)
    between: FloatArray = values[i] + (values[i + 1] - values[i]) * done[:, None]
    return between


def _tremor(times: FloatArray, hertz: float) -> FloatArray:
    """(N, 3) smooth swings of length about 1, different along the three axes."""
    phase = 2 * np.pi * hertz * times[:, None] * np.array([1.0, 1.31, 0.77])
    swings: FloatArray = 0.7 * np.sin(phase + np.array([0.3, 1.9, 4.0])) + 0.3 * np.sin(
        2.3 * phase + np.array([2.2, 0.4, 1.1])
    )
    return swings


def _turn(angle: FloatArray, axis: int) -> FloatArray:
    """Rotations (N, 3, 3) about a camera axis, right-handed, radians."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.zeros((len(angle), 3, 3))
    rotation[:, axis, axis] = 1.0
    rotation[:, first, first] = rotation[:, second, second] = c
    rotation[:, first, second], rotation[:, second, first] = -s, s
    return rotation
