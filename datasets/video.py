"""Read a video file with a calibration file, as mono."""

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
from spslam.notices import counted, notice
from spslam.timestamps import FASTEST_STEP_S, SLOWEST_STEP_S

from .base import BaseSequence
from .calibration.calibration import Calibration, find_calibration
from .calibration.checks import size_advice
from .images.decoding import to_color, to_grey
from .masks.mask_images import RawView
from .timestamps import Timing
from .views import Views

_LOG = logging.getLogger(__name__)
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts"),
    *(".m2ts", ".wmv", ".flv", ".ogv"),
)
# Relative difference of the video's and the calibration's rate above which a notice is given.
_RATE_TOLERANCE = 0.01
# Frames read at the beginning to find the rate, and whether the video has time stamps.
_PROBED = 8


def is_video(path: Path) -> bool:
    """Return whether a file has the name of a video."""
    return path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES


class VideoSequence(BaseSequence):
    """The frames of a video file, converted to grey, in the orientation of the sensor.

    Frames of a wide lens are undistorted while reading (`lens_view`).

    A tag that asks players to turn the picture is reported in a notice and ignored, because the
    calibration belongs to the sensor.

    The time of a frame is its stamp in the container. Without stamps it is the frame's number
    divided by the video's rate; with `--time-unit frames` by the calibration's rate, if that is
    given. Frames that are not later than the frames before are left out. The sequence ends at the
    last frame that can be decoded, whatever number of frames the container announces.

    Reading forwards costs one decoded frame, also with a stride. Reading backwards decodes from
    the start, because seeking returns wrong frames where the rate changes. One decoder serves all
    readers.

    Raises:
        DatasetError: the file is no video, has not the size of the calibration, or has no
            calibration.
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
                "expected a video file, "
                f"found {'a folder' if path.exists() else 'nothing'} at {path}"
            )
        given = find_calibration(
            calibration, [path.parent], f"the video {path}", lambda: _stored_size(path)
        )
        self._path = path
        self._lock = threading.Lock()
        self._capture = open_video(path)
        self._grabbed = 0
        _check_size(self._capture, path, given)
        stamps = self._probe()
        if timing.unit == "frames" and given.fps is not None:
            # --time-unit frames overrules the rate in the container.
            fps = given.fps
        else:
            fps = _rate(self._capture.get(cv2.CAP_PROP_FPS), stamps, given.fps, path)
        camera = replace(given.camera, fps=fps)
        self._views = Views(camera)
        name = f"video {path.stem}"
        super().__init__(name, "mono", self._views.camera, str(path), dataset="video")
        self.calibrated_masks = given.masks
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
        # Stamp of each frame read until now, and the latest stamp up to that frame, seconds.
        self._stamps: list[float] = []
        self._latest: list[float] = []

    def __len__(self) -> int:
        return self._length

    def reaches(self, index: int) -> bool:
        """Return whether there is a frame at `index`; decodes up to it to find out."""
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
                f"frame {index} is of {stamp:.6f} s, and an earlier frame is of {latest:.6f} s",
                stamp,
                EQUAL_STAMP if stamp == latest else STEPPED_BACK,
            )
        return self._views.frame(index, stamp, to_grey(pixels, f"frame {index}"), to_color(pixels))

    def raw_views(self) -> tuple[RawView, RawView]:
        """Return how images of frames are made from those of the video."""
        return self._views.raw_views()

    def _decode(self, index: int) -> NDArray[np.uint8]:
        self._go_to(index)
        decoded, pixels = self._capture.retrieve()
        if not decoded or pixels is None:
            raise FrameError(f"{self._path.name}: frame {index} cannot be decoded")
        return np.array(pixels, dtype=np.uint8)

    def _go_to(self, index: int) -> None:
        """Move the decoder to the frame at `index`.

        Raises:
            IndexError: the video ends before this frame.
        """
        if index < self._grabbed - 1:
            self._rewind()
        while self._grabbed <= index:
            self._grab()

    def _grab(self) -> None:
        """Go to the next frame.

        Raises:
            IndexError: the video has ended.
        """
        if not self._capture.grab():
            self._end()
            raise IndexError(f"{self._path.name} ends after {counted(self._grabbed, 'frame')}")
        if self._grabbed == len(self._stamps):
            stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
            self._stamps.append(stamp)
            self._latest.append(max(stamp, self._latest[-1]) if self._latest else stamp)
        self._grabbed += 1
        self._length = max(self._length, self._grabbed)

    def _end(self) -> None:
        if self._grabbed < self._length:
            text = "%s announces %s and holds %d: the last one that can be decoded is the end"
            missing = self._length - self._grabbed
            notice(
                _LOG,
                "announced_frames",
                text,
                self._path,
                counted(self._announced, "frame"),
                self._grabbed,
                count=missing,
            )
            self._length = self._grabbed
        if self._grabbed == 0:
            raise DatasetError(f"not one frame of the video {self._path} can be decoded")

    def _rewind(self) -> None:
        # Open a new decoder: many files cannot be rewound.
        self._capture.release()
        self._capture = open_video(self._path, quiet=True)
        self._grabbed = 0

    def _probe(self) -> NDArray[np.float64]:
        """Return the stamps of the first frames, seconds, and rewind the decoder."""
        stamps: list[float] = []
        while len(stamps) < _PROBED and self._capture.grab():
            stamps.append(self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3)
        if not stamps:
            raise DatasetError(f"not one frame of the video {self._path} can be decoded")
        self._rewind()
        return np.array(stamps)

    def _count(self) -> int:
        """Return the number of frames that the container announces; if none, count them."""
        announced = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if announced > 0:
            return announced
        count = 0
        while self._capture.grab():
            count += 1
        self._rewind()
        return count


def _stored_size(path: Path) -> tuple[int, int]:
    """Return width and height, pixels, of a video."""
    capture = open_video(path, quiet=True)
    try:
        return (
            int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        )
    finally:
        capture.release()


def open_video(path: Path, quiet: bool = False) -> cv2.VideoCapture:
    """Open a decoder at the first frame; it gives the pictures as they are stored.

    Args:
        path: the video file.
        quiet: give no notice about an orientation tag, because an earlier call gave it.

    Raises:
        DatasetError: the file is no video that OpenCV can decode.
    """
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        if path.stat().st_size == 0:
            raise DatasetError(f"{path} is empty: expected a video, found 0 bytes")
        raise DatasetError(
            f"{path} is no video that OpenCV can decode: convert it, for example to H.264 in .mp4"
        )
    turned = int(capture.get(cv2.CAP_PROP_ORIENTATION_META))
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    if turned and not quiet:
        text = (
            "%s has a tag that turns the picture by %d degrees: it is ignored, because the "
            "calibration is of the sensor; calibrate with pictures as they are stored"
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
    """Return the rate, 1/s: the video's, else of its first stamps, else the calibration's."""
    steps = np.diff(stamps)
    if not (math.isfinite(stated) and 1 / SLOWEST_STEP_S <= stated <= 1 / FASTEST_STEP_S):
        stated = 1.0 / float(np.median(steps)) if len(steps) and np.median(steps) > 0 else math.nan
    if not math.isfinite(stated):
        if calibrated is None:
            raise DatasetError(f"the video {path} states no frame rate: add fps to its calibration")
        return calibrated
    if calibrated is not None and abs(calibrated - stated) > _RATE_TOLERANCE * stated:
        text = (
            "%s: the video's own rate, %.3f/s, is used, not the calibration's %.3f/s; "
            "--time-unit frames counts frames at the calibration's"
        )
        notice(_LOG, "frame_rate", text, path, stated, calibrated)
    return stated
