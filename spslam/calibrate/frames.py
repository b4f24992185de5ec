"""Frames of a recording for its self-calibration: read without a calibration, and chosen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.callbacks import ignore
from spslam.errors import DatasetError, FrameError, MissingCalibrationError
from spslam.interfaces import Sequence
from spslam.io.files import temporary_folder, write_atomic
from spslam.notices import counted, notice
from spslam.typing import FloatArray

_LOG = logging.getLogger(__name__)
# Rate at which frames are examined, 1/s, and the largest number of them.
_RATE_HZ, _MOST_EXAMINED = 10.0, 600
# Rate of images whose names count frames, 1/s: it is not known.
ASSUMED_FPS = 30.0
# Number of frames that are chosen, and the least number that is tried.
MOST_FRAMES, LEAST_FRAMES = 60, 8
# Motion of the image between two chosen frames, fractions of the diagonal: at least, at most.
_LEAST_STEP, _MOST_STEP = 0.01, 0.05
# Motion between two examined frames below which the camera stands still.
_STILL = 5e-4
# Longer side of the reduced images in which points are tracked, pixels.
_TRACKED_SIZE = 320
_CORNERS, _LEAST_TRACKED = 150, 12
# Inliers of the homography of a pair, pixels of the reduced image.
_HOMOGRAPHY_PX = 1.0
# Width of the candidates around the ideal place of a frame, fraction of the step.
_SHARPEST_WITHIN = 0.3

Image = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Examined:
    """What was measured on the examined frames of a recording.

    Attributes:
        index: (N,) int64, position of each frame in the recording.
        sharpness: (N,) variance of the Laplacian of the reduced image.
        motion: (N,) median motion of the points since the frame before, fractions of the diagonal;
            0 for the first.
        parallax: (N,) median distance of the points from the best homography, the same unit.
        turn: (N,) length of the median vector of motion, the same unit: large where the camera
            turns, small where it goes straight on and the points move apart.
    """

    index: NDArray[np.int64]
    sharpness: FloatArray
    motion: FloatArray
    parallax: FloatArray
    turn: FloatArray


def open_uncalibrated(
    path: str | Path, sequence: str | None = None, dataset: str = "auto", time_unit: str = "auto"
) -> Sequence:
    """Open a recording as mono; its own calibration, if it has one, must not be used.

    The readers of images and videos need a calibration for the size of the images: they get one
    with a guessed focal length.

    Raises:
        DatasetError: the recording cannot be opened.
    """
    from spslam.datasets import open_sequence

    def opened(calibration: Path | None) -> Sequence:
        return open_sequence(
            path,
            dataset=dataset,
            sequence=sequence,
            sensor="mono",
            calibration=calibration,
            time_unit=time_unit,
        )

    try:
        frames = opened(None)
    except MissingCalibrationError:
        width, height = _image_size(path, sequence)
        with temporary_folder() as folder:
            file = folder / "guessed.yaml"
            write_atomic(
                file,
                f"width: {width}\nheight: {height}\nfx: {1.2 * max(width, height)}\n"
                f"fy: {1.2 * max(width, height)}\ncx: {(width - 1) / 2}\ncy: {(height - 1) / 2}\n"
                f"fps: {ASSUMED_FPS}\n",
                durable=False,
            )
            return opened(file)
    text = "%s: the calibration that belongs to it is not used, the images alone are"
    notice(_LOG, "calibration_not_used", text, frames.name)
    return frames


def _image_size(path: str | Path, sequence: str | None) -> tuple[int, int]:
    from spslam.datasets.images.pictures import read_pictures

    place = Path(path) if sequence is None else Path(path) / sequence
    _, image = next(iter(read_pictures(place)))
    return image.shape[1], image.shape[0]


def examine(frames: Sequence, progress: Callable[[int, int], None] = ignore) -> Examined:
    """Measure motion, parallax and sharpness of the frames at the beginning of a recording.

    Raises:
        DatasetError: fewer than two frames can be decoded.
    """
    stride = max(1, round(frames.camera.fps / _RATE_HZ)) if frames.dataset == "video" else 1
    wanted = range(0, len(frames), stride)
    if len(wanted) > _MOST_EXAMINED:
        text = "%s: the first %d of %s are examined to find the focal length"
        count = counted(len(frames), "frame")
        notice(_LOG, "examined_part", text, frames.name, _MOST_EXAMINED * stride, count)
        wanted = wanted[:_MOST_EXAMINED]
    rows: list[tuple[int, float, float, float, float]] = []
    before: Image | None = None
    for done, index in enumerate(wanted):
        try:
            image = _reduced(frames[index].image)
        except IndexError:
            break
        except FrameError:
            continue
        measured = (0.0, 0.0, 0.0) if before is None else _measure(before, image)
        rows.append((index, _sharpness(image), *measured))
        before = image
        progress(done + 1, len(wanted))
    if len(rows) < 2:
        raise DatasetError(f"{frames.name}: expected at least two images, found {len(rows)}")
    table = np.array(rows)
    return Examined(table[:, 0].astype(np.int64), *table[:, 1:].T)


def choose(examined: Examined, most: int = MOST_FRAMES) -> NDArray[np.int64]:
    """Choose sharp frames that are evenly spread over the motion of the image.

    If the recording moves more than `most` frames can follow, the part with the most turns and
    parallax is taken.

    Returns:
        Positions in the recording, in order.
    """
    # A jump counts as one step: no frame can be found between its two.
    moved = np.where(examined.motion > _STILL, np.minimum(examined.motion, _MOST_STEP), 0.0)
    way = np.cumsum(moved)
    step = float(np.clip(way[-1] / most, _LEAST_STEP, _MOST_STEP))
    first, last = _best_part(examined, way, step * (most - 1))
    places = np.arange(way[first], way[last] + 1e-9, step)
    chosen: list[int] = []
    for place in places:
        near = first + np.flatnonzero(
            np.abs(way[first : last + 1] - place) <= _SHARPEST_WITHIN * step
        )
        if not len(near):
            near = np.array([first + np.argmin(np.abs(way[first : last + 1] - place))])
        chosen.append(int(near[np.argmax(examined.sharpness[near])]))
    found: NDArray[np.int64] = examined.index[np.unique(chosen)]
    return found


def read_chosen(frames: Sequence, indices: NDArray[np.int64]) -> Iterator[tuple[int, Image]]:
    """Yield position and grey image of the chosen frames."""
    for index in indices.tolist():
        yield index, frames[index].image


def _best_part(examined: Examined, way: FloatArray, length: float) -> tuple[int, int]:
    """Return the first and last row of the part of this length with the most turns and parallax.

    Turns with parallax determine a focal length; going straight on hardly does.
    """
    ends = np.minimum(np.searchsorted(way, way + length), len(way) - 1)
    parallax, turn = np.cumsum(examined.parallax), np.cumsum(examined.turn)
    starts = np.arange(len(way))
    full = way[ends] - way[starts] >= 0.9 * min(length, way[-1])
    score = (turn[ends] - turn[starts]) * np.sqrt(parallax[ends] - parallax[starts]) * full
    first = int(np.argmax(score))
    return first, int(ends[first])


def _measure(before: Image, image: Image) -> tuple[float, float, float]:
    """Return motion, parallax and turn between two reduced images, see `Examined`."""
    diagonal = float(np.hypot(*image.shape))
    corners = cv2.goodFeaturesToTrack(before, _CORNERS, 0.01, 8)
    if corners is None or len(corners) < _LEAST_TRACKED:
        return 0.0, 0.0, 0.0
    tracked, status, _ = cv2.calcOpticalFlowPyrLK(before, image, corners, np.empty(0))
    good = status.ravel() == 1
    first, second = corners.reshape(-1, 2)[good], tracked.reshape(-1, 2)[good]
    if len(first) < _LEAST_TRACKED:
        # Too fast to follow: a long step.
        return _MOST_STEP, 0.0, 0.0
    motion = float(np.median(np.linalg.norm(second - first, axis=1))) / diagonal
    turn = float(np.linalg.norm(np.median(second - first, axis=0))) / diagonal
    H, _ = cv2.findHomography(first, second, cv2.RANSAC, _HOMOGRAPHY_PX)
    if H is None:
        return motion, 0.0, turn
    mapped = cv2.perspectiveTransform(first[:, None], H).reshape(-1, 2)
    parallax = float(np.median(np.linalg.norm(mapped - second, axis=1))) / diagonal
    return motion, parallax, turn


def _sharpness(image: Image) -> float:
    return float(cv2.Laplacian(image, cv2.CV_32F).var())


def _reduced(image: Image) -> Image:
    factor = _TRACKED_SIZE / max(image.shape)
    if factor >= 1:
        return image
    size = (max(round(image.shape[1] * factor), 1), max(round(image.shape[0] * factor), 1))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
