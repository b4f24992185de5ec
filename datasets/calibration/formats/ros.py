"""ROS: `camera_info` as the calibrator's YAML, as a printed message, and as `.ini`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from spslam.errors import CalibrationError
from spslam.geometry import inverse

from ..rectify import StereoRectifier
from .rig import FoundCamera, Rig, from_rectification
from .source import Source, partner
from .values import (
    Values,
    first_of,
    mapping,
    matrix,
    number,
    numbers,
    of_matrix,
    rotation,
    size_of,
)

if TYPE_CHECKING:
    from spslam.camera import Camera

    from ..calibration import Calibration

FILE, MESSAGE = "a ROS camera_info file", "a ROS camera_info message"
INI = "a ROS camera calibration (.ini)"
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_MODELS = {"none": "plumb_bob", "equidistant": "equidistant"}


@dataclass(frozen=True, eq=False)
class _Info:
    """A camera_info: the camera, and R (3, 3), P (3, 4) of its rectified one; None without P."""

    camera: FoundCamera
    R: NDArray[np.float64]
    P: NDArray[np.float64] | None
    remarks: tuple[str, ...] = ()


def is_ros_message(source: Source) -> bool:
    """Return whether a file is a printed message."""
    values = source.values
    return "distortion_model" in values and any(key in values for key in ("K", "k"))


def is_ros_file(source: Source) -> bool:
    """Return whether a file is of ROS's calibrator."""
    values = source.values
    return "camera_matrix" in values and ("projection_matrix" in values or "camera_name" in values)


def is_ros_ini(source: Source) -> bool:
    """Return whether a file is a `.ini` of ROS's calibrator."""
    return "camera matrix" in source.text and bool(
        re.search(r"^\[image\]", source.text, re.MULTILINE)
    )


def read_ros(source: Source) -> Rig:
    """Read a camera_info, and the right camera's beside it (`left.yaml`, `right.yaml`)."""
    kind = MESSAGE if is_ros_message(source) else FILE
    left = _info(source)
    other = source.right()
    if other is None or not (is_ros_message(other) or is_ros_file(other)):
        alone = _alone(left, source.path)
        return Rig(kind, (left.camera,), remarks=(*left.remarks, *alone))
    right = _info(other)
    if left.P is None or right.P is None:
        raise CalibrationError(
            f"{other.path.name} beside it gives no projection matrix, which holds the baseline"
        )
    try:
        T = from_rectification(left.R, left.P, right.R, right.P)
    except CalibrationError as error:
        raise CalibrationError(f"with {other.path.name} beside it: {error}") from None
    return Rig(kind, (left.camera, right.camera), T, remarks=left.remarks)


def read_ros_ini(source: Source) -> Rig:
    """Read a `.ini` file: one camera."""
    head, _, tail = source.text.partition("camera matrix")
    found = [
        int(value) for value in re.findall(r"^(?:width|height)\s+(\d{1,6})", head, re.MULTILINE)
    ]
    size = None if len(found) < 2 else (found[0], found[1])
    K, _, rest = tail.partition("distortion")
    lines = rest.strip().splitlines()
    return Rig(
        INI,
        (
            FoundCamera(
                "",
                size,
                of_matrix(re.findall(_NUMBER, K)[:9], "camera matrix"),
                "radtan",
                numbers(lines[0].split() if lines else [], "distortion"),
            ),
        ),
    )


def write_ros(calibration: Calibration, out: Path) -> dict[Path, str]:
    """Write one file, or for a pair two: `left.yaml` and `right.yaml`, by the name of `out`.

    R and P are those of spslam's own rectification; P of the right camera holds the baseline.

    Raises:
        CalibrationError: ROS has no such lens, or the name of `out` has no side.
    """
    camera, right, T = calibration.camera, calibration.right, calibration.T_left_right
    if right is None or T is None:
        P = np.hstack([camera.K, np.zeros((3, 1))])
        return {out: _file(camera, out.stem, np.eye(3), P)}
    other = partner(out)
    if other is None:
        raise CalibrationError(
            "a pair takes two files of ROS: give the name of the first one a side "
            "(left.yaml, cam0.yaml)"
        )
    rectifier = StereoRectifier(camera, right, T)
    R_left = inverse(rectifier.T_left_rectified)[:3, :3]
    P = np.hstack([rectifier.camera.K, np.zeros((3, 1))])
    P_right = P.copy()
    P_right[0, 3] = -rectifier.camera.bf
    return {
        out: _file(camera, out.stem, R_left, P),
        other: _file(right, other.stem, R_left @ T[:3, :3], P_right),
    }


def _info(source: Source) -> _Info:
    values = source.values
    message = is_ros_message(source)
    K_key, K = first_of(values, "K", "k", "camera_matrix")
    _, D = first_of(values, *(("D", "d") if message else ("distortion_coefficients",)))
    R_key, R = first_of(values, *(("R", "r") if message else ("rectification_matrix",)))
    P_key, P = first_of(values, *(("P", "p") if message else ("projection_matrix",)))
    names = ("width", "height") if message else ("image_width", "image_height")
    flat = None if P is None else matrix(P, P_key, 3, 4)
    projection = flat if flat is not None and flat[0, 0] > 0 and flat[2, 2] != 0 else None
    size = size_of(values.get(names[0]), values.get(names[1]))
    intrinsics, size, remarks = _binned(of_matrix(K, K_key), size, values)
    camera = FoundCamera(
        source.path.name,
        size,
        intrinsics,
        str(values.get("distortion_model") or "plumb_bob"),
        () if D is None or D == [] else numbers(D, "D"),
    )
    turned = R is not None and any(numbers(R, R_key))
    return _Info(camera, rotation(R, R_key) if turned else np.eye(3), projection, remarks)


def _binned(
    intrinsics: tuple[float, float, float, float], size: tuple[int, int] | None, values: Values
) -> tuple[tuple[float, float, float, float], tuple[int, int] | None, tuple[str, ...]]:
    """Apply the region of interest, in full pixels, and then the binning."""
    across = int(number(values, "binning_x", 0.0)) or 1
    down = int(number(values, "binning_y", 0.0)) or 1
    roi = mapping(values["roi"], "roi") if isinstance(values.get("roi"), dict) else {}
    x, y = number(roi, "x_offset", 0.0), number(roi, "y_offset", 0.0)
    width, height = int(number(roi, "width", 0.0)), int(number(roi, "height", 0.0))
    if (across, down, x, y, width, height) == (1, 1, 0, 0, 0, 0):
        return intrinsics, size, ()
    fx, fy, cx, cy = intrinsics
    size = (width, height) if width and height else size
    size = None if size is None else (size[0] // across, size[1] // down)
    # A binned pixel spans several: its centre is not that of the first of them.
    binned = (
        fx / across,
        fy / down,
        (cx - x + 0.5) / across - 0.5,
        (cy - y + 0.5) / down - 0.5,
    )
    text = f"region of interest at ({x:g}, {y:g}) and binning {across}x{down} are applied"
    return binned, size, (text,)


def _alone(info: _Info, path: Path) -> tuple[str, ...]:
    if info.P is None or info.P[0, 3] == 0:
        return ("for images that are not rectified",) if info.camera.coefficients else ()
    baseline = -info.P[0, 3] / info.P[0, 0]
    return (
        f"its P is that of the right camera of a pair with a baseline of {baseline:.6g} m; for "
        f"stereo give the left camera's file, with {path.name} beside it as right{path.suffix}",
    )


def _file(camera: Camera, name: str, R: NDArray[np.float64], P: NDArray[np.float64]) -> str:
    model = str(camera.distortion_model)
    count = len(camera.distortion)
    ros = _MODELS.get(model) or (
        {4: "plumb_bob", 5: "plumb_bob", 8: "rational_polynomial"}.get(count)
        if model == "radtan"
        else None
    )
    if ros is None:
        raise CalibrationError(
            f"ROS has no {model} lens with {count} coefficients: "
            "it has radtan with up to 8, and equidistant"
        )
    D = [float(value) for value in camera.distortion]
    # plumb_bob has five coefficients.
    D += [0.0] * (5 - len(D)) if ros == "plumb_bob" else []

    def array(values: NDArray[np.float64] | list[float], rows: int, columns: int) -> dict[str, Any]:
        return {"rows": rows, "cols": columns, "data": np.ravel(values).tolist()}

    entries = {
        "image_width": camera.width,
        "image_height": camera.height,
        "camera_name": name,
        "camera_matrix": array(camera.K, 3, 3),
        "distortion_model": ros,
        "distortion_coefficients": array(D, 1, len(D)),
        "rectification_matrix": array(R, 3, 3),
        "projection_matrix": array(P, 3, 4),
    }
    return yaml.safe_dump(entries, default_flow_style=None, sort_keys=False, width=1000)
