"""Check frames: increasing timestamps, the same camera, and the front end of the map."""

from __future__ import annotations

import numpy as np

from spslam.camera import Camera
from spslam.config import Config
from spslam.errors import DatasetError, MapError
from spslam.frame import Frame, Observations, Sensor
from spslam.map.map import ARBITRARY, Map, Origin
from spslam.slam.preprocessing import tracking_camera

# Least time between two frames after which the map is refined before the next one is tracked, s.
_AMPLE_S = 0.25


class FrameChecks:
    """Checks frames one after the other.

    Attributes:
        camera: that tracks; None before the first frame.
    """

    def __init__(self, config: Config) -> None:
        self.camera: Camera | None = None
        self._config = config
        self._timestamp = -np.inf

    def is_late(self, frame: Frame) -> bool:
        """Whether a frame is late enough to finish the refinement of the map before it."""
        return self.camera is not None and frame.timestamp - self._timestamp > _AMPLE_S

    def check_stamp(self, frame: Frame) -> None:
        """Check that the timestamp of a frame is later than the one before.

        Raises:
            DatasetError: it is not.
        """
        if not frame.timestamp > self._timestamp:
            raise DatasetError(
                f"frame {frame.index}: timestamps must increase, "
                f"found {frame.timestamp} s after {self._timestamp} s"
            )

    def admit(self, frame: Frame) -> Camera:
        """Accept a frame and return the camera that tracks it.

        Raises:
            DatasetError: the camera or the sensor changed.
        """
        self._timestamp = frame.timestamp
        camera = tracking_camera(frame, self._config)
        if self.camera is not None and camera != self.camera:
            raise DatasetError(
                f"frame {frame.index}: the camera or the sensor changed during the run"
            )
        return camera


def set_origin(slam_map: Map, sensor: Sensor, camera: Camera, extractor: str) -> None:
    """Set the sensor, camera, extractor and scale of a new map, or check those of a saved one.

    Raises:
        MapError: the map was made with another camera.
    """
    origin = slam_map.origin
    if origin is None:
        scale = ARBITRARY if sensor == "mono" else "baseline" if sensor == "stereo" else "depth"
        slam_map.origin = Origin(sensor, camera, extractor, scale)
    elif (origin.sensor, origin.camera) != (sensor, camera):
        raise MapError(
            f"the map was made by another camera, {_describe(origin.sensor, origin.camera)}; "
            f"found {_describe(sensor, camera)}: use --localize"
        )


def check_front_end(slam_map: Map, extractor: str) -> None:
    """Check that a loaded map has keyframes of this front end.

    Raises:
        MapError: it has not.
    """
    origin = slam_map.origin
    if origin is None or len(slam_map.keyframes) == 0:
        raise MapError("the map has no keyframes to localize the camera in")
    if origin.extractor != extractor:
        raise MapError(
            f"the map was made with {origin.extractor}, this run uses {extractor}: "
            "give the same --extractor and --weights"
        )


def check_descriptors(slam_map: Map, observations: Observations, extractor: str) -> None:
    """Check the descriptor size of a loaded map: it may differ for the same front end name.

    Raises:
        MapError: the sizes differ.
    """
    width, found = slam_map.descriptor_size, observations.descriptors.shape[1]
    if len(slam_map.keyframes) and len(observations) and width != found:
        raise MapError(
            f"the map's descriptors have {width} numbers, those of {extractor} have {found}: "
            "the map was made with another front end"
        )


def _describe(sensor: Sensor, camera: Camera) -> str:
    return f"{sensor} {camera.width}x{camera.height} fx={camera.fx:.3f}"
