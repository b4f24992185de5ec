"""RealSense cameras, played by a fake of pyrealsense2."""

import sys
import time

import cv2
import numpy as np
import pytest
from recordings.fake_cameras import FakeRealSense, Pace, live, use_module

from spslam.camera import Camera
from spslam.errors import DatasetError, MissingDependencyError
from spslam.notices import shown_notices

K = np.array([[380.0, 0.0, 20.5], [0.0, 381.0, 14.0], [0.0, 0.0, 1.0]])
SHAPE = (30, 40)
BASELINE_M = 0.05


def image_set(index: int) -> tuple[np.ndarray, ...]:
    """Colour, left, right and depth, of the values index, 10, 20 and 1500 + index."""
    grey = np.full(SHAPE, index % 256, np.uint8)
    depth = np.full(SHAPE, 1500 + index % 256, np.uint16)
    depth[0, 0] = 0
    return cv2.merge([grey] * 3), grey, grey + 20, depth


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> FakeRealSense:
    fake = FakeRealSense(Pace(10**6, image_set, 100.0), K, BASELINE_M)
    fake.size = (SHAPE[1], SHAPE[0])
    use_module(monkeypatch, fake)
    return fake


def test_colour_with_depth(module: FakeRealSense) -> None:
    lines: list[str] = []
    with shown_notices(lambda found: lines.append(found.text)):
        frames = live("realsense:", max_frames=3)
        seen = list(frames)
    assert (frames.sensor, frames.dataset, frames.source) == (
        "rgbd", "realsense", "realsense:831612073111",
    )  # fmt: skip
    assert frames.depth_scale == 1000.0, "the float32 of the camera is 0.00100000005"
    assert frames.camera == Camera(40, 30, 380.0, 381.0, 20.5, 14.0, fps=30.0)
    frame = seen[0]
    value = int(frame.image[0, 0])
    assert frame.depth is not None
    assert frame.depth[5, 5] == np.float32(1500 + value) / np.float32(1000)
    assert frame.depth[0, 0] == 0.0
    assert frame.color is not None
    assert frames.latency_from == "capture"
    assert abs(frame.timestamp - time.time()) < 30
    steps = np.diff([float(item.image[0, 0]) for item in seen])
    np.testing.assert_allclose(np.diff([item.timestamp for item in seen]), 0.01 * steps, atol=5e-3)
    assert any("are of the camera's own clock, in the computer's time" in line for line in lines)
    assert module.stopped
    assert module.emitter == 1
    assert [stream[0].name for stream in module.started] == ["color", "depth"]


def test_infrared_pair(module: FakeRealSense) -> None:
    frames = live("realsense:831612073111", sensor="stereo", max_frames=2)
    frame, *_ = frames
    assert module.emitter == 0, "the dots of the projector move with the camera"
    assert [stream[:2] for stream in module.started] == [
        (module.stream.infrared, 1),
        (module.stream.infrared, 2),
    ]
    assert frames.camera.baseline_m == pytest.approx(BASELINE_M)
    assert frame.image_right is not None
    assert int(frame.image_right[0, 0]) - int(frame.image[0, 0]) == 20
    assert frames.depth_scale is None


def test_distortion_of_the_colour_camera_is_fitted_to_its_projection(module: FakeRealSense) -> None:
    module.size = (640, 480)
    module.K = np.array([[380.0, 0, 320.0], [0, 380.0, 240.0], [0, 0, 1.0]])
    module.coefficients = [-0.055, 0.065, -0.0005, 0.0003, -0.02]
    frames = live("realsense:", sensor="mono")
    frames.close()
    camera = frames.camera
    assert camera.distortion_model == "radtan"
    x, y = np.meshgrid(np.linspace(-0.8, 0.8, 9), np.linspace(-0.6, 0.6, 7))
    rays = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], axis=1)
    lens = module.pipeline().start(module.config()).get_stream(module.stream.color)
    intrinsics = lens.as_video_stream_profile().get_intrinsics()
    expected = [module.rs2_project_point_to_pixel(intrinsics, ray) for ray in rays]
    np.testing.assert_allclose(camera.lens_pixels(rays), expected, atol=0.02)
    # Taken as they are named, from distorted to undistorted, they bend the other way.
    assert np.abs(camera.undistort(rays[:, :2] * 380 + (320, 240)) - expected).max() > 5


def test_arrival_where_the_camera_has_a_clock_of_its_own(module: FakeRealSense) -> None:
    module.domain = module.timestamp_domain.hardware_clock
    frames = live("realsense:", sensor="mono", max_frames=2)
    list(frames)
    assert frames.latency_from == "arrival"


def test_usb_2_is_slower(module: FakeRealSense) -> None:
    module.rates = [15, 6]
    lines: list[str] = []
    with shown_notices(lambda found: lines.append(found.text)):
        frames = live("realsense:")
    frames.close()
    assert frames.camera.fps == 15.0
    assert any("gives only 15 images a second here" in line for line in lines)


def test_unplugged(module: FakeRealSense) -> None:
    module.pace.count = 5
    frames = live("realsense:")
    with pytest.raises(DatasetError, match="realsense:831612073111 is no longer connected"):
        list(frames)


def test_none_connected(module: FakeRealSense) -> None:
    with pytest.raises(DatasetError, match="realsense:12: found 831612073111"):
        live("realsense:12")
    module.serials = []
    with pytest.raises(DatasetError, match="realsense:: found no RealSense camera"):
        live("realsense:")


def test_several_connected(module: FakeRealSense) -> None:
    module.serials.append("99")
    lines: list[str] = []
    with shown_notices(lambda found: lines.append(found.text)):
        frames = live("realsense:")
    frames.close()
    assert any("also connected: 99" in line for line in lines)


def test_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyrealsense2", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'spslam\[realsense\]'"):
        live("realsense:")
