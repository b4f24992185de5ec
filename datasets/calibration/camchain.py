"""Read the cameras of a Kalibr camchain, for data sets that are published with one.

Kalibr's format: https://github.com/ethz-asl/kalibr/wiki/yaml-formats. `T_cam_imu` maps coordinates
of the IMU to those of the camera. `T_cn_cnm1` maps coordinates of the camera before to those of
this one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import CalibrationError
from spslam.geometry import orthonormalize
from spslam.io.structured_text import shown

from .checks import is_rigid, report_doubts
from .formats.kalibr import kalibr_camera
from .yaml_text import parse_yaml, read_text

_KEY = re.compile(r"cam\d+")


@dataclass(frozen=True, eq=False)
class ChainCamera:
    """A camera of a camchain.

    Attributes:
        camera: the camera.
        T_cam_imu: (4, 4) float64, maps coordinates of the IMU to those of the camera, metres.
            Without an IMU in the file, the first camera takes its place.
        imu_ahead_s: time that is added to stamps of the camera to get those of the IMU, seconds
            (`timeshift_cam_imu`).
    """

    camera: Camera
    T_cam_imu: NDArray[np.float64]
    imu_ahead_s: float = 0.0


@dataclass(frozen=True, eq=False)
class CameraChain:
    """The cameras of a camchain.

    Attributes:
        path: the file.
        cameras: the cameras in the order of their names.
        has_imu: whether the file gives the pose of the IMU.
    """

    path: Path
    cameras: list[ChainCamera]
    has_imu: bool


def read_camchain(path: Path, fps: float) -> CameraChain:
    """Read a camchain.

    Args:
        path: the file.
        fps: nominal rate of the cameras, 1/s, which the file does not give.

    Raises:
        CalibrationError: the file cannot be read or holds something else.
    """
    text = read_text(path)
    try:
        values = parse_yaml(text)
        entries = _entries(values)
        cameras, T_before, has_imu = list[ChainCamera](), np.eye(4), False
        for name, entry in entries.items():
            T, own = _pose(entry, name, T_before, bool(cameras))
            has_imu |= own
            camera = kalibr_camera(name, entry).camera(fps)
            cameras.append(ChainCamera(camera, T, _shift(entry, name)))
            T_before = T
    except CalibrationError as error:
        raise CalibrationError(f"camchain {path}: {error}") from None
    for name, found in zip(entries, cameras, strict=True):
        report_doubts(found.camera, f"camchain {path}, {name}")
    return CameraChain(path, cameras, has_imu)


def is_camchain(path: Path) -> bool:
    """Return whether a file is a camchain of Kalibr."""
    try:
        return bool(_entries(parse_yaml(read_text(path))))
    except CalibrationError:
        return False


def _entries(values: Any) -> dict[str, dict[str, Any]]:
    found = values if isinstance(values, dict) else {}
    entries = {
        str(name): found[name]
        for name in sorted(found, key=str)
        if _KEY.fullmatch(str(name)) and isinstance(found[name], dict)
    }
    if not entries or not all("intrinsics" in entry for entry in entries.values()):
        raise CalibrationError("expected Kalibr's cam0 with intrinsics, found none")
    return entries


def _pose(
    entry: dict[str, Any], name: str, T_before: NDArray[np.float64], follows: bool
) -> tuple[NDArray[np.float64], bool]:
    """Return `T_cam_imu` of a camera, and whether the file gives it itself."""
    for key, T_from in (("T_cam_imu", np.eye(4)), ("T_cn_cnm1", T_before)):
        if key == "T_cn_cnm1" and not follows:
            continue
        if key in entry:
            try:
                T = np.reshape(np.array(entry[key], dtype=np.float64), (4, 4))
            except (TypeError, ValueError, OverflowError):
                T = np.full((4, 4), np.nan)
            if not is_rigid(T):
                raise CalibrationError(f"{name}.{key} is no rotation with a translation, metres")
            return orthonormalize(T) @ T_from, key == "T_cam_imu"
    if follows:
        raise CalibrationError(f"{name} has neither T_cam_imu nor T_cn_cnm1: where does it stand?")
    return np.eye(4), False


def _shift(entry: dict[str, Any], name: str) -> float:
    return _numbers([entry.get("timeshift_cam_imu", 0.0)], f"{name}.timeshift_cam_imu")[0]


def _numbers(found: Any, key: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in found)
    except (TypeError, ValueError, OverflowError):
        numbers = (np.nan,)
    if not np.isfinite(numbers).all():
        raise CalibrationError(f"{key}: expected numbers, found {shown(found)}")
    return numbers
