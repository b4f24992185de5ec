"""Webcams by OpenCV, played by a fake of cv2.VideoCapture."""

import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from recordings.fake_cameras import FakeCapture, Pace, live, use_capture

from spslam.datasets import read_camera
from spslam.errors import CalibrationError, DatasetError
from spslam.interfaces import LiveSource
from spslam.notices import shown_notices

SIZE = (40, 30)
CALIBRATION = {
    "width": 40, "height": 30, "fx": 30.0, "fy": 30.0, "cx": 19.5, "cy": 14.5, "fps": 100.0,
}  # fmt: skip


def numbered(index: int) -> np.ndarray:
    return np.full((SIZE[1], SIZE[0], 3), index % 256, np.uint8)


def webcam(monkeypatch: pytest.MonkeyPatch, count: int = 10**6) -> tuple[FakeCapture, list[object]]:
    capture = FakeCapture(Pace(count, numbered, 100.0), [(80, 60), SIZE])
    return capture, use_capture(monkeypatch, capture)


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    path = tmp_path / "camera.yaml"
    path.write_text(yaml.safe_dump(CALIBRATION))
    return path


def test_frames_come_with_their_arrival(monkeypatch: pytest.MonkeyPatch, calibration: Path) -> None:
    capture, targets = webcam(monkeypatch)
    frames = live("camera:3", calibration=calibration, max_frames=20)
    assert targets == [3]
    assert capture.requested[cv2.CAP_PROP_FRAME_WIDTH] == 40
    assert capture.requested[cv2.CAP_PROP_BUFFERSIZE] == 1
    assert (frames.sensor, frames.dataset, frames.source) == ("mono", "camera", "camera:3")
    assert isinstance(frames, LiveSource)
    assert (frames.latency_from, frames.max_frames, len(frames)) == ("arrival", 20, 0)
    seen = list(frames)
    values = [int(frame.image[0, 0]) for frame in seen]
    # The index counts the images that came, whether they were taken or not. A busy computer misses
    # images of the fake.
    assert all(np.diff(values) >= np.diff([frame.index for frame in seen]))
    assert seen[-1].index == 19
    assert len(frames) == 20
    assert sorted([*frames.dropped, *(frame.index for frame in seen)]) == list(range(20))
    stamps = np.array([frame.timestamp for frame in seen])
    late = (stamps - stamps[0]) - 0.01 * (np.array(values) - values[0])
    assert np.median(np.abs(late)) < 0.02
    taken = np.array([frame.captured_s for frame in seen])
    np.testing.assert_allclose(np.diff(taken), np.diff(stamps), atol=1e-5)
    assert capture.released
    with pytest.raises(IndexError, match="live camera"):
        frames[0]
    with pytest.raises(IndexError, match="can be read once"):
        list(frames)


def test_slow_reading_takes_the_newest(monkeypatch: pytest.MonkeyPatch, calibration: Path) -> None:
    webcam(monkeypatch)
    frames = live("camera:0", calibration=calibration)
    indices = []
    for frame in islice(frames, 4):
        indices.append(frame.index)
        # In this time four more images come.
        while frames._newest._count < frame.index + 5:
            time.sleep(0.005)
    assert all(step >= 4 for step in np.diff(indices))
    known = {*frames.dropped, *indices}
    assert {index for index in known if index <= indices[-1]} == {*range(indices[-1] + 1)}
    frames.close()


@pytest.mark.parametrize(
    ("address", "target"),
    [("camera:/dev/video2", "/dev/video2"), ("camera:rtsp://me:secret@host/s", None)],
)
def test_devices_and_urls(
    address: str, target: str | None, monkeypatch: pytest.MonkeyPatch, calibration: Path
) -> None:
    _, targets = webcam(monkeypatch)
    frames = live(address, calibration=calibration)
    assert targets == [target or address.removeprefix("camera:")]
    assert "secret" not in frames.source + frames.name
    assert frames.source == (address if target else "camera:rtsp://me:***@host/s")
    frames.close()


def test_a_camera_that_stops_is_an_error_after_its_frames(
    monkeypatch: pytest.MonkeyPatch, calibration: Path
) -> None:
    webcam(monkeypatch, count=10)
    frames = live("camera:0", calibration=calibration)
    seen: list[int] = []
    with pytest.raises(DatasetError, match=r"camera:0 gave no image after 10 images: was it disc"):
        seen.extend(frame.index for frame in frames)
    assert len(frames) == 10


def test_the_size_must_be_the_calibrations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    capture, _ = webcam(monkeypatch)
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump({**CALIBRATION, "width": 48}))
    with pytest.raises(CalibrationError, match=r"gives 80x60 pixels, but calibration .*48x30"):
        live("camera:0", calibration=path)
    assert capture.released


def test_the_rate_of_the_camera_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    webcam(monkeypatch)
    path = tmp_path / "slow.yaml"
    path.write_text(yaml.safe_dump({**CALIBRATION, "fps": 30}))
    lines: list[str] = []
    with shown_notices(lambda found: lines.append(found.text)):
        frames = live("camera:0", calibration=path, max_frames=1)
        list(frames)
    assert frames.camera.fps == 100.0
    assert any("gives 100 images a second, not the calibration's 30" in line for line in lines)
    assert any("time stamps are times of arrival" in line for line in lines)


@pytest.mark.parametrize(
    ("address", "options", "message"),
    [
        ("camera:0", {}, "camera:0 needs a calibration: give --calibration FILE"),
        ("camera:0+1", {}, "two cameras that are not synchronised are no stereo pair"),
        ("camera:", {}, "needs a number, a device file or a URL"),
        ("camera:0", {"sensor": "stereo"}, "is one camera, which is mono, found stereo"),
        ("camera:0", {"start": 3}, "newest frame is taken: drop --start and --stride"),
        ("camera:0", {"stride": 2}, "drop --start and --stride"),
        ("camera:0", {"sequence": "00"}, "drop --sequence"),
        ("camera:0", {"time_unit": "ms"}, "drop --time-unit"),
        ("realsense:", {"calibration": "x.yaml"}, "brings its own calibration"),
    ],
)
def test_requests_that_cannot_be(
    address: str, options: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    webcam(monkeypatch)
    with pytest.raises(DatasetError, match=message.replace("+", r"\+")):
        live(address, **options)


def test_a_camera_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch, calibration: Path) -> None:
    use_capture(monkeypatch, FakeCapture(Pace(1, numbered), [SIZE], opened=False))
    with pytest.raises(DatasetError, match="camera:7: found no camera that can be opened"):
        live("camera:7", calibration=calibration)


def test_a_path_of_that_name_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match="found nothing at"):
        live("./camera:0")


@pytest.mark.parametrize("camera", [0, "0", "camera:0"])
def test_pictures_need_no_calibration(
    camera: int | str, monkeypatch: pytest.MonkeyPatch, picture: Callable[..., np.ndarray]
) -> None:
    capture, targets = webcam(monkeypatch)
    capture.pace.image_set = lambda index: picture(index, channels=3)
    pictures = list(islice(read_camera(camera), 3))
    assert targets == [0]
    assert pictures[0][0] == "frame000000"
    assert pictures[0][1].shape == (30, 40)
