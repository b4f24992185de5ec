"""nerfstudio's and instant-ngp's `transforms.json`."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from spslam.errors import CalibrationError
from spslam.io.structured_text import shown
from spslam.notices import counted

from .rig import CORNER_PX, FoundCamera, Rig
from .source import Source
from .values import Values, mapping, number, size_of

if TYPE_CHECKING:
    from ..calibration import Calibration

KIND = "a nerfstudio transforms.json"
_MODELS = {
    "OPENCV": "radtan",
    "PINHOLE": "radtan",
    "SIMPLE_PINHOLE": "radtan",
    "PERSPECTIVE": "radtan",
    "OPENCV_FISHEYE": "equidistant",
    "FISHEYE": "equidistant",
}
_KEYS = ("fl_x", "fl_y", "cx", "cy", "w", "h", "k1", "k2", "k3", "k4", "p1", "p2", "camera_model")


def is_nerfstudio(source: Source) -> bool:
    """Return whether a file has `fl_x` or an angle of view, for all frames or for the first."""
    values = source.values
    return any(key in given for given in (values, _frame(values)) for key in _FOCALS)


def read_nerfstudio(source: Source) -> Rig:
    """Read the camera of all frames, or of the first one if each frame has its own."""
    values = source.values
    own = {key: value for key, value in _frame(values).items() if key in (*_KEYS, *_FOCALS)}
    given = own | values
    remarks = () if any(key in values for key in _FOCALS) else ("the camera of its first frame",)
    size = size_of(given.get("w"), given.get("h"))
    fx, fy = _focals(given, size)
    centre = [
        number(given, key, math.nan if size is None else size[axis] / 2)
        for axis, key in enumerate(("cx", "cy"))
    ]
    if math.isnan(sum(centre)):
        raise CalibrationError("keys cx and cy are missing")
    kind = str(given.get("camera_model") or "OPENCV").upper()
    if given.get("is_fisheye") is True:
        kind = "OPENCV_FISHEYE"
    model = _MODELS.get(kind)
    if model is None:
        raise CalibrationError(
            f"camera_model: expected OPENCV, PINHOLE or OPENCV_FISHEYE, found {shown(kind)}"
        )
    k1, k2, k3, k4, p1, p2 = (number(given, key, 0.0) for key in _KEYS[6:12])
    if model == "radtan" and k4:
        # There it is the coefficient of r^8; OpenCV's fourth one divides.
        raise CalibrationError(
            "k4 of its OPENCV model is that of r^8, which spslam does not support"
        )
    bent = (k1, k2, p1, p2, k3) if model == "radtan" else (k1, k2, k3, k4)
    intrinsics = (fx, fy, centre[0] - CORNER_PX, centre[1] - CORNER_PX)
    return Rig(KIND, (FoundCamera("", size, intrinsics, model, bent),), remarks=remarks)


def write_nerfstudio(calibration: Calibration) -> str:
    """Write a `transforms.json` without frames.

    Raises:
        CalibrationError: nerfstudio has no such lens.
    """
    camera = calibration.camera
    model, bent = str(camera.distortion_model), camera.distortion
    values: dict[str, Any] = {
        "camera_model": "OPENCV_FISHEYE" if model == "equidistant" else "OPENCV",
        "fl_x": camera.fx,
        "fl_y": camera.fy,
        "cx": camera.cx + CORNER_PX,
        "cy": camera.cy + CORNER_PX,
        "w": camera.width,
        "h": camera.height,
    }
    if model == "equidistant":
        values |= dict(zip(("k1", "k2", "k3", "k4"), bent, strict=True))
    elif model == "none" or (model == "radtan" and len(bent) <= 5):
        values |= dict(zip(("k1", "k2", "p1", "p2", "k3"), bent or (0.0,) * 4, strict=False))
    else:
        raise CalibrationError(
            f"nerfstudio has no {model} lens with {counted(len(bent), 'coefficient')}: "
            "it has radtan with 4 or 5, and equidistant"
        )
    return json.dumps(values | {"frames": []}, indent=2) + "\n"


def _focals(given: Values, size: tuple[int, int] | None) -> tuple[float, float]:
    if "fl_x" in given:
        fx = number(given, "fl_x")
        return fx, number(given, "fl_y", fx) or fx
    if size is None:
        raise CalibrationError("camera_angle_x needs w and h, the size of the images")
    fx = size[0] / 2 / _half_tangent(given, "camera_angle_x")
    angle = given.get("camera_angle_y")
    return fx, fx if angle is None else size[1] / 2 / _half_tangent(given, "camera_angle_y")


def _half_tangent(given: Values, key: str) -> float:
    angle = number(given, key)
    if not 0 < angle < math.pi:
        raise CalibrationError(f"{key}: expected radians between 0 and pi, found {angle:g}")
    return math.tan(angle / 2)


def _frame(values: Values) -> Values:
    frames = values.get("frames")
    first = frames[0] if isinstance(frames, list) and frames else None
    return mapping(first, "frames") if isinstance(first, dict) else {}


_FOCALS = ("fl_x", "camera_angle_x")
