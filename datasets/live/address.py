"""Open a live camera by its address: `camera:0`, `realsense:`, `oak:`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from spslam.errors import DatasetError
from spslam.interfaces import SequenceRequest, Topics

from ..images.decoding import to_grey
from .device import LiveCamera
from .newest import Newest
from .sequence import LiveSequence
from .system_camera import Capture, SystemCamera


def open_live(
    address: str,
    request: SequenceRequest,
    start: int = 0,
    max_frames: int | None = None,
    stride: int = 1,
) -> LiveSequence:
    """Open a live camera.

    Args:
        address: `camera:` with a number, a device file or a URL; `realsense:` or `oak:`, with or
            without a serial number.
        request: the user's choices.
        start: must be 0, because the newest frame is taken, not a certain one.
        max_frames: number of images of the camera after which the sequence ends.
        stride: must be 1, for the same reason.

    Raises:
        DatasetError: there is no such camera, or it cannot do what is requested.
        MissingDependencyError: the package of the camera is missing.
    """
    if (start, stride) != (0, 1):
        raise DatasetError(
            f"{address} is a live camera, of which the newest frame is taken: "
            "drop --start and --stride"
        )
    if request.sequence is not None:
        raise DatasetError(f"{address} has no sequences to choose from: drop --sequence")
    if request.time_unit != "auto":
        raise DatasetError(f"{address} gives times itself: drop --time-unit")
    if request.topics != Topics():
        raise DatasetError(f"{address} is a live camera, which has no topics: drop --topic")
    return LiveSequence(_open_device(address, request), max_frames)


def read_camera(camera: int | str) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield names and grey images (H, W) from a live camera, without end: the newest each time.

    Args:
        camera: number of the camera in the system, from 0, or an address, see `open_live`. No
            calibration is needed.

    Raises:
        DatasetError: there is no such camera, or it stopped.
    """
    address = f"camera:{camera}" if isinstance(camera, int) or camera.isdecimal() else camera
    kind, _, target = address.partition(":")
    if kind != "camera":
        request = SequenceRequest(None, "auto", None, "auto", 0.0)
        return ((f"frame{frame.index:06d}", frame.image) for frame in open_live(address, request))
    return _pictures(Capture(target))


def _pictures(capture: Capture) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    newest = Newest(capture.read, capture.close, capture.source)
    newest.begin()
    try:
        while (found := newest.take()) is not None:
            yield f"frame{found[0]:06d}", to_grey(found[1], f"frame {found[0]}")
    finally:
        newest.close()


def _open_device(address: str, request: SequenceRequest) -> LiveCamera:
    kind, _, target = address.partition(":")
    if kind == "camera":
        return SystemCamera(target, request.sensor, request.calibration)
    if request.calibration is not None:
        raise DatasetError(f"{address} brings its own calibration: drop --calibration")
    if kind == "realsense":
        from .realsense import RealSenseCamera

        return RealSenseCamera(target, request.sensor)
    from .oak import OakCamera

    return OakCamera(target, request.sensor)
