"""Kalibr's camchain: `camchain-NAME.yaml` and its form with the IMU."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from spslam.errors import CalibrationError
from spslam.geometry import inverse
from spslam.io.structured_text import shown
from spslam.notices import counted

from .rig import FoundCamera, Rig
from .source import Source
from .values import Values, items, mapping, numbers, size_of, transform

if TYPE_CHECKING:
    from spslam.camera import Camera

    from ..calibration import Calibration

KIND = "a Kalibr camchain"
# Camera models with parameters of their own before fu fv pu pv: our name, and their number.
_OWN_PARAMETERS = {"omni": ("omni", 1), "ds": ("double_sphere", 2), "eucm": ("eucm", 2)}
_MODELS = {
    "none": ("pinhole", "none"),
    "radtan": ("pinhole", "radtan"),
    "equidistant": ("pinhole", "equidistant"),
    "fov": ("pinhole", "fov"),
    "omni": ("omni", "radtan"),
    "double_sphere": ("ds", "none"),
    "eucm": ("eucm", "none"),
}


def is_kalibr(source: Source) -> bool:
    """Return whether a file has cameras `cam0` … with intrinsics."""
    return bool(_cameras(source.values))


def read_kalibr(source: Source) -> Rig:
    """Read the first two cameras; `T_cn_cnm1` is the inverse of T_left_right."""
    given = _cameras(source.values)
    names = list(given)
    left = kalibr_camera(names[0], given[names[0]])
    rest = names[1:]
    if not rest:
        return Rig(KIND, (left,))
    T = _between(given[names[0]], given[names[1]], names[1])
    if T is None:
        missing = f"no T_cn_cnm1 relates {names[1]} to {names[0]}: only {names[0]} is read"
        return Rig(KIND, (left,), remarks=(missing,))
    more = (f"{', '.join(rest[1:])} not used",) if rest[1:] else ()
    return Rig(KIND, (left, kalibr_camera(names[1], given[names[1]])), T, remarks=more)


def write_kalibr(calibration: Calibration) -> str:
    """Write a camchain.

    Raises:
        CalibrationError: Kalibr has no such lens.
    """
    chain: dict[str, Any] = {"cam0": _entry(calibration.camera, "cam0")}
    if calibration.right is not None and calibration.T_left_right is not None:
        chain["cam1"] = {
            "T_cn_cnm1": inverse(calibration.T_left_right).tolist(),
            **_entry(calibration.right, "cam1"),
        }
        chain["cam0"]["cam_overlaps"], chain["cam1"]["cam_overlaps"] = [1], [0]
    return yaml.safe_dump(chain, default_flow_style=None, sort_keys=False, width=1000)


def _cameras(values: Values) -> dict[str, Values]:
    names = [key for key in values if re.fullmatch(r"cam\d{1,4}", key)]
    return {
        name: mapping(values[name], name)
        for name in sorted(names, key=lambda name: int(name[3:]))
        if isinstance(values[name], dict) and "intrinsics" in values[name]
    }


def kalibr_camera(name: str, given: Values) -> FoundCamera:
    """Read one camera of a camchain.

    Raises:
        CalibrationError: a value is missing or impossible.
    """
    kind = str(given.get("camera_model", "pinhole")).lower()
    bent = str(given.get("distortion_model", "none")).lower()
    bent = "none" if bent == "" else bent
    coefficients = numbers(given.get("distortion_coeffs") or [], f"{name}.distortion_coeffs")
    own, count = _OWN_PARAMETERS.get(kind, (kind, 0))
    parameters = numbers(given["intrinsics"], f"{name}.intrinsics", count + 4)
    fx, fy, cx, cy = parameters[count:]
    model = bent
    if count:
        if bent not in ("none", "radtan") or (bent == "radtan" and kind != "omni"):
            raise CalibrationError(f"{name}: a {kind} camera with {bent} distortion is not read")
        model = own
        coefficients = parameters[:count] + (coefficients if any(coefficients) else ())
    elif kind != "pinhole":
        raise CalibrationError(
            f"{name}.camera_model: expected pinhole, omni, ds or eucm, found {shown(kind)}"
        )
    size = numbers(given.get("resolution") or [], f"{name}.resolution")
    return FoundCamera(
        name,
        size_of(*size) if len(size) == 2 else None,
        (fx, fy, cx, cy),
        model,
        () if model == "none" else coefficients,
    )


def _between(left: Values, right: Values, name: str) -> NDArray[np.float64] | None:
    if "T_cn_cnm1" in right:
        return inverse(transform(items(right["T_cn_cnm1"], name), f"{name}.T_cn_cnm1"))
    if "T_cam_imu" in left and "T_cam_imu" in right:
        T_left_imu, T_right_imu = (
            transform(side["T_cam_imu"], "T_cam_imu") for side in (left, right)
        )
        return T_left_imu @ inverse(T_right_imu)
    if "T_imu_cam" in left and "T_imu_cam" in right:
        T_imu_left, T_imu_right = (
            transform(side["T_imu_cam"], "T_imu_cam") for side in (left, right)
        )
        return inverse(T_imu_left) @ T_imu_right
    return None


def _entry(camera: Camera, name: str) -> dict[str, Any]:
    model, coefficients = str(camera.distortion_model), list(camera.distortion)
    if model == "ucm":
        model, coefficients = "eucm", [*coefficients, 1.0]
    found = _MODELS.get(model)
    if found is None or (model == "radtan" and len(coefficients) > 4):
        raise CalibrationError(
            f"Kalibr has no {model} lens with {counted(len(coefficients), 'coefficient')}: "
            "it has radtan with 4, equidistant, fov, omni, double_sphere, eucm and ucm"
        )
    kind, bent = found
    own = _OWN_PARAMETERS.get(kind, ("", 0))[1]
    if kind == "omni":
        coefficients += [0.0] * (5 - len(coefficients))
    return {
        "camera_model": kind,
        "distortion_coeffs": coefficients[own:],
        "distortion_model": bent,
        "intrinsics": [*coefficients[:own], camera.fx, camera.fy, camera.cx, camera.cy],
        "resolution": [camera.width, camera.height],
        "rostopic": f"/{name}/image_raw",
    }
