"""EuRoC MAV (Burri et al., The EuRoC micro aerial vehicle datasets, IJRR 2016) and others in the ASL format."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from spslam.camera import Camera, DistortionModel
from spslam.errors import CalibrationError, DatasetError
from spslam.geometry import inverse, orthonormalize
from spslam.trajectory import Trajectory, carried_truth, read_ground_truth

from .base import FileSequence, FrameFiles, check_image_size
from .decoding import list_files
from .layout import check_sequence_name, choose_sequence, contents, reason, report_unpaired, subfolders
from .rectify import StereoRectifier
from .timing import associate, nominal_fps, order_by_time

_LOG = logging.getLogger(__name__)
_FPS = 20.0
# The cameras are triggered together; recorders that stamp on arrival stay within a few milliseconds.
_ASSOCIATION_S = 0.005
_MODELS: dict[str, DistortionModel] = {
    "radial-tangential": "radtan",
    "radtan": "radtan",
    "plumb_bob": "radtan",
    "equidistant": "equidistant",
    "none": "none",
}


def is_euroc(path: Path) -> bool:
    """Whether a folder looks like EuRoC: `mav0`, a folder with it, or a folder of such folders."""
    return _mav(path) is not None or any(_mav(folder) is not None for folder in subfolders(path))


def open_euroc(path: Path, sequence: str | None = None, sensor: str = "auto") -> FileSequence:
    """Open an EuRoC sequence from its folder (with `mav0/`), from `mav0` itself, or from a folder of sequences.

    Stereo pairs are rectified with maps computed once. The ground truth, which speaks of the body, is carried to the
    camera of `Frame.image`: the left one as rectified, or for mono the left one as it is, with its distortion.

    Raises:
        DatasetError: files are missing or hold something else than expected.
    """
    mav, name = _find_sequence(path, sequence)
    if sensor == "rgbd":
        raise DatasetError(f"{mav} is EuRoC, which has no depth images: use --sensor stereo or mono")
    left = _read_sensor(mav / "cam0" / "sensor.yaml")
    times, images = _read_images(mav / "cam0", name)
    there = bool(list_files(mav / "cam1" / "data"))
    if sensor == "stereo" and not there:
        raise DatasetError(f"stereo needs images in {mav}/cam1/data, found none")
    if sensor == "mono" or not there:
        check_image_size(images, left.camera, f"{mav}/cam0/sensor.yaml")
        camera = replace(left.camera, fps=nominal_fps(times, left.camera.fps))
        ground_truth = _read_ground_truth(mav, times, left.T_body_sensor, "left camera, unrectified")
        return FileSequence(name, FrameFiles(times, images), camera, str(mav), ground_truth)

    right = _read_sensor(mav / "cam1" / "sensor.yaml")
    right_times, right_images = _read_images(mav / "cam1", name)
    pairs = associate(times, right_times, _ASSOCIATION_S)
    report_unpaired(len(pairs), len(images), name, "right image at the same time")
    times, images = times[pairs[:, 0]], [images[i] for i in pairs[:, 0]]
    files = FrameFiles(times, images, right=[right_images[i] for i in pairs[:, 1]])
    check_image_size(images, left.camera, f"{mav}/cam0/sensor.yaml")
    try:
        rectifier = StereoRectifier(left.camera, right.camera, inverse(left.T_body_sensor) @ right.T_body_sensor)
    except CalibrationError as error:
        raise CalibrationError(f"{mav}: cam0 (left) and cam1 (right) are no stereo pair: {error}") from None
    camera = replace(rectifier.camera, fps=nominal_fps(times, left.camera.fps))
    T_body_rectified = left.T_body_sensor @ rectifier.T_left_rectified
    ground_truth = _read_ground_truth(mav, times, T_body_rectified, "left camera as rectified")
    return FileSequence(name, files, camera, str(mav), ground_truth, rectifier)


def left_camera_ground_truth(body: Trajectory, table: Path, sensor: Path | None = None) -> Trajectory | None:
    """EuRoC's ground truth, which speaks of the body, carried to the left camera with its distortion.

    Args:
        body: what `read_euroc` found in `table`.
        table: `mav0/state_groundtruth_estimate0/data.csv`.
        sensor: the camera's `sensor.yaml`; None: `cam0`'s, two folders up.

    Returns:
        None where no sensor was given and none is there, or the ground truth has positions only.

    Raises:
        CalibrationError: the sensor cannot be read or holds something else.
    """
    found = sensor or table.absolute().parent.parent / "cam0" / "sensor.yaml"
    if (sensor is None and not found.is_file()) or not body.has_rotations:
        return None
    T_body_camera = _read_sensor(found).T_body_sensor
    return _carry(body, _own_pose(table) @ T_body_camera, "left camera, unrectified")


@dataclass(frozen=True, eq=False)
class _SensorEntry:
    """A camera and `T_BS` (4, 4), which maps its coordinates to the body, metres."""

    camera: Camera
    T_body_sensor: NDArray[np.float64]


def _mav(path: Path) -> Path | None:
    """The `mav0` folder of one sequence."""
    for folder in (path / "mav0", path):
        if (folder / "cam0" / "data").is_dir() or (folder / "cam0" / "sensor.yaml").is_file():
            return folder
    return None


def _find_sequence(path: Path, sequence: str | None) -> tuple[Path, str]:
    mav, folder = _mav(path), path
    if mav is not None:
        folder = path.parent if mav == path and path.name == "mav0" else path
        check_sequence_name(folder, sequence)
    else:
        choices = {folder.name: folder for folder in subfolders(path) if _mav(folder) is not None}
        if not choices:
            raise DatasetError(
                f"expected an EuRoC sequence in {path} (mav0/cam0 with sensor.yaml, data.csv and data/), "
                f"found {contents(path)}"
            )
        folder = choose_sequence(path, choices, sequence)
        mav = _mav(folder)
        assert mav is not None
    return mav, f"euroc {folder.name}"


def _read_sensor(path: Path) -> _SensorEntry:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"expected EuRoC's calibration at {path}: cannot be read ({reason(error)})") from None
    # OpenCV's header and tags are no YAML that PyYAML takes.
    lines = [line for line in text.replace("!!opencv-matrix", "").splitlines() if not line.startswith("%YAML")]
    try:
        values: Any = yaml.safe_load("\n".join(lines))
    except yaml.YAMLError as error:
        raise CalibrationError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise CalibrationError(f"{path}: expected keys and values, found {type(values).__name__}")
    kind = values.get("camera_model", "pinhole")
    model = _MODELS.get(str(values.get("distortion_model", "none")).lower())
    if kind != "pinhole" or model is None:
        raise CalibrationError(
            f"{path}: expected camera_model pinhole with distortion_model {', '.join(_MODELS)}, "
            f"found {kind} with {values.get('distortion_model')}"
        )
    width, height = _numbers(path, values, "resolution", 2)
    fx, fy, cx, cy = _numbers(path, values, "intrinsics", 4)
    distortion = () if model == "none" else _numbers(path, values, "distortion_coefficients", None)
    rate = _numbers(path, {"rate_hz": [values.get("rate_hz", _FPS)]}, "rate_hz", 1)[0]
    extrinsics = values.get("T_BS")
    T = np.reshape(_numbers(path, extrinsics if isinstance(extrinsics, dict) else {}, "data", 16, "T_BS."), (4, 4))
    if not np.allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-3) or np.linalg.det(T[:3, :3]) < 0:
        raise CalibrationError(f"{path}: T_BS holds no rotation matrix")
    try:
        camera = Camera(int(width), int(height), fx, fy, cx, cy, model, distortion, fps=rate)
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from None
    return _SensorEntry(camera, orthonormalize(T))


def _numbers(path: Path, values: dict[str, Any], key: str, count: int | None, prefix: str = "") -> tuple[float, ...]:
    found = values.get(key)
    try:
        numbers = tuple(float(value) for value in found)  # type: ignore[union-attr]
    except (TypeError, ValueError):
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)) or (count is not None and len(numbers) != count):
        raise CalibrationError(f"{path}: expected {count or 'a list of'} numbers under {prefix}{key}, found {found!r}")
    return numbers


def _read_images(camera_folder: Path, name: str) -> tuple[NDArray[np.float64], list[Path]]:
    """Increasing stamps, seconds, and image files of one camera, from data.csv or else from the file names."""
    folder, table = camera_folder / "data", camera_folder / "data.csv"
    on_disk = {path.stem: path for path in list_files(folder)}
    if not on_disk:
        raise DatasetError(f"expected images (*.png, *.jpg) in {folder}, found none")
    entries = _read_table(table) if table.is_file() else [(stem, stem) for stem in on_disk if stem.isdigit()]
    # A recording may have been recompressed: the extension in the table does not matter.
    listed = [(stamp, on_disk[stem]) for stamp, stem in entries if stem in on_disk]
    if not listed:
        raise DatasetError(
            f"none of the {len(entries)} images in {table} lies in {folder}"
            if table.is_file()
            else f"expected images named by nanoseconds in {folder}, found {contents(folder)}"
        )
    if len(listed) < len(entries):
        missing = len(entries) - len(listed)
        _LOG.warning("%s: left out %d of %d images in %s that are not there", name, missing, len(entries), table)
    times = np.array([int(stamp) / 1e9 for stamp, _ in listed])
    order = order_by_time(times, str(table))
    return times[order], [listed[i][1] for i in order]


def _read_table(path: Path) -> list[tuple[str, str]]:
    """(nanoseconds, file name without extension) of each line of data.csv."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read ({reason(error)})") from None
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        stamp, _, file = (part.strip() for part in line.partition(","))
        if not (stamp.isdigit() and file):
            raise DatasetError(f"{path}:{number}: expected 'nanoseconds,filename', found {line.strip()[:60]!r}")
        entries.append((stamp, Path(file).stem))
    return entries


def _read_ground_truth(
    mav: Path, times: NDArray[np.float64], T_body_camera: NDArray[np.float64], camera: str
) -> Trajectory | None:
    path = mav / "state_groundtruth_estimate0" / "data.csv"
    if not path.is_file():
        return None
    truth = read_ground_truth(path, times, "body", True, "ns")
    return None if truth is None else _carry(truth, T_body_camera, camera)


def _own_pose(table: Path) -> NDArray[np.float64]:
    """`T_sensor_body` (4, 4) of what a table speaks of, from the `sensor.yaml` beside it: Vicon's markers are not where
    the body is. Where there is none, or it cannot be read, that is the body itself."""
    try:
        values = yaml.safe_load((table.parent / "sensor.yaml").read_text(encoding="utf-8-sig"))
        T_body_sensor = np.reshape(np.array(values["T_BS"]["data"], dtype=np.float64), (4, 4))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return np.eye(4)
    if not np.allclose(T_body_sensor[:3, :3] @ T_body_sensor[:3, :3].T, np.eye(3), atol=1e-3):
        return np.eye(4)
    return inverse(orthonormalize(T_body_sensor))


def _carry(body: Trajectory, T_body_camera: NDArray[np.float64], camera: str) -> Trajectory:
    return carried_truth(body, T_body_camera, f"{camera} (carried from the body by T_BS)")
