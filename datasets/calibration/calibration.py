"""Read the calibration files of image folders, videos and RGB-D recordings.

`calibration_example.yaml` shows every key of our own format; `formats` holds the others.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from spslam.camera import LARGEST_PX, Camera
from spslam.errors import CalibrationError, MissingCalibrationError
from spslam.geometry import orthonormalize
from spslam.io.structured_text import one_line, shown
from spslam.lens import lens
from spslam.notices import notice

from ..images.bayer import BayerPattern
from .checks import is_plausible_baseline, is_rigid, report_baseline, report_doubts
from .formats.registry import is_ours, kind_of, read_rig
from .formats.rig import Rig
from .formats.source import Source
from .mask_paths import MaskPaths
from .yaml_text import parse_yaml

_LOG = logging.getLogger(__name__)
CALIBRATION_NAME = "calibration.yaml"
# Kind of file of our own format, with its article.
OUR_KIND = "a calibration of spslam"
# Other usual names of calibration files beside a recording; a second file of a pair (right.yaml) is
# read with the first one.
_USUAL_NAMES = (
    *("calibration.yml", "calibration.json", "calibration.xml", "calibration.txt"),
    *("camera.yaml", "camera.yml", "camera.json", "camera.xml", "camera.txt"),
    *("calib.yaml", "calib.yml", "calib.json", "calib.txt", "calib_cam_to_cam.txt"),
    *("camera_info.yaml", "ost.yaml", "intrinsics.yaml", "intrinsics.yml", "intrinsics.json"),
    *("intrinsics.xml", "intrinsics.txt", "intrinsic.json", "camera_intrinsic.json"),
    *("transforms.json", "cameras.txt", "cameras.bin", "sensor.yaml"),
    *("left.yaml", "cam0.yaml", "stereo.yaml", "stereo.yml", "camchain.yaml"),
)
# Nominal frames per second, 1/s, where the file gives no fps.
_DEFAULT_FPS = 30.0
# Focal lengths and principal points below these values are fractions of the image's size, not
# pixels; such files are refused.
_RELATIVE_FOCAL, _RELATIVE_CENTRE = 5.0, 1.0
# Largest number of mistakes in one message.
_MOST_MISTAKES = 6


def _no_truth_value(value: Any) -> Any:
    # YAML reads yes, no, on and off as truth values, which would count as 1 and 0.
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


def _as_rows(value: Any) -> Any:
    """Convert three rows of four, or a flat list of 12 or 16 numbers, to four rows of four."""
    if not isinstance(value, list):
        return value
    if len(value) in (12, 16) and not any(isinstance(part, list) for part in value):
        value = [value[i : i + 4] for i in range(0, len(value), 4)]
    return (
        [*value, [0.0, 0.0, 0.0, 1.0]]
        if len(value) == 3 and all(_has_four(row) for row in value)
        else value
    )


def _has_four(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 4


def _flat(value: Any) -> Any:
    """Unwrap a list in a list, as OpenCV writes the distortion."""
    return (
        value[0]
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list)
        else value
    )


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


_Number = Annotated[float, BeforeValidator(_no_truth_value)]
_Finite = Annotated[_Number, Field(allow_inf_nan=False)]
_Positive = Annotated[_Number, Field(gt=0, allow_inf_nan=False)]
_Pixels = Annotated[int, BeforeValidator(_no_truth_value), Field(gt=0, le=LARGEST_PX)]
_Row = Annotated[list[_Finite], Field(min_length=4, max_length=4)]
_Rows = Annotated[list[_Row], BeforeValidator(_as_rows), Field(min_length=4, max_length=4)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Distortion(_Strict):
    model: str | None = Field(
        None,
        description="lens model: radtan, equidistant, double_sphere, eucm, ucm, omni, fov, none, "
        "or another name for one of these",
    )
    coefficients: Annotated[list[_Finite], BeforeValidator(_flat)] = Field(
        default=[], description="its coefficients, in the order of docs/camera.md"
    )


class _CameraEntry(_Strict):
    width: _Pixels = Field(description="pixels")
    height: _Pixels = Field(description="pixels")
    fx: _Finite = Field(description="pixels")
    fy: _Finite = Field(description="pixels")
    cx: _Finite = Field(description="pixels, centre of the first pixel = 0")
    cy: _Finite = Field(description="pixels, centre of the first pixel = 0")
    fps: _Positive | None = Field(
        None, description="1/s; where files are numbered, the rate of their numbers"
    )
    readout_s: _Number = Field(
        0.0, description="rolling shutter: seconds from the first row to the last"
    )
    distortion: _Distortion = Field(default_factory=_Distortion, description="lens distortion")
    mask: str | None = Field(
        None, description="mask image, or folder of masks, whose white pixels are used"
    )

    def camera(self) -> Camera:
        if (
            0 < max(self.fx, self.fy) < _RELATIVE_FOCAL
            and 0 < max(self.cx, self.cy) < _RELATIVE_CENTRE
        ):
            raise CalibrationError(
                f"fx {self.fx:g} and cx {self.cx:g} are fractions of the image's size, "
                f"expected pixels: fx: {self.fx * self.width:.6g}, "
                f"fy: {self.fy * self.height:.6g}, cx: {self.cx * self.width - 0.5:.6g}, "
                f"cy: {self.cy * self.height - 0.5:.6g}"
            )
        model, coefficients = lens(self.distortion.model, tuple(self.distortion.coefficients))
        return Camera(
            width=self.width,
            height=self.height,
            fx=self.fx,
            fy=self.fy,
            cx=self.cx,
            cy=self.cy,
            distortion_model=model,
            distortion=coefficients,
            fps=self.fps if self.fps is not None else _DEFAULT_FPS,
            readout_s=self.readout_s,
        )


class _CalibrationFile(_CameraEntry):
    right: _CameraEntry | None = Field(None, description="the right camera of a stereo pair")
    T_left_right: _Rows | None = Field(
        None, description="right-camera coordinates to left ones, metres"
    )
    depth_scale: Annotated[_Number, Field(ge=1e-3, le=1e9)] | None = Field(
        None, description="units of depth images per metre; without it, floats are metres"
    )
    bayer: Annotated[BayerPattern, BeforeValidator(_upper)] | None = Field(
        None, description="pattern of grey images that are mosaics of a colour sensor"
    )

    @model_validator(mode="after")
    def _stereo_is_complete(self) -> _CalibrationFile:
        if (self.right is None) != (self.T_left_right is None):
            raise ValueError("right and T_left_right belong together, found only one of them")
        if self.T_left_right is not None and not is_rigid(np.array(self.T_left_right)):
            raise ValueError(
                "T_left_right must be a rotation and a translation over a last row 0 0 0 1"
            )
        return self


@dataclass(frozen=True, eq=False)
class Calibration:
    """The contents of a calibration file.

    Attributes:
        path: the file.
        camera: the only or left camera, unrectified: with distortion, without baseline.
        fps: rate, 1/s; None if the file does not give it.
        right: the right camera, or None.
        T_left_right: (4, 4) float64, maps right-camera to left-camera coordinates, metres; None
            without `right`.
        depth_scale: units of depth images per metre; None if the file does not give them.
        bayer: pattern of grey images that are mosaics of a colour sensor; None: they are grey.
        kind: kind of file, with its article.
        masks: the masks that the file names; None: none.
    """

    path: Path
    camera: Camera
    fps: float | None = None
    right: Camera | None = None
    T_left_right: NDArray[np.float64] | None = None
    depth_scale: float | None = None
    bayer: BayerPattern | None = None
    kind: str = OUR_KIND
    masks: MaskPaths | None = None


def load_calibration(
    path: str | Path,
    image_size: Callable[[], tuple[int, int]] | None = None,
    unit_m: float | None = None,
) -> Calibration:
    """Read and check a calibration file of spslam or of another program, by its content.

    Args:
        path: the file.
        image_size: returns width and height of the images, pixels, for formats without them; None:
            such files are refused.
        unit_m: length of the unit of translations in a file of another program, metres; None:
            metres.

    Raises:
        CalibrationError: the file is missing, is no calibration, has an unknown or missing key or
            an impossible value; the message names the key with its path.
    """
    path = Path(path)
    source = Source.open(path)
    try:
        rig = read_rig(source)
        if rig is None:
            entry = _validated(parse_yaml(source.text))
            fps, depth_scale, bayer = entry.fps, entry.depth_scale, entry.bayer
            masks = _masks(entry, path.parent)
            camera = entry.camera()
            right = _right_camera(entry)
            T = None if entry.T_left_right is None else np.array(entry.T_left_right)
        else:
            rig = _in_metres(_sized(rig, image_size), unit_m)
            fps, depth_scale, bayer = rig.cameras[0].fps, rig.depth_scale, None
            masks = None
            camera, right = _cameras(rig)
            T = rig.T_left_right
    except CalibrationError as error:
        text = str(error)
        # The text's own faults name the file already.
        named = text if text.startswith(f"calibration {path}") else f"calibration {path}: {text}"
        raise CalibrationError(named) from None
    if rig is not None:
        notice(_LOG, "calibration_format", "calibration %s: %s", path, rig.describe(path.name))
    # Report doubts about one camera only: both cameras of a pair usually have the same fault.
    if not report_doubts(camera, f"calibration {path}") and right is not None:
        report_doubts(right, f"calibration {path}, right")
    T_left_right = None if T is None else orthonormalize(T)
    if T_left_right is not None:
        report_baseline(
            float(np.linalg.norm(T_left_right[:3, 3])), f"calibration {path}, T_left_right"
        )
    return Calibration(
        path,
        camera,
        fps,
        right,
        T_left_right,
        depth_scale,
        bayer=bayer,
        kind=OUR_KIND if rig is None else rig.kind,
        masks=masks,
    )


def find_calibration(
    given: str | Path | None,
    folders: list[Path],
    needed_for: str,
    image_size: Callable[[], tuple[int, int]] | None = None,
) -> Calibration:
    """Load the calibration `given`, else the one in the first of `folders` with one.

    That is `calibration.yaml`, else the only file with a usual name of another program.

    Args:
        given: a calibration file, or None.
        folders: folders to search, at least one.
        needed_for: the recording, for the message.
        image_size: see `load_calibration`.

    Raises:
        MissingCalibrationError: there is no calibration.
        CalibrationError: it cannot be used.
    """
    path = Path(given) if given is not None else search_calibration(folders)
    if path is None:
        raise MissingCalibrationError(
            f"{needed_for} needs a calibration: give --calibration FILE or put {CALIBRATION_NAME} "
            f"(width height fx fy cx cy fps) into {folders[0]}; none was found there"
        )
    return load_calibration(path, image_size)


def search_calibration(folders: list[Path]) -> Path | None:
    """Return the calibration file in the first of `folders` with one; None if none has.

    Raises:
        CalibrationError: a folder has several calibrations of other programs.
    """
    for folder in folders:
        if (folder / CALIBRATION_NAME).is_file():
            return folder / CALIBRATION_NAME
    for folder in dict.fromkeys(folders):
        names = [folder / name for name in _USUAL_NAMES]
        found = [path for path in [*names, *_camchains(folder)] if _is_calibration(path)]
        if len(found) > 1:
            raise CalibrationError(
                f"{folder} holds several calibrations "
                f"({', '.join(path.name for path in found)}): choose one by --calibration FILE"
            )
        if found:
            notice(_LOG, "calibration_found", "using the calibration %s", found[0])
            return found[0]
    return None


def _camchains(folder: Path) -> list[Path]:
    # Kalibr names its results after the bag.
    try:
        return sorted(
            path for path in folder.glob("*camchain*.yaml") if path.name not in _USUAL_NAMES
        )
    except OSError:
        return []


def _is_calibration(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        source = Source.open(path)
        return is_ours(source) or kind_of(source) is not None
    except CalibrationError:
        return False


def _sized(rig: Rig, image_size: Callable[[], tuple[int, int]] | None) -> Rig:
    """Return the rig with the size of the images where the file does not give it."""
    if all(camera.size is not None for camera in rig.cameras):
        return rig
    if image_size is None:
        raise CalibrationError(
            f"this is {rig.kind}, which does not give the size of the images: "
            "add it by `spslam calibration convert FILE --size WIDTHxHEIGHT --out camera.yaml`"
        )
    size = image_size()
    sized = rig.with_size(size)
    remark = f"its size is taken as that of the images, {size[0]}x{size[1]}"
    return replace(sized, remarks=(*rig.remarks, remark))


def _in_metres(rig: Rig, unit_m: float | None) -> Rig:
    """Return the rig with its translation in metres.

    Raises:
        CalibrationError: the pose is not rigid, or metres are not plausible and no unit is given.
    """
    if rig.T_left_right is None:
        return rig
    T = rig.T_left_right.copy()
    T[:3, 3] *= 1.0 if unit_m is None else unit_m
    if not is_rigid(T):
        raise CalibrationError(
            f"this is {rig.kind}: the right camera's pose is no rotation and translation in metres"
        )
    if unit_m is not None:
        return replace(rig, T_left_right=T)
    baseline = float(np.linalg.norm(T[:3, 3]))
    if not rig.board_unit:
        return rig
    if not is_plausible_baseline(baseline):
        raise CalibrationError(
            f"this is {rig.kind}, whose T is in the unit of the board's squares: {baseline:.6g} m "
            "is no baseline; give the unit by `spslam calibration convert FILE --unit 0.001 "
            "--out camera.yaml` (millimetres)"
        )
    remark = f"T is taken as metres: a baseline of {baseline:.6g} m"
    return replace(rig, remarks=(*rig.remarks, remark))


def _cameras(rig: Rig) -> tuple[Camera, Camera | None]:
    """Return the cameras of a rig; a fault names the kind of file and the camera."""
    cameras = []
    for found in rig.cameras:
        try:
            cameras.append(found.camera(_DEFAULT_FPS))
        except CalibrationError as error:
            name = f"{found.name}: " if len(rig.cameras) > 1 and found.name else ""
            raise CalibrationError(f"this is {rig.kind}: {name}{error}") from None
    return cameras[0], cameras[1] if len(cameras) > 1 else None


def _validated(values: Any) -> _CalibrationFile:
    if not isinstance(values, dict):
        raise CalibrationError(f"expected keys (width height fx fy cx cy …), found {_kind(values)}")
    try:
        return _CalibrationFile.model_validate({str(key): value for key, value in values.items()})
    except ValidationError as error:
        raise CalibrationError(_describe(error)) from None
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        # Numbers too large for a float, and lists that contain themselves.
        raise CalibrationError(
            f"holds a value that no calibration has: {one_line(str(error))}"
        ) from None


def _right_camera(entry: _CalibrationFile) -> Camera | None:
    try:
        return entry.right.camera() if entry.right is not None else None
    except CalibrationError as error:
        raise CalibrationError(f"right: {error}") from None


def _masks(entry: _CalibrationFile, folder: Path) -> MaskPaths | None:
    """Return the masks that a calibration names, relative to its folder."""
    sides = (entry.mask, None if entry.right is None else entry.right.mask)
    left, right = (None if name is None else folder / name for name in sides)
    return None if left is None and right is None else MaskPaths(left, right)


def _describe(error: ValidationError) -> str:
    # A key with a wrong name is also missing under its right one: name unknown keys first.
    mistakes = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    parts = list(dict.fromkeys(_mistake(item) for item in mistakes))
    more = [f"and {len(parts) - _MOST_MISTAKES} more"] if len(parts) > _MOST_MISTAKES else []
    return "; ".join(parts[:_MOST_MISTAKES] + more)


def _mistake(item: Any) -> str:
    key, value, message = (
        ".".join(str(part) for part in item["loc"]),
        item["input"],
        str(item["msg"]),
    )
    message = message.removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        name = str(item["loc"][-1])
        meant = next(
            (ours for pattern, ours in _OTHER_NAMES if pattern.fullmatch(name.lower())), None
        )
        return f"unknown key {one_line(key)}" + (f" (write {meant})" if meant else "")
    if item["type"] == "missing":
        return f"missing key {key}"
    if not key:
        return message
    if item["loc"][0] == "T_left_right" and item["type"] in ("list_type", "too_short", "too_long"):
        return "T_left_right: expected 4 rows of 4 numbers"
    if key.endswith("distortion") and item["type"] in ("model_type", "dict_type"):
        message = "expected model: radtan or equidistant, and coefficients: [k1, …]"
    elif isinstance(value, list) and "number" in message:
        message = "expected one number; a camera matrix is [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]"
    elif isinstance(value, str):
        message = _text_hint(value) or message
    return f"{one_line(key)}: {message}, found {shown(value)}"


def _text_hint(value: str) -> str | None:
    """Return what is wrong with a text in place of a number; None if unknown."""
    text = value.strip()
    if re.fullmatch(r"[-+]?\d+,\d+", text):
        return f"a decimal comma: write {text.replace(',', '.')}"
    if re.fullmatch(r"[-+]?[\d.]+\s*(°|deg|degrees?)", text, re.IGNORECASE):
        return "expected pixels, not degrees: fx = width / 2 / tan(field of view / 2)"
    unit = re.fullmatch(r"([-+]?[\d.]+)\s*([a-zA-Zµ/]+)", text)
    if unit is not None:
        return f"expected a number without a unit: write {unit[1]} if this key is in {unit[2]}"
    return None


def _kind(value: Any) -> str:
    if value is None:
        return "an empty file"
    return "a list" if isinstance(value, list) else f"{type(value).__name__} {shown(value)}"


# Other names for the keys of this format (patterns of the whole name), and what to write instead.
_OTHER_NAMES = tuple(
    (re.compile(pattern), ours)
    for pattern, ours in (
        (r"(image_?)?w(idth)?|cols|columns|xres", "width"),
        (r"(image_?)?h(eight)?|rows|yres", "height"),
        (r"f|focal|focal_?length(_px)?|fl|flen|f_x|fl_x|alpha", "fx and fy, in pixels"),
        (r"ppx|u0|c_x|px|principal_?point(_x)?|center|centre", "cx and cy, in pixels"),
        (r"ppy|v0|c_y|py", "cy, in pixels"),
        (
            r"[hvd]?fov(_?[xyhvd])?(_?deg(rees)?)?|field_?of_?view|angle(_of_view)?",
            "fx = width / 2 / tan(fov / 2), in pixels",
        ),
        (r"k|camera_?matrix|intrinsics?(_matrix)?|mtx", "fx, fy, cx and cy"),
        (
            r"k[1-6]|p[12]|d|dist(_?coeff?s?)?"
            r"|distortion_?(coeff?s|coefficients|model|type)|dist_coeff",
            "distortion: {model: radtan, coefficients: [k1, k2, p1, p2]}",
        ),
        (
            r"baseline(_m)?|b|bf|r|t|rotation|translation|extrinsics?|t_right_left|t_rl|t_lr",
            "T_left_right, 4 rows of 4 numbers",
        ),
        (
            r"depth_?(map_?)?factor|depth_?unit(s)?|png_depth_scale|scale",
            "depth_scale, units per metre",
        ),
        (r"rate(_hz)?|frame_?rate|hz|freq(uency)?", "fps"),
        (
            r"rolling_?shutter.*|read_?out.*|line_?delay.*",
            "readout_s, seconds from the first row to the last",
        ),
    )
)
