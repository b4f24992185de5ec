import logging
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from matroska import write_matroska

from spslam.datasets import open_sequence, read_pictures
from spslam.errors import CalibrationError, DatasetError
from spslam.interfaces import Sequence

WIDTH, HEIGHT, COUNT, FPS = 64, 48, 90, 25.0
SIZE = {"width": WIDTH, "height": HEIGHT, "cx": 31.5, "cy": 23.5}
CODECS = [("clip.mp4", "mp4v"), ("clip.avi", "MJPG")]


def level(index: int) -> int:
    """Brightness that identifies frame `index` after lossy compression."""
    return 20 + (index * 37) % 200


@pytest.fixture
def clip(tmp_path: Path, write_calibration: Callable) -> Callable[..., Path]:
    """Write a video of flat grey frames with a calibration next to it."""

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
    assert isinstance(sequence, Sequence) and (sequence.name, sequence.sensor) == (
        "video clip",
        "mono",
    )
    frames = list(sequence)
    assert len(frames) == len(sequence) == COUNT and not sequence.skipped
    assert [frame.timestamp for frame in frames] == pytest.approx(np.arange(COUNT) / FPS)
    assert [frame.image.mean() for frame in frames] == pytest.approx(
        [level(i) for i in range(COUNT)], abs=4
    )
    for index in (80, 3, 4, 40, 0, 89, -2):
        assert np.array_equal(sequence[index].image, frames[index].image)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(sequence, frames, strict=True))
    assert sequence.camera.fps == FPS


def test_slice(clip: Callable) -> None:
    part = open_sequence(clip(), start=5, stride=30)
    assert [frame.index for frame in part] == [5, 35, 65]
    assert [frame.image.mean() for frame in part] == pytest.approx(
        [level(i) for i in (5, 35, 65)], abs=4
    )


def test_the_frame_rate_of_the_video_overrides_the_calibration(
    clip: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert open_sequence(clip(fps=60.0)).camera.fps == FPS
    assert "the video's own rate, 25.000/s, is used" in caplog.text


def test_a_video_with_fewer_frames_than_announced_is_read(
    clip: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    path = clip()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    sequence = open_sequence(path)
    assert len(sequence) == COUNT  # as the container announces
    with caplog.at_level(logging.WARNING):
        frames = list(sequence)
    assert 0 < len(frames) == len(sequence) < COUNT and not sequence.skipped
    assert f"announces {COUNT} frames and holds {len(frames)}" in caplog.text
    assert np.array_equal(sequence[1].image, frames[1].image)
    with pytest.raises(IndexError):
        sequence[len(frames)]


@pytest.fixture
def matroska(tmp_path: Path, write_calibration: Callable) -> Callable[..., Path]:
    """Write a video of flat grey frames with given time stamps."""
    write_calibration(tmp_path / "calibration.yaml", **{"fps": None, **SIZE})

    def make(stamps: np.ndarray, name: str = "walk.mkv", **options: Any) -> Path:
        images = [np.full((HEIGHT, WIDTH), level(i), np.uint8) for i in range(len(stamps))]
        return write_matroska(tmp_path / name, images, list(stamps), **options)

    return make


CHANGING = np.concatenate([np.arange(40) / 20, 2 + np.arange(40) / 10])
JITTER = np.arange(80) / 20 + np.random.default_rng(1).uniform(-0.009, 0.009, 80)


@pytest.mark.parametrize(
    "stamps", [CHANGING, JITTER - JITTER[0]], ids=["20 to 10 a second", "jitter"]
)
def test_stamps_and_frames_are_those_of_the_container(
    matroska: Callable, stamps: np.ndarray
) -> None:
    path = matroska(stamps, announced_s=float(stamps[-1]) + 0.05)
    frames = list(open_sequence(path))
    assert [frame.timestamp for frame in frames] == pytest.approx(stamps, abs=1e-6)
    for start, stride in ((65, 1), (3, 7), (70, 3)):
        part = list(open_sequence(path, start=start, stride=stride))
        assert [frame.index for frame in part] == list(range(start, 80, stride))
        assert [frame.timestamp for frame in part] == pytest.approx(stamps[start::stride], abs=1e-6)
        assert [frame.image.mean() for frame in part] == pytest.approx(
            [level(f.index) for f in part], abs=4
        )


@pytest.mark.parametrize(
    "options",
    [
        {"announced_s": 5.0},
        {"announced_s": 2.0},
        {"announced_s": None, "live": True},
        {"announced_s": None, "live": True, "rate": None, "name": "browser.webm"},
    ],
    ids=["announces more", "announces fewer", "live", "browser"],
)
def test_the_sequence_ends_with_the_last_frame_that_decodes(
    matroska: Callable, options: dict
) -> None:
    sequence = open_sequence(matroska(np.arange(72) / 20, **options))
    frames = list(sequence)
    assert len(frames) == len(sequence) == 72 and not sequence.skipped
    assert frames[-1].image.mean() == pytest.approx(level(71), abs=4)
    assert np.array_equal(sequence[2].image, frames[2].image)
    assert [frame.index for frame in open_sequence(sequence.source, start=60, stride=5)] == [
        60,
        65,
        70,
    ]


def test_a_first_stamp_above_zero_keeps_all_frames(matroska: Callable) -> None:
    sequence = open_sequence(matroska(1.4 + np.arange(40) / 20, announced_s=3.4))
    frames = list(sequence)
    assert len(frames) == 40 and not sequence.skipped
    assert np.diff([frame.timestamp for frame in frames]) == pytest.approx(0.05)


def test_frames_can_be_counted_instead_of_using_stamps(matroska: Callable) -> None:
    sequence = open_sequence(matroska(CHANGING, announced_s=6.0), time_unit="frames")
    assert sequence.time_unit == "frames"
    assert [frame.timestamp for frame in sequence] == pytest.approx(np.arange(80) / 20)
    with pytest.raises(
        DatasetError, match="a video, which brings its own times, found --time-unit ms"
    ):
        open_sequence(sequence.source, time_unit="ms")


@pytest.mark.parametrize("degrees", [90, 180])
def test_a_rotation_tag_is_reported_and_ignored(
    clip: Callable, degrees: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = clip("clip.mp4", "mp4v")
    upright = list(open_sequence(path))
    _turn(path, degrees)
    capture = cv2.VideoCapture(str(path))
    if int(capture.get(cv2.CAP_PROP_ORIENTATION_META)) != degrees:
        pytest.skip("this OpenCV reads no orientation from videos")
    with caplog.at_level(logging.WARNING):
        turned = list(open_sequence(path))
    assert f"has a tag that turns the picture by {degrees} degrees: it is ignored" in caplog.text
    assert all(np.array_equal(a.image, b.image) for a, b in zip(upright, turned, strict=True))
    pictures = [image for _, image in read_pictures(path)]
    assert all(np.array_equal(a.image, b) for a, b in zip(upright, pictures, strict=True))
    clip("clip.mp4", "mp4v", width=HEIGHT, height=WIDTH, cx=20.0, cy=30.0)
    _turn(path, degrees)
    with pytest.raises(
        DatasetError,
        match=rf"64x48 as it is stored \(its tag, which is ignored, turns it by {degrees} d",
    ):
        open_sequence(path)


def _turn(path: Path, degrees: int) -> None:
    """Write a rotation into an MP4 track header (ISO/IEC 14496-12, 8.3.2: 9 numbers at byte 40)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    cosine, sine = {90: (0, 1), 180: (-1, 0)}[degrees]
    one = 1 << 16
    data[at : at + 20] = struct.pack(">5i", cosine * one, sine * one, 0, -sine * one, cosine * one)
    path.write_bytes(bytes(data))


def test_bad_videos_are_refused(clip: Callable, tmp_path: Path) -> None:
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


def test_a_file_that_is_not_a_video_is_refused(clip: Callable) -> None:
    path = clip()
    path.write_bytes(b"no video" * 100)
    with pytest.raises(DatasetError, match="no video that OpenCV can decode"):
        open_sequence(path)
    path.write_bytes(b"")
    with pytest.raises(DatasetError, match="is empty: expected a video, found 0 bytes"):
        open_sequence(path)


def test_frames_without_increasing_stamps_are_left_out_and_reported(
    matroska: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    stamps = np.arange(20) / 20
    stamps[5] = stamps[4]
    stamps[12:] -= 0.2
    sequence = open_sequence(matroska(stamps))
    times = [frame.timestamp for frame in sequence]
    assert np.diff(times).min() > 0 and len(times) == 15
    assert (len(sequence.left_out), sequence.skipped) == (5, [])
    assert "2 frames are left out (equal time stamp)" in caplog.text
    assert "3 frames are left out (clock stepped back)" in caplog.text
    # Reading again, completely or partly, counts nothing twice.
    assert [frame.timestamp for frame in sequence] == times and len(sequence.left_out) == 5


def test_counted_frames_have_the_frame_rate_of_the_calibration(clip: Callable) -> None:
    assert [frame.timestamp for frame in open_sequence(clip(fps=10.0), time_unit="frames")][:2] == [
        0.0,
        0.1,
    ]
