"""KITTI's `calib.txt` (odometry), `calib_cam_to_cam.txt` (raw) and `perspective.txt`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from .rig import FoundCamera, Rig, side_by_side
from .source import Source
from .values import numbers, size_of

KIND = "a calibration of KITTI"
_ROW = re.compile(
    r"^(P_rect_0\d|P\d|S_rect_0\d):((?:[ \t]+[-+]?[\d.]+(?:[eE][-+]?\d+)?)+)[ \t\r]*$", re.MULTILINE
)


def is_kitti(source: Source) -> bool:
    """Return whether a file has a projection of KITTI's grey or colour cameras."""
    return bool(_names(dict(_ROW.findall(source.text))))


def read_kitti(source: Source) -> Rig:
    """Read the pair of grey cameras, else that of colour cameras, both rectified.

    Column 3 of a projection is focal length times position, with the opposite sign.
    """
    rows = {key: numbers(value.split(), key) for key, value in _ROW.findall(source.text)}
    names = _names(rows)
    name = names[0]
    P = np.reshape(numbers(list(rows[name]), name, 12), (3, 4))
    size = rows.get(f"S_rect_{name[-2:]}")
    intrinsics = (float(P[0, 0]), float(P[1, 1]), float(P[0, 2]), float(P[1, 2]))
    left = FoundCamera(name, None if size is None else size_of(*size[:2]), intrinsics)
    used = ("for rectified images",)
    if len(names) < 2:
        return Rig(KIND, (left,), remarks=used)
    other = np.reshape(numbers(list(rows[names[1]]), names[1], 12), (3, 4))
    baseline = float(P[0, 3] / P[0, 0] - other[0, 3] / other[0, 0])
    right = FoundCamera(names[1], left.size, intrinsics)
    return Rig(KIND, (left, right), side_by_side(baseline), remarks=used)


def _names(rows: Mapping[str, object]) -> list[str]:
    """Return the names of the projections of one pair."""
    for pair in (
        ("P_rect_00", "P_rect_01"),
        ("P0", "P1"),
        ("P_rect_02", "P_rect_03"),
        ("P2", "P3"),
    ):
        if pair[0] in rows:
            return [name for name in pair if name in rows]
    return []
