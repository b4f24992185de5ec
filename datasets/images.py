"""A folder of images with a calibration file: mono, stereo pairs or RGB-D."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import CalibrationError, DatasetError
from spslam.frame import Sensor

from .base import FileSequence, FrameFiles, check_image_size
from .calibration import Calibration, find_calibration
from .decoding import DEPTH_SUFFIXES, IMAGE_SUFFIXES, list_files
from .depth_files import depth_units
from .layout import contents, report_unpaired
from .rectify import StereoRectifier, rectified_camera
from .timing import associate, nominal_fps, order_by_time

_LOG = logging.getLogger(__name__)
_FOLDERS = ("left", "images", "image", "rgb")
_ASSOCIATION_S = 0.02
_DEPTH_UNITS_PER_METRE = 1000.0
_NUMBERED = re.compile(r"(?P<prefix>.*?)(?P<number>\d+(?:\.\d+)?)(?P<suffix>\D*)", re.DOTALL)
# Whole numbers from the first figure on are a time since 1970 (or since a boot long ago) in the unit of the second.
_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3), (1e9, 1.0))


def is_images(path: Path) -> bool:
    """Whether a folder holds images, or has a subfolder (`left/`, `images/`, `rgb/`) that does."""
    return _image_folder(path) is not None


def open_images(
    path: Path, sequence: str | None = None, sensor: str = "auto", calibration: str | Path | None = None
) -> FileSequence:
    """Open an image folder, or its subfolder `sequence`.

    Images lie in the folder itself or in `left/` (or `images/`, `rgb/`), right images in `right/`, depth registered
    to the images in `depth/`. Numbers in the names that follow one pattern give the time: with a decimal point
    seconds; large whole numbers nano-, micro- or milliseconds or seconds by their size; smaller ones are a counter
    that `fps` divides, so that gaps in the counter are gaps in time. Names without a pattern count 0, 1, 2, … in
    natural order. Frames are in the order of these times whatever the order of the names; an image with a time that
    was there before is dropped and counted. Right and depth images belong to the image of the same number, or when
    no numbers are equal and they are times, to the nearest within 0.02 s; images without a partner are left out.

    Raises:
        DatasetError: images or calibration are missing or hold something else than expected.
    """
    folder = path if sequence is None else path / sequence
    images_folder = _image_folder(folder)
    if images_folder is None:
        found = contents(folder) if folder.is_dir() else "no such folder"
        raise DatasetError(f"expected images (*.png, *.jpg) in {folder} or its left/ subfolder, found {found}")
    places = [folder, images_folder, path]
    if images_folder.name in _FOLDERS:  # the path may be left/ itself
        places.append(images_folder.parent)
    given = find_calibration(calibration, places, f"the image folder {folder}")
    sides = images_folder.parent if images_folder.name in _FOLDERS else folder
    kind = _choose_sensor(sides, sensor, given)
    name = f"images {folder.name}"
    left = _timed(images_folder, IMAGE_SUFFIXES, given)
    check_image_size(left.paths, given.camera, f"calibration {given.path}")

    if kind == "mono":
        camera = replace(given.camera, fps=nominal_fps(left.times, given.camera.fps))
        return FileSequence(name, FrameFiles(left.times, left.paths), camera, str(folder))
    if kind == "rgbd":
        left, depth = _pair(left, _timed(sides / "depth", DEPTH_SUFFIXES, given), name, "depth image")
        units = depth_units(given.depth_scale, _DEPTH_UNITS_PER_METRE)
        camera = replace(given.camera, fps=nominal_fps(left.times, given.camera.fps))
        files = FrameFiles(left.times, left.paths, depth=depth.paths, depth_units=units)
        return FileSequence(name, files, camera, str(folder))
    left, right = _pair(left, _timed(sides / "right", IMAGE_SUFFIXES, given), name, "right image")
    files = FrameFiles(left.times, left.paths, right=right.paths)
    camera, rectifier = _stereo_camera(given)
    camera = replace(camera, fps=nominal_fps(left.times, given.camera.fps))
    return FileSequence(name, files, camera, str(folder), rectifier=rectifier)


@dataclass(frozen=True, eq=False)
class _Timed:
    """Files in the order of time: numbers of their names (whole ones exactly), seconds, what the numbers are."""

    numbers: list[int | str]
    times: NDArray[np.float64]
    paths: list[Path]
    kind: Literal["time", "counter", "none"]

    def select(self, rows: NDArray[np.int64]) -> _Timed:
        return _Timed([self.numbers[i] for i in rows], self.times[rows], [self.paths[i] for i in rows], self.kind)


def _image_folder(folder: Path) -> Path | None:
    return next((f for f in (folder, *(folder / name for name in _FOLDERS)) if list_files(f)), None)


def _choose_sensor(sides: Path, sensor: str, calibration: Calibration) -> Sensor:
    has_right, has_depth = bool(list_files(sides / "right")), bool(list_files(sides / "depth", DEPTH_SUFFIXES))
    if sensor == "stereo" or (sensor == "auto" and has_right and not (has_depth and calibration.right is None)):
        if not has_right:
            raise DatasetError(f"stereo needs right images in {sides}/right, found {contents(sides)}")
        if calibration.right is None:
            raise CalibrationError(
                f"{sides}/right holds images, but calibration {calibration.path} has no right camera: add `right:` "
                "and `T_left_right:`, or use --sensor mono"
            )
        return "stereo"
    if sensor == "rgbd" or (sensor == "auto" and has_depth):
        if not has_depth:
            raise DatasetError(f"RGB-D needs depth images in {sides}/depth, found {contents(sides)}")
        return "rgbd"
    return "mono"


def _stereo_camera(calibration: Calibration) -> tuple[Camera, StereoRectifier | None]:
    assert calibration.right is not None and calibration.T_left_right is not None
    try:
        camera = rectified_camera(calibration.camera, calibration.right, calibration.T_left_right)
        if camera is not None:
            return camera, None
        rectifier = StereoRectifier(calibration.camera, calibration.right, calibration.T_left_right)
    except CalibrationError as error:
        raise CalibrationError(f"calibration {calibration.path}: {error}") from None
    return rectifier.camera, rectifier


def _timed(folder: Path, suffixes: tuple[str, ...], calibration: Calibration) -> _Timed:
    paths = list_files(folder, suffixes)
    matches = [_NUMBERED.fullmatch(path.stem) for path in paths]
    numbers = [match["number"] for match in matches if match is not None]
    affixes = {(match["prefix"], match["suffix"]) for match in matches if match is not None}
    if len(numbers) < len(paths) or len(affixes) > 1:
        _LOG.warning("%s: names follow no one pattern; times count the images in natural order", folder)
        paths = sorted(paths, key=_natural)
        timed = _Timed(list(range(len(paths))), _counted(range(len(paths)), calibration, folder), paths, "none")
    elif any("." in number for number in numbers):
        timed = _Timed([*numbers], np.array([float(number) for number in numbers]), paths, "time")
    else:
        whole = [int(number) for number in numbers]
        unit = next((unit for least, unit in _UNITS if min(whole) >= least), None)
        times = _counted(whole, calibration, folder) if unit is None else np.array([n / unit for n in whole])
        timed = _Timed([*whole], times, paths, "counter" if unit is None else "time")
    # Names sort as text: only the numbers tell the order, so that theirs is no cause for a warning.
    by_time = timed.select(np.argsort(timed.times, kind="stable").astype(np.int64))
    return by_time.select(order_by_time(by_time.times, str(folder)))


def _counted(numbers: list[int] | range, calibration: Calibration, folder: Path) -> NDArray[np.float64]:
    if calibration.fps is None:
        raise CalibrationError(
            f"the names of the images in {folder} are no times: calibration {calibration.path} needs fps, the rate of "
            "the file numbers"
        )
    return np.array(numbers, dtype=np.float64) / calibration.fps


def _natural(path: Path) -> list[tuple[int, int | str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]


def _pair(left: _Timed, other: _Timed, name: str, partner: str) -> tuple[_Timed, _Timed]:
    rows = {number: row for row, number in enumerate(other.numbers)}
    pairs = np.array(
        [(i, rows[number]) for i, number in enumerate(left.numbers) if number in rows], dtype=np.int64
    ).reshape(-1, 2)
    if len(pairs) == 0 and left.kind == other.kind == "time":
        pairs = associate(left.times, other.times, _ASSOCIATION_S)
    report_unpaired(len(pairs), len(left.paths), name, partner)
    return left.select(pairs[:, 0]), other.select(pairs[:, 1])
