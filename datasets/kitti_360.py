"""Read the rectified perspective cameras of KITTI-360.

Source: Liao et al., KITTI-360: A novel dataset and benchmarks for urban scene understanding in 2D
and 3D, PAMI 2022.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.errors import CalibrationError, DatasetError, SpslamError
from spslam.geometry import inverse
from spslam.io.given_files import read_given
from spslam.notices import counted, notice
from spslam.trajectory import Trajectory

from .base import FileSequence, check_image_size
from .kitti_calibration import KittiCalibration, KittiCamera
from .kitti_raw import choose_cameras, timed_images
from .listed import pair_images
from .models.poses import truth_of_poses
from .paths import contents, find_sequence, reason, subfolders
from .timestamps import Timing, nominal_fps

_LOG = logging.getLogger(__name__)
# Nominal frames per second, 1/s.
_FPS = 10.0
_IMAGES = "data_rect"
_CALIBRATION = Path("calibration") / "perspective.txt"
_CAMERA_POSES, _BODY_POSES = "cam0_to_world.txt", "poses.txt"


def is_kitti_360(path: Path) -> bool:
    """Return whether a folder is a drive of KITTI-360, or a folder of drives, or its root."""
    return _is_drive(path) or bool(_drives(path))


def open_kitti_360(
    path: Path,
    sequence: str | None = None,
    sensor: str = "auto",
    timing: Timing = Timing(),  # noqa: B008 - frozen
) -> FileSequence:
    """Open a drive of KITTI-360: the pair `image_00`/`image_01`, which is rectified.

    The ground truth `data_poses/DRIVE/cam0_to_world.txt` has poses of the rectified left camera,
    of some of the frames. Without it, the poses of the body in `poses.txt` are carried to the
    camera.

    Args:
        path: KITTI-360's root (with `data_2d_raw/` and `calibration/`), `data_2d_raw`, or a drive.
        sequence: name of the drive where `path` holds several, or a unique part of it.
        sensor: `auto`, `stereo` or `mono`; `auto` is stereo where both cameras have images.
        timing: unit of the time stamps, and the largest time between the images of a pair.

    Raises:
        DatasetError: files are missing or hold something else than expected.
    """
    drive = _find_drive(path, sequence)
    name = f"kitti360 {drive.name}"
    _, stereo = choose_cameras(drive, _IMAGES, "KITTI-360", sensor, (0,))
    if any((drive / f"image_0{number}").is_dir() for number in (2, 3)):
        text = "%s: the fisheye images of image_02 and image_03 are not read"
        notice(_LOG, "unused_stream", text, name)
    root = _find_root(drive)
    calibration = KittiCalibration(root / _CALIBRATION)
    left = timed_images(drive / "image_00", _IMAGES, timing, name)
    camera, right = calibration.rectified(0, _FPS), None
    check_image_size(left.images, camera.camera, f"{calibration.path}, P_rect_00")
    stamps = left.stamps
    if stereo:
        others = timed_images(drive / "image_01", _IMAGES, timing, name)
        left, right = pair_images(left, others, timing, name)
        baseline = calibration.rectified_pair(camera, calibration.rectified(1, _FPS))
        try:
            camera = replace(camera, camera=replace(camera.camera, baseline_m=baseline))
        except CalibrationError as error:
            raise CalibrationError(f"{calibration.path}: {error}") from None
    files = left.frame_files(right)
    truth = _read_ground_truth(root / "data_poses" / drive.name, calibration, camera, stamps)
    final = replace(camera.camera, fps=nominal_fps(left.times, _FPS))
    return FileSequence(name, files, final, str(drive), truth, dataset="kitti360")


def _is_drive(path: Path) -> bool:
    return (path / "image_00" / _IMAGES).is_dir()


def _drives(path: Path) -> dict[str, Path]:
    folders = [*subfolders(path / "data_2d_raw"), *subfolders(path)]
    return {folder.name: folder for folder in folders if _is_drive(folder)}


def _find_drive(path: Path, sequence: str | None) -> Path:
    drive = f"data_2d_raw/2013_05_28_drive_0000_sync with image_00/{_IMAGES}"
    expected = f"KITTI-360 in {path} ({drive})"
    return find_sequence(path, _is_drive(path), _drives(path), sequence, expected)


def _find_root(drive: Path) -> Path:
    for folder in (drive.parent.parent, drive.parent, drive):
        if (folder / _CALIBRATION).is_file():
            return folder
    raise CalibrationError(
        f"expected KITTI-360's calibration at {drive.parent.parent / _CALIBRATION}: it is a "
        f"download of its own, found {contents(drive.parent.parent)}"
    )


def _read_ground_truth(
    folder: Path,
    calibration: KittiCalibration,
    camera: KittiCamera,
    stamps: NDArray[np.float64],
) -> Trajectory | None:
    """Return the poses of the left camera; None without a file of poses."""
    try:
        if (folder / _CAMERA_POSES).is_file():
            path, frame, T = folder / _CAMERA_POSES, "left camera", np.eye(4)
            numbers, poses, bad = _read_poses(path, 16)
        elif (folder / _BODY_POSES).is_file():
            path = folder / _BODY_POSES
            numbers, poses, bad = _read_poses(path, 12)
            T_body_cam = KittiCalibration(calibration.path.parent / "calib_cam_to_pose.txt")
            T = T_body_cam.pose("image_00") @ inverse(calibration.rigid("R_rect_00"))
            frame = "left camera (carried from the body by calib_cam_to_pose.txt)"
        else:
            return None
    except SpslamError as error:
        notice(_LOG, "ground_truth_unreadable", "the run continues without ground truth: %s", error)
        return None
    rows = len(numbers) + bad
    # Poses of images that are not in the list of stamps have no time.
    within = (numbers >= 0) & (numbers < len(stamps))
    within[within] = np.isfinite(stamps[numbers[within]])
    numbers, first = np.unique(numbers[within], return_index=True)
    kept = np.flatnonzero(within)[first]
    increasing = np.diff(stamps[numbers], prepend=-np.inf) > 0
    kept, numbers = kept[increasing], numbers[increasing]
    left_out = {}
    if surplus := rows - bad - len(numbers):
        left_out["of no image with a time stamp"] = surplus
        text = "%s: %s of no image with a time stamp"
        notice(_LOG, "rows_left_out", text, path, counted(surplus, "pose is", "poses are"))
    if bad:
        left_out["without a frame number and a matrix"] = bad
        text = "%s: %s left out: no frame number with a matrix"
        notice(_LOG, "rows_left_out", text, path, counted(bad, "row is", "rows are"), count=bad)
    T_world_cam = poses[kept] @ T @ camera.T_cam0_cam
    return truth_of_poses(path, stamps[numbers], T_world_cam, frame, rows, left_out)


def _read_poses(path: Path, count: int) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
    """Read lines of a frame number and a matrix of `count` numbers.

    Returns:
        Frame numbers (N,), poses (N, 4, 4), and the number of lines that hold something else.

    Raises:
        DatasetError: the file cannot be read.
    """
    try:
        lines = read_given(path).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {reason(error)}") from None
    words = [line.split() for line in lines if line.strip()]
    numbers, matrices = list[int](), list[list[float]]()
    for row in words:
        try:
            values = [float(word) for word in row]
        except ValueError:
            continue
        if len(values) == 1 + count and 0 <= values[0] < 1e9:
            numbers.append(int(values[0]))
            matrices.append(values[1:13])
    poses = np.tile(np.eye(4), (len(numbers), 1, 1))
    poses[:, :3] = np.array(matrices, dtype=np.float64).reshape(-1, 3, 4)
    return np.array(numbers, dtype=np.int64), poses, len(words) - len(numbers)
