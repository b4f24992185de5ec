"""A video file with a calibration file: mono."""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.errors import DatasetError, FrameError, StampError
from spslam.frame import Frame
from spslam.interfaces import EQUAL_STAMP, STEPPED_BACK
from spslam.notices import notice
from spslam.timestamps import FASTEST_STEP_S, SLOWEST_STEP_S

from .base import BaseSequence
from .calibration.calibration import Calibration, find_calibration
from .calibration.checks import size_advice
from .images.decoding import to_grey
from .timestamps import Timing

_LOG = logging.getLogger(__name__)
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ogv")
_RATE_TOLERANCE = 0.01
# Frames at the beginning by which a video without a stated rate, or without time stamps, is recognised.
_PROBED = 8


def is_video(path: Path) -> bool:
    """Whether a file has the name of a video."""
    return path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES


class VideoSequence(BaseSequence):
    """The frames of a video file, converted to grey, as the sensor stored them: a tag that asks players to turn the
    picture is told and not obeyed, as with photographs, for the calibration is the sensor's.

    Time is each frame's own stamp in the container; where it has none, the frame's number over the video's rate. With
    `--time-unit frames` it is that over the calibration's rate, if it has one. Frames that are not later than those
    before are left out. The last frame that can be decoded is the end, whatever number of frames the container
    announces.

    Reading on costs one decoded frame, also with a stride. Reading back decodes from the start: seeking gives other
    frames than asked for where the rate changes. One decoder serves all readers.

    Raises:
        DatasetError: the file is no video, or its size is not the calibration's; no calibration.
    """

    def __init__(
        self,
        path: Path,
        sensor: str = "auto",
        calibration: str | Path | None = None,
        timing: Timing = Timing(),  # noqa: B008 - frozen
    ) -> None:
        if sensor not in ("auto", "mono"):
            raise DatasetError(f"{path} is a video, which is mono, found --sensor {sensor}")
        if timing.given is not None:
            raise DatasetError(
                f"{path} is a video, which brings its own times, found --time-unit {timing.unit}"
            )
        if not path.is_file():
            raise DatasetError(
                f"expected a video file, found {'a folder' if path.exists() else 'nothing'} at {path}"
            )
        given = find_calibration(calibration, [path.parent], f"the video {path}")
        self._path = path
        self._lock = threading.Lock()
        self._capture = open_video(path)
        self._grabbed = 0
        _check_size(self._capture, path, given)
        stamps = self._probe()
        if timing.unit == "frames" and given.fps is not None:
            # Who counts frames does not believe the container.
            fps = given.fps
        else:
            fps = _rate(self._capture.get(cv2.CAP_PROP_FPS), stamps, given.fps, path)
        super().__init__(
            f"video {path.stem}", "mono", replace(given.camera, fps=fps), str(path), dataset="video"
        )
        self.time_unit = "container"
        if timing.unit == "frames" or (len(stamps) > 1 and not (np.diff(stamps) > 0).any()):
            self.time_unit = "frames"
            if timing.unit != "frames":
                notice(
                    _LOG,
                    "time_unit",
                    "%s holds no time stamps: its frames are counted, %.4g a second",
                    path,
                    fps,
                )
        self._announced = self._length = self._count()
        # Of each frame, and the latest up to it, seconds.
        self._stamps: list[float] = []
        self._latest: list[float] = []

    def __len__(self) -> int:
        return self._length

    def reaches(self, index: int) -> bool:
        """Whether there is a frame at `index`, whatever the container announces; decodes up to it."""
        try:
            with self._lock:
                self._go_to(index)
        except IndexError:
            return False
        return True

    def _read(self, index: int) -> Frame:
        with self._lock:
            pixels = self._decode(index)
            stamp = index / self.camera.fps if self.time_unit == "frames" else self._stamps[index]
            latest = self._latest[index - 1] if index and self.time_unit != "frames" else -math.inf
        if not stamp > latest:
            raise StampError(
                f"frame {index} is of {stamp:.6f} s, and a frame before it of {latest:.6f} s",
                stamp,
                EQUAL_STAMP if stamp == latest else STEPPED_BACK,
            )
        return Frame(index, stamp, self.camera, to_grey(pixels, f"frame {index}"))

    def _decode(self, index: int) -> NDArray[np.uint8]:
        self._go_to(index)
        decoded, pixels = self._capture.retrieve()
        if not decoded or pixels is None:
            raise FrameError(f"{self._path.name}: frame {index} cannot be decoded")
        return np.array(pixels, dtype=np.uint8)

    def _go_to(self, index: int) -> None:
        """Make the frame at `index` the one to be decoded.

        Raises:
            IndexError: the video ends before it.
        """
        if index < self._grabbed - 1:
            self._rewind()
        while self._grabbed <= index:
            self._grab()

    def _grab(self) -> None:
        """Go to the next frame.

        Raises:
            IndexError: there is none.
        """
        if not self._capture.grab():
            self._end()
            raise IndexError(f"{self._path.name} ends after {self._grabbed} frames")
        if self._grabbed == len(self._stamps):
            stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
            self._stamps.append(stamp)
            self._latest.append(max(stamp, self._latest[-1]) if self._latest else stamp)
        self._grabbed += 1
        self._length = max(self._length, self._grabbed)

    def _end(self) -> None:
        if self._grabbed < self._length:
            text = (
                "%s announces %d frames and holds %d: the last one that can be decoded is the end"
            )
            missing = self._length - self._grabbed
            notice(
                _LOG,
                "announced_frames",
                text,
                self._path,
                self._announced,
                self._grabbed,
                count=missing,
            )
            self._length = self._grabbed
        if self._grabbed == 0:
            raise DatasetError(f"not one frame of the video {self._path} can be decoded")

    def _rewind(self) -> None:
        # Many files cannot be rewound, and after some none can be read: a new decoder always begins at the beginning.
        self._capture.release()
        self._capture = open_video(self._path, quiet=True)
        self._grabbed = 0

    def _probe(self) -> NDArray[np.float64]:
        """Stamps of the first frames, seconds; afterwards the decoder is at the beginning again."""
        stamps: list[float] = []
        while len(stamps) < _PROBED and self._capture.grab():
            stamps.append(self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3)
        if not stamps:
            raise DatasetError(f"not one frame of the video {self._path} can be decoded")
        self._rewind()
        return np.array(stamps)

    def _count(self) -> int:
        """Frames that the container announces; where it announces none, those that it holds."""
        announced = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if announced > 0:
            return announced
        count = 0
        while self._capture.grab():
            count += 1
        self._rewind()
        return count


def open_video(path: Path, quiet: bool = False) -> cv2.VideoCapture:
    """A decoder at the first frame, which gives pictures as they are stored.

    Args:
        quiet: do not tell of a tag that asks for turned pictures, which was told before.

    Raises:
        DatasetError: the file is no video that OpenCV can decode.
    """
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise DatasetError(
            f"{path} is no video that OpenCV can decode: convert it, for example to H.264 in .mp4"
        )
    turned = int(capture.get(cv2.CAP_PROP_ORIENTATION_META))
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    if turned and not quiet:
        text = (
            "%s has a tag that turns the picture by %d degrees: it is ignored, for a calibration is the sensor's; "
            "calibrate with pictures as they are stored"
        )
        notice(_LOG, "orientation_tag", text, path, turned)
    return capture


def _check_size(capture: cv2.VideoCapture, path: Path, given: Calibration) -> None:
    width, height = (
        int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
        int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
    )
    camera, turned = given.camera, int(capture.get(cv2.CAP_PROP_ORIENTATION_META))
    if (width, height) == (camera.width, camera.height):
        return
    stored = (
        f" as it is stored (its tag, which is ignored, turns it by {turned} degrees)"
        if turned
        else ""
    )
    raise DatasetError(
        f"the video {path} is {width}x{height}{stored}, but calibration {given.path} is for "
        f"{camera.width}x{camera.height}: {size_advice(width, height, camera)}"
    )


def _rate(
    stated: float, stamps: NDArray[np.float64], calibrated: float | None, path: Path
) -> float:
    """Frames a second: what the video states, else what the steps of its first stamps say, else the calibration's."""
    steps = np.diff(stamps)
    if not (math.isfinite(stated) and 1 / SLOWEST_STEP_S <= stated <= 1 / FASTEST_STEP_S):
        stated = 1.0 / float(np.median(steps)) if len(steps) and np.median(steps) > 0 else math.nan
    if not math.isfinite(stated):
        if calibrated is None:
            raise DatasetError(f"the video {path} states no frame rate: add fps to its calibration")
        return calibrated
    if calibrated is not None and abs(calibrated - stated) > _RATE_TOLERANCE * stated:
        text = (
            "%s: the video's own rate, %.3f/s, is used, not the calibration's %.3f/s; --time-unit frames counts frames "
            "at the calibration's"
        )
        notice(_LOG, "frame_rate", text, path, stated, calibrated)
    return stated
