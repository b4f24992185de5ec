"""Drawn tracks, and the targets that pictures are written to."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import read_picture

from spslam.errors import OutputError
from spslam.typing import UInt8Array
from spslam.visualization.draw_tracks import draw_tracks, track_colors
from spslam.visualization.video_writer import PngFolder, VideoFile


def picture(level: int, height: int = 48, width: int = 64) -> UInt8Array:
    return np.full((height, width, 3), level, dtype=np.uint8)


def read_video(path: Path) -> list[UInt8Array]:
    capture = cv2.VideoCapture(str(path))
    frames: list[UInt8Array] = []
    while True:
        decoded, pixels = capture.read()
        if not decoded:
            return frames
        frames.append(pixels.astype(np.uint8))


def test_a_video_holds_every_picture(tmp_path: Path) -> None:
    with VideoFile(tmp_path / "a.mp4", 10.0) as video:
        assert all(video.show(picture(level)) for level in (0, 100, 200))
        assert not (tmp_path / "a.mp4").exists()
    frames = read_video(tmp_path / "a.mp4")
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 3
    assert [round(float(frame.mean()) / 100) for frame in frames] == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_video_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"old")
    with (
        pytest.raises(OutputError, match="found 32x48 after 64x48"),
        VideoFile(tmp_path / "a.mp4", 10.0) as video,
    ):
        video.show(picture(0))
        video.show(picture(0, width=32))
    with VideoFile(tmp_path / "a.mp4", 10.0):
        pass
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_paths_that_cannot_be_written_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        VideoFile(tmp_path / "gone" / "a.mp4", 10.0)
    with pytest.raises(OutputError, match="it is a folder"):
        VideoFile(tmp_path, 10.0)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot write pictures"):
        PngFolder(tmp_path / "file")
    with pytest.raises(OutputError, match="not empty and is left alone"):
        PngFolder(tmp_path)


def test_a_folder_takes_pictures_of_any_size(tmp_path: Path) -> None:
    with PngFolder(tmp_path / "new" / "folder") as folder:
        assert folder.show(picture(7))
        assert folder.show(picture(9, width=32))
    names = sorted((tmp_path / "new" / "folder").iterdir())
    assert [path.name for path in names] == ["000000.png", "000001.png"]
    assert read_picture(names[1]).tolist() == picture(9, width=32).tolist()


def test_tracks_are_lines_coloured_by_their_length() -> None:
    image = np.zeros((60, 120), dtype=np.uint8)
    positions = np.full((3, 4, 2), np.nan, dtype=np.float32)
    positions[0] = [[100, 10], [80, 10], [60, 10], [40, 10]]
    positions[1, :2] = [[100, 30], [40, 30]]
    positions[2, 0] = [20, 50]
    drawn = draw_tracks(image, positions, np.array([9, 2, 1]))
    colors = track_colors(4)
    # Anti-aliased edges reduce the colour a little.
    np.testing.assert_allclose(drawn[10, 50], colors[3], atol=30)
    np.testing.assert_allclose(drawn[30, 50], colors[1], atol=30)
    assert len(set(drawn[50, 20].tolist())) == 1 and drawn[50, 20, 0] > 0
    assert not drawn[40:45].any() and not image.any()
    young, old = colors[0].astype(int), colors[-1].astype(int)
    assert young[0] > young[2] and old[2] > old[0], "from blue to red"
    captioned = draw_tracks(image, positions, np.array([9, 2, 1]), "text")
    assert captioned[40:, :60].max() == 255


def test_a_video_is_written_through_a_link_and_not_into_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.mp4").symlink_to("there/animation.mp4")
    with VideoFile(tmp_path / "link.mp4", 10.0) as video:
        video.show(picture(100))
    assert (tmp_path / "link.mp4").is_symlink()
    assert len(read_video(tmp_path / "there" / "animation.mp4")) == 1
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(
        OutputError, match=r"pipe\.mp4: expected a file or a new name, found a pipe"
    ):
        VideoFile(tmp_path / "pipe.mp4", 10.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.mp4", "pipe.mp4", "there"]
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["animation.mp4"]
