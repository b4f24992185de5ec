import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from spslam.datasets import open_sequence
from spslam.errors import CalibrationError, DatasetError, FrameError
from spslam.ports import Sequence

WIDTH, HEIGHT, COUNT, FPS = 64, 48, 90, 25.0
SIZE = {"width": WIDTH, "height": HEIGHT, "cx": 31.5, "cy": 23.5}
CODECS = [("clip.mp4", "mp4v"), ("clip.avi", "MJPG")]


def level(index: int) -> int:
    """The brightness that tells frame `index` from its neighbours after lossy compression."""
    return 20 + (index * 37) % 200


@pytest.fixture
def clip(tmp_path: Path, write_calibration: Callable) -> Callable[..., Path]:
    """Writes a video of flat grey frames with a calibration beside it."""

    def make(name: str = "clip.avi", codec: str = "MJPG", **calibration: object) -> Path:
        path = tmp_path / name
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), FPS, (WIDTH, HEIGHT))
        if not writer.isOpened():
            pytest.skip(f"this OpenCV writes no {codec}")
        for i in range(COUNT):
            writer.write(np.full((HEIGHT, WIDTH, 3), level(i), np.uint8))
        writer.release()
        write_calibration(tmp_path / "calibration.yaml", **{"fps": None, **SIZE, **calibration})
        return path

    return make


@pytest.mark.parametrize(("name", "codec"), CODECS)
def test_iteration_and_random_access_agree(clip: Callable, name: str, codec: str) -> None:
    sequence = open_sequence(clip(name, codec))
    assert isinstance(sequence, Sequence) and (sequence.name, sequence.sensor) == ("video clip", "mono")
    frames = list(sequence)
    assert len(frames) == len(sequence) == COUNT and not sequence.skipped
    assert [frame.timestamp for frame in frames] == pytest.approx(np.arange(COUNT) / FPS)
    assert [frame.image.mean() for frame in frames] == pytest.approx([level(i) for i in range(COUNT)], abs=4)
    for index in (80, 3, 4, 40, 0, 89, -2):
        assert np.array_equal(sequence[index].image, frames[index].image)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(sequence, frames, strict=True))
    assert sequence.camera.fps == FPS


def test_slice(clip: Callable) -> None:
    part = open_sequence(clip(), start=5, stride=30)
    assert [frame.index for frame in part] == [5, 35, 65]
    assert [frame.image.mean() for frame in part] == pytest.approx([level(i) for i in (5, 35, 65)], abs=4)


def test_own_rate_wins_over_the_calibrations(clip: Callable, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert open_sequence(clip(fps=60.0)).camera.fps == FPS
    assert "the video's own rate, 25.000/s, is used" in caplog.text


def test_a_video_that_ends_early_counts_what_is_missing(clip: Callable) -> None:
    path = clip()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    sequence = open_sequence(path)
    frames = list(sequence)
    assert len(frames) > 0 and len(frames) + len(sequence.skipped) == len(sequence)
    assert np.array_equal(sequence[1].image, frames[1].image)
    for index, _ in sequence.skipped:
        with pytest.raises(FrameError, match="cannot be decoded"):
            sequence[index]


def test_bad_videos(clip: Callable, tmp_path: Path) -> None:
    path = clip()
    with pytest.raises(DatasetError, match="is a video, which is mono"):
        open_sequence(path, sensor="stereo")
    with pytest.raises(DatasetError, match="a video has no sequences"):
        open_sequence(path, sequence="1")
    clip(width=80)
    with pytest.raises(DatasetError, match=r"clip\.avi is 64x48, but calibration .* is for 80x48"):
        open_sequence(path)
    (tmp_path / "calibration.yaml").unlink()
    with pytest.raises(CalibrationError, match=r"the video .* needs a calibration"):
        open_sequence(path)
    with pytest.raises(DatasetError, match="expected a video file, found nothing at"):
        open_sequence(tmp_path / "none.mp4", dataset="video")
    with pytest.raises(DatasetError, match="expected a video file, found a folder at"):
        open_sequence(tmp_path, dataset="video")


def test_a_file_that_is_no_video(clip: Callable) -> None:
    path = clip()
    path.write_bytes(b"no video" * 100)
    with pytest.raises(DatasetError, match="no video that OpenCV can decode"):
        open_sequence(path)
