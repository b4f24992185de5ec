"""Poses from positions and angles."""

from __future__ import annotations

import numpy as np

from spslam.geometry import make_transform
from spslam.typing import FloatArray


def euler_poses(
    positions: FloatArray, yaw: FloatArray, pitch: FloatArray, roll: FloatArray
) -> FloatArray:
    """Return poses (N, 4, 4), camera to world, from positions (N, 3) and angles (N,), radians.

    Yaw turns right, pitch up, roll clockwise; at zero the camera looks along z.
    """
    zero, one = np.zeros_like(yaw), np.ones_like(yaw)

    def rows(*entries: FloatArray) -> FloatArray:
        return np.stack(entries, axis=-1).reshape(-1, 3, 3)

    c, s = np.cos(yaw), np.sin(yaw)
    turn = rows(c, zero, s, zero, one, zero, -s, zero, c)
    c, s = np.cos(pitch), np.sin(pitch)
    nod = rows(one, zero, zero, zero, c, -s, zero, s, c)
    c, s = np.cos(roll), np.sin(roll)
    tilt = rows(c, -s, zero, s, c, zero, zero, zero, one)
    return make_transform(turn @ nod @ tilt, positions)
