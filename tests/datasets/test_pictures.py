"""Images of anything, without calibration."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from spslam.datasets import read_pictures
from spslam.errors import DatasetError


def grey(number: int) -> np.ndarray:
    return np.full((48, 64), 10 * number, np.uint8)


def test_image_files_below_a_folder_in_order(tmp_path: Path) -> None:
    for name, number in (("b/2.png", 2), ("a/1.png", 1), ("c.png", 3)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), grey(number))
    (tmp_path / "notes.txt").write_text("no image")
    found = list(read_pictures(tmp_path))
    assert [name for name, _ in found] == ["a/1.png", "b/2.png", "c.png"]
    assert [int(image[0, 0]) for _, image in found] == [10, 20, 30]


def test_video_frames_need_no_calibration(tmp_path: Path) -> None:
    path = tmp_path / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for number in range(5):
        writer.write(cv2.cvtColor(grey(4 * number), cv2.COLOR_GRAY2BGR))
    writer.release()
    found = list(read_pictures(path))
    assert [name for name, _ in found] == [f"frame{index:06d}" for index in range(5)]
    assert [image.shape for _, image in found] == [(48, 64)] * 5
    np.testing.assert_allclose([image.mean() for _, image in found], [0, 40, 80, 120, 160], atol=4)


def test_built_in_worlds() -> None:
    name, image = next(iter(read_pictures("demo-small")))
    assert name == "frame000000"
    assert image.dtype == np.uint8


def test_what_holds_no_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="found none of them"):
        list(read_pictures(tmp_path))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    with pytest.raises(DatasetError, match="no video"):
        list(read_pictures(broken))
    with pytest.raises(DatasetError, match="nowhere"):
        read_pictures(tmp_path / "nowhere")
