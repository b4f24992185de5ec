"""Read recordings in kapture's format: sensors, records of cameras, trajectories and rigs.

Format: https://github.com/naver/kapture/blob/main/kapture_format.adoc (version 1.1). Poses map the
world to the device, and in `rigs.txt` the rig to the sensor; quaternions are w x y z.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import CalibrationError, DatasetError, SpslamError
from spslam.geometry import inverse
from spslam.interfaces import SequenceRequest
from spslam.io.given_files import read_given
from spslam.notices import notice

from ..base import FileSequence
from ..calibration.calibration import load_calibration
from ..paths import choose_sequence, contents, reason, subfolders
from .cameras import colmap_camera
from .posed_images import FPS, PosedImage, Reconstruction, open_reconstruction
from .poses import pose_of_quaternion

_LOG = logging.getLogger(__name__)
_RECORDS = Path("sensors") / "records_camera.txt"
_UNKNOWN = "UNKNOWN_CAMERA"
_Poses = dict[tuple[str, str], NDArray[np.float64]]


def is_kapture(path: Path) -> bool:
    """Return whether a folder is a recording of kapture, or holds such recordings."""
    return any((folder / _RECORDS).is_file() for folder in (path, *subfolders(path)))


def open_kapture(path: Path, request: SequenceRequest) -> FileSequence:
    """Open the images of a camera of a kapture.

    Poses of the camera, or of the rig that holds it, become the ground truth. Stamps that are no
    times number the images.

    Args:
        path: the folder with `sensors/`, or a folder of such folders (`mapping`, `query`).
        request: the user's choices. `sequence` is the name of a folder, else of a camera or of a
            folder of images. A calibration replaces that of `sensors.txt`.

    Raises:
        DatasetError: files are missing or hold something else than expected.
    """
    folder = path
    if not (path / _RECORDS).is_file():
        choices = {one.name: one for one in subfolders(path) if (one / _RECORDS).is_file()}
        if not choices:
            raise DatasetError(
                f"expected kapture's sensors/records_camera.txt in {path}, found {contents(path)}"
            )
        folder = choose_sequence(path, choices, request.sequence)
        request = replace(request, sequence=None)
    sensors = folder / "sensors"
    records = _rows(folder / _RECORDS, "timestamp, device_id, image_path", 3)
    cameras = _cameras(sensors / "sensors.txt", {row[1] for row in records}, request.calibration)
    poses = _poses(sensors)
    several = len({row[1] for row in records}) > 1
    images = [
        PosedImage(
            sensors / "records_data" / name,
            cameras[device],
            device if several else "",
            poses.get((stamp, device)),
            _number(stamp),
        )
        for stamp, device, name in (row[:3] for row in records)
    ]
    if (sensors / "records_depth.txt").is_file():
        notice(_LOG, "unused_stream", "%s: its depth maps (records_depth.txt) are not read", folder)
    name = f"kapture {folder.name}"
    found = Reconstruction(
        "kapture",
        name,
        folder,
        sensors / "trajectories.txt",
        images,
        "units of the kapture",
    )
    return open_reconstruction(found, request)


def _rows(path: Path, expected: str, least: int) -> list[list[str]]:
    """Read the lines of a file: values that are separated by commas.

    Raises:
        DatasetError: the file cannot be read, or a line has too few values.
    """
    try:
        lines = read_given(path).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"expected kapture's {path}: cannot be read ({reason(error)})") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) < least:
            raise DatasetError(f"{path}:{number}: expected {expected}, found {line.strip()[:60]!r}")
        rows.append(cells)
    return rows


def _cameras(path: Path, devices: set[str], calibration: Path | None) -> dict[str, Camera]:
    """Return the cameras of devices, by id."""
    if calibration is not None:
        return dict.fromkeys(devices, load_calibration(calibration).camera)
    listed = {row[0]: row for row in _rows(path, "sensor_device_id, name, sensor_type, …", 3)}
    cameras = {}
    for device in sorted(devices):
        row = listed.get(device)
        if row is None or row[2] != "camera" or len(row) < 6:
            raise CalibrationError(
                f"{path}: expected the camera {device}, found {', '.join(listed)}"
            )
        if row[3] == _UNKNOWN:
            raise CalibrationError(
                f"{path}: the intrinsics of {device} are unknown ({_UNKNOWN}): give --calibration "
                "FILE"
            )
        try:
            numbers = [float(cell) for cell in row[4:]]
            size = numbers[0], numbers[1]
            cameras[device] = colmap_camera(row[3], size, tuple(numbers[2:]), FPS)
        except (ValueError, CalibrationError) as error:
            raise CalibrationError(f"{path}, {device}: {error}") from None
    return cameras


def _poses(sensors: Path) -> _Poses:
    """Return poses, camera to world, by (stamp, device); of devices in rigs, too."""
    path = sensors / "trajectories.txt"
    if not path.is_file():
        return {}
    try:
        rows = _rows(path, "timestamp, device_id, qw, qx, qy, qz, tx, ty, tz", 9)
        rigs = _rigs(sensors / "rigs.txt")
    except SpslamError as error:
        notice(_LOG, "ground_truth_unreadable", "the run continues without ground truth: %s", error)
        return {}
    poses: _Poses = {}
    for stamp, device, *numbers in rows:
        T_device_world = _transform(numbers)
        poses[stamp, device] = inverse(T_device_world)
        for sensor, T_sensor_rig in rigs.get(device, {}).items():
            poses[stamp, sensor] = inverse(T_sensor_rig @ T_device_world)
    return poses


def _rigs(path: Path) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Return `T_sensor_rig` of the sensors of each rig; rigs may hold rigs."""
    rigs: dict[str, dict[str, NDArray[np.float64]]] = {}
    if not path.is_file():
        return rigs
    rows = _rows(path, "rig_device_id, sensor_device_id, qw, qx, qy, qz, tx, ty, tz", 9)
    for rig, sensor, *numbers in rows:
        rigs.setdefault(rig, {})[sensor] = _transform(numbers)
    for _ in range(len(rigs)):
        for held in rigs.values():
            for inner in [name for name in held if name in rigs]:
                for sensor, T in rigs[inner].items():
                    held.setdefault(sensor, T @ held[inner])
    return rigs


def _transform(cells: list[str]) -> NDArray[np.float64]:
    """Return the transform (4, 4) of qw, qx, qy, qz, tx, ty, tz; NaN if a number is missing.

    Kapture leaves a rotation or a translation that is unknown empty.
    """
    numbers = np.array([_number(cell) for cell in cells[:7]], dtype=np.float64)
    return pose_of_quaternion(numbers[:4], numbers[4:])


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")
