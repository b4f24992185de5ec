"""Read KITTI raw: drives of a date, rectified (`_sync`) or as recorded (`_extract`).

Source: Geiger et al., Vision meets robotics: The KITTI dataset, IJRR 2013.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from spslam.errors import CalibrationError, DatasetError, SpslamError
from spslam.geometry import inverse, make_transform
from spslam.interfaces import NO_STAMP, LeftOut
from spslam.io.given_files import read_given
from spslam.notices import counted, notice, plural
from spslam.timestamps import stamp_column
from spslam.trajectory import Trajectory

from .base import FileSequence, check_image_size
from .calibration.rectify import StereoRectifier
from .images.decoding import image_size, list_files
from .kitti_calibration import KittiCalibration, KittiCamera
from .listed import ListedImages, pair_images
from .models.poses import truth_of_poses
from .paths import contents, find_sequence, reason, subfolders
from .timestamps import Timing, nominal_fps, order_frames, read_stamps

_LOG = logging.getLogger(__name__)
# Nominal frames per second, 1/s.
_FPS = 10.0
# Numbers of the left cameras, grey and colour, in order of preference.
_LEFT_CAMERAS = (0, 2)
_CALIBRATION = "calib_cam_to_cam.txt"
# Radius of the earth in the Mercator projection of KITTI's development kit, metres.
_EARTH_M = 6378137.0
# Numbers of an OXTS file that are used: latitude and longitude (degrees), altitude (m), roll,
# pitch, yaw (radians).
_OXTS = 6


def is_kitti_raw(path: Path) -> bool:
    """Return whether a folder is a drive of KITTI raw, a date, or a folder of dates."""
    return _is_drive(path) or bool(_drives(path))


def open_kitti_raw(
    path: Path,
    sequence: str | None = None,
    sensor: str = "auto",
    timing: Timing = Timing(),  # noqa: B008 - frozen
) -> FileSequence:
    """Open a drive of KITTI raw.

    The grey pair `image_00`/`image_01` is preferred to the colour pair `image_02`/`image_03`. Pairs
    are associated by time. Drives `_extract` are rectified while reading. The ground truth is made
    of the GPS and inertial measurements in `oxts`, by the Mercator projection of KITTI's
    development kit, and carried to the left camera.

    Args:
        path: a drive, the folder of a date (with the calibration and drives), or of dates.
        sequence: name of the drive where `path` holds several, or a unique part of it.
        sensor: `auto`, `stereo` or `mono`; `auto` is stereo where both cameras have images.
        timing: unit of the time stamps, and the largest time between the images of a pair.

    Raises:
        DatasetError: files are missing or hold something else than expected.
    """
    drive = _find_drive(path, sequence)
    name = f"kitti_raw {drive.name}"
    number, stereo = choose_cameras(drive, "data", "KITTI raw", sensor)
    calibration = KittiCalibration(_find_calibration(drive))
    left = timed_images(drive / f"image_{number:02d}", "data", timing, name)
    rectified = _is_rectified(calibration, number, left.images)
    read = calibration.rectified if rectified else calibration.unrectified
    camera = read(number, _FPS)
    check_image_size(left.images, camera.camera, f"{calibration.path}, camera {number}")
    right, rectifier = None, None
    if stereo:
        others = timed_images(drive / f"image_{number + 1:02d}", "data", timing, name)
        left, right = pair_images(left, others, timing, name)
        partner = read(number + 1, _FPS)
        camera, rectifier = _stereo(calibration, camera, partner, rectified)
    files = left.frame_files(right)
    what = f"{'left' if number == 0 else 'left colour'} camera"
    truth = _read_ground_truth(drive, calibration, camera, rectified, timing, what)
    final = replace(camera.camera, fps=nominal_fps(left.times, _FPS))
    return FileSequence(name, files, final, str(drive), truth, rectifier, dataset="kitti_raw")


@dataclass(frozen=True, eq=False)
class TimedFiles(ListedImages):
    """The images of a camera in the order of time.

    Attributes:
        stamps: (M,) float64, seconds, of all numbers of images; NaN past the list's end.
    """

    stamps: NDArray[np.float64]


def choose_cameras(
    drive: Path, folder: str, title: str, sensor: str, left_cameras: tuple[int, ...] = _LEFT_CAMERAS
) -> tuple[int, bool]:
    """Choose the cameras of a drive.

    Args:
        drive: the drive, with folders `image_0N`.
        folder: name of the folder of images in these.
        title: name of the data set, for messages.
        sensor: the user's choice.
        left_cameras: numbers of the left cameras, in order of preference.

    Returns:
        The number of the left (or only) camera, and whether to read stereo pairs.

    Raises:
        DatasetError: there are no such images.
    """
    if sensor == "rgbd":
        raise DatasetError(
            f"{drive} is {title}, which has no depth images: use --sensor stereo or mono"
        )
    numbers = [n for left in left_cameras for n in (left, left + 1)]
    there = {n: bool(list_files(drive / f"image_{n:02d}" / folder)) for n in numbers}
    if sensor != "mono":
        for left in left_cameras:
            if there[left] and there[left + 1]:
                return left, True
        if sensor == "stereo":
            found = ", ".join(f"image_{n:02d}" for n in numbers if there[n]) or "none"
            raise DatasetError(f"stereo needs images of both cameras in {drive}, found {found}")
    for left in left_cameras:
        if there[left]:
            if sensor == "auto":
                text = "%s: image_%02d has no images (*.png, *.jpg): mono"
                notice(_LOG, "unused_stream", text, drive, left + 1)
            return left, False
    raise DatasetError(
        f"expected images in {drive}/image_{left_cameras[0]:02d}/{folder}, found {contents(drive)}"
    )


def timed_images(camera: Path, folder: str, timing: Timing, name: str) -> TimedFiles:
    """Read the images of a camera, `0000000000.png`, …, with the stamps of `timestamps.txt`.

    A line of the list belongs to the image of its number, from 0 on. Without the list, which is a
    separate download of KITTI-360, images are counted at 10 a second, with a notice.

    Args:
        camera: the folder of the camera.
        folder: name of the folder of images in it.
        timing: unit of the time stamps.
        name: name of the recording, for messages.

    Raises:
        DatasetError: there are no such images, or the list holds something else than stamps.
    """
    files = list_files(camera / folder)
    numbered = [(int(path.stem), path) for path in files if path.stem.isascii() and _is_count(path)]
    if ignored := len(files) - len(numbered):
        text = "%s: %s left out: their names are no frame numbers"
        what = counted(ignored, "image is", "images are")
        notice(_LOG, "unlisted_images", text, camera / folder, what, count=ignored)
    if not numbered:
        raise DatasetError(
            f"expected images named 0000000000.png, … in {camera / folder}, "
            f"found {contents(camera / folder)}"
        )
    rows = np.array([number for number, _ in numbered], dtype=np.int64)
    stamps, unit = _stamps(camera, int(rows.max()) + 1, timing, name)
    timed = np.isfinite(stamps[rows])
    if missing := int(np.count_nonzero(~timed)):
        text = "%s: %d of %d images %s left out: timestamps.txt has no stamp of them"
        share = missing, len(rows), plural(missing, "is", "are")
        notice(_LOG, "no_stamp", text, camera, *share, count=missing)
    if not timed.any():
        raise DatasetError(f"{camera}/timestamps.txt has no stamp of any image in {folder}/")
    kept = np.flatnonzero(timed)
    times = stamps[rows[kept]]
    order, left_out = order_frames(times, f"{camera}/timestamps.txt")
    left_out += [LeftOut(np.nan, NO_STAMP)] * missing
    images = [numbered[kept[i]][1] for i in order]
    return TimedFiles(times[order], images, unit, left_out, stamps)


def _is_count(path: Path) -> bool:
    return path.stem.isdecimal() and len(path.stem.lstrip("0")) <= 9


def _stamps(camera: Path, count: int, timing: Timing, name: str) -> tuple[NDArray[np.float64], str]:
    """Return the stamps (M,) of image numbers, M >= count, seconds, and their unit."""
    path = camera / "timestamps.txt"
    if not path.is_file():
        text = "%s: %s is missing: images are counted, %g a second"
        notice(_LOG, "counted_images", text, name, path, _FPS)
        return np.arange(count) / _FPS, "frames"
    stamps, unit = read_stamp_list(path, timing)
    return np.concatenate([stamps, np.full(max(0, count - len(stamps)), np.nan)]), unit


def read_stamp_list(path: Path, timing: Timing) -> tuple[NDArray[np.float64], str]:
    """Read KITTI's list of dates with nanoseconds: stamps (N,), seconds, and their unit.

    Raises:
        DatasetError: the list cannot be read or holds something else.
    """
    try:
        lines = read_given(path).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"expected KITTI's time stamps at {path}: cannot be read ({reason(error)})"
        ) from None
    return read_stamps(stamp_column(lines, str(path)), "s", str(path), timing, _FPS)


def _is_drive(path: Path) -> bool:
    return any((path / f"image_{n:02d}" / "data").is_dir() for n in _LEFT_CAMERAS)


def _drives(path: Path) -> dict[str, Path]:
    """Return the drives in the folder of a date or of dates, by name."""
    dates = subfolders(path)
    folders = [*dates, *(drive for date in dates for drive in subfolders(date))]
    return {folder.name: folder for folder in folders if _is_drive(folder)}


def _find_drive(path: Path, sequence: str | None) -> Path:
    drive = "2011_09_26/2011_09_26_drive_0001_sync with image_00/data"
    expected = f"KITTI raw in {path} ({drive})"
    return find_sequence(path, _is_drive(path), _drives(path), sequence, expected)


def _find_calibration(drive: Path) -> Path:
    for folder in (drive.parent, drive):
        if (folder / _CALIBRATION).is_file():
            return folder / _CALIBRATION
    raise CalibrationError(
        f"expected KITTI's calibration at {drive.parent}/{_CALIBRATION}: it is a download of its "
        f"own (calib.zip of the date), found {contents(drive.parent)}"
    )


def _is_rectified(calibration: KittiCalibration, number: int, images: list[Path]) -> bool:
    """Return whether images are rectified, by their size; gives a notice if they are not."""
    size = image_size(images)
    if size == calibration.size(f"S_rect_{number:02d}"):
        return True
    if size != calibration.size(f"S_{number:02d}"):
        return True  # `check_image_size` raises the error
    text = "%s: images have the size before rectification (%dx%d): K and D of %s are used"
    notice(_LOG, "unrectified_images", text, images[0].parent, *size, calibration.path.name)
    return False


def _stereo(
    calibration: KittiCalibration, left: KittiCamera, right: KittiCamera, rectified: bool
) -> tuple[KittiCamera, StereoRectifier | None]:
    """Return the rectified left camera, and the rectifier of pairs as recorded."""
    if rectified:
        baseline = calibration.rectified_pair(left, right)
        try:
            return replace(left, camera=replace(left.camera, baseline_m=baseline)), None
        except CalibrationError as error:
            raise CalibrationError(f"{calibration.path}: {error}") from None
    try:
        rectifier = StereoRectifier(
            left.camera, right.camera, inverse(left.T_cam0_cam) @ right.T_cam0_cam
        )
    except CalibrationError as error:
        raise CalibrationError(
            f"{calibration.path}: the cameras are no stereo pair: {error}"
        ) from None
    T_cam0_rectified = left.T_cam0_cam @ rectifier.T_left_rectified
    return KittiCamera(rectifier.camera, T_cam0_rectified), rectifier


def _read_ground_truth(
    drive: Path,
    calibration: KittiCalibration,
    camera: KittiCamera,
    rectified: bool,
    timing: Timing,
    what: str,
) -> Trajectory | None:
    """Return the poses of the camera from the GPS and inertial measurements; None without them."""
    folder = drive / "oxts"
    files = list_files(folder / "data", (".txt",))
    if not files:
        return None
    try:
        T_imu_cam0 = _camera_in_imu(calibration, rectified)
        stamps, _ = read_stamp_list(folder / "timestamps.txt", timing)
        numbered = [path for path in files if _is_count(path) and int(path.stem) < len(stamps)]
        times = stamps[[int(path.stem) for path in numbered]]
        order, _ = order_frames(times, str(folder / "timestamps.txt"))
    except SpslamError as error:
        notice(_LOG, "ground_truth_unreadable", "the run continues without ground truth: %s", error)
        return None
    poses = poses_of_oxts(np.array([_read_oxts(numbered[i]) for i in order]).reshape(-1, _OXTS))
    surplus = len(files) - len(order)
    left_out = {"without a time stamp": surplus} if surplus else {}
    frame = f"{what} (carried from the GPS/IMU by KITTI's calibration)"
    T_world_cam = poses @ T_imu_cam0 @ camera.T_cam0_cam
    return truth_of_poses(folder, times[order], T_world_cam, frame, len(files), left_out)


def poses_of_oxts(oxts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return poses (N, 4, 4), IMU to world, of latitudes, longitudes, …: (N, 6) of `_OXTS`.

    The world is a Mercator projection with the scale of the first latitude: x east, y north, z up.
    """
    latitude, longitude = np.radians(oxts[:, 0]), np.radians(oxts[:, 1])
    known = latitude[np.isfinite(latitude)]
    scale = _EARTH_M * np.cos(known[0]) if len(known) else np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        north = np.log(np.tan(np.pi / 4 + latitude / 2))
    t = np.stack([scale * longitude, scale * north, oxts[:, 2]], axis=1)
    angles = oxts[:, 3:]
    usable = np.asarray(np.isfinite(angles).all(axis=1))
    turned = Rotation.from_euler("xyz", np.where(usable[:, None], angles, 0.0)).as_matrix()
    return make_transform(np.where(usable[:, None, None], turned, np.nan), t)


def _camera_in_imu(calibration: KittiCalibration, rectified: bool) -> NDArray[np.float64]:
    """Return `T_imu_cam0` (4, 4) of camera 0, rectified or as recorded."""
    folder = calibration.path.parent
    T_velo_imu = KittiCalibration(folder / "calib_imu_to_velo.txt").rigid("R", "T")
    T_cam_velo = KittiCalibration(folder / "calib_velo_to_cam.txt").rigid("R", "T")
    R_rect = calibration.rigid("R_rect_00") if rectified else np.eye(4)
    return inverse(R_rect @ T_cam_velo @ T_velo_imu)


def _read_oxts(path: Path) -> list[float]:
    try:
        words = read_given(path).decode("ascii").split()[:_OXTS]
        numbers = [float(word) for word in words]
    except (OSError, ValueError):
        numbers = []
    return numbers if len(numbers) == _OXTS else [np.nan] * _OXTS
