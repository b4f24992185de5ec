"""Cameras that OpenCV reads: webcams by number or device file, and streams by URL."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from time import monotonic_ns, time_ns

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.errors import CalibrationError, DatasetError
from spslam.frame import Sensor
from spslam.notices import counted, notice

from ..calibration.calibration import Calibration, load_calibration
from ..calibration.checks import size_advice
from ..calibration.rectify import StereoRectifier
from .device import CameraLostError, LiveImages

_LOG = logging.getLogger(__name__)
# Relative difference of the requested and the given rate above which a notice is given.
_RATE_TOLERANCE = 0.05
# Plausible rates of a camera, 1/s. Drivers without one state 0 or -1.
_RATES_HZ = (1.0, 1000.0)
_PASSWORD = re.compile(r"(?<=://)([^/@:]*):[^/@]*@")
_PAIR = re.compile(r"\d+([+,]\d+)+")


class Capture:
    """A camera or stream that OpenCV has opened.

    Args:
        target: number of the camera in the system, device file, or URL.
        calibration: gives the size and rate to request; None: the camera's own.

    Attributes:
        source: the address of the camera, without a password.

    Raises:
        DatasetError: there is no such camera, or it cannot be opened.
    """

    def __init__(self, target: str, calibration: Calibration | None = None) -> None:
        self.source = "camera:" + _PASSWORD.sub(r"\1:***@", target)
        if not target:
            raise DatasetError(
                "camera: needs a number, a device file or a URL: camera:0 is the first camera"
            )
        if _PAIR.fullmatch(target):
            raise DatasetError(
                f"{self.source}: two cameras that are not synchronised are no stereo pair: "
                "their images differ in time by up to a frame; use one of them, or a stereo camera"
            )
        self._capture = cv2.VideoCapture(int(target) if target.isdecimal() else target)
        self.count = 0
        if not self._capture.isOpened():
            self.close()
            raise DatasetError(
                f"{self.source}: found no camera that can be opened: "
                "is it connected and free, and may you read it?"
            )
        # Drivers queue several images: without this the newest one is up to 4 images old.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        if calibration is not None:
            camera = calibration.camera
            self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, camera.width)
            self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, camera.height)
            if calibration.fps is not None:
                self._capture.set(cv2.CAP_PROP_FPS, calibration.fps)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the images that the camera announces, pixels."""
        return (
            int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        )

    @property
    def fps(self) -> float | None:
        """The rate that the camera announces, 1/s; None if it is not plausible."""
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        return rate if _RATES_HZ[0] <= rate <= _RATES_HZ[1] else None

    def read(self) -> NDArray[np.uint8]:
        """Wait for the next image (H, W) or (H, W, 3) uint8, blue green red.

        Raises:
            CameraLostError: the camera gives no more images.
        """
        decoded, pixels = self._capture.read()
        if not decoded or pixels is None:
            raise CameraLostError(
                f"{self.source} gave no image after {counted(self.count, 'image')}: "
                "was it disconnected?"
            )
        self.count += 1
        return np.array(pixels, dtype=np.uint8)

    def close(self) -> None:
        """Release the camera."""
        self._capture.release()


class SystemCamera:
    """A calibrated camera that OpenCV reads (a `LiveCamera`); it is mono.

    OpenCV does not tell when an image was taken: the stamp is the time of arrival, by a clock that
    is never set back and began with the computer's time.

    Args:
        target: see `Capture`.
        sensor: `auto` or `mono`.
        calibration: file of the calibration.

    Raises:
        CalibrationError: there is no calibration, or it does not fit the images.
        DatasetError: the camera cannot be opened, or the sensor is not mono.
    """

    dataset = "camera"
    sensor: Sensor = "mono"
    rectifier: StereoRectifier | None = None
    units_per_metre = 1.0
    clock = "times of arrival by the computer's clock: OpenCV tells no others"
    latency_from = "arrival"

    def __init__(self, target: str, sensor: str, calibration: Path | None) -> None:
        if sensor not in ("auto", "mono"):
            raise DatasetError(f"camera:{target} is one camera, which is mono, found {sensor}")
        if calibration is None and target and not _PAIR.fullmatch(target):
            raise CalibrationError(
                f"camera:{target} needs a calibration: give --calibration FILE "
                "(width height fx fy cx cy fps); spslam calibrate makes one from pictures of a "
                "board"
            )
        given = None if calibration is None else load_calibration(calibration)
        self._capture = Capture(target, given)
        self.source, self.name = self._capture.source, self._capture.source.replace(":", " ", 1)
        assert given is not None
        self._given = given
        try:
            self._check_size(*self._capture.size)
        except CalibrationError:
            self._capture.close()
            raise
        self.camera = replace(given.camera, fps=self._rate())
        self._epoch_ns = time_ns() - monotonic_ns()

    def read(self) -> LiveImages:
        """Wait for the next image, see `LiveCamera`."""
        pixels = self._capture.read()
        arrived = monotonic_ns()
        self._check_size(pixels.shape[1], pixels.shape[0])
        return LiveImages(self._epoch_ns + arrived, arrived / 1e9, pixels)

    def close(self) -> None:
        """Release the camera."""
        self._capture.close()

    def _check_size(self, width: int, height: int) -> None:
        camera = self._given.camera
        if (width, height) != (camera.width, camera.height):
            raise CalibrationError(
                f"{self.source} gives {width}x{height} pixels, but calibration "
                f"{self._given.path} is for {camera.width}x{camera.height}, which was requested: "
                f"{size_advice(width, height, camera)}"
            )

    def _rate(self) -> float:
        stated, wanted = self._capture.fps, self._given.fps
        if stated is None:
            return self._given.camera.fps
        if wanted is not None and abs(stated - wanted) > _RATE_TOLERANCE * wanted:
            text = "%s gives %.4g images a second, not the calibration's %.4g"
            notice(_LOG, "frame_rate", text, self.source, stated, wanted)
        return stated
