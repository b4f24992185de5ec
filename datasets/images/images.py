"""Read a folder of images with a calibration file: mono, stereo pairs or RGB-D."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import CalibrationError, DatasetError
from spslam.frame import Sensor
from spslam.interfaces import LeftOut
from spslam.notices import counted, notice, plural

from ..base import FileSequence, FrameFiles, check_image_size
from ..calibration.calibration import Calibration, find_calibration
from ..calibration.rectify import StereoRectifier, rectified_camera
from ..paths import contents, subfolder, unused_streams
from ..timestamps import Timing, nominal_fps, pair_by_time, report_unpaired
from .decoding import DEPTH_SUFFIXES, IMAGE_KINDS, IMAGE_SUFFIXES, image_size, list_files
from .depth_files import depth_units
from .image_names import TimedImages, time_images

_LOG = logging.getLogger(__name__)
# Subfolders that may hold the (left) images, in any case of their letters, and those that hold the
# right images then.
_RIGHT_OF = {
    "left": "right",
    "images": "right",
    "image": "right",
    "rgb": "right",
    "cam0": "cam1",
    "image_left": "image_right",
}
# Units of integer depth files per metre where the calibration has no depth_scale.
_DEPTH_UNITS_PER_METRE = 1000.0
# Words in the names of folders that seem to hold right or depth images.
_RIGHT_WORDS = ("right",)
_DEPTH_WORDS = ("depth", "disparity")


def is_images(path: Path) -> bool:
    """Return whether a folder or one of its subfolders for left images holds images."""
    return _image_folder(path) is not None


def open_images(
    path: Path,
    sequence: str | None = None,
    sensor: str = "auto",
    calibration: str | Path | None = None,
    timing: Timing = Timing(),  # noqa: B008 - frozen
) -> FileSequence:
    """Open an image folder, or its subfolder `sequence`.

    Images lie in the folder itself or in `left/`, `images/`, `image/`, `rgb/`, `cam0/` or
    `image_left/`; the folder with the most images is read. Right images lie in `right/`, or in
    `cam1/` or `image_right/` beside their partner; depth registered to the images in
    `depth/`. The case of the letters does not count. Numbers in the names give the times, see
    `time_images`, and the order of the frames.

    Right and depth images are paired with the image of the same number or name. If these differ,
    times are paired with the nearest time within `timing.pair_within_s`, and two lists of counted
    images of equal length are paired in order. Images that repeat a time and images without a
    partner are left out and counted.

    Args:
        path: the image folder, or `left/` itself.
        sequence: name of a subfolder to open instead, or None.
        sensor: `auto`, `mono`, `stereo` or `rgbd`; `auto` prefers stereo, then RGB-D.
        calibration: calibration file; None: `calibration.yaml` in the folder.
        timing: unit of the time stamps, and the largest time between the images of a pair.

    Raises:
        DatasetError: images or calibration are missing or hold something else than expected.
        TimestampError: the unit of the numbers in the names is ambiguous.
    """
    folder = path if sequence is None else path / sequence
    images_folder = _image_folder(folder)
    if images_folder is None:
        found = contents(folder) if folder.is_dir() else "no such folder"
        raise DatasetError(
            f"expected images ({IMAGE_KINDS}) in {folder} or its left/ subfolder, found {found}"
        )
    _tell_others(folder, images_folder)
    places = [folder, images_folder, path]
    is_side = images_folder.name.lower() in _RIGHT_OF  # the path may be left/ itself
    sides = images_folder.parent if is_side else folder
    if is_side:
        places.append(sides)
    given = find_calibration(
        calibration,
        places,
        f"the image folder {folder}",
        lambda: image_size(list_files(images_folder)),
    )
    right_folder = subfolder(sides, _RIGHT_OF.get(images_folder.name.lower(), "right"))
    depth_folder = subfolder(sides, "depth")
    kind = _choose_sensor(sides, right_folder, depth_folder, sensor, given)
    if kind != "mono" and sensor == "auto" and sides == folder.parent:
        _tell_beside(folder, right_folder if kind == "stereo" else depth_folder, kind)
    name = f"images {folder.name}"
    left = time_images(images_folder, IMAGE_SUFFIXES, given, timing)
    check_image_size(left.paths, given.camera, f"calibration {given.path}")
    camera, rectifier = (given.camera, None) if kind != "stereo" else _stereo_camera(given)
    left_out = list(left.left_out)
    right = depth = None
    if kind == "stereo":
        left, right, alone = _pair(left, right_folder, IMAGE_SUFFIXES, given, timing, name)
        left_out += alone
    elif kind == "rgbd":
        left, depth, alone = _pair(left, depth_folder, DEPTH_SUFFIXES, given, timing, name)
        left_out += alone
    files = FrameFiles(
        left.times,
        left.paths,
        right=right,
        depth=depth,
        depth_units=depth_units(given.depth_scale, _DEPTH_UNITS_PER_METRE),
        time_unit=left.unit,
        left_out=tuple(left_out),
        bayer=given.bayer,
    )
    camera = replace(camera, fps=nominal_fps(left.times, given.camera.fps))
    opened = FileSequence(name, files, camera, str(folder), rectifier=rectifier, dataset="images")
    opened.calibrated_masks = given.masks
    return opened


def _image_folders(folder: Path) -> list[Path]:
    """Return `folder` and its subfolders that may hold the (left) images."""
    return [folder, *(subfolder(folder, name) for name in _RIGHT_OF)]


def _image_folder(folder: Path) -> Path | None:
    """Return the one of `_image_folders` that has the most images, or None."""
    counts = {place: len(list_files(place)) for place in _image_folders(folder)}
    most = max(counts, key=counts.__getitem__)
    return most if counts[most] else None


def _tell_beside(folder: Path, beside: Path, kind: Sensor) -> None:
    """Give a notice about images that lie outside of the given folder."""
    text = "%s is read with the images in %s, and the run is %s; --sensor mono leaves them out"
    notice(_LOG, "stream_beside", text, folder, beside, kind)


def _tell_others(folder: Path, taken: Path) -> None:
    """Give notices about other folders whose images could have been meant."""
    for place in _image_folders(folder):
        if place != taken and (others := list_files(place)):
            text = "%s: the %s in %s %s read, the %d in %s %s not"
            count, read = len(others), len(list_files(taken))
            notice(
                _LOG,
                "unused_images",
                text,
                folder,
                counted(read, "image"),
                taken,
                plural(read, "is", "are"),
                count,
                place,
                plural(count, "is", "are"),
                count=count,
            )


def _choose_sensor(
    sides: Path, right: Path, depth: Path, sensor: str, calibration: Calibration
) -> Sensor:
    has_right, has_depth = (
        bool(list_files(right)),
        bool(list_files(depth, DEPTH_SUFFIXES)),
    )
    if sensor == "stereo" or (
        sensor == "auto" and has_right and not (has_depth and calibration.right is None)
    ):
        if not has_right:
            raise DatasetError(f"stereo needs right images in {right}, found {contents(sides)}")
        if calibration.right is None:
            raise CalibrationError(
                f"{right} holds images, but calibration {calibration.path} has no right "
                "camera: add `right:` and `T_left_right:`, or use --sensor mono"
            )
        if sensor == "auto" and has_depth:
            text = (
                "%s is not used, and the run is stereo; "
                "--sensor rgbd uses it instead of the right images"
            )
            notice(_LOG, "unused_stream", text, depth)
        return "stereo"
    if sensor == "rgbd" or (sensor == "auto" and has_depth):
        if not has_depth:
            raise DatasetError(f"RGB-D needs depth images in {depth}, found {contents(sides)}")
        return "rgbd"
    if sensor == "auto" and not _tell_unused(sides):
        _tell_missing(sides, calibration)
    return "mono"


def _tell_missing(sides: Path, calibration: Calibration) -> None:
    """Give notices about right or depth images that only the calibration mentions."""
    for there, what in ((calibration.right, "right"), (calibration.depth_scale, "depth")):
        if there is not None:
            text = (
                "calibration %s is for %s images, too, but there is no folder %s/%s: "
                "the run is mono"
            )
            notice(_LOG, "unused_stream", text, calibration.path, what, sides, what)


def _tell_unused(sides: Path) -> bool:
    """Give notices about unused folders that seem to hold right or depth images.

    Returns whether there are any.
    """
    found = False
    for words, expected, suffixes in (
        (_RIGHT_WORDS, "right", IMAGE_SUFFIXES),
        (_DEPTH_WORDS, "depth", DEPTH_SUFFIXES),
    ):
        for name in unused_streams(sides, words):
            found = True
            reason = (
                f"it holds {contents(sides / name)}, not {', '.join(suffixes)}"
                if name == expected
                else f"the folder must be called {expected}/"
            )
            notice(
                _LOG,
                "unused_stream",
                "%s/%s is not used, and the run is mono: %s",
                sides,
                name,
                reason,
            )
    return found


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


def _pair(
    left: TimedImages,
    folder: Path,
    suffixes: tuple[str, ...],
    calibration: Calibration,
    timing: Timing,
    name: str,
) -> tuple[TimedImages, list[Path], list[LeftOut]]:
    """Pair images with those in `folder`.

    Returns:
        Images with a partner, the partners, and the images without a partner.
    """
    other = time_images(folder, suffixes, calibration, timing, left)
    what = f"{folder.name} image"
    pairs, named = _same_numbers(left, other), _same_names(left, other)
    if len(named) > (0 if pairs is None else len(pairs)):
        pairs = named
    if pairs is None:
        pairs = _same_places(left, other, name, what)
    # Few equal numbers among times are equal by chance: pair by the nearest time instead.
    if 2 * len(pairs) < len(left.paths) and left.has_times and other.has_times:
        pairs, alone = pair_by_time(left.times, other.times, timing.pair_within_s, name, what)
    else:
        missing = np.setdiff1d(np.arange(len(left.paths)), pairs[:, 0])
        report_unpaired(len(missing), len(left.paths), name, f"{what} of the same number")
        alone = [LeftOut(float(left.times[row]), f"no {what}") for row in missing]
    return left.select(pairs[:, 0]), [other.paths[row] for row in pairs[:, 1]], alone


def _same_numbers(left: TimedImages, other: TimedImages) -> NDArray[np.int64] | None:
    """Return rows (M, 2) of images of the same number.

    None if numbers cannot be compared: images have none, or the counters of two equally long lists
    begin at different numbers.
    """
    if not (left.numbered and other.numbered):
        return None
    rows = {number: row for row, number in enumerate(other.numbers)}
    found = [(row, rows[number]) for row, number in enumerate(left.numbers) if number in rows]
    if len(found) < len(left.paths) == len(other.paths):
        if left.has_times != other.has_times:
            return None
        if not left.has_times and np.allclose(np.diff(left.times), np.diff(other.times)):
            return None
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _same_names(left: TimedImages, other: TimedImages) -> NDArray[np.int64]:
    """Return rows (M, 2) of images of the same name."""
    rows = {path.stem: row for row, path in enumerate(other.paths)}
    found = [(row, rows[path.stem]) for row, path in enumerate(left.paths) if path.stem in rows]
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _same_places(left: TimedImages, other: TimedImages, name: str, what: str) -> NDArray[np.int64]:
    """Pair two lists in order, rows (M, 2), and give a notice.

    Raises:
        DatasetError: the lists are not equally long.
    """
    names = f"{left.paths[0].name} and {other.paths[0].name}"
    if len(left.paths) != len(other.paths):
        raise DatasetError(
            f"{name}: which images belong together is not known: "
            f"{counted(len(left.paths), 'image')} "
            f"and {counted(len(other.paths), what)} have no numbers or names in common ({names}): "
            "give both of a pair the same name"
        )
    text = "%s: images and %ss are paired in order (%s), because their numbers differ (%s, …)"
    notice(_LOG, "paired_in_order", text, name, what, counted(len(left.paths), "pair"), names)
    return np.tile(np.arange(len(left.paths))[:, None], 2).astype(np.int64)
