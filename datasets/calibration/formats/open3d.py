"""Open3D's camera JSON: `PinholeCameraIntrinsic`, `…Parameters` and `…Trajectory`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from spslam.errors import CalibrationError

from .rig import FoundCamera, Rig
from .source import Source
from .values import Values, mapping, numbers, of_matrix, size_of

if TYPE_CHECKING:
    from ..calibration import Calibration

KIND = "an Open3D camera"


def is_open3d(source: Source) -> bool:
    """Return whether a file has an `intrinsic_matrix`, itself or in its first camera."""
    return "intrinsic_matrix" in _intrinsic(source.values)


def read_open3d(source: Source) -> Rig:
    """Read the camera. Open3D writes the matrix column by column."""
    values = source.values
    given = _intrinsic(values)
    K = np.reshape(numbers(given["intrinsic_matrix"], "intrinsic_matrix", 9), (3, 3)).T
    if K[0, 2] == 0 and K[2, 0] > 0:
        # Written row by row, by other programs.
        K = K.T
    camera = FoundCamera(
        "",
        size_of(given.get("width"), given.get("height")),
        of_matrix(K.tolist(), "intrinsic_matrix"),
    )
    parameters = values.get("parameters")
    first = isinstance(parameters, list) and len(parameters) > 1
    return Rig(KIND, (camera,), remarks=("the first camera of its trajectory",) if first else ())


def write_open3d(calibration: Calibration) -> str:
    """Write a `PinholeCameraIntrinsic`.

    Raises:
        CalibrationError: the lens has a distortion, which Open3D does not have.
    """
    camera = calibration.camera
    if camera.distortion_model != "none" and any(camera.distortion):
        raise CalibrationError(
            f"Open3D's cameras have no distortion, and this lens is {camera.distortion_model}: "
            "undistort the images and convert their calibration"
        )
    values = {
        "width": camera.width,
        "height": camera.height,
        "intrinsic_matrix": np.ravel(camera.K, order="F").tolist(),
    }
    return json.dumps(values, indent=2) + "\n"


def _intrinsic(values: Values) -> Values:
    parameters = values.get("parameters")
    if isinstance(parameters, list) and parameters and isinstance(parameters[0], dict):
        values = mapping(parameters[0], "parameters")
    inner = values.get("intrinsic")
    return mapping(inner, "intrinsic") if isinstance(inner, dict) else values
