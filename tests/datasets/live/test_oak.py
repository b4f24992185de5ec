"""OAK cameras, played by a fake of depthai."""

import sys
import time

import cv2
import numpy as np
import pytest
from recordings.fake_cameras import FakeDepthAI, Pace, live, use_module

from spslam.errors import CalibrationError, DatasetError, MissingDependencyError

K = np.array([[400.0, 0.0, 320.0], [0.0, 400.0, 200.0], [0.0, 0.0, 1.0]])
SHAPE = (400, 640)
BASELINE_M = 0.075


def image_set(index: int) -> tuple[np.ndarray, ...]:
    grey = np.full(SHAPE, 100, np.uint8)
    return cv2.merge([grey] * 3), grey, grey + 20, np.full(SHAPE, 1500, np.uint16)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> FakeDepthAI:
    fake = FakeDepthAI(Pace(10**6, image_set, 100.0), K, BASELINE_M)
    use_module(monkeypatch, fake)
    return fake


def test_the_pair_is_rectified_by_the_cameras_memory(module: FakeDepthAI) -> None:
    frames = live("oak:", max_frames=3)
    seen = list(frames)
    assert (frames.sensor, frames.dataset, frames.source) == (
        "stereo", "oak", "oak:14442C10D13EABCE00",
    )  # fmt: skip
    assert frames.camera.baseline_m == pytest.approx(BASELINE_M)
    frame = seen[0]
    assert frame.image_right is not None
    middle = (slice(100, 300), slice(100, 500))
    assert (frame.image[middle] == 100).all()
    assert (frame.image_right[middle] == 120).all()
    assert [request["socket"] for request in module.requests] == ["CAM_B", "CAM_C"]
    assert not any(request["enableUndistortion"] for request in module.requests)
    assert frames.latency_from == "capture"
    assert frame.captured_s is not None
    assert 0 <= time.monotonic() - frame.captured_s < 30
    assert frame.timestamp == pytest.approx(frame.captured_s, abs=1e-3)
    assert module.stopped


def test_colour_with_depth(module: FakeDepthAI) -> None:
    frames = live("oak:", sensor="rgbd", max_frames=2)
    frame, *_ = frames
    assert frame.depth is not None
    assert frame.depth[0, 0] == np.float32(1.5)
    assert frame.color is not None
    assert ("CAM_A", "stereo.align") in module.links, "depth is registered to colour"
    assert [request["socket"] for request in module.requests if request["enableUndistortion"]] == [
        "CAM_A"
    ]
    assert frames.camera.distortion_model == "none"
    assert (frames.camera.fx, frames.camera.cy) == (400.0, 200.0)


def test_colour_alone(module: FakeDepthAI) -> None:
    frames = live("oak:", sensor="mono", max_frames=2)
    assert {frame.image.shape for frame in frames} == {SHAPE}
    assert frames.sensor == "mono"


def test_lens_models(module: FakeDepthAI, monkeypatch: pytest.MonkeyPatch) -> None:
    module.coefficients = [0.1, -0.2, *[0.0] * 12]
    frames = live("oak:")
    frames.close()
    rectifier = frames._device.rectifier
    assert rectifier is not None
    assert rectifier.left.distortion[:2] == (0.1, -0.2)
    memory = module.Device().readCalibration()
    memory.getDistortionModel = lambda socket: module.CameraModel.RadialDivision
    monkeypatch.setattr("recordings.fake_cameras._OakDevice.readCalibration", lambda device: memory)
    with pytest.raises(CalibrationError, match="lens model RadialDivision is not supported"):
        live("oak:")


def test_unplugged(module: FakeDepthAI) -> None:
    module.pace.count = 5
    with pytest.raises(DatasetError, match="oak:14442C10D13EABCE00 is no longer connected"):
        list(live("oak:"))


def test_none_connected(module: FakeDepthAI) -> None:
    module.connected = False
    with pytest.raises(DatasetError, match="oak:: found no OAK camera that can be opened"):
        live("oak:")


def test_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "depthai", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'spslam\[oak\]'"):
        live("oak:")
