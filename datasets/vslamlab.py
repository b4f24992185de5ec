"""Read sequences in the layout of VSLAM-LAB: `rgb.csv` and `calibration.yaml`.

Read in VSLAM-LAB 2.1 (https://github.com/VSLAM-LAB/VSLAM-LAB, September 2026). Its older form, with
seconds, `T_SC` and names such as `rgb0`, is read, too.
"""

from __future__ import annotations

import csv
import io
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import CalibrationError, DatasetError
from spslam.geometry import inverse, orthonormalize
from spslam.interfaces import LeftOut
from spslam.io.given_files import read_given
from spslam.lens import lens
from spslam.notices import notice
from spslam.timestamps import TimeUnit

from .base import FileSequence, FrameFiles, check_image_size
from .calibration.checks import is_rigid, report_baseline, report_doubts
from .calibration.rectify import StereoRectifier, rectified_camera
from .calibration.yaml_text import parse_yaml, read_text
from .images.depth_files import DepthUnits
from .timestamps import Timing, nominal_fps, order_frames, read_stamps

_LOG = logging.getLogger(__name__)

MODES = ("mono", "stereo", "rgbd")
# Name of the data set in results and configurations.
DATASET = "vslamlab"
# Distortion types of VSLAM-LAB, the number of their coefficients, and the names of spslam.
_LENSES = {"radtan4": (4, "radtan"), "radtan5": (5, "radtan"), "equid4": (4, "equidistant")}
# Heading of a column of time stamps: ts_CAMERA (UNIT).
_STAMP_HEADING = re.compile(r"ts_(?P<camera>\w+) \((?P<unit>s|ms|us|ns)\)")
# Cells that pandas writes for a missing value.
_MISSING = ("", "nan", "NaN", "None")


@dataclass(frozen=True, eq=False)
class _CameraEntry:
    """A camera of the calibration, with its pose in the body and its depth images.

    Attributes:
        camera: the camera.
        T_body_cam: (4, 4) float64, metres.
        depth_name: name of its depth images in the list; None without depth.
        depth_factor: units of the depth images per metre; None without depth.
    """

    camera: Camera
    T_body_cam: NDArray[np.float64]
    depth_name: str | None
    depth_factor: float | None


@dataclass(frozen=True, eq=False)
class StampedSequence:
    """A sequence, and the time stamps of its frames as the list writes them.

    Attributes:
        frames: the sequence.
        stamps: text of each frame's stamp.
        unit: their unit.
    """

    frames: FileSequence
    stamps: tuple[str, ...]
    unit: TimeUnit


def open_vslamlab(
    sequence_path: Path, calibration_yaml: Path, rgb_csv: Path, mode: str, cameras: tuple[str, ...]
) -> StampedSequence:
    """Open a sequence of VSLAM-LAB.

    Args:
        sequence_path: folder that the paths in the list are relative to.
        calibration_yaml: calibration of the cameras.
        rgb_csv: list of the images: a heading, then a row for each frame.
        mode: one of `MODES`.
        cameras: names of the cameras: the left and the right one for stereo, else one.

    Raises:
        DatasetError: files are missing or hold something else than expected.
    """
    entries = [_read_camera(calibration_yaml, name) for name in cameras]
    paths = {name: f"path_{name}" for name in cameras}
    if mode == "rgbd":
        if entries[0].depth_name is None:
            raise CalibrationError(
                f"{calibration_yaml}: camera {cameras[0]} has no depth_name and depth_factor: "
                "the sequence has no depth images, use --mode mono"
            )
        paths["depth"] = f"path_{entries[0].depth_name}"
    table = _read_list(rgb_csv, cameras[0], tuple(paths.values()))
    files, stamps = _frame_files(sequence_path, rgb_csv, table, entries[0], mode)
    camera, rectifier = entries[0].camera, None
    check_image_size(files.images, camera, f"calibration {calibration_yaml}")
    if mode == "stereo":
        camera, rectifier = _stereo(calibration_yaml, *entries)
    camera = replace(camera, fps=nominal_fps(files.timestamps, camera.fps))
    frames = FileSequence(
        f"{DATASET} {sequence_path.name}",
        files,
        camera,
        str(sequence_path),
        rectifier=rectifier,
        dataset=DATASET,
    )
    return StampedSequence(frames, stamps, table.unit)


@dataclass(frozen=True, eq=False)
class _Table:
    """Columns of the list.

    Attributes:
        stamps: text of the stamps.
        unit: their unit.
        paths: text of the columns of paths, by heading.
    """

    stamps: list[str]
    unit: TimeUnit
    paths: dict[str, list[str]]


def _read_list(path: Path, camera: str, columns: tuple[str, ...]) -> _Table:
    """Read the time stamps of a camera, and columns of paths.

    Rows without one of them are left out, and a notice counts them.
    """
    try:
        text = read_given(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(
            f"expected a list of images at {path}: cannot be read ({reason})"
        ) from None
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text)) if row]
    heading = rows[0] if rows else []
    found = [_STAMP_HEADING.fullmatch(name) for name in heading]
    at = next((i for i, name in enumerate(found) if name and name["camera"] == camera), None)
    missing = [name for name in columns if name not in heading]
    if at is None or missing:
        wanted = [f"ts_{camera} (ns)"] if at is None else missing
        raise DatasetError(
            f"{path}: expected a column {wanted[0]!r}, found {', '.join(heading) or 'no heading'}"
        )
    places = {name: heading.index(name) for name in columns}
    full = [row for row in rows[1:] if _is_full(row, (at, *places.values()))]
    if not full:
        raise DatasetError(f"{path} lists no images of {', '.join(columns)}")
    if left_out := len(rows) - 1 - len(full):
        text = "%s: %d of %d rows lack a time stamp or an image and are left out"
        notice(_LOG, "unpaired_images", text, path, left_out, len(rows) - 1, count=left_out)
    unit = found[at]
    assert unit is not None
    return _Table(
        [row[at] for row in full],
        cast(TimeUnit, unit["unit"]),
        {name: [row[place] for row in full] for name, place in places.items()},
    )


def _is_full(row: list[str], places: tuple[int, ...]) -> bool:
    return all(place < len(row) and row[place] not in _MISSING for place in places)


def _frame_files(
    folder: Path, path: Path, table: _Table, entry: _CameraEntry, mode: str
) -> tuple[FrameFiles, tuple[str, ...]]:
    """Put the rows in the order of time; returns the files and the text of their stamps."""
    try:
        numbers = np.array([float(stamp) for stamp in table.stamps])
    except ValueError as error:
        raise DatasetError(f"{path}: expected numbers as time stamps: {error}") from None
    if not np.isfinite(numbers).all():
        raise DatasetError(f"{path}: expected finite time stamps")
    seconds, unit = read_stamps(numbers, table.unit, str(path), Timing(), entry.camera.fps)
    order, left_out = order_frames(seconds, str(path))
    columns = [[folder / name for name in names] for names in table.paths.values()]
    columns = [[column[row] for row in order] for column in columns]
    files = FrameFiles(
        seconds[order],
        columns[0],
        right=columns[1] if mode == "stereo" else None,
        depth=columns[1] if mode == "rgbd" else None,
        depth_units=_depth_units(entry),
        time_unit=unit,
        left_out=cast(tuple[LeftOut, ...], tuple(left_out)),
    )
    return files, tuple(table.stamps[row] for row in order)


def _depth_units(entry: _CameraEntry) -> DepthUnits:
    factor = 1.0 if entry.depth_factor is None else entry.depth_factor
    return DepthUnits(factor, factor)


def _stereo(
    path: Path, left: _CameraEntry, right: _CameraEntry
) -> tuple[Camera, StereoRectifier | None]:
    """Return the rectified left camera, and the rectifier if the pair is not rectified."""
    T_left_right = inverse(left.T_body_cam) @ right.T_body_cam
    report_baseline(float(np.linalg.norm(T_left_right[:3, 3])), f"{path}, T_BS of the two cameras")
    try:
        camera = rectified_camera(left.camera, right.camera, T_left_right)
        if camera is not None:
            return camera, None
        rectifier = StereoRectifier(left.camera, right.camera, T_left_right)
    except CalibrationError as error:
        raise CalibrationError(f"{path}: the cameras are no stereo pair: {error}") from None
    return rectifier.camera, rectifier


def _read_camera(path: Path, name: str) -> _CameraEntry:
    """Read the camera of a name from the calibration."""
    if not path.is_file():
        raise CalibrationError(f"expected VSLAM-LAB's calibration at {path}: no such file")
    try:
        values = parse_yaml(read_text(path))
        cameras = values.get("cameras") if isinstance(values, dict) else None
        if not isinstance(cameras, list) or not all(isinstance(one, dict) for one in cameras):
            raise CalibrationError("expected a list of cameras under the key cameras")
        names = [str(one.get("cam_name")) for one in cameras]
        if name not in names:
            raise CalibrationError(f"expected a camera {name}, found {', '.join(names)}")
        entry = _entry(cameras[names.index(name)])
    except CalibrationError as error:
        raise CalibrationError(f"calibration {path}: {error}") from None
    report_doubts(entry.camera, f"calibration {path}, {name}")
    return entry


def _entry(values: dict[str, Any]) -> _CameraEntry:
    """Convert a camera of the calibration; raises CalibrationError."""
    model = values.get("cam_model", "pinhole")
    if model != "pinhole":
        raise CalibrationError(
            f"cam_model {model!r} has no calibration that spslam reads: expected pinhole"
        )
    width, height = _numbers(values, "image_dimension", 2)
    fx, fy = _numbers(values, "focal_length", 2)
    cx, cy = _numbers(values, "principal_point", 2)
    kind = values.get("distortion_type")
    coefficients: tuple[float, ...] = ()
    if kind is not None:
        if kind not in _LENSES:
            raise CalibrationError(
                f"distortion_type must be one of {', '.join(_LENSES)}, found {kind!r}"
            )
        count, kind = _LENSES[kind]
        coefficients = _numbers(values, "distortion_coefficients", count)
    ours, coefficients = lens(kind, coefficients)
    (fps,) = _numbers({"fps": [values.get("fps", 30.0)]}, "fps", 1)
    camera = Camera(int(width), int(height), fx, fy, cx, cy, ours, coefficients, fps=fps)
    pose = "T_BS" if "T_BS" in values else "T_SC"
    T = np.reshape(_numbers({pose: values.get(pose, np.eye(4).ravel().tolist())}, pose, 16), (4, 4))
    if not is_rigid(T):
        raise CalibrationError(f"{pose} is no rotation with a translation over 0 0 0 1")
    depth_name = values.get("depth_name")
    factor = None
    if depth_name is not None:
        (factor,) = _numbers({"depth_factor": [values.get("depth_factor")]}, "depth_factor", 1)
        if factor <= 0:
            raise CalibrationError(f"depth_factor must be positive, found {factor:g}")
    return _CameraEntry(
        camera, orthonormalize(T), None if depth_name is None else str(depth_name), factor
    )


def _numbers(values: dict[str, Any], key: str, count: int) -> tuple[float, ...]:
    found = values.get(key)
    try:
        numbers = tuple(float(value) for value in found) if isinstance(found, list) else ()
    except (TypeError, ValueError, OverflowError):
        numbers = ()
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise CalibrationError(f"{key}: expected {count} numbers, found {str(found)[:60]}")
    return numbers
