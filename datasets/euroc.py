"""Read EuRoC MAV and other recordings in the ASL format.

Source: Burri et al., The EuRoC micro aerial vehicle datasets, IJRR 2016.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import CalibrationError, DatasetError
from spslam.geometry import inverse, orthonormalize
from spslam.interfaces import NO_STAMP, LeftOut
from spslam.io.structured_text import shown
from spslam.lens import lens, lens_model
from spslam.notices import counted, notice, plural
from spslam.timestamps import LARGEST_STAMP
from spslam.trajectory import Trajectory, carried_truth, read_ground_truth

from .base import FileSequence, FrameFiles, check_image_size
from .calibration.checks import is_rigid, report_baseline, report_doubts
from .calibration.formats.euroc_sensor import KIND as EUROC_SENSOR
from .calibration.formats.registry import kind_of
from .calibration.formats.source import Source
from .calibration.rectify import StereoRectifier
from .calibration.yaml_text import parse_yaml, read_text
from .images.decoding import IMAGE_KINDS, list_files
from .images.lists import read_image_list
from .paths import check_sequence_name, choose_sequence, contents, subfolders
from .timestamps import Timing, check_counted, nominal_fps, order_frames, pair_by_time, read_stamps

_LOG = logging.getLogger(__name__)
# Images per second (1/s) where sensor.yaml has no rate_hz.
_FPS = 20.0
_NUMBER = re.compile(r"\d+(\.\d+)?")
_DISTORTION = "distortion_coefficients"


def is_euroc(path: Path) -> bool:
    """Return whether a folder is `mav0`, contains `mav0`, or contains such folders."""
    return mav_folder(path) is not None or any(
        mav_folder(folder) is not None for folder in subfolders(path)
    )


def open_euroc(
    path: Path,
    sequence: str | None = None,
    sensor: str = "auto",
    timing: Timing = Timing(),  # noqa: B008 - frozen
) -> FileSequence:
    """Open an EuRoC sequence.

    Stereo pairs are rectified with maps computed once. The ground truth gives poses of the body;
    it is carried to the camera of `Frame.image`. That is the rectified left camera, or for mono
    the left camera with its distortion.

    Args:
        path: the folder of a sequence (with `mav0/`), `mav0` itself, or a folder of sequences.
        sequence: name of the sequence where `path` holds several.
        sensor: `auto`, `stereo` or `mono`; `auto` is stereo where `cam1` has images.
        timing: unit of the time stamps, and the largest time between the images of a pair.

    Raises:
        DatasetError: files are missing or hold something else than expected.
    """
    mav, name = find_asl(path, sequence, "EuRoC", "euroc")
    layout = AslLayout(
        "euroc",
        "EuRoC",
        lambda camera: _read_sensor(mav / camera / "sensor.yaml"),
        lambda camera: f"{mav}/{camera}/sensor.yaml",
        f"{mav}, T_BS of cam0 and cam1",
        mav / "state_groundtruth_estimate0" / "data.csv",
        "carried from the body by T_BS",
    )
    return open_asl(mav, name, sensor, timing, layout)


@dataclass(frozen=True, eq=False)
class SensorEntry:
    """A camera, and its `T_BS` (4, 4) that maps camera to body coordinates, metres."""

    camera: Camera
    T_body_sensor: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AslLayout:
    """Where a data set of the ASL format has its calibration and its ground truth.

    Attributes:
        dataset: name of the reader.
        title: name of the data set, for messages.
        sensor: reads the camera of a folder, `cam0` or `cam1`.
        origin: the file that this camera is read from, for messages.
        baseline_origin: where the poses of both cameras are from, for messages.
        ground_truth: table of the poses of the body.
        carried: how these become poses of the camera, in words.
        clock_ahead_s: time by which the clock of the ground truth is ahead of that of the images,
            seconds.
    """

    dataset: str
    title: str
    sensor: Callable[[str], SensorEntry]
    origin: Callable[[str], str]
    baseline_origin: str
    ground_truth: Path
    carried: str
    clock_ahead_s: float = 0.0


def open_asl(mav: Path, name: str, sensor: str, timing: Timing, layout: AslLayout) -> FileSequence:
    """Open a recording of the ASL format.

    Args:
        mav: the folder `mav0`.
        name: name of the recording.
        sensor: `auto`, `stereo` or `mono`; `auto` is stereo where `cam1` has images.
        timing: unit of the time stamps, and the largest time between the images of a pair.
        layout: where calibration and ground truth are.

    Raises:
        DatasetError: files are missing or hold something else than expected.
    """
    if sensor == "rgbd":
        raise DatasetError(
            f"{mav} is {layout.title}, which has no depth images: use --sensor stereo or mono"
        )
    left = layout.sensor("cam0")
    times, images, unit, left_out = _read_images(mav / "cam0", name, timing, left.camera.fps)
    there = bool(list_files(mav / "cam1" / "data"))
    if sensor == "stereo" and not there:
        raise DatasetError(f"stereo needs images in {mav}/cam1/data, found none")
    check_image_size(images, left.camera, layout.origin("cam0"))
    if sensor == "mono" or not there:
        camera = replace(left.camera, fps=nominal_fps(times, left.camera.fps))
        ground_truth = _read_ground_truth(
            layout, times, left.T_body_sensor, "left camera, unrectified"
        )
        if sensor == "auto" and (mav / "cam1").is_dir():
            notice(
                _LOG,
                "unused_stream",
                "%s: cam1 has no images in cam1/data (%s): mono",
                name,
                IMAGE_KINDS,
            )
        files = FrameFiles(times, images, time_unit=unit, left_out=tuple(left_out))
        return FileSequence(name, files, camera, str(mav), ground_truth, dataset=layout.dataset)

    right = layout.sensor("cam1")
    right_times, right_images, _, _ = _read_images(mav / "cam1", name, timing, right.camera.fps)
    check_counted(len(times), len(right_times), timing, name, "right image")
    pairs, unpaired = pair_by_time(times, right_times, timing.pair_within_s, name, "right image")
    times, images = times[pairs[:, 0]], [images[i] for i in pairs[:, 0]]
    files = FrameFiles(
        times,
        images,
        right=[right_images[i] for i in pairs[:, 1]],
        time_unit=unit,
        left_out=(*left_out, *unpaired),
    )
    T_left_right = inverse(left.T_body_sensor) @ right.T_body_sensor
    try:
        rectifier = StereoRectifier(left.camera, right.camera, T_left_right)
    except CalibrationError as error:
        raise CalibrationError(
            f"{mav}: cam0 (left) and cam1 (right) are no stereo pair: {error}"
        ) from None
    report_baseline(float(np.linalg.norm(T_left_right[:3, 3])), layout.baseline_origin)
    camera = replace(rectifier.camera, fps=nominal_fps(times, left.camera.fps))
    T_body_rectified = left.T_body_sensor @ rectifier.T_left_rectified
    ground_truth = _read_ground_truth(layout, times, T_body_rectified, "left camera as rectified")
    return FileSequence(
        name, files, camera, str(mav), ground_truth, rectifier, dataset=layout.dataset
    )


def left_camera_ground_truth(
    body: Trajectory, table: Path, sensor: Path | None = None
) -> Trajectory | None:
    """Carry EuRoC's ground truth from the body to the left camera, unrectified.

    Args:
        body: poses of the body, as `read_euroc` read them from `table`.
        table: `mav0/state_groundtruth_estimate0/data.csv`.
        sensor: the camera's `sensor.yaml`; None: `cam0`'s, two folders up.

    Returns:
        The poses of the left camera. None if the ground truth has positions only, or if `sensor`
        is None and `cam0` has no `sensor.yaml`.

    Raises:
        CalibrationError: the sensor cannot be read or holds something else.
    """
    found = sensor or table.absolute().parent.parent / "cam0" / "sensor.yaml"
    if (sensor is None and not found.is_file()) or not body.has_rotations:
        return None
    T_body_camera = _read_sensor(found).T_body_sensor
    return _carry(body, _own_pose(table) @ T_body_camera, "left camera, unrectified")


def mav_folder(path: Path) -> Path | None:
    """Return the `mav0` folder of one sequence; None if `path` is no sequence."""
    for folder in (path / "mav0", path):
        if (folder / "cam0" / "data").is_dir() or (folder / "cam0" / "sensor.yaml").is_file():
            return folder
    return None


def find_asl(path: Path, sequence: str | None, title: str, dataset: str) -> tuple[Path, str]:
    """Find the folder `mav0` of a recording of the ASL format.

    Args:
        path: the folder of a recording, `mav0` itself, or a folder of recordings.
        sequence: name of the recording where `path` holds several.
        title: name of the data set, for messages.
        dataset: name of the reader.

    Returns:
        `mav0`, and the name of the recording.

    Raises:
        DatasetError: there is no single such recording.
    """
    mav, folder = mav_folder(path), path
    if mav is not None:
        folder = path.parent if mav == path and path.name == "mav0" else path
        check_sequence_name(folder, sequence)
    else:
        choices = {
            folder.name: folder for folder in subfolders(path) if mav_folder(folder) is not None
        }
        if not choices:
            raise DatasetError(
                f"expected a sequence of {title} in {path} "
                f"(mav0/cam0 with data.csv and data/), found {contents(path)}"
            )
        folder = choose_sequence(path, choices, sequence)
        mav = mav_folder(folder)
        assert mav is not None
    return mav, f"{dataset} {folder.name}"


def _read_sensor(path: Path) -> SensorEntry:
    if not path.is_file():
        raise CalibrationError(
            f"expected EuRoC's calibration at {path}: cannot be read (no such file)"
        )
    text = read_text(path)
    try:
        values = _sensor_values(path, text)
        width, height = _numbers(values, "resolution", 2)
        fx, fy, cx, cy = _numbers(values, "intrinsics", 4)
        coefficients = _numbers(values, _DISTORTION, None) if _DISTORTION in values else ()
        model, distortion = lens(values.get("distortion_model"), coefficients)
        rate = _numbers({"rate_hz": [values.get("rate_hz", _FPS)]}, "rate_hz", 1)[0]
        extrinsics = values.get("T_BS")
        T = np.reshape(
            _numbers(extrinsics if isinstance(extrinsics, dict) else {}, "data", 16, "T_BS."),
            (4, 4),
        )
        if not is_rigid(T):
            raise CalibrationError(
                "T_BS holds no rotation matrix with a translation in metres over 0 0 0 1"
            )
        if width != int(width) or height != int(height):
            raise CalibrationError(f"resolution must be whole pixels, found {width:g}x{height:g}")
        camera = Camera(int(width), int(height), fx, fy, cx, cy, model, distortion, fps=rate)
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from None
    report_doubts(camera, str(path))
    return SensorEntry(camera, orthonormalize(T))


def _sensor_values(path: Path, text: str) -> dict[str, Any]:
    values = parse_yaml(text)
    if not isinstance(values, dict):
        raise CalibrationError(f"expected keys and values, found {type(values).__name__}")
    if "T_BS" not in values:
        kind = kind_of(Source(path, text.encode()))
        if kind is not None and kind != EUROC_SENSOR:
            raise CalibrationError(f"expected EuRoC's sensor.yaml, but this is {kind}")
    kind = values.get("camera_model", "pinhole")
    if kind != "pinhole":
        lens_model(kind)
        raise CalibrationError(f"expected camera_model pinhole, found {str(kind)[:40]!r}")
    return values


def _numbers(
    values: dict[str, Any], key: str, count: int | None, prefix: str = ""
) -> tuple[float, ...]:
    found = values.get(key)
    try:
        numbers = (
            tuple(float(value) for value in found)
            if isinstance(found, (list, tuple))
            else (math.nan,)
        )
    except (TypeError, ValueError, OverflowError):
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)) or (count is not None and len(numbers) != count):
        raise CalibrationError(
            f"expected {count or 'a list of'} numbers under {prefix}{key}, found {shown(found)}"
        )
    return numbers


def _read_images(
    camera_folder: Path, name: str, timing: Timing, fps: float
) -> tuple[NDArray[np.float64], list[Path], str, list[LeftOut]]:
    """Read the images of one camera from data.csv, or without it from the file names.

    Returns:
        Increasing stamps (N,), seconds; N image files; the unit of the stamps; what was left out.
    """
    folder, table = camera_folder / "data", camera_folder / "data.csv"
    on_disk = {path.stem: path for path in list_files(folder)}
    if not on_disk:
        raise DatasetError(f"expected images ({IMAGE_KINDS}) in {folder}, found none")
    listed = table.is_file()
    entries, unknown = (
        _read_table(table)
        if listed
        else ([(float(stem), stem) for stem in on_disk if _is_stamp(stem)], 0)
    )
    if not any(stem in on_disk for _, stem in entries):
        raise DatasetError(
            f"none of the {counted(len(entries), 'image')} in {table} lies in {folder}"
            if listed
            else f"expected images named by nanoseconds in {folder}, found {contents(folder)}"
        )
    if ignored := len(on_disk.keys() - {stem for _, stem in entries}):
        text = "%s: left out %s in %s: %s"
        what = counted(ignored, "image")
        why = f"{table.name} does not list them" if listed else "their names are no time stamps"
        notice(_LOG, "unlisted_images", text, name, what, folder, why, count=ignored)
    stamps, unit = read_stamps(
        np.array([stamp for stamp, _ in entries]),
        "ns",
        str(table if listed else folder),
        timing,
        fps,
    )
    # Ignore the extension in the table: the images may have been recompressed.
    there = np.array([stem in on_disk for _, stem in entries])
    if missing := int(np.count_nonzero(~there)):
        # Not counted as left out: excerpts often have the table of the whole recording.
        text = "%s: %d of the %s in %s %s missing"
        listing = missing, counted(len(entries), "image"), table, plural(missing, "is", "are")
        notice(_LOG, "missing_images", text, name, *listing, count=missing)
    times, images = (
        stamps[there],
        [on_disk[stem] for (_, stem), found in zip(entries, there, strict=True) if found],
    )
    order, left_out = order_frames(times, str(table))
    left_out += [LeftOut(math.nan, NO_STAMP)] * unknown
    return times[order], [images[i] for i in order], unit, left_out


def _read_table(path: Path) -> tuple[list[tuple[float, str]], int]:
    """Return (stamp, file name without extension) of each line, and the number of skipped lines."""
    stamps, names, unknown = read_image_list(path, "'nanoseconds,filename'", comma=True)
    return [
        (stamp, _stem(name)) for stamp, name in zip(stamps.tolist(), names, strict=True)
    ], unknown


def _is_stamp(name: str) -> bool:
    return _NUMBER.fullmatch(name) is not None and float(name) <= LARGEST_STAMP


def _stem(name: str) -> str:
    # In a name without extension the point may be a decimal point: keep the digits behind it.
    path = Path(name.replace("\\", "/"))
    return path.name if path.suffix.lstrip(".").isdigit() else path.stem


def _read_ground_truth(
    layout: AslLayout, times: NDArray[np.float64], T_body_camera: NDArray[np.float64], camera: str
) -> Trajectory | None:
    path = layout.ground_truth
    if not path.is_file():
        return None
    truth = read_ground_truth(path, times + layout.clock_ahead_s, "body", True, "ns")
    if truth is None:
        return None
    truth = in_clock_of_images(truth, layout.clock_ahead_s)
    return carried_truth(truth, T_body_camera, f"{camera} ({layout.carried})")


def in_clock_of_images(truth: Trajectory, ahead_s: float) -> Trajectory:
    """Convert the stamps of a ground truth to the clock of the images, and tell it.

    Args:
        truth: the ground truth.
        ahead_s: time by which its clock is ahead of that of the images, seconds.
    """
    if ahead_s == 0:
        return truth
    text = "the ground truth is %.4g ms %s the images (timeshift_cam_imu): its stamps are corrected"
    notice(_LOG, "truth_clock", text, 1e3 * abs(ahead_s), "ahead of" if ahead_s > 0 else "behind")
    return replace(truth, timestamps=truth.timestamps - ahead_s)


def _own_pose(table: Path) -> NDArray[np.float64]:
    """Return `T_sensor_body` (4, 4) from the `sensor.yaml` beside a ground truth table.

    Vicon's markers have a pose of their own in the body. Without a readable file the pose is the
    identity: the table gives the poses of the body itself.
    """
    try:
        values = parse_yaml(read_text(table.parent / "sensor.yaml"))
        T_body_sensor = np.reshape(np.array(values["T_BS"]["data"], dtype=np.float64), (4, 4))
    except (CalibrationError, KeyError, TypeError, ValueError, ArithmeticError):
        return np.eye(4)
    return inverse(orthonormalize(T_body_sensor)) if is_rigid(T_body_sensor) else np.eye(4)


def _carry(body: Trajectory, T_body_camera: NDArray[np.float64], camera: str) -> Trajectory:
    return carried_truth(body, T_body_camera, f"{camera} (carried from the body by T_BS)")
