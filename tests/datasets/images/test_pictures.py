"""Pictures of anything, without calibration."""

import logging
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from spslam.datasets import read_pictures
from spslam.datasets.images.decoding import orientation_tag
from spslam.errors import DatasetError
from spslam.frontend.photos import read_photo


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
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(5):
        writer.write(cv2.cvtColor(grey(4 * number), cv2.COLOR_GRAY2BGR))
    writer.release()
    found = list(read_pictures(path))
    assert [name for name, _ in found] == [f"frame{index:06d}" for index in range(5)]
    assert [image.shape for _, image in found] == [(48, 64)] * 5
    np.testing.assert_allclose([image.mean() for _, image in found], [0, 40, 80, 120, 160], atol=4)


def test_built_in_worlds_are_read() -> None:
    name, image = next(iter(read_pictures("demo-small")))
    assert name == "frame000000"
    assert image.dtype == np.uint8


def test_sources_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="found none of them"):
        list(read_pictures(tmp_path))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    with pytest.raises(DatasetError, match="no video"):
        list(read_pictures(broken))
    with pytest.raises(DatasetError, match="nowhere"):
        read_pictures(tmp_path / "nowhere")


def test_images_come_in_natural_order_without_hidden_and_broken_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (0, 1, 2, 10, 11):
        cv2.imwrite(str(tmp_path / f"{number}.png"), grey(number))
    (tmp_path / "2.png").write_bytes(b"broken")
    (tmp_path / "._1.png").write_bytes(b"attributes")
    (tmp_path / ".thumbs").mkdir()
    cv2.imwrite(str(tmp_path / ".thumbs" / "1.png"), grey(20))
    with caplog.at_level(logging.WARNING):
        found = list(read_pictures(tmp_path))
    assert [name for name, _ in found] == ["0.png", "1.png", "10.png", "11.png"]
    assert "1 of 5 images cannot be decoded and is skipped, the first: 2.png" in caplog.text
    for path in tmp_path.glob("*.png"):
        path.write_bytes(b"broken")
    with pytest.raises(DatasetError, match=r"none of the 5 images in .* can be decoded"):
        list(read_pictures(tmp_path))


def test_right_and_depth_images_are_not_separate_pictures(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for folder in ("left", "right", "depth"):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "0.png"), grey(3))
    with caplog.at_level(logging.WARNING):
        assert [name for name, _ in read_pictures(tmp_path)] == ["left/0.png"]
    assert "2 images in folders called depth or right are left out" in caplog.text
    assert [name for name, _ in read_pictures(tmp_path / "right")] == ["0.png"]


def test_an_orientation_tag_is_reported_and_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    upright = np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))
    data = cv2.imencode(".jpg", upright, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0" + b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    tagged = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    (tmp_path / "0.jpg").write_bytes(tagged)
    # OpenCV follows the orientation tag by itself.
    turned = cv2.imread(str(tmp_path / "0.jpg"), cv2.IMREAD_GRAYSCALE)
    assert turned is not None and turned.shape == (64, 48)
    with caplog.at_level(logging.WARNING):
        ((_, image),) = read_pictures(tmp_path)
    np.testing.assert_allclose(image, upright, atol=3)
    np.testing.assert_allclose(read_photo(tmp_path / "0.jpg"), upright, atol=3)
    assert "the orientation tag (6) is ignored" in caplog.text
    assert (
        orientation_tag(data) == 1
        and orientation_tag(b"") == 1
        and orientation_tag(tagged[:30]) == 1
    )
