"""A video file with a calibration file: mono."""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.errors import DatasetError, FrameError
from spslam.frame import Frame

from .base import BaseSequence
from .calibration import find_calibration
from .calibration_checks import size_advice
from .decoding import to_grey

_LOG = logging.getLogger(__name__)
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ogv")
# Up to this many frames ahead are decoded and dropped; seeking to the key frame before costs more.
_DECODE_AHEAD = 64
_RATE_TOLERANCE = 0.01
_NOWHERE = 1 << 62


def is_video(path: Path) -> bool:
    """Whether a file has the name of a video."""
    return path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES


class VideoSequence(BaseSequence):
    """The frames of a video file, converted to grey. Time is the frame's number over the video's own rate, or over
    the calibration's `fps` where the video states none.

    Reading on costs one decoded frame, also with a stride; reading back seeks. One decoder serves all readers.

    Raises:
        DatasetError: the file is no video, or its size is not the calibration's; no calibration.
    """

    def __init__(self, path: Path, sensor: str = "auto", calibration: str | Path | None = None) -> None:
        if sensor not in ("auto", "mono"):
            raise DatasetError(f"{path} is a video, which is mono, found --sensor {sensor}")
        if not path.is_file():
            raise DatasetError(f"expected a video file, found {'a folder' if path.exists() else 'nothing'} at {path}")
        given = find_calibration(calibration, [path.parent], f"the video {path}")
        self._path = path
        self._capture = cv2.VideoCapture(str(path))
        self._position, self._end = 0, _NOWHERE
        self._lock = threading.Lock()
        if not self._capture.isOpened():
            raise DatasetError(f"{path} is no video that OpenCV can decode: convert it, for example to H.264 in .mp4")
        width = int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        if (width, height) != (given.camera.width, given.camera.height):
            raise DatasetError(
                f"the video {path} is {width}x{height}, but calibration {given.path} is for "
                f"{given.camera.width}x{given.camera.height}: {size_advice(width, height, given.camera)}"
            )
        fps = _rate(self._capture.get(cv2.CAP_PROP_FPS), given.fps, path)
        super().__init__(f"video {path.stem}", "mono", replace(given.camera, fps=fps), str(path))
        self._length = self._count()

    def __len__(self) -> int:
        return self._length

    def _read(self, index: int) -> Frame:
        with self._lock:
            pixels = self._decode(index)
        return Frame(index, index / self.camera.fps, self.camera, to_grey(pixels, f"frame {index}"))

    def _decode(self, index: int) -> NDArray[np.uint8]:
        # A container may announce more frames than it holds: the end is met once, then known.
        decoded, pixels = (False, None) if index >= self._end else self._seek_and_read(index)
        if not decoded or pixels is None:
            raise FrameError(f"{self._path.name}: frame {index} of {self._length} announced ones cannot be decoded")
        return np.asarray(pixels, dtype=np.uint8)

    def _seek_and_read(self, index: int) -> tuple[bool, NDArray[Any] | None]:
        reading_on = self._position <= index <= self._position + _DECODE_AHEAD
        if not reading_on:
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, index)
            self._position = index
        while self._position < index and self._capture.grab():
            self._position += 1
        decoded, pixels = self._capture.read() if self._position == index else (False, None)
        if decoded:
            self._position = index + 1
            return True, pixels
        if reading_on:
            self._end = self._position
        self._position = _NOWHERE
        return False, None

    def _count(self) -> int:
        announced = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if announced > 0:
            return announced
        count = 0
        while self._capture.grab():
            count += 1
        self._position = _NOWHERE
        if count == 0:
            raise DatasetError(f"not one frame of the video {self._path} can be decoded")
        return count


def _rate(stated: float, calibrated: float | None, path: Path) -> float:
    if not (math.isfinite(stated) and stated > 0):
        if calibrated is None:
            raise DatasetError(f"the video {path} states no frame rate: add fps to its calibration")
        return calibrated
    if calibrated is not None and abs(calibrated - stated) > _RATE_TOLERANCE * stated:
        _LOG.warning(
            "%s: the video's own rate, %.3f/s, is used, not the calibration's %.3f/s", path, stated, calibrated
        )
    return stated
