"""Read the order and the times of the images in a folder from their names."""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from spslam.clocks import matched_fraction, unit_by_clock
from spslam.errors import CalibrationError, DatasetError, TimestampError
from spslam.interfaces import LeftOut
from spslam.notices import counted, notice
from spslam.timestamps import (
    FASTEST_STEP_S,
    SLOWEST_STEP_S,
    UNIT_NAMES,
    UNITS_PER_SECOND,
    TimeUnit,
    find_unit,
)

from ..calibration.calibration import Calibration
from ..paths import shorten
from ..timestamps import Timing, order_frames
from .decoding import list_files
from .name_numbers import MOST_KINDS, NUMBER, hexadecimal, name_patterns, telling_numbers

_LOG = logging.getLogger(__name__)
# Least fraction of names that follow one pattern at which the other images are strays, left out.
_ONE_PATTERN = 0.9
# Words before the number of a camera in a name.
_CAMERA_WORDS = (
    "cam",
    "camera",
    "c",
    "view",
    "sensor",
    "stream",
    "channel",
    "ch",
    "lens",
    "eye",
    "left",
    "right",
)
# Largest number of cameras in one folder.
_MOST_CAMERAS = 8
# Whole numbers from here on are times: counters do not get this large.
_SURELY_TIME = 10**9
# Numbers from here on are times too, if their median step is not small: a camera would have to
# count for a day.
_LIKELY_TIME = 10**6
# Numbers with a smaller median step count frames: as milliseconds they would mean more than 200
# frames a second.
_SMALLEST_TIME_STEP = 5
# Largest relative difference of two rates that count as the same.
_SAME_RATE = 0.2
# Image formats that are not read; a notice names them.
_OTHER_SUFFIXES = (
    *(".exr", ".hdr", ".npy", ".pfm", ".gif", ".jp2", ".avif", ".jxl", ".heic", ".heif"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf"),
)


def unread_hint(folder: Path) -> str:
    """Say that images of a folder are in formats that are not read, for a message, or nothing."""
    others = list_files(folder, _OTHER_SUFFIXES)
    if not others:
        return ""
    kinds = ", ".join(sorted({path.suffix.lower() for path in others}))
    return f"; {kinds} is not read: convert the images to PNG or JPEG first"


@dataclass(frozen=True, eq=False)
class TimedImages:
    """Image files in the order of time.

    Attributes:
        numbers: N numbers from the names: whole numbers as integers, others as text.
        times: (N,) float64, seconds, strictly increasing.
        paths: N files.
        unit: unit of the numbers: a `TimeUnit`, or `frames` if they count frames.
        numbered: whether the names have numbers; else the images are counted in natural order.
        left_out: images that repeat a number, and images whose names follow another pattern.
    """

    numbers: list[int | str]
    times: NDArray[np.float64]
    paths: list[Path]
    unit: str
    numbered: bool = True
    left_out: tuple[LeftOut, ...] = ()

    @property
    def has_times(self) -> bool:
        """Whether the names give times, not only an order."""
        return self.unit != "frames"

    def select(self, rows: NDArray[np.int64]) -> TimedImages:
        """Return the images of `rows` (M,)."""
        numbers, paths = [self.numbers[i] for i in rows], [self.paths[i] for i in rows]
        return replace(self, numbers=numbers, times=self.times[rows], paths=paths)


def time_images(
    folder: Path,
    suffixes: tuple[str, ...],
    calibration: Calibration,
    timing: Timing,
    like: TimedImages | None = None,
) -> TimedImages:
    """Return the images of `folder` in the order of the times in their names.

    Names of one pattern hold one number each. Numbers with a decimal point are seconds unless
    their steps suggest another unit. Whole numbers are times if they are large, or if their steps
    fit the calibration's rate in milli-, micro- or nanoseconds. Other whole numbers count frames
    at the calibration's rate, and gaps in the numbers are gaps in time. Images whose names have no
    pattern are counted in natural order.

    Args:
        folder: the folder of the images.
        suffixes: suffixes of the files, lower case.
        calibration: gives the rate of counted images.
        timing: the user's settings.
        like: images whose partners these are; their numbers have the same unit if possible.

    Raises:
        DatasetError: the folder holds two kinds of images.
        CalibrationError: the numbers count frames, and the calibration has no rate.
        TimestampError: the unit of the numbers is ambiguous.
    """
    paths = list_files(folder, suffixes)
    if others := [path for path in list_files(folder, _OTHER_SUFFIXES) if path not in paths]:
        kinds = ", ".join(sorted({path.suffix.lower() for path in others}))
        text = "%s: %s left out: %s is not read (%s are)"
        notice(
            _LOG,
            "unread_formats",
            text,
            folder,
            counted(len(others), "file is", "files are"),
            kinds,
            ", ".join(suffixes),
            count=len(others),
        )
    if (places := hexadecimal(paths)) is not None:
        # Sort by value: the natural order is wrong for hexadecimal numbers.
        paths = [path for _, path in sorted(zip(places, paths, strict=True))]
        return _in_order(paths, calibration, folder, (), "are hexadecimal")
    paths, strays = _one_pattern(paths, folder)
    found = telling_numbers(paths, folder)
    if found is None:
        return _in_order(
            paths,
            calibration,
            folder,
            strays,
            "have no single number that gives the time",
        )
    numbers = found.numbers
    whole = not any("." in number for number in numbers)
    values = np.array([float(number) for number in numbers])
    # Numbers that were put together from dates or from two numbers have a known unit: seconds.
    unit = (
        timing.unit
        if timing.unit == "frames"
        else found.unit or timing.given or _unit_like(values, like)
    )
    unit = unit or _unit(values, numbers, whole, calibration, folder)
    if unit == "frames":
        counts = whole and np.abs(values).max() < _SURELY_TIME
        times = _counted(
            values if counts else np.unique(values, return_inverse=True)[1], calibration, folder
        )
    else:
        times = values / UNITS_PER_SECOND[cast(TimeUnit, unit)]
    named = TimedImages([int(n) if whole else n for n in numbers], times, paths, unit)
    # Without a counter beside the times, sort by time here: `order_frames` would give a notice
    # about unsorted stamps, but names that sort as text are no fault of the recording.
    by_time = named.select(
        np.argsort(times, kind="stable").astype(np.int64) if found.order is None else found.order
    )
    order, left_out = order_frames(by_time.times, str(folder))
    return replace(by_time.select(order), left_out=(*strays, *left_out))


def _in_order(
    paths: list[Path], calibration: Calibration, folder: Path, strays: tuple[LeftOut, ...], why: str
) -> TimedImages:
    """Count images in the given order, and give a notice."""
    text = "%s: the names of %s %s: they are counted in the order of their names, %s a second"
    what = counted(len(paths), "image")
    notice(_LOG, "unnumbered_images", text, folder, what, why, calibration.fps, count=len(paths))
    times = _counted(np.arange(len(paths)), calibration, folder)
    return TimedImages(list(range(len(paths))), times, paths, "frames", False, strays)


def _unit_like(values: NDArray[np.float64], like: TimedImages | None) -> str | None:
    """Return the unit in which numbers `values` (N,) lie near the times of their partners.

    The unit of the partners is tried first. None if there are no partners or no unit fits.
    """
    if like is None or not like.numbered:
        return None
    if like.unit == "frames":
        return "frames" if values.max() < _SURELY_TIME else None
    if matched_fraction(values / UNITS_PER_SECOND[cast(TimeUnit, like.unit)], like.times) > 0:
        return like.unit
    return unit_by_clock(values, like.times)


def _unit(
    values: NDArray[np.float64],
    numbers: list[str],
    whole: bool,
    calibration: Calibration,
    folder: Path,
) -> str:
    what = f"the names of the images in {folder}"
    if not whole:
        return find_unit(values, "s", what)
    steps = np.diff(np.unique(values))
    step = float(np.median(steps)) if len(steps) else 1.0
    if values.max() >= _SURELY_TIME:
        return find_unit(values, None, what)
    if step < _SMALLEST_TIME_STEP:
        return "frames"
    rates = {unit: UNITS_PER_SECOND[unit] / step for unit in UNITS_PER_SECOND}
    fps = calibration.fps
    fitting = [
        unit
        for unit, rate in rates.items()
        if fps is not None and abs(rate - fps) <= _SAME_RATE * fps
    ]
    if fitting:
        text = "%s are read as %s: their steps make %.4g frames a second, as the calibration says"
        notice(_LOG, "time_unit", text, what, UNIT_NAMES[fitting[0]], rates[fitting[0]])
        return fitting[0]
    if fps is None or values.min() >= _LIKELY_TIME:
        unit = find_unit(values, None, what)
        text = "%s are read as %s: %.4g a second"
        notice(_LOG, "time_unit", text, what, UNIT_NAMES[unit], rates[unit])
        return unit
    padded = any(number.startswith("0") and len(number) > 1 for number in numbers)
    # Counters are written with leading zeros, clocks are not.
    if (
        padded
        or (steps % step == 0).all()
        or not 1 / SLOWEST_STEP_S <= fps / step <= 1 / FASTEST_STEP_S
    ):
        return "frames"
    plausible = [
        unit for unit, rate in rates.items() if 1 / SLOWEST_STEP_S <= rate <= 1 / FASTEST_STEP_S
    ]
    if not plausible:
        return "frames"
    first, second = sorted(numbers, key=int)[:2]
    raise TimestampError(
        f"{what} ({first}, {second}, …) may be {UNIT_NAMES[plausible[0]]} "
        f"({rates[plausible[0]]:.4g} a second) or count frames of a camera of {fps:g} a second: "
        f"say which with --time-unit {plausible[0]}|frames"
    )


def _counted(
    numbers: NDArray[np.float64] | NDArray[np.int64], calibration: Calibration, folder: Path
) -> NDArray[np.float64]:
    if calibration.fps is None:
        raise CalibrationError(
            f"the names of the images in {folder} are no times: "
            f"calibration {calibration.path} needs fps, the rate of the file numbers"
        )
    times: NDArray[np.float64] = numbers.astype(np.float64) / calibration.fps
    step = float(np.median(np.diff(np.unique(times)))) if len(times) > 1 else 0.0
    if step > SLOWEST_STEP_S:
        text = (
            "%s: the numbers in names count frames, which makes one image in %.4g s "
            "at %g a second; if they are times, give --time-unit"
        )
        notice(_LOG, "slow_counter", text, folder, step, calibration.fps)
    return times


def _one_pattern(paths: list[Path], folder: Path) -> tuple[list[Path], tuple[LeftOut, ...]]:
    """Separate the images of a recording from strays, whose names follow another pattern.

    Two cameras, images with masks, or one picture in two formats must not be read as one recording.

    Raises:
        DatasetError: names follow several patterns that differ in words or in the number of a
            camera, or most images come in several formats.
    """
    patterns = name_patterns(paths)
    usual = max(patterns.values(), key=len, default=[])
    strays = (
        [path for path in paths if path not in usual]
        if len(usual) >= _ONE_PATTERN * len(paths)
        else []
    )
    if strays:
        text = (
            "%s: %s left out: their names (%s) follow another pattern than those of the "
            "other %d (%s)"
        )
        what = counted(len(strays), "image is", "images are")
        names = shorten([path.name for path in strays]), len(usual), usual[0].name
        notice(_LOG, "stray_images", text, folder, what, *names, count=len(strays))
        paths = usual
    if kinds := describe_kinds(paths):
        raise DatasetError(
            f"{folder} holds {kinds}: put each into a folder of its own "
            "(left/ or images/, right/, depth/)"
        )
    return paths, tuple(LeftOut(np.nan, "stray name") for _ in strays)


def describe_kinds(paths: list[Path]) -> str:
    """Describe the kinds of images in one folder for a message; empty if there is only one kind.

    Kinds are patterns of names that differ in words or in the number of a camera, or formats if
    most images come in several.
    """
    patterns = name_patterns(paths)
    if len(patterns) == 1:
        patterns = _by_camera(paths) or _by_format(paths) or patterns
    kinds = {pattern: found for pattern, found in patterns.items() if len(found) > 1}
    if len(patterns) > MOST_KINDS and max(map(len, patterns.values())) <= len(paths) / 2:
        return ""
    listed = ", ".join(
        f"{len(found)} {pattern} (as {found[0].name})" for pattern, found in sorted(kinds.items())
    )
    return f"{len(kinds)} kinds of images: {listed}" if len(kinds) > 1 else ""


def _by_camera(paths: list[Path]) -> dict[str, list[Path]] | None:
    """Group files of one pattern by the number of their camera: `cam0_0001`, `0001_cam1`.

    None if the names hold no number of a camera.
    """
    parts = [NUMBER.split(path.stem) for path in paths]
    for index in range(1, len(parts[0]), 2):
        word = re.search(r"([a-z]+)[-_]?$", parts[0][index - 1].lower())
        cameras = {part[index] for part in parts}
        if word is None or word[1] not in _CAMERA_WORDS or not 1 < len(cameras) <= _MOST_CAMERAS:
            continue
        rest = Counter((*part[:index], *part[index + 1 :]) for part in parts)
        if sum(count > 1 for count in rest.values()) <= len(rest) / 2:
            continue
        found: dict[str, list[Path]] = {}
        for path, part in zip(paths, parts, strict=True):
            name = (
                NUMBER.sub("*", "".join(part[:index]))
                + part[index]
                + NUMBER.sub("*", "".join(part[index + 1 :]))
            )
            found.setdefault(name, []).append(path)
        return found
    return None


def _by_format(paths: list[Path]) -> dict[str, list[Path]] | None:
    """Group files of one pattern by format; None unless most names come in several formats."""
    stems = Counter(path.stem for path in paths)
    if sum(count > 1 for count in stems.values()) <= len(stems) / 2:
        return None
    formats: dict[str, list[Path]] = {}
    for path in paths:
        formats.setdefault(f"{NUMBER.sub('*', path.stem)}{path.suffix.lower()}", []).append(path)
    return formats
