"""Fakes of the cameras' libraries: cv2.VideoCapture, pyrealsense2, depthai.

They have the names and signatures of opencv 5.0, pyrealsense2 2.59 and depthai 3.12, as far as
spslam uses them. Images come at a steady pace, by a thread as in the libraries: those that are not
read in time are replaced.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from spslam.datasets import open_sequence
from spslam.datasets.live.sequence import LiveSequence


def live(address: str, **options: Any) -> LiveSequence:
    """The live camera that `open_sequence` opens."""
    sequence = open_sequence(address, **options)
    assert isinstance(sequence, LiveSequence)
    return sequence


class Pace:
    """Image sets of a camera: one each `1 / fps` seconds; the newest one is given, once.

    Args:
        count: number of image sets; then the camera is gone.
        image_set: makes the image set of an index.
        fps: rate, 1/s.
        forever: repeat the last image set instead of ending.
    """

    def __init__(self, count: int, image_set: Callable[[int], Any], fps: float = 20.0) -> None:
        self.count, self.image_set, self.fps = count, image_set, fps
        self.begun: float | None = None
        self.given = -1
        self.silent = False

    def next(self, patience_s: float | None = None) -> tuple[int, float, Any] | None:
        """Wait for an image set: its index, its time (time.monotonic), the images."""
        now = time.monotonic()
        self.begun = now if self.begun is None else self.begun
        if self.silent:
            time.sleep(0.05 if patience_s is None else min(patience_s, 0.05))
            return None
        index = max(int((now - self.begun) * self.fps), self.given + 1)
        if index >= self.count:
            return None
        at = self.begun + index / self.fps
        time.sleep(max(at - time.monotonic(), 0.0))
        self.given = index
        return index, at, self.image_set(index)


class FakeCapture:
    """cv2.VideoCapture of a webcam that takes the size which is requested."""

    def __init__(self, pace: Pace, sizes: Sequence[tuple[int, int]], opened: bool = True) -> None:
        self.pace, self.sizes, self.opened = pace, list(sizes), opened
        self.requested: dict[int, float] = {}
        self.released = False

    def isOpened(self) -> bool:
        return self.opened

    def set(self, key: int, value: float) -> bool:
        self.requested[key] = value
        return True

    def get(self, key: int) -> float:
        width = int(self.requested.get(cv2.CAP_PROP_FRAME_WIDTH, 0))
        height = int(self.requested.get(cv2.CAP_PROP_FRAME_HEIGHT, 0))
        size = (width, height) if (width, height) in self.sizes else self.sizes[0]
        return {
            cv2.CAP_PROP_FRAME_WIDTH: float(size[0]),
            cv2.CAP_PROP_FRAME_HEIGHT: float(size[1]),
            cv2.CAP_PROP_FPS: self.pace.fps,
        }.get(key, 0.0)

    def read(self) -> tuple[bool, np.ndarray | None]:
        while self.pace.silent and not self.released:
            time.sleep(0.02)
        found = self.pace.next()
        return (False, None) if found is None else (True, found[2])

    def release(self) -> None:
        self.released = True


def use_capture(monkeypatch: pytest.MonkeyPatch, capture: FakeCapture) -> list[Any]:
    """Let OpenCV open this capture; returns the list of targets that are opened."""
    targets: list[Any] = []

    def opened(target: Any) -> FakeCapture:
        targets.append(target)
        return capture

    monkeypatch.setattr(cv2, "VideoCapture", opened)
    return targets


class _Name:
    """A value of an enumeration of pybind11: equal only to itself."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


def _names(*names: str) -> SimpleNamespace:
    return SimpleNamespace(**{name: _Name(name) for name in names})


class FakeRealSense(ModuleType):
    """pyrealsense2 with one connected D435; `pace` gives (colour, left, right, depth).

    Attributes:
        started: the streams of the config that was started.
        emitter: value of the projector's option.
    """

    def __init__(self, pace: Pace, K: np.ndarray, baseline_m: float) -> None:
        super().__init__("pyrealsense2")
        self.pace, self.K, self.baseline_m = pace, K, baseline_m
        self.serials = ["831612073111"]
        self.stream = _names("color", "depth", "infrared")
        self.format = _names("bgr8", "z16", "y8")
        self.distortion = _names(
            "none", "brown_conrady", "inverse_brown_conrady", "modified_brown_conrady",
            "kannala_brandt4", "ftheta",
        )  # fmt: skip
        self.camera_info = _names("serial_number", "name")
        self.option = _names("emitter_enabled")
        self.timestamp_domain = _names("global_time", "hardware_clock", "system_time")
        self.domain = self.timestamp_domain.global_time
        self.coefficients = [0.0] * 5
        self.size = (640, 480)
        self.started: list[tuple[Any, ...]] = []
        self.emitter = 1
        self.rates = [30, 15, 6]
        self.stopped = False
        self.pipeline = lambda: _Pipeline(self)
        self.config = lambda: _Config(self)
        self.align = lambda to: SimpleNamespace(process=lambda frames: frames, to=to)
        self.context = lambda: SimpleNamespace(
            query_devices=lambda: [
                SimpleNamespace(get_info=lambda info, serial=serial: serial)
                for serial in self.serials
            ]
        )

    def rs2_project_point_to_pixel(self, intrinsics: Any, point: Sequence[float]) -> list[float]:
        k1, k2, p1, p2, k3 = intrinsics.coeffs
        x, y = point[0] / point[2], point[1] / point[2]
        r2 = x * x + y * y
        f = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        x, y = x * f, y * f
        r2 = x * x + y * y
        dx = x + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        dy = y + 2 * p2 * x * y + p1 * (r2 + 2 * y * y)
        return [
            dx * intrinsics.fx + intrinsics.ppx,
            dy * intrinsics.fy + intrinsics.ppy,
        ]


class _Config:
    def __init__(self, module: FakeRealSense) -> None:
        self.module = module
        self.streams: list[tuple[Any, ...]] = []
        self.serial = ""

    def enable_device(self, serial: str) -> None:
        self.serial = serial

    def enable_stream(self, stream_type: Any, *arguments: Any) -> None:
        self.streams.append((stream_type, *arguments))

    def can_resolve(self, pipeline: _Pipeline) -> bool:
        return all(stream[-1] in self.module.rates for stream in self.streams)


class _Pipeline:
    def __init__(self, module: FakeRealSense) -> None:
        self.module = module

    def start(self, config: _Config) -> Any:
        self.module.started = config.streams
        return SimpleNamespace(get_stream=self._stream, get_device=lambda: self._device())

    def try_wait_for_frames(self, timeout_ms: int = 5000) -> tuple[bool, Any]:
        found = self.module.pace.next(timeout_ms / 1e3)
        if found is None:
            self.module.serials = [] if not self.module.pace.silent else self.module.serials
            return False, None
        _, at, (color, left, right, depth) = found
        stamp_ms = (time.time() - (time.monotonic() - at)) * 1e3
        frames = [_RealSenseFrame(image, stamp_ms, self.module) for image in (left, right)]
        return True, SimpleNamespace(
            get_color_frame=lambda: _RealSenseFrame(color, stamp_ms, self.module),
            get_depth_frame=lambda: _RealSenseFrame(depth, stamp_ms, self.module),
            get_infrared_frame=lambda index: frames[index - 1],
        )

    def stop(self) -> None:
        self.module.stopped = True

    def _device(self) -> Any:
        def set_option(option: Any, value: int) -> None:
            self.module.emitter = value

        sensor = SimpleNamespace(
            # A float32, as the camera stores it.
            get_depth_scale=lambda: float(np.float32(0.001)),
            supports=lambda option: True,
            set_option=set_option,
        )
        return SimpleNamespace(first_depth_sensor=lambda: sensor)

    def _stream(self, stream_type: Any, stream_index: int = -1) -> Any:
        module, K = self.module, self.module.K
        color = stream_type is module.stream.color
        coefficients = module.coefficients if color else [0.0] * 5
        distortion = module.distortion
        intrinsics = SimpleNamespace(
            width=module.size[0], height=module.size[1],
            fx=K[0, 0], fy=K[1, 1], ppx=K[0, 2], ppy=K[1, 2], coeffs=coefficients,
            model=distortion.inverse_brown_conrady if color else distortion.brown_conrady,
        )  # fmt: skip
        # From the right infrared camera (2) to the left one.
        sign = {1: -1.0, 2: 1.0}.get(stream_index, 0.0)
        extrinsics = SimpleNamespace(
            rotation=np.eye(3).ravel(order="F").tolist(),
            translation=[sign * module.baseline_m, 0.0, 0.0],
        )
        profile = SimpleNamespace(
            get_intrinsics=lambda: intrinsics, get_extrinsics_to=lambda to: extrinsics
        )
        return SimpleNamespace(as_video_stream_profile=lambda: profile)


class _RealSenseFrame:
    def __init__(self, image: np.ndarray, stamp_ms: float, module: FakeRealSense) -> None:
        self.image, self.stamp_ms, self.module = image, stamp_ms, module

    def __bool__(self) -> bool:
        return self.image is not None

    def get_data(self) -> np.ndarray:
        return self.image

    def get_timestamp(self) -> float:
        return self.stamp_ms

    def get_frame_timestamp_domain(self) -> Any:
        return self.module.domain


class FakeDepthAI(ModuleType):
    """depthai 3 with one connected OAK-D; `pace` gives (colour, left, right, depth)."""

    def __init__(self, pace: Pace, K: np.ndarray, baseline_m: float) -> None:
        super().__init__("depthai")
        self.pace, self.K, self.baseline_m = pace, K, baseline_m
        self.connected = True
        self.CameraBoardSocket = _names("CAM_A", "CAM_B", "CAM_C")
        self.CameraModel = _names("Perspective", "Fisheye", "RadialDivision")
        self.Platform = _names("RVC2", "RVC4")
        self.ImgResizeMode = _names("CROP")
        self.ImgFrame = SimpleNamespace(Type=_names("BGR888p", "GRAY8"))
        self.MessageQueue = SimpleNamespace(QueueException=type("QueueException", (Exception,), {}))
        self.node = _names("Camera", "Sync", "StereoDepth", "ImageAlign")
        self.Clock = SimpleNamespace(now=lambda: timedelta(seconds=time.monotonic()))
        self.coefficients = [0.0] * 14
        self.links: list[tuple[str, str]] = []
        self.requests: list[dict[str, Any]] = []
        self.stopped = False
        self.Device = lambda serial="": _OakDevice(self, serial)
        self.Pipeline = lambda device: _OakPipeline(self)


class _OakDevice:
    def __init__(self, module: FakeDepthAI, serial: str) -> None:
        if not module.connected:
            raise RuntimeError("No available devices")
        self.module = module

    def getDeviceId(self) -> str:
        return "14442C10D13EABCE00"

    def getPlatform(self) -> Any:
        return self.module.Platform.RVC2

    def close(self) -> None:
        pass

    def readCalibration(self) -> Any:
        module = self.module
        right = module.CameraBoardSocket.CAM_C

        def extrinsics(srcCamera: Any, dstCamera: Any) -> list[list[float]]:
            # Centimetres.
            T = np.eye(4)
            T[0, 3] = 100.0 * module.baseline_m * (1.0 if srcCamera is right else -1.0)
            return T.tolist()

        return SimpleNamespace(
            getCameraIntrinsics=lambda socket, width, height: module.K.tolist(),
            getDistortionCoefficients=lambda socket: module.coefficients,
            getDistortionModel=lambda socket: module.CameraModel.Perspective,
            getCameraExtrinsics=extrinsics,
        )


class _OakOutput:
    def __init__(self, module: FakeDepthAI, name: str) -> None:
        self.module, self.name = module, name

    def link(self, to: str) -> None:
        self.module.links.append((self.name, to))

    def createOutputQueue(self, maxSize: int = 16, blocking: bool = False) -> Any:
        return SimpleNamespace(get=lambda timeout: self._get(timeout.total_seconds()))

    def _get(self, patience_s: float) -> Any:
        found = self.module.pace.next(patience_s)
        if found is None:
            self.module.connected = self.module.connected and self.module.pace.silent
            return None
        images = dict(zip(("CAM_A", "CAM_B", "CAM_C", "depth"), found[2], strict=True))
        if self.name != "sync":
            return _OakFrame(images[self.name], found[1])
        return {
            to.removeprefix("sync."): _OakFrame(images[name], found[1])
            for name, to in self.module.links
            if to.startswith("sync.")
        }


class _OakFrame:
    def __init__(self, image: np.ndarray, at: float) -> None:
        self.image, self.at = image, at

    def getTimestamp(self) -> timedelta:
        return timedelta(seconds=self.at)

    def getCvFrame(self) -> np.ndarray:
        assert self.image.dtype == np.uint8, "getCvFrame makes a picture of depth"
        return self.image.copy()

    def getFrame(self) -> np.ndarray:
        return self.image


class _Inputs(dict):
    def __missing__(self, name: str) -> str:
        return f"sync.{name}"


class _OakPipeline:
    def __init__(self, module: FakeDepthAI) -> None:
        self.module = module

    def create(self, node: Any) -> Any:
        module = self.module
        if node is module.node.Camera:
            return SimpleNamespace(build=self._camera)
        if node is module.node.Sync:
            return SimpleNamespace(
                setSyncThreshold=lambda threshold: None,
                inputs=_Inputs(),
                out=_OakOutput(module, "sync"),
            )
        assert node is module.node.StereoDepth
        return SimpleNamespace(
            left="stereo.left", right="stereo.right", inputAlignTo="stereo.align",
            depth=_OakOutput(module, "depth"),
        )  # fmt: skip

    def start(self) -> None:
        pass

    def stop(self) -> None:
        self.module.stopped = True

    def isRunning(self) -> bool:
        return self.module.connected

    def _camera(self, boardSocket: Any) -> Any:
        def request(size: tuple[int, int], **options: Any) -> _OakOutput:
            self.module.requests.append({"socket": boardSocket.name, "size": size, **options})
            return _OakOutput(self.module, boardSocket.name)

        return SimpleNamespace(requestOutput=request)


def use_module(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """Let `import` find a fake module."""
    monkeypatch.setitem(sys.modules, module.__name__, module)
