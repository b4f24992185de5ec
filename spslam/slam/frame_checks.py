"""What every frame must be: later than the one before, of the same camera, of the front end of the map."""

from __future__ import annotations

import numpy as np

from spslam.camera import Camera
from spslam.config import Config
from spslam.errors import DatasetError, MapError
from spslam.frame import Frame, Observations, Sensor
from spslam.map.map import ARBITRARY, Map, Origin
from spslam.slam.preprocessing import tracking_camera

# A frame that comes so long after the one before finds the map refined: there was time, and it has farther to look.
_AMPLE_S = 0.25


class FrameChecks:
    """Admits frames one after the other.

    Attributes:
        camera: that tracks; None before the first frame.
    """

    def __init__(self, config: Config) -> None:
        self.camera: Camera | None = None
        self._config = config
        self._timestamp = -np.inf

    def is_late(self, frame: Frame) -> bool:
        """Whether there was ample time since the frame before."""
        return self.camera is not None and frame.timestamp - self._timestamp > _AMPLE_S

    def check_stamp(self, frame: Frame) -> None:
        """Stamps must increase.

        Raises:
            DatasetError: this one does not.
        """
        if not frame.timestamp > self._timestamp:
            raise DatasetError(
                f"frame {frame.index}: stamps must increase, found {frame.timestamp} s after {self._timestamp} s"
            )

    def admit(self, frame: Frame) -> Camera:
        """The camera that tracks a frame.

        Raises:
            DatasetError: the camera or the sensor changed.
        """
        self._timestamp = frame.timestamp
        camera = tracking_camera(frame, self._config)
        if self.camera is not None and camera != self.camera:
            raise DatasetError(
                f"frame {frame.index}: the camera or the sensor changed in the middle of a run"
            )
        return camera


def set_origin(slam_map: Map, sensor: Sensor, camera: Camera, extractor: str) -> None:
    """Say what a map is made with.

    Raises:
        MapError: it was made with another camera.
    """
    origin = slam_map.origin
    if origin is None:
        scale = ARBITRARY if sensor == "mono" else "baseline" if sensor == "stereo" else "depth"
        slam_map.origin = Origin(sensor, camera, extractor, scale)
    elif (origin.sensor, origin.camera) != (sensor, camera):
        raise MapError(
            f"a map is extended by the camera that made it, {_describe(origin.sensor, origin.camera)}; "
            f"found {_describe(sensor, camera)}: use --localize"
        )


def check_front_end(slam_map: Map, extractor: str) -> None:
    """A map that was loaded must have keyframes of this front end.

    Raises:
        MapError: it has none.
    """
    origin = slam_map.origin
    if origin is None or len(slam_map.keyframes) == 0:
        raise MapError("the map has no key frames to find the camera with")
    if origin.extractor != extractor:
        raise MapError(
            f"the map was made with {origin.extractor}, this run uses {extractor}: "
            "give the same --extractor and --weights"
        )


def check_descriptors(slam_map: Map, observations: Observations, extractor: str) -> None:
    """A map that was loaded names its front end; its descriptors may be others all the same.

    Raises:
        MapError: they are.
    """
    width, found = slam_map.descriptor_size, observations.descriptors.shape[1]
    if len(slam_map.keyframes) and len(observations) and width != found:
        raise MapError(
            f"the map's descriptors have {width} numbers, those of {extractor} have {found}: it was made "
            "with another front end"
        )


def _describe(sensor: Sensor, camera: Camera) -> str:
    return f"{sensor} {camera.width}x{camera.height} fx={camera.fx:.3f}"
