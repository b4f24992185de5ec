"""What a connected camera gives: images with their times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import DatasetError
from spslam.frame import Sensor

from ..calibration.rectify import StereoRectifier


class CameraLostError(DatasetError):
    """A connected camera gives no images, or no more images."""


@dataclass(frozen=True, eq=False)
class LiveImages:
    """The images of one moment, as they came from a camera.

    Attributes:
        stamp_ns: time of the images, nanoseconds. Whole numbers: the names of recorded files hold
            them exactly.
        captured_s: when the images were taken, or arrived where `LatencyStart` is `arrival`;
            seconds of `time.monotonic`.
        image: (H, W) or (H, W, 3) uint8, blue green red.
        right: (H, W) uint8, the right image of a pair.
        depth: (H, W) uint16, registered to `image`, in units of the camera.
    """

    stamp_ns: int
    captured_s: float
    image: NDArray[np.uint8]
    right: NDArray[np.uint8] | None = None
    depth: NDArray[np.uint16] | None = None


class LiveCamera(Protocol):
    """A connected camera.

    Attributes:
        name: short name for reports, for example `camera 0`.
        dataset: `camera`, `realsense` or `oak`.
        source: the address, without a password.
        sensor: kind of sensor.
        camera: of the images; after rectification with a `rectifier`.
        rectifier: rectifies the pairs; None: they are rectified, or there are none.
        units_per_metre: units of depth images per metre.
        clock: whose clock the time stamps are of, in words; known after the first image.
        latency_from: `capture`, or `arrival` where the camera does not say when it took an image.
    """

    name: str
    dataset: str
    source: str
    sensor: Sensor
    camera: Camera
    rectifier: StereoRectifier | None
    units_per_metre: float
    clock: str
    latency_from: str

    def read(self) -> LiveImages | None:
        """Wait for the next images; None if none came for a while.

        Raises:
            CameraLostError: the camera gives no more images.
        """
        ...

    def close(self) -> None:
        """Release the camera."""
        ...
