"""Read the UZH-FPV drone racing data set: lists of images, and a camchain of Kalibr.

Source: Delmerico et al., Are we ready for autonomous drone racing? The UZH-FPV drone racing
dataset, ICRA 2019.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.errors import CalibrationError, DatasetError
from spslam.geometry import inverse
from spslam.interfaces import NO_STAMP, LeftOut
from spslam.io.given_files import read_given
from spslam.notices import notice
from spslam.trajectory import Trajectory, carried_truth, read_ground_truth

from .base import FileSequence, check_image_size
from .calibration.camchain import CameraChain, is_camchain, read_camchain
from .calibration.checks import report_baseline
from .calibration.rectify import StereoRectifier
from .euroc import in_clock_of_images
from .images.lists import read_image_list
from .listed import ListedImages, pair_images
from .paths import check_sequence_name, choose_sequence, contents, shorten, subfolders
from .timestamps import Timing, check_counted, nominal_fps, order_frames, read_stamps
from .tum_vi import carried_words

_LOG = logging.getLogger(__name__)
# Images per second of the Snapdragon's fisheye pair, 1/s.
_FPS = 30.0
# Lists of the left images of the Snapdragon's pair, and of the DAVIS's images.
_LEFT, _RIGHT, _MONO = "left_images.txt", "right_images.txt", "images.txt"
_HEADING = "image_name"
# Bytes of a list in which its heading is searched.
_HEADING_WITHIN = 200


def is_uzh_fpv(path: Path) -> bool:
    """Return whether a folder is a recording of UZH-FPV, or holds such recordings."""
    return any(_list_of(folder) is not None for folder in (path, *subfolders(path)))


def open_uzh_fpv(
    path: Path,
    sequence: str | None = None,
    sensor: str = "auto",
    calibration: Path | None = None,
    timing: Timing = Timing(),  # noqa: B008 - frozen
) -> FileSequence:
    """Open a recording of UZH-FPV.

    The camchain is published in a folder of its own, such as `indoor_forward_calib_snapdragon`. It
    is found in the recording or beside it. The ground truth gives poses of the IMU; it is carried
    to the left camera.

    Args:
        path: the folder of a recording (with `left_images.txt` or `images.txt`), or a folder of
            recordings.
        sequence: name of the recording where `path` holds several.
        sensor: `auto`, `stereo` or `mono`; `auto` is stereo where there is `right_images.txt`.
        calibration: the camchain; None: it is searched.
        timing: unit of the time stamps, and the largest time between the images of a pair.

    Raises:
        DatasetError: files are missing or hold something else than expected.
    """
    folder = _find_recording(path, sequence)
    name = f"uzhfpv {folder.name}"
    if sensor == "rgbd":
        raise DatasetError(
            f"{folder} is UZH-FPV, which has no depth images: use --sensor stereo or mono"
        )
    there = (folder / _RIGHT).is_file() and (folder / _LEFT).is_file()
    if sensor == "stereo" and not there:
        raise DatasetError(f"stereo needs lists {_LEFT} and {_RIGHT} in {folder}")
    chain = _read_chain(folder, calibration, name)
    left = chain.cameras[0]
    listed = _read_list(_needed_list(folder), timing)
    T_imu_camera, rectifier, right = inverse(left.T_cam_imu), None, None
    what = "left camera, unrectified"
    if there and sensor != "mono":
        others = _read_list(folder / _RIGHT, timing)
        check_counted(len(listed.times), len(others.times), timing, name, "right image")
        listed, right = pair_images(listed, others, timing, name)
        rectifier = _rectifier(chain)
        T_imu_camera = T_imu_camera @ rectifier.T_left_rectified
        what = "left camera as rectified"
    check_image_size(listed.images, left.camera, f"camchain {chain.path}, cam0")
    camera = left.camera if rectifier is None else rectifier.camera
    files = listed.frame_files(right)
    camera = replace(camera, fps=nominal_fps(listed.times, _FPS))
    truth = _read_ground_truth(folder, listed.times, left.imu_ahead_s)
    if truth is not None:
        truth = carried_truth(truth, T_imu_camera, f"{what} ({carried_words(chain)})")
    return FileSequence(name, files, camera, str(folder), truth, rectifier, dataset="uzhfpv")


def _list_of(folder: Path) -> Path | None:
    """Return the list of the left or only images of a recording; None without one."""
    if (folder / _LEFT).is_file():
        return folder / _LEFT
    # Only the heading distinguishes the DAVIS's list from COLMAP's file of the same name.
    mono = folder / _MONO
    if mono.is_file() and (folder / "img").is_dir():
        try:
            return mono if _HEADING in read_given(mono)[:_HEADING_WITHIN].decode() else None
        except (OSError, UnicodeDecodeError):
            return None
    return None


def _needed_list(folder: Path) -> Path:
    found = _list_of(folder)
    assert found is not None
    return found


def _find_recording(path: Path, sequence: str | None) -> Path:
    if _list_of(path) is not None:
        check_sequence_name(path, sequence)
        return path
    choices = {folder.name: folder for folder in subfolders(path) if _list_of(folder) is not None}
    if not choices:
        raise DatasetError(
            f"expected a recording of UZH-FPV in {path} ({_LEFT}, {_RIGHT}, img/), "
            f"found {contents(path)}"
        )
    return choose_sequence(path, choices, sequence)


def _read_list(path: Path, timing: Timing) -> ListedImages:
    found, names, unknown = read_image_list(path, "'id timestamp image_name'")
    stamps, unit = read_stamps(found, "s", str(path), timing, _FPS)
    order, left_out = order_frames(stamps, str(path))
    left_out += [LeftOut(np.nan, NO_STAMP)] * unknown
    return ListedImages(stamps[order], [path.parent / names[i] for i in order], unit, left_out)


def _rectifier(chain: CameraChain) -> StereoRectifier:
    if len(chain.cameras) < 2:
        raise CalibrationError(f"camchain {chain.path} has no cam1: use --sensor mono")
    left, right = chain.cameras[:2]
    T_left_right = left.T_cam_imu @ inverse(right.T_cam_imu)
    try:
        rectifier = StereoRectifier(left.camera, right.camera, T_left_right)
    except CalibrationError as error:
        raise CalibrationError(f"camchain {chain.path} is of no stereo pair: {error}") from None
    report_baseline(float(np.linalg.norm(T_left_right[:3, 3])), f"camchain {chain.path}")
    return rectifier


def _read_chain(folder: Path, calibration: Path | None, name: str) -> CameraChain:
    if calibration is not None:
        return read_camchain(calibration, _FPS)
    for place in (folder, *subfolders(folder)):
        if found := _camchains(place):
            return read_camchain(_only(found, folder), _FPS)
    beside = {
        other: found
        for other in subfolders(folder.parent)
        if "calib" in other.name and (found := _camchains(other))
    }
    fitting = {other: found for other, found in beside.items() if _fits(folder, other)}
    chosen = fitting or beside
    if not chosen:
        raise CalibrationError(
            f"expected Kalibr's camchain of {folder} in it or in a folder *calib* beside it "
            "(as indoor_forward_calib_snapdragon), found none: give it with --calibration FILE"
        )
    path = _only([path for found in chosen.values() for path in found], folder)
    if not fitting:
        text = "%s: the calibration %s is used, whose folder has another name than the recording"
        notice(_LOG, "calibration_guessed", text, name, path)
    return read_camchain(path, _FPS)


def _camchains(folder: Path) -> list[Path]:
    """Return the camchains in a folder; those with the pose of the IMU come alone."""
    found = [path for path in sorted(folder.glob("*camchain*.y*ml")) if is_camchain(path)]
    # Kalibr writes camchain-… without the IMU, and camchain-imucam-… with it.
    return [path for path in found if "imucam" in path.name] or found


def _fits(folder: Path, other: Path) -> bool:
    """Return whether a calibration's folder is that of a recording: same place, same sensor.

    `indoor_forward_calib_snapdragon` is that of `indoor_forward_3_snapdragon_with_gt`.
    """
    words = [word for word in other.name.split("_") if not word.startswith("calib")]
    return all(word in folder.name.split("_") for word in words)


def _only(found: list[Path], folder: Path) -> Path:
    if len(found) > 1:
        raise CalibrationError(
            f"{folder}: {len(found)} calibrations may be its own "
            f"({shorten([str(path) for path in found])}): choose one with --calibration FILE"
        )
    return found[0]


def _read_ground_truth(
    folder: Path, times: NDArray[np.float64], ahead_s: float
) -> Trajectory | None:
    path = folder / "groundtruth.txt"
    if not path.is_file():
        return None
    truth = read_ground_truth(path, times + ahead_s, "IMU", False, "s")
    return None if truth is None else in_clock_of_images(truth, ahead_s)
