"""The files of VSLAM-LAB: calibration, list of images, settings, and the trajectory it evaluates.

Read in VSLAM-LAB 2.1 (https://github.com/VSLAM-LAB/VSLAM-LAB, September 2026). Its older form, with
seconds, `T_SC` and names such as `rgb0`, is read, too.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.datasets.base import FileSequence, FrameFiles, check_image_size
from spslam.datasets.calibration.checks import is_rigid, report_baseline, report_doubts
from spslam.datasets.calibration.rectify import StereoRectifier, rectified_camera
from spslam.datasets.calibration.yaml_text import parse_yaml, read_text
from spslam.datasets.images.depth_files import DepthUnits
from spslam.datasets.timestamps import Timing, nominal_fps, order_frames, read_stamps
from spslam.errors import CalibrationError, ConfigError, DatasetError
from spslam.geometry import inverse, orthonormalize
from spslam.interfaces import LeftOut
from spslam.io.files import write_atomic
from spslam.io.given_files import read_given
from spslam.lens import lens
from spslam.notices import notice
from spslam.timestamps import TimeUnit

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
# Headings of the trajectory by the unit of the stamps.
_HEADINGS = {
    "ns": "ts (ns),tx (m),ty (m),tz (m),qx,qy,qz,qw",
    "s": "timestamp,tx,ty,tz,qx,qy,qz,qw",
}
# Values of the key `trajectory` in the settings.
_TRAJECTORIES = ("frames", "keyframes")


@dataclass(frozen=True)
class Settings:
    """The content of the settings file; every key may be missing.

    Attributes:
        cam_mono, cam_rgbd: name of the camera.
        cam_stereo: names of the left and the right camera.
        config: built-in configuration or YAML file.
        weights: weights of SuperPoint; None: those of the configuration.
        set: changes of the configuration, key: value.
        trajectory: `frames` or `keyframes`: which poses VSLAM-LAB gets.
        outputs: further results of `spslam run` to write, separated by commas.
    """

    cam_mono: str = "rgb_0"
    cam_rgbd: str = "rgb_0"
    cam_stereo: tuple[str, str] = ("rgb_0", "rgb_1")
    config: str = "default"
    weights: str | None = None
    set: tuple[str, ...] = ()
    trajectory: str = "frames"
    outputs: str = "trajectory"


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


def read_settings(path: Path | None) -> Settings:
    """Read the settings; the defaults without a file.

    Raises:
        ConfigError: the file is no YAML, or has an unknown key or a value of another type.
    """
    if path is None or not path.is_file():
        if path is not None:
            notice(_LOG, "no_settings", "%s: there is no such file; the defaults are used", path)
        return Settings()
    try:
        values = parse_yaml(read_text(path)) or {}
    except CalibrationError as error:
        raise ConfigError(f"settings {path}: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"settings {path}: expected keys and values")
    return replace(Settings(), **{str(key): _setting(path, key, values[key]) for key in values})


def _setting(path: Path, key: Any, value: Any) -> Any:
    known = Settings.__dataclass_fields__
    if key not in known:
        raise ConfigError(f"settings {path}: unknown key {key}, expected {', '.join(known)}")
    if key == "set":
        if not isinstance(value, dict | None):
            raise ConfigError(f"settings {path}: set must hold keys and values of a configuration")
        # A JSON value is also a YAML value.
        return tuple(f"{name}={json.dumps(setting)}" for name, setting in (value or {}).items())
    if key == "cam_stereo":
        if isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value):
            return tuple(value)
        raise ConfigError(f"settings {path}: cam_stereo must be two names, found {value!r}")
    if key == "trajectory" and value not in _TRAJECTORIES:
        raise ConfigError(
            f"settings {path}: trajectory must be {' or '.join(_TRAJECTORIES)}, found {value!r}"
        )
    if not isinstance(value, str) and not (key == "weights" and value is None):
        raise ConfigError(f"settings {path}: {key} must be a text, found {value!r}")
    return value


def open_sequence(
    sequence_path: Path, calibration_yaml: Path, rgb_csv: Path, mode: str, settings: Settings
) -> StampedSequence:
    """Open a sequence of VSLAM-LAB.

    Args:
        sequence_path: folder that the paths in the list are relative to.
        calibration_yaml: calibration of the cameras.
        rgb_csv: list of the images: a heading, then a row for each frame.
        mode: one of `MODES`.
        settings: names of the cameras.

    Raises:
        DatasetError: files are missing or hold something else than expected.
    """
    names = {
        "mono": (settings.cam_mono,),
        "rgbd": (settings.cam_rgbd,),
        "stereo": settings.cam_stereo,
    }[mode]
    entries = [_read_camera(calibration_yaml, name) for name in names]
    paths = {name: f"path_{name}" for name in names}
    if mode == "rgbd":
        if entries[0].depth_name is None:
            raise CalibrationError(
                f"{calibration_yaml}: camera {names[0]} has no depth_name and depth_factor: "
                "the sequence has no depth images, use --mode mono"
            )
        paths["depth"] = f"path_{entries[0].depth_name}"
    table = _read_list(rgb_csv, names[0], tuple(paths.values()))
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


def write_trajectory(path: Path, poses: Path, sequence: StampedSequence) -> int:
    """Write the poses of a run as VSLAM-LAB's evaluation reads them.

    A heading, then stamp, position and quaternion of each pose, separated by commas. Poses are
    copied digit by digit. The stamps are those of the list: nanoseconds since 1970 as floats of
    seconds would lose digits.

    Args:
        path: the file, `ITERATION_KeyFrameTrajectory.csv`.
        poses: `trajectory.tum` or `keyframes.tum` of a run of the sequence.
        sequence: the sequence.

    Returns:
        The number of poses.

    Raises:
        OutputError: the file cannot be written.
    """
    lines = poses.read_text(encoding="utf-8").splitlines()
    cells = [line.split() for line in lines if not line.startswith("#")]
    seconds = np.array([float(row[0]) for row in cells])
    rows = _nearest(sequence.frames.timestamps, seconds)
    heading = _HEADINGS["s" if sequence.unit == "s" else "ns"].replace("ns", sequence.unit)
    table = [
        ",".join([sequence.stamps[row], *pose[1:]]) for row, pose in zip(rows, cells, strict=True)
    ]
    write_atomic(path, "\n".join([heading, *table]) + "\n")
    return len(table)


def _nearest(times: NDArray[np.float64], wanted: NDArray[np.float64]) -> list[int]:
    """Return the row of the nearest of increasing times (N,) for each wanted one (M,), seconds."""
    after = np.searchsorted(times, wanted).clip(0, len(times) - 1)
    before = (after - 1).clip(0)
    nearer = np.abs(times[before] - wanted) < np.abs(times[after] - wanted)
    rows: list[int] = np.where(nearer, before, after).tolist()
    return rows


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
