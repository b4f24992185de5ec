"""The table of a data set: where its images, depth, stamps, poses and intrinsics are.

A table is a YAML file; `docs/datasets.md` has an example. Paths are relative to the folder of one
sequence. A path may be a list: the first one that exists is used.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from spslam.camera import LARGEST_PX
from spslam.errors import CalibrationError, DatasetError
from spslam.io.given_files import read_given
from spslam.io.structured_text import StructureError, one_line, parse_yaml, shown

from ..calibration.checks import is_rigid
from ..paths import reason

# Largest size of a table, bytes.
_LONGEST_BYTES = 200_000
# Largest number of mistakes in one message.
_MOST_MISTAKES = 4
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
# Directions of axes, in the camera's axes: x right, y down, z forward.
DIRECTIONS = {
    "right": (1.0, 0.0, 0.0),
    "left": (-1.0, 0.0, 0.0),
    "down": (0.0, 1.0, 0.0),
    "up": (0.0, -1.0, 0.0),
    "forward": (0.0, 0.0, 1.0),
    "backward": (0.0, 0.0, -1.0),
}
# Names of the numbers of a camera file.
CAMERA_NUMBERS = ("width", "height", "fx", "fy", "cx", "cy", "fps", "depth_scale")
# Words for the columns of a pose file.
_POSITION, _QUATERNION = ("tx", "ty", "tz"), ("qx", "qy", "qz", "qw")

Direction = Literal["right", "left", "down", "up", "forward", "backward"]
Column = Literal["stamp", "tx", "ty", "tz", "qx", "qy", "qz", "qw", "matrix", "skip"]


def _no_truth_value(value: Any) -> Any:
    # YAML reads yes, no, on and off as truth values, which would count as 1 and 0.
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _words(value: Any) -> Any:
    """Split a text into words, so that columns may be written on one line."""
    return value.split() if isinstance(value, str) else value


def _with_one_star(patterns: list[str]) -> list[str]:
    for pattern in patterns:
        folder, _, name = pattern.rpartition("/")
        if name.count("*") != 1 or "*" in folder:
            raise ValueError(
                f"expected one * in the name of {pattern!r}, in place of the frame's number"
            )
    return patterns


def _is_expression(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"no regular expression ({error})") from None
    return value


_Finite = Annotated[float, BeforeValidator(_no_truth_value), Field(allow_inf_nan=False)]
_Positive = Annotated[float, BeforeValidator(_no_truth_value), Field(gt=0, allow_inf_nan=False)]
_Pixels = Annotated[int, BeforeValidator(_no_truth_value), Field(gt=0, le=LARGEST_PX)]
_Paths = Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1)]
_Patterns = Annotated[_Paths, AfterValidator(_with_one_star)]
_Row = Annotated[list[_Finite], Field(min_length=4, max_length=4)]
_Expression = Annotated[str, AfterValidator(_is_expression)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Recognition(_Strict):
    """What shows that a folder is a sequence of the data set; all of it must hold."""

    has: _Paths = Field(
        description="files and folders that must exist; * for any letters, a|b for either"
    )
    has_not: Annotated[list[str], BeforeValidator(_as_list)] = Field(
        default=[], description="files and folders that must not exist"
    )
    folder: _Expression | None = Field(
        None, description="regular expression, part of the folder's name, any case"
    )


class Files(_Strict):
    """Image files: by their names or by a list."""

    files: _Patterns | None = Field(
        None, description="path with one * in the name, which stands for the number or stamp"
    )
    listed_in: _Paths | None = Field(
        None, description="text file with a stamp or number and a path on each line"
    )
    stamp_column: Annotated[int, Field(ge=1)] = Field(
        1, description="listed_in: column of the stamp, the first is 1"
    )
    path_column: Annotated[int, Field(ge=1)] = Field(
        2, description="listed_in: column of the path, the first is 1"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Files:
        if (self.files is None) == (self.listed_in is None):
            raise ValueError("give either files or listed_in")
        return self


class CameraSource(_Strict):
    """Intrinsics: numbers of the table, or a file of the sequence that replaces them."""

    width: _Pixels | None = Field(None, description="pixels; without it that of the images")
    height: _Pixels | None = Field(None, description="pixels; without it that of the images")
    fx: _Positive | None = Field(None, description="pixels")
    fy: _Positive | None = Field(None, description="pixels")
    cx: _Finite | None = Field(None, description="pixels, centre of the first pixel = 0")
    cy: _Finite | None = Field(None, description="pixels, centre of the first pixel = 0")
    distortion_model: str | None = Field(None, description="lens model: radtan, equidistant, none")
    distortion: list[_Finite] = Field(default=[], description="coefficients, in OpenCV's order")
    readout_s: _Finite = Field(
        0.0, description="rolling shutter: seconds from the first row to the last"
    )
    doubt: str | None = Field(
        None, description="sentence that a run prints where it uses the numbers of this table"
    )
    file: Annotated[list[str], BeforeValidator(_as_list)] = Field(
        default=[], description="file of the sequence that holds the intrinsics"
    )
    numbers: Annotated[list[str], BeforeValidator(_words)] = Field(
        default=[],
        description="file of numbers: what each number is, in order "
        f"({', '.join(CAMERA_NUMBERS)}, skip)",
    )
    keys: dict[str, str] = Field(
        default={},
        description="YAML or JSON file: where each value is, as key.key.index "
        f"({', '.join(CAMERA_NUMBERS)}, distortion)",
    )

    @model_validator(mode="after")
    def _complete(self) -> CameraSource:
        if bool(self.file) != bool(self.numbers or self.keys) or (self.numbers and self.keys):
            raise ValueError("file needs either numbers or keys")
        names = [name for name in self.numbers if name != "skip"] + list(self.keys)
        unknown = set(names) - {*CAMERA_NUMBERS, "distortion"}
        if unknown:
            raise ValueError(f"expected {', '.join(CAMERA_NUMBERS)}, found {min(unknown)!r}")
        lacking = [
            name
            for name in ("fx", "fy", "cx", "cy")
            if getattr(self, name) is None and name not in names
        ]
        if lacking:
            raise ValueError(f"{lacking[0]} is neither given nor in the file")
        return self


class RigidSource(_Strict):
    """A rotation and translation: rows of the table, or a file of the sequence."""

    rows: Annotated[list[_Row], Field(min_length=4, max_length=4)] | None = Field(
        None, description="4 rows of 4 numbers, metres"
    )
    file: str | None = Field(
        None, description="file of 12 or 16 numbers row by row, or of named frames"
    )
    from_frame: str | None = Field(
        None, description="YAML file of parent_frame, child_frame, matrix: the frame mapped from"
    )
    to_frame: str | None = Field(
        None, description="YAML file of parent_frame, child_frame, matrix: the frame mapped to"
    )
    inverse: bool = Field(False, description="whether the inverse is meant")

    @model_validator(mode="after")
    def _one_source(self) -> RigidSource:
        if (self.rows is None) == (self.file is None):
            raise ValueError("give either rows or file")
        if (self.from_frame is None) != (self.to_frame is None):
            raise ValueError("from_frame and to_frame belong together")
        if self.rows is not None and not is_rigid(np.array(self.rows)):
            raise ValueError("expected a rotation and a translation over a last row 0 0 0 1")
        return self


class Depth(Files):
    """Depth images, one to an image."""

    encoding: Literal["numbers", "packed_floats", "text"] = Field(
        "numbers",
        description="numbers: PNG, TIFF or NPY of integers or floats; packed_floats: PNG of four "
        "8-bit channels, the bytes of 32-bit floats; text: numbers row by row",
    )
    units_per_metre: _Positive | None = Field(
        None,
        description="units per metre of integers (default 1000), or of packed_floats and text "
        "(default 1)",
    )
    measured_along: Literal["axis", "ray"] = Field(
        "axis", description="axis: depth along z; ray: distance from the camera's centre"
    )
    no_measurement: list[_Finite] = Field(
        default=[],
        description="values besides 0, NaN, infinity and the type's largest that mean none",
    )
    farthest_m: _Positive | None = Field(
        None, description="metres from which on depth is no measurement, such as a painted sky"
    )
    registered: bool = Field(
        True, description="whether depth is of the colour camera, pixel by pixel"
    )
    camera: CameraSource | None = Field(
        None, description="intrinsics of depth of another size, in the place of the colour camera"
    )


class Right(Files):
    """Right images of a stereo pair; the pair is rectified, or has a camera of its own."""

    baseline_m: _Positive | None = Field(
        None, description="metres between the cameras of a rectified pair"
    )
    camera: CameraSource | None = Field(None, description="right camera of a raw pair")
    T_left_right: RigidSource | None = Field(
        None, description="right-camera coordinates to left ones of a raw pair"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Right:
        if (self.camera is None) != (self.T_left_right is None):
            raise ValueError("camera and T_left_right belong together")
        if (self.baseline_m is None) == (self.camera is None):
            raise ValueError("give either baseline_m, or camera and T_left_right")
        return self


class Stamps(_Strict):
    """Meaning of the stamps or numbers of images."""

    unit: Literal["s", "ms", "us", "ns", "frames"] = Field(
        description="unit of the stamps; frames: they count images"
    )
    fps: _Positive = Field(description="1/s, nominal rate of the images; of counted ones, of count")


class Poses(_Strict):
    """The ground truth: one file of rows, or one file for each frame."""

    file: _Paths | None = Field(None, description="file with a pose on each line; may have a *")
    files: _Patterns | None = Field(
        None, description="one file a frame, with one * in place of the frame's number"
    )
    columns: Annotated[list[Column], BeforeValidator(_words)] = Field(
        description="what the columns are: stamp, tx ty tz, qx qy qz qw, skip; matrix: the "
        "rest, 12 or 16 numbers row by row"
    )
    add_to_numbers: int = Field(
        0,
        description="added to a pose's stamp or row (the first row is 0) to get the number of "
        "its image",
    )
    maps: Literal["camera_to_world", "world_to_camera"] = Field(
        "camera_to_world", description="direction of the poses"
    )
    metres_per_unit: _Positive = Field(1.0, description="metres per unit of length")
    axes: Annotated[list[Direction], BeforeValidator(_words)] = Field(
        default=["right", "down", "forward"],
        min_length=3,
        max_length=3,
        description="directions of x, y and z of the frame of the poses, as the camera sees them",
    )
    T_pose_camera: RigidSource | None = Field(
        None,
        description="camera coordinates to those of the frame of the poses; with axes: in the "
        "camera's axes",
    )
    of: str = Field("colour camera", description="the camera, in words")

    @model_validator(mode="after")
    def _consistent(self) -> Poses:
        if (self.file is None) == (self.files is None):
            raise ValueError("give either file or files")
        named = set(self.columns)
        quaternions = named >= {*_POSITION, *_QUATERNION} and "matrix" not in named
        matrices = "matrix" in named and not named & {*_POSITION, *_QUATERNION}
        if not (quaternions or matrices) or len([c for c in self.columns if c != "skip"]) != len(
            named - {"skip"}
        ):
            raise ValueError("columns: expected tx ty tz qx qy qz qw in any order, or matrix")
        if matrices and self.columns[-1] != "matrix":
            raise ValueError("columns: matrix must come last")
        if abs(np.linalg.det([DIRECTIONS[axis] for axis in self.axes])) < 0.5:
            raise ValueError("axes: expected three directions at right angles")
        return self


class Layout(_Strict):
    """The table of a data set."""

    name: str = Field(description="name for --dataset: small letters, digits, . _ -")
    title: str = Field(description="the data set in a few words")
    page: str | None = Field(None, description="where it is published")
    recognise: Recognition = Field(description="what shows that a folder is a sequence of it")
    images: Files = Field(description="the (left) images")
    right: Right | None = Field(None, description="right images")
    depth: Depth | None = Field(None, description="depth images")
    stamps: Stamps = Field(description="meaning of the stamps or numbers")
    camera: CameraSource = Field(description="the (left) camera")
    poses: Poses | None = Field(None, description="the ground truth")
    notes: list[str] = Field(
        default=[], description="sentences that each run prints, about what is doubtful"
    )

    @model_validator(mode="after")
    def _has_name(self) -> Layout:
        if _NAME.fullmatch(self.name) is None:
            raise ValueError(f"name: expected small letters, digits, . _ -, found {self.name!r}")
        return self


def load_layout(path: Path) -> Layout:
    """Read and check the table of a data set.

    Raises:
        DatasetError: the file cannot be read, is no YAML, or has an unknown, missing or wrong key;
            the message names it.
    """
    try:
        text = read_given(path, _LONGEST_BYTES).decode("utf-8-sig")
        values = parse_yaml(text)
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"layout {path} cannot be read: {reason(error)}") from None
    except StructureError as error:
        raise DatasetError(f"layout {path} {error}") from None
    if not isinstance(values, dict):
        raise DatasetError(f"layout {path}: expected keys (name, images, …), found {shown(values)}")
    try:
        return Layout.model_validate({str(key): value for key, value in values.items()})
    except ValidationError as error:
        raise DatasetError(f"layout {path}: {_describe(error)}") from None
    except (CalibrationError, ValueError, TypeError, ArithmeticError) as error:
        raise DatasetError(f"layout {path}: {one_line(str(error))}") from None


def _describe(error: ValidationError) -> str:
    parts = list(dict.fromkeys(_mistake(item) for item in error.errors()))
    more = [f"and {len(parts) - _MOST_MISTAKES} more"] if len(parts) > _MOST_MISTAKES else []
    return "; ".join(parts[:_MOST_MISTAKES] + more)


def _mistake(item: Any) -> str:
    key = one_line(".".join(str(part) for part in item["loc"]))
    if item["type"] == "extra_forbidden":
        return f"unknown key {key}"
    if item["type"] == "missing":
        return f"missing key {key}"
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key}: {message}, found {shown(item['input'])}"
