"""Basalt's calibration JSON (`value0`), also of the double-sphere data sets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spslam.errors import CalibrationError
from spslam.geometry import (
    inverse,
    make_transform,
    quaternion_to_rotation,
    rotation_to_quaternion,
)
from spslam.io.structured_text import shown
from spslam.notices import counted

from .rig import FoundCamera, Rig
from .source import Source
from .values import Values, items, mapping, number, numbers, size_of

if TYPE_CHECKING:
    from spslam.camera import Camera

    from ..calibration import Calibration

KIND = "a Basalt calibration"
# Basalt's models: our name, and the names of the coefficients in our order.
_MODELS: dict[str, tuple[str, tuple[str, ...]]] = {
    "pinhole": ("none", ()),
    "pinhole-radtan8": ("radtan", ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")),
    "kb4": ("equidistant", ("k1", "k2", "k3", "k4")),
    "ds": ("double_sphere", ("xi", "alpha")),
    "eucm": ("eucm", ("alpha", "beta")),
    "ucm": ("ucm", ("alpha",)),
    "fov": ("fov", ("w",)),
}
_NAMES = {ours: (theirs, keys) for theirs, (ours, keys) in _MODELS.items()}
_POSE = ("px", "py", "pz", "qx", "qy", "qz", "qw")


def is_basalt(source: Source) -> bool:
    """Return whether a file has `value0` with intrinsics."""
    value = source.values.get("value0")
    return isinstance(value, dict) and "intrinsics" in value


def read_basalt(source: Source) -> Rig:
    """Read the first two cameras. `T_imu_cam` maps camera to IMU coordinates."""
    given = mapping(source.values["value0"], "value0")
    entries = items(given["intrinsics"], "intrinsics")
    sizes, poses = given.get("resolution"), given.get("T_imu_cam")
    names = [f"camera {index}" for index in range(len(entries))]
    cameras = tuple(
        _camera(
            name, entry, sizes[index] if isinstance(sizes, list) and index < len(sizes) else None
        )
        for index, (name, entry) in enumerate(zip(names[:2], entries, strict=False))
    )
    if len(cameras) == 1:
        return Rig(KIND, cameras)
    if not isinstance(poses, list) or len(poses) < 2:
        alone = "T_imu_cam does not relate camera 1 to camera 0: only camera 0 is read"
        return Rig(KIND, cameras[:1], remarks=(alone,))
    T_imu_left, T_imu_right = (_pose(pose) for pose in poses[:2])
    more = (f"{len(entries) - 2} more cameras are not used",) if len(entries) > 2 else ()
    return Rig(KIND, cameras, inverse(T_imu_left) @ T_imu_right, remarks=more)


def write_basalt(calibration: Calibration) -> str:
    """Write a calibration whose IMU is in the left camera, with an IMU's default noise.

    Raises:
        CalibrationError: Basalt has no such lens.
    """
    cameras = [calibration.camera]
    poses = [np.eye(4)]
    if calibration.right is not None and calibration.T_left_right is not None:
        cameras.append(calibration.right)
        poses.append(calibration.T_left_right)
    value = {
        "T_imu_cam": [_pose_entry(T) for T in poses],
        "intrinsics": [_entry(camera) for camera in cameras],
        "resolution": [[camera.width, camera.height] for camera in cameras],
        "calib_accel_bias": [0.0] * 9,
        "calib_gyro_bias": [0.0] * 12,
        "imu_update_rate": 200.0,
        "accel_noise_std": [0.016] * 3,
        "gyro_noise_std": [0.000282] * 3,
        "accel_bias_std": [0.001] * 3,
        "gyro_bias_std": [0.0001] * 3,
        "cam_time_offset_ns": 0,
        "vignette": [],
    }
    return json.dumps({"value0": value}, indent=2) + "\n"


def _camera(name: str, entry: Any, size: Any) -> FoundCamera:
    given = mapping(entry, name)
    kind = str(given.get("camera_type"))
    model = _MODELS.get(kind)
    if model is None:
        raise CalibrationError(
            f"{name}.camera_type: expected {', '.join(_MODELS)}, found {shown(kind)}"
        )
    parameters = mapping(given.get("intrinsics"), f"{name}.intrinsics")
    ours, keys = model
    return FoundCamera(
        name,
        None if size is None else size_of(*numbers(size, "resolution", 2)),
        _intrinsics(parameters),
        ours,
        tuple(number(parameters, key) for key in keys),
    )


def _intrinsics(values: Values) -> tuple[float, float, float, float]:
    fx, fy, cx, cy = (number(values, key) for key in ("fx", "fy", "cx", "cy"))
    return fx, fy, cx, cy


def _pose(value: Any) -> NDArray[np.float64]:
    given = mapping(value, "T_imu_cam")
    parts = np.array([number(given, key) for key in _POSE])
    if not 0.5 < float(np.linalg.norm(parts[3:])) < 2:
        raise CalibrationError("T_imu_cam: qx qy qz qw are no unit quaternion")
    return make_transform(quaternion_to_rotation(parts[3:]), parts[:3])


def _pose_entry(T: NDArray[np.float64]) -> dict[str, float]:
    parts = (*T[:3, 3].tolist(), *rotation_to_quaternion(T[:3, :3]).tolist())
    return dict(zip(_POSE, parts, strict=True))


def _entry(camera: Camera) -> dict[str, Any]:
    model, bent = str(camera.distortion_model), list(camera.distortion)
    found = _NAMES.get(model)
    if found is not None and model == "radtan" and len(bent) <= 8:
        bent += [0.0] * (8 - len(bent))
    if found is None or len(found[1]) != len(bent):
        raise CalibrationError(
            f"Basalt has no {model} lens with {counted(len(bent), 'coefficient')}: "
            f"it has {', '.join(_NAMES)}"
        )
    intrinsics = {key: getattr(camera, key) for key in ("fx", "fy", "cx", "cy")}
    intrinsics |= dict(zip(found[1], bent, strict=True))
    if model == "radtan":
        # The radius up to which the lens counts, 0: unlimited.
        intrinsics["rpmax"] = 0.0
    return {"camera_type": found[0], "intrinsics": intrinsics}
