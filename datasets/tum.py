"""Read TUM RGB-D recordings.

Source: Sturm et al., A benchmark for the evaluation of RGB-D SLAM systems, IROS 2012.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import CalibrationError, DatasetError
from spslam.interfaces import NO_STAMP, LeftOut
from spslam.notices import notice
from spslam.trajectory import Trajectory, read_ground_truth

from .base import FileSequence, FrameFiles, check_image_size
from .calibration.calibration import CALIBRATION_NAME, load_calibration, search_calibration
from .calibration.mask_paths import MaskPaths
from .images.decoding import image_size
from .images.depth_files import DepthUnits, depth_units
from .images.lists import read_image_list
from .paths import check_sequence_name, choose_sequence, contents, subfolders, unused_streams
from .timestamps import Timing, check_counted, nominal_fps, order_frames, pair_by_time, read_stamps

_LOG = logging.getLogger(__name__)
# Units of depth files per metre, as the benchmark defines them.
_DEPTH_UNITS_PER_METRE = 5000.0
# Nominal frames per second of the colour cameras, 1/s.
_FPS = 30.0
# Read-out time of the Kinect's rolling shutter, colour camera, seconds from first to last row.
# Source for the shutter: Ringaby & Forssén, Scan rectification for structured light range sensors
# with rolling shutters, ICCV 2011. The time was fitted to fr1_rpy.
_READOUT_S = 0.022
# The colour cameras as published with the benchmark, one for each of the three robots.
_CAMERAS = {
    robot: replace(camera, fps=_FPS, readout_s=_READOUT_S)
    for robot, camera in {
        "1": Camera(
            640,
            480,
            517.3,
            516.5,
            318.6,
            255.3,
            "radtan",
            (0.2624, -0.9531, -0.0054, 0.0026, 1.1633),
        ),
        "2": Camera(
            640,
            480,
            520.9,
            521.0,
            325.1,
            249.7,
            "radtan",
            (0.2312, -0.7849, -0.0033, -0.0001, 0.9172),
        ),
        "3": Camera(640, 480, 535.4, 539.2, 320.1, 247.6),
    }.items()
}
_ROBOT = re.compile(r"(?:freiburg|fr)([123])(?!\d)", re.IGNORECASE)


def is_tum(path: Path) -> bool:
    """Return whether a folder is one sequence of TUM RGB-D, or a folder of sequences."""
    # Recognise a sequence without rgb.txt too, so that the error message can name the missing file.
    incomplete = (path / "rgb").is_dir() and any(
        (path / name).is_file() for name in ("depth.txt", "groundtruth.txt")
    )
    return (
        _is_sequence(path) or incomplete or any(_is_sequence(folder) for folder in subfolders(path))
    )


def open_tum(
    path: Path,
    sequence: str | None = None,
    sensor: str = "auto",
    calibration: str | Path | None = None,
    timing: Timing = Timing(),  # noqa: B008 - frozen
) -> FileSequence:
    """Open a TUM RGB-D sequence.

    Colour and depth are associated one to one by nearest time within `timing.pair_within_s`. The
    ground truth gives poses of the colour camera.

    Args:
        path: the folder of a sequence (with `rgb.txt`), or a folder of such folders.
        sequence: name of the sequence where `path` holds several.
        sensor: `auto`, `rgbd` or `mono`; `auto` is RGB-D where there is `depth.txt`.
        calibration: calibration file. Not needed if the folder's name has freiburg1, 2 or 3.
        timing: unit of the time stamps, and the largest time between colour and depth.

    Raises:
        DatasetError: files are missing or hold something else than expected.
    """
    folder = _find_sequence(path, sequence)
    name = f"tum {folder.name.removeprefix('rgbd_dataset_')}"
    if sensor == "stereo":
        raise DatasetError(
            f"{folder} is TUM RGB-D, which has no right images: use --sensor rgbd or mono"
        )
    has_depth = (folder / "depth.txt").is_file()
    if sensor == "rgbd" and not has_depth:
        raise DatasetError(
            f"RGB-D needs a list of depth images at {folder}/depth.txt, found {contents(folder)}"
        )
    camera, units, origin, masks = _find_camera(folder, calibration)
    times, images, unit, left_out = _read_list(folder / "rgb.txt", timing, camera.fps)
    depth = None
    if has_depth and sensor != "mono":
        depth_times, depth_images, _, _ = _read_list(folder / "depth.txt", timing, camera.fps)
        check_counted(len(times), len(depth_times), timing, name, "depth image")
        pairs, unpaired = pair_by_time(
            times, depth_times, timing.pair_within_s, name, "depth image"
        )
        times, images = times[pairs[:, 0]], [images[i] for i in pairs[:, 0]]
        depth = [depth_images[i] for i in pairs[:, 1]]
        left_out += unpaired
    elif sensor == "auto" and (unused := unused_streams(folder, ("depth",))):
        notice(
            _LOG,
            "unused_stream",
            "%s: %s/ is not used, because its list depth.txt is missing: mono",
            name,
            unused[0],
        )
    check_image_size(images, camera, origin)
    files = FrameFiles(
        times, images, depth=depth, depth_units=units, time_unit=unit, left_out=tuple(left_out)
    )
    camera = replace(camera, fps=nominal_fps(times, camera.fps))
    opened = FileSequence(
        name, files, camera, str(folder), _read_ground_truth(folder, times), dataset="tum"
    )
    opened.calibrated_masks = masks
    return opened


def _is_sequence(path: Path) -> bool:
    return (path / "rgb.txt").is_file()


def _find_sequence(path: Path, sequence: str | None) -> Path:
    if _is_sequence(path):
        check_sequence_name(path, sequence)
        return path
    choices = {folder.name: folder for folder in subfolders(path) if _is_sequence(folder)}
    if not choices:
        raise DatasetError(
            f"expected a TUM RGB-D sequence in {path} (rgb.txt, depth.txt, rgb/, depth/), "
            f"found {contents(path)}"
        )
    return choose_sequence(path, choices, sequence)


def _find_camera(
    folder: Path, calibration: str | Path | None
) -> tuple[Camera, DepthUnits, str, MaskPaths | None]:
    """Return the camera, the units of depth per metre, their origin in words, and the masks."""
    robots = _ROBOT.findall(folder.name)
    if calibration is None and (folder / CALIBRATION_NAME).is_file():
        calibration = folder / CALIBRATION_NAME
    elif calibration is None and not robots:
        calibration = search_calibration([folder])
    if calibration is not None:
        own = load_calibration(calibration, lambda: _image_size(folder))
        units = depth_units(own.depth_scale, _DEPTH_UNITS_PER_METRE)
        return own.camera, units, f"calibration {own.path}", own.masks
    if not robots:
        raise CalibrationError(
            f"the camera of {folder} is unknown: expected freiburg1, freiburg2 or freiburg3 "
            "in the folder's name, or --calibration FILE"
        )
    return (
        _CAMERAS[robots[0]],
        depth_units(None, _DEPTH_UNITS_PER_METRE),
        f"the calibration of freiburg{robots[0]}",
        None,
    )


def _image_size(folder: Path) -> tuple[int, int]:
    _, names, _ = read_image_list(folder / "rgb.txt", "'timestamp filename'")
    return image_size([folder / name for name in names])


def _read_list(
    path: Path, timing: Timing, fps: float
) -> tuple[NDArray[np.float64], list[Path], str, list[LeftOut]]:
    """Read a list of `timestamp filename` lines.

    Returns:
        Increasing stamps (N,), seconds; N paths; the unit of the stamps; what was left out.
    """
    found, names, unknown = read_image_list(path, "'timestamp filename'")
    images = [path.parent / name for name in names]
    stamps, unit = read_stamps(found, "s", str(path), timing, fps)
    order, left_out = order_frames(stamps, str(path))
    left_out += [LeftOut(np.nan, NO_STAMP)] * unknown
    return stamps[order], [images[i] for i in order], unit, left_out


def _read_ground_truth(folder: Path, times: NDArray[np.float64]) -> Trajectory | None:
    path = folder / "groundtruth.txt"
    return read_ground_truth(path, times, "colour camera", False, "s") if path.is_file() else None
