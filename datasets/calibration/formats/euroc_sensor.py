"""EuRoC's `sensor.yaml` (ASL data set format)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from spslam.errors import CalibrationError
from spslam.geometry import inverse
from spslam.io.structured_text import shown
from spslam.notices import counted

from .rig import FoundCamera, Rig
from .source import Source, partner
from .values import numbers, optional, size_of, transform

if TYPE_CHECKING:
    from spslam.camera import Camera

    from ..calibration import Calibration

KIND = "a sensor.yaml of EuRoC (ASL)"
_MODELS = {"none": "none", "radtan": "radial-tangential", "equidistant": "equidistant"}


def is_euroc_sensor(source: Source) -> bool:
    """Return whether a file is a camera's `sensor.yaml`."""
    values = source.values
    return "T_BS" in values or ("intrinsics" in values and "resolution" in values)


def read_euroc_sensor(source: Source) -> Rig:
    """Read `cam0/sensor.yaml`, and `cam1/sensor.yaml` beside it. T_BS maps sensor to body."""
    left = _camera(source)
    other = source.right()
    if other is None or not is_euroc_sensor(other) or "T_BS" not in other.values:
        return Rig(KIND, (left,))
    T_body_left, T_body_right = (
        transform(side.values.get("T_BS"), "T_BS") for side in (source, other)
    )
    return Rig(KIND, (left, _camera(other)), inverse(T_body_left) @ T_body_right)


def write_euroc_sensor(calibration: Calibration, out: Path) -> dict[Path, str]:
    """Write one file, or for a pair two: `cam0/sensor.yaml` and `cam1/sensor.yaml`.

    Raises:
        CalibrationError: EuRoC has no such lens, or the name of `out` has no side.
    """
    files = {out: _file(calibration.camera, np.eye(4), 0)}
    if calibration.right is not None and calibration.T_left_right is not None:
        other = partner(out)
        if other is None:
            raise CalibrationError(
                "a pair takes two files of EuRoC: write it to cam0/sensor.yaml (or cam0.yaml)"
            )
        files[other] = _file(calibration.right, calibration.T_left_right, 1)
    return files


def _camera(source: Source) -> FoundCamera:
    values = source.values
    kind = str(values.get("camera_model", "pinhole"))
    if kind != "pinhole":
        raise CalibrationError(f"camera_model: expected pinhole, found {shown(kind)}")
    size = values.get("resolution")
    fx, fy, cx, cy = numbers(values.get("intrinsics"), "intrinsics", 4)
    bent = values.get("distortion_coefficients", values.get("distortion_coeffs")) or []
    folder = source.path.parent.name
    return FoundCamera(
        folder if source.path.name == "sensor.yaml" else source.path.name,
        None if size is None else size_of(*numbers(size, "resolution", 2)),
        (fx, fy, cx, cy),
        None if not bent else str(values.get("distortion_model", "radtan")),
        numbers(bent, "distortion_coefficients"),
        optional(values, "rate_hz"),
    )


def _file(camera: Camera, T: NDArray[np.float64], number: int) -> str:
    model, bent = str(camera.distortion_model), list(camera.distortion)
    if model not in _MODELS or (model == "radtan" and len(bent) > 4):
        raise CalibrationError(
            f"EuRoC's sensor.yaml has no {model} lens with {counted(len(bent), 'coefficient')}: "
            "it has radtan with 4, and equidistant"
        )
    entries: dict[str, Any] = {
        "sensor_type": "camera",
        "comment": f"cam{number}",
        "T_BS": {"cols": 4, "rows": 4, "data": np.ravel(T).tolist()},
        "rate_hz": camera.fps,
        "resolution": [camera.width, camera.height],
        "camera_model": "pinhole",
        "intrinsics": [camera.fx, camera.fy, camera.cx, camera.cy],
        "distortion_model": _MODELS[model],
        "distortion_coefficients": bent,
    }
    return yaml.safe_dump(entries, default_flow_style=None, sort_keys=False, width=1000)
