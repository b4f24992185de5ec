"""Luxonis OAK cameras (DepthAI 3): the pair of grey cameras, colour with depth, or colour."""

from __future__ import annotations

import logging
from datetime import timedelta
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import CalibrationError, DatasetError, MissingDependencyError
from spslam.frame import Sensor
from spslam.geometry import orthonormalize
from spslam.lens import DistortionModel, lens

from ..calibration.rectify import StereoRectifier
from .device import CameraLostError, LiveImages

_LOG = logging.getLogger(__name__)
# Size of the images, pixels: half of the grey sensors'. Rate, 1/s.
_SIZE = (640, 400)
_RATE_HZ = 30.0
# Wait this long for images before looking whether the camera still runs.
_WAIT = timedelta(seconds=1)
_CM_PER_M = 100.0
_MM_PER_M = 1000.0
# Names of the streams in a group of messages.
_MAIN, _RIGHT, _DEPTH = "main", "right", "depth"


class OakCamera:
    """An OAK camera with the calibration of its memory (a `LiveCamera`).

    Args:
        serial: serial number, name or address of the camera; empty: the first one.
        sensor: `auto` and `stereo`: the pair of grey cameras, rectified here by the camera's
            calibration; `rgbd`: undistorted colour with depth registered to it; `mono`: colour.

    Raises:
        MissingDependencyError: depthai is missing.
        DatasetError: there is no such camera, or it does not have the sensor.
        CalibrationError: the camera has no usable calibration.
    """

    dataset = "oak"
    clock = "of the camera's own clock, in the time since the computer's start"
    latency_from = "capture"
    units_per_metre = _MM_PER_M

    def __init__(self, serial: str, sensor: str) -> None:
        self._dai = dai = _import()
        self.sensor: Sensor = "stereo" if sensor == "auto" else sensor  # type: ignore[assignment]
        self.source = f"oak:{serial}"
        try:
            self._device = dai.Device(serial) if serial else dai.Device()
        except RuntimeError as error:
            raise DatasetError(
                f"{self.source}: found no OAK camera that can be opened ({error}): is it connected "
                "and free, and may you read it?"
            ) from None
        self.source = f"oak:{self._device.getDeviceId()}"
        self.name = self.source.replace(":", " ")
        self.rectifier: StereoRectifier | None = None
        self._pipeline: Any = None
        try:
            self.camera = self._calibrated()
            self._pipeline = dai.Pipeline(self._device)
            self._queue = self._streams()
            self._pipeline.start()
        except RuntimeError as error:
            self.close()
            raise DatasetError(
                f"{self.source} cannot be started as {self.sensor}: {error}"
            ) from None
        except Exception:
            self.close()
            raise

    def read(self) -> LiveImages | None:
        """Wait for the next images, see `LiveCamera`."""
        try:
            found = self._queue.get(_WAIT)
            if found is None:
                if not self._pipeline.isRunning():
                    raise CameraLostError(f"{self.source} is no longer connected")
                return None
            return self._images(found)
        except (RuntimeError, self._dai.MessageQueue.QueueException) as error:
            raise CameraLostError(f"{self.source} gives no more images: {error}") from None

    def close(self) -> None:
        """Release the camera."""
        try:
            if self._pipeline is not None:
                self._pipeline.stop()
            self._device.close()
        except RuntimeError as error:
            # The camera is gone.
            _LOG.info("%s: %s", self.source, error)

    def _images(self, found: Any) -> LiveImages:
        main = found if self.sensor == "mono" else found[_MAIN]
        taken = main.getTimestamp()
        captured = monotonic() - (self._dai.Clock.now() - taken).total_seconds()
        stamp_ns = round(taken / timedelta(microseconds=1)) * 1000
        right = found[_RIGHT].getCvFrame() if self.sensor == "stereo" else None
        # getFrame: getCvFrame would turn depth into a picture of 8 bits.
        depth = np.array(found[_DEPTH].getFrame()) if self.sensor == "rgbd" else None
        return LiveImages(stamp_ns, captured, main.getCvFrame(), right, depth)

    def _sockets(self) -> tuple[Any, Any, Any]:
        """Return the sockets of the colour, left and right camera."""
        sockets = self._dai.CameraBoardSocket
        return sockets.CAM_A, sockets.CAM_B, sockets.CAM_C

    def _calibrated(self) -> Camera:
        color, left, right = self._sockets()
        memory = self._device.readCalibration()
        if self.sensor != "stereo":
            # Colour is undistorted in the camera.
            return self._camera(memory, color, undistorted=True)
        # From the coordinates of the right camera to those of the left one, centimetres.
        T_left_right = np.array(memory.getCameraExtrinsics(right, left), dtype=np.float64)
        T_left_right[:3, 3] /= _CM_PER_M
        self.rectifier = StereoRectifier(
            self._camera(memory, left), self._camera(memory, right), orthonormalize(T_left_right)
        )
        return self.rectifier.camera

    def _camera(self, memory: Any, socket: Any, *, undistorted: bool = False) -> Camera:
        K: NDArray[np.float64] = np.array(memory.getCameraIntrinsics(socket, *_SIZE))
        model = memory.getDistortionModel(socket)
        names = {
            self._dai.CameraModel.Perspective: "radtan",
            self._dai.CameraModel.Fisheye: "equidistant",
        }
        name: DistortionModel = "none"
        coefficients: tuple[float, ...] = ()
        if not undistorted:
            if model not in names:
                raise CalibrationError(f"{self.source}: lens model {model} is not supported")
            found = tuple(float(k) for k in memory.getDistortionCoefficients(socket))
            # The memory holds 14 numbers for every lens.
            name, coefficients = lens(names[model], found)
        return Camera(
            *_SIZE,
            K[0, 0],
            K[1, 1],
            K[0, 2],
            K[1, 2],
            name,
            coefficients,
            fps=_RATE_HZ,
        )

    def _streams(self) -> Any:
        """Connect the nodes of the pipeline; return the queue of their output."""
        dai, pipeline = self._dai, self._pipeline
        color, left, right = self._sockets()
        if self.sensor == "mono":
            return self._output(color, color=True).createOutputQueue(1, False)
        sync = pipeline.create(dai.node.Sync)
        sync.setSyncThreshold(timedelta(seconds=0.5 / _RATE_HZ))
        if self.sensor == "stereo":
            self._output(left).link(sync.inputs[_MAIN])
            self._output(right).link(sync.inputs[_RIGHT])
            return sync.out.createOutputQueue(1, False)
        stereo = pipeline.create(dai.node.StereoDepth)
        main = self._output(color, color=True)
        self._output(left).link(stereo.left)
        self._output(right).link(stereo.right)
        main.link(sync.inputs[_MAIN])
        if self._device.getPlatform() == dai.Platform.RVC4:
            align = pipeline.create(dai.node.ImageAlign)
            stereo.depth.link(align.input)
            main.link(align.inputAlignTo)
            align.outputAligned.link(sync.inputs[_DEPTH])
        else:
            main.link(stereo.inputAlignTo)
            stereo.depth.link(sync.inputs[_DEPTH])
        return sync.out.createOutputQueue(1, False)

    def _output(self, socket: Any, *, color: bool = False) -> Any:
        """Request the images of a camera: undistorted colour, or grey as it is."""
        dai = self._dai
        kind = dai.ImgFrame.Type.BGR888p if color else dai.ImgFrame.Type.GRAY8
        camera = self._pipeline.create(dai.node.Camera).build(socket)
        return camera.requestOutput(
            size=_SIZE,
            type=kind,
            resizeMode=dai.ImgResizeMode.CROP,
            fps=_RATE_HZ,
            enableUndistortion=color,
        )


def _import() -> Any:
    try:
        import depthai
    except ImportError:
        raise MissingDependencyError(
            "OAK cameras need the package depthai: pip install 'spslam[oak]'"
        ) from None
    return depthai
