"""Configurations of OKVIS, and camera rigs of SVO (aslam)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spslam.errors import CalibrationError
from spslam.geometry import inverse
from spslam.io.structured_text import shown

from .rig import FoundCamera, Rig
from .source import Source
from .values import Values, first_of, items, mapping, numbers, optional, size_of, transform

OKVIS, SVO = "an OKVIS configuration", "a camera rig of SVO (aslam)"
# Names of SVO's lens models that others do not have.
_MODELS = {"radial-tangential": "radtan", "equidistant": "equidistant", "none": "none"}


def is_okvis(source: Source) -> bool:
    """Return whether a file has `cameras` with a focal length."""
    return "focal_length" in _first(source)


def is_svo(source: Source) -> bool:
    """Return whether a file has `cameras` with a `camera` each."""
    return "camera" in _first(source)


def read_okvis(source: Source) -> Rig:
    """Read the first two cameras. `T_SC` maps camera to IMU (sensor) coordinates."""
    cameras = [mapping(entry, "cameras") for entry in items(source.values["cameras"], "cameras")]
    rate = mapping(source.values.get("camera_params") or {}, "camera_params")
    left = _okvis_camera(cameras[0], 0, optional(rate, "camera_rate"))
    if len(cameras) == 1:
        return Rig(OKVIS, (left,))
    T = _between(*(transform(camera.get("T_SC"), "T_SC") for camera in cameras[:2]))
    return Rig(OKVIS, (left, _okvis_camera(cameras[1], 1, None)), T, remarks=_more(cameras))


def read_svo(source: Source) -> Rig:
    """Read the first two cameras. `T_B_C` maps camera to body coordinates."""
    cameras = [mapping(entry, "cameras") for entry in items(source.values["cameras"], "cameras")]
    left = _svo_camera(cameras[0], 0)
    if len(cameras) == 1:
        return Rig(SVO, (left,))
    poses = [first_of(camera, "T_B_C", "T_C_B") for camera in cameras[:2]]
    if not all(key for key, _ in poses):
        alone = "T_B_C is missing: only the first camera is read"
        return Rig(SVO, (left,), remarks=(alone,))
    T = _between(
        *(
            transform(value, key) if key == "T_B_C" else inverse(transform(value, key))
            for key, value in poses
        )
    )
    return Rig(SVO, (left, _svo_camera(cameras[1], 1)), T, remarks=_more(cameras))


def _first(source: Source) -> Values:
    cameras = source.values.get("cameras")
    first = cameras[0] if isinstance(cameras, list) and cameras else None
    return mapping(first, "cameras") if isinstance(first, dict) else {}


def _between(
    T_body_left: NDArray[np.float64], T_body_right: NDArray[np.float64]
) -> NDArray[np.float64]:
    return inverse(T_body_left) @ T_body_right


def _more(cameras: list[Values]) -> tuple[str, ...]:
    return (f"{len(cameras) - 2} more cameras are not used",) if len(cameras) > 2 else ()


def _okvis_camera(given: Values, index: int, fps: float | None) -> FoundCamera:
    fx, fy = numbers(given["focal_length"], "focal_length", 2)
    cx, cy = numbers(given.get("principal_point"), "principal_point", 2)
    size = given.get("image_dimension")
    bent = given.get("distortion_coefficients") or []
    return FoundCamera(
        f"camera {index}",
        None if size is None else size_of(*numbers(size, "image_dimension", 2)),
        (fx, fy, cx, cy),
        str(given.get("distortion_type", "radialtangential" if bent else "none")),
        numbers(bent, "distortion_coefficients"),
        fps,
    )


def _svo_camera(given: Values, index: int) -> FoundCamera:
    camera = mapping(given["camera"], "camera")
    kind = str(camera.get("type", "pinhole"))
    if kind != "pinhole":
        raise CalibrationError(f"camera {index}: expected type pinhole, found {shown(kind)}")
    fx, fy, cx, cy = numbers(camera.get("intrinsics"), "intrinsics", 4)
    bent = mapping(camera.get("distortion") or {}, "distortion")
    model = str(bent.get("type", "none"))
    return FoundCamera(
        f"camera {index}",
        size_of(camera.get("image_width"), camera.get("image_height")),
        (fx, fy, cx, cy),
        _MODELS.get(model, model),
        numbers(bent.get("parameters") or [], "parameters"),
    )
