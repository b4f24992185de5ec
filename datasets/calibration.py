"""The calibration YAML of image folders, videos and RGB-D recordings; `calibration_example.yaml` shows every key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from spslam.camera import Camera, DistortionModel
from spslam.errors import CalibrationError
from spslam.geometry import orthonormalize

CALIBRATION_NAME = "calibration.yaml"
_ROTATION_TOLERANCE = 1e-3
_DEFAULT_FPS = 30.0

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Row = Annotated[list[_Finite], Field(min_length=4, max_length=4)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Distortion(_Strict):
    model: DistortionModel = Field("none", description="lens model")
    coefficients: list[_Finite] = Field(default=[], description="its coefficients, in OpenCV's order")


class _CameraEntry(_Strict):
    width: int = Field(gt=0, description="pixels")
    height: int = Field(gt=0, description="pixels")
    fx: _Positive = Field(description="pixels")
    fy: _Positive = Field(description="pixels")
    cx: _Finite = Field(description="pixels, centre of the first pixel = 0")
    cy: _Finite = Field(description="pixels, centre of the first pixel = 0")
    fps: _Positive | None = Field(None, description="1/s; of the file numbers, where files are numbered")
    readout_s: float = Field(0.0, description="of a rolling shutter, seconds from the first row to the last")
    distortion: _Distortion = Field(default_factory=_Distortion, description="lens distortion")

    def camera(self) -> Camera:
        return Camera(
            width=self.width,
            height=self.height,
            fx=self.fx,
            fy=self.fy,
            cx=self.cx,
            cy=self.cy,
            distortion_model=self.distortion.model,
            distortion=tuple(self.distortion.coefficients),
            fps=self.fps if self.fps is not None else _DEFAULT_FPS,
            readout_s=self.readout_s,
        )


class _CalibrationFile(_CameraEntry):
    right: _CameraEntry | None = Field(None, description="the right camera of a stereo pair")
    T_left_right: Annotated[list[_Row], Field(min_length=4, max_length=4)] | None = Field(
        None, description="right-camera coordinates to left ones, metres"
    )
    depth_scale: _Positive | None = Field(
        None, description="units of depth images per metre; without, floats are metres"
    )

    @model_validator(mode="after")
    def _stereo_is_complete(self) -> _CalibrationFile:
        if (self.right is None) != (self.T_left_right is None):
            raise ValueError("right and T_left_right belong together, found only one of them")
        if self.T_left_right is not None:
            T = np.array(self.T_left_right)
            R = T[:3, :3]
            if not (
                np.allclose(R @ R.T, np.eye(3), atol=_ROTATION_TOLERANCE)
                and np.linalg.det(R) > 0
                and np.allclose(T[3], (0, 0, 0, 1))
            ):
                raise ValueError("T_left_right must be a rotation and a translation over a last row 0 0 0 1")
        return self


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a calibration file says.

    Attributes:
        path: the file.
        camera: the only or left camera, as it is (distorted, without baseline).
        fps: 1/s, None where the file does not say.
        right: the right camera, or None.
        T_left_right: (4, 4) float64, right-camera coordinates to left ones, metres; None without `right`.
        depth_scale: units of depth images per metre, None where the file does not say.
    """

    path: Path
    camera: Camera
    fps: float | None = None
    right: Camera | None = None
    T_left_right: NDArray[np.float64] | None = None
    depth_scale: float | None = None


def load_calibration(path: str | Path) -> Calibration:
    """Read and check a calibration file.

    Raises:
        CalibrationError: the file is missing, is no YAML, has an unknown or missing key or an impossible value; the
            message names the key with its path.
    """
    path = Path(path)
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise CalibrationError(f"calibration {path} cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CalibrationError(f"calibration {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise CalibrationError(
            f"calibration {path}: expected keys (width height fx fy cx cy …), found {type(values).__name__}"
        )
    try:
        entry = _CalibrationFile.model_validate(values)
        camera = entry.camera()
        right = entry.right.camera() if entry.right is not None else None
    except ValidationError as error:
        raise CalibrationError(f"calibration {path}: {_describe(error)}") from None
    except CalibrationError as error:
        raise CalibrationError(f"calibration {path}: {error}") from None
    T_left_right = None if entry.T_left_right is None else orthonormalize(np.array(entry.T_left_right))
    return Calibration(path, camera, entry.fps, right, T_left_right, entry.depth_scale)


def find_calibration(given: str | Path | None, folders: list[Path], needed_for: str) -> Calibration:
    """The calibration `given`, else `calibration.yaml` in the first of `folders` that has one.

    Raises:
        CalibrationError: there is none, or it cannot be used.
    """
    if given is not None:
        return load_calibration(given)
    for folder in folders:
        if (folder / CALIBRATION_NAME).is_file():
            return load_calibration(folder / CALIBRATION_NAME)
    raise CalibrationError(
        f"{needed_for} needs a calibration: give --calibration FILE or put {CALIBRATION_NAME} (width height fx fy cx "
        f"cy fps) into {folders[0]}; none was found there"
    )


def _describe(error: ValidationError) -> str:
    parts = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            parts.append(f"unknown key {key}")
        elif item["type"] == "missing":
            parts.append(f"missing key {key}")
        elif key:
            parts.append(f"{key}: {item['msg']}, found {item['input']!r}")
        else:
            parts.append(item["msg"].removeprefix("Value error, "))
    return "; ".join(parts)
