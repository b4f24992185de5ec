import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from spslam.datasets.images.decoding import estimate_orientation, image_size, list_files, read_image
from spslam.datasets.images.depth_files import DepthReader, DepthUnits
from spslam.errors import DatasetError, FrameError

Write = Callable[[Path, np.ndarray], Path]
Picture = Callable[..., np.ndarray]


def test_grey_png_is_read_exactly(tmp_path: Path, write: Write, picture: Picture) -> None:
    image = picture()
    read = read_image(write(tmp_path / "a.png", image))
    assert read.dtype == np.uint8 and np.array_equal(read, image)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPG"])
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_colour_png_and_jpeg(
    tmp_path: Path, write: Write, picture: Picture, suffix: str, channels: int
) -> None:
    smooth = cv2.GaussianBlur(picture(channels=channels), (0, 0), 4)
    read = read_image(write(tmp_path / f"a{suffix}", smooth))
    expected = smooth if channels == 1 else cv2.cvtColor(smooth, cv2.COLOR_BGR2GRAY)
    assert read.shape == expected.shape
    assert np.abs(read.astype(int) - expected).max() <= (0 if suffix == ".png" else 8)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_scaled_to_eight(
    tmp_path: Path, write: Write, picture: Picture, channels: int
) -> None:
    grey = picture()
    wide = grey.astype(np.uint16) * 257
    if channels > 1:
        wide = np.repeat(wide[:, :, None], channels, axis=2)
    assert np.abs(read_image(write(tmp_path / "a.png", wide)).astype(int) - grey).max() <= 1


def test_full_range_of_sixteen_bits(tmp_path: Path, write: Write) -> None:
    wide = np.array([[0, 128, 129, 65406, 65407, 65535]], dtype=np.uint16)
    assert read_image(write(tmp_path / "a.png", wide)).tolist() == [[0, 0, 1, 254, 255, 255]]


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_truncated_file_is_refused_wherever_it_ends(
    tmp_path: Path, write: Write, picture: Picture, suffix: str
) -> None:
    path = write(tmp_path / f"a{suffix}", picture(width=160, height=120))
    data = path.read_bytes()
    for length in [0, 1, 7, 20, len(data) // 2, len(data) * 9 // 10, len(data) - 13, len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(FrameError, match=f"a{suffix}: "):
            read_image(path)


def test_jpeg_with_an_embedded_preview_is_refused_when_cut(
    tmp_path: Path, write: Write, picture: Picture
) -> None:
    path = write(tmp_path / "a.jpg", picture())
    data = path.read_bytes()
    preview = b"\xff\xe1" + (2 + len(data)).to_bytes(2, "big") + data
    path.write_bytes(data[:2] + preview + data[2:])
    assert read_image(path).shape == (30, 40)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(FrameError, match="cut short"):
        read_image(path)


def test_png_with_a_flipped_bit_is_refused(tmp_path: Path, write: Write, picture: Picture) -> None:
    path = write(tmp_path / "a.png", picture())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(FrameError, match="damaged"):
        read_image(path)


def test_bytes_after_the_end_are_ignored(tmp_path: Path, write: Write, picture: Picture) -> None:
    for suffix in (".png", ".jpg"):
        path = write(tmp_path / f"a{suffix}", picture())
        path.write_bytes(path.read_bytes() + b"\0" * 100)
        assert read_image(path).shape == (30, 40)


def test_missing_files_and_text_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match="No such file"):
        read_image(tmp_path / "a.png")
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(FrameError, match="no image that OpenCV can decode"):
        read_image(tmp_path / "a.png")


def test_depth_is_scaled_and_zero_stays_unknown(tmp_path: Path, write: Write) -> None:
    depth = DepthReader("walk", DepthUnits(5000.0)).read(
        write(tmp_path / "d.png", np.array([[0, 5000, 7500]], dtype=np.uint16))
    )
    assert depth.dtype == np.float32 and depth.tolist() == [[0.0, 1.0, 1.5]]


@pytest.mark.parametrize("suffix", [".npy", ".tiff"])
def test_nan_depth_becomes_unknown_and_floats_are_metres(
    tmp_path: Path, write: Write, suffix: str
) -> None:
    metres = np.array([[np.nan, np.inf, -1.0, 0.0, 2.5]], dtype=np.float32)
    path = tmp_path / f"d{suffix}"
    if suffix == ".npy":
        np.save(path, metres)
    else:
        write(path, metres)
    assert DepthReader("walk", DepthUnits(1000.0)).read(path).tolist() == [
        [0.0, 0.0, 0.0, 0.0, 2.5]
    ]


def test_depth_of_eight_bits_or_colour_or_objects_is_refused(
    tmp_path: Path, write: Write, picture: Picture
) -> None:
    with pytest.raises(FrameError, match="16-bit"):
        DepthReader("walk", DepthUnits(1000.0)).read(write(tmp_path / "d.png", picture()))
    with pytest.raises(FrameError, match="one channel"):
        DepthReader("walk", DepthUnits(1000.0)).read(
            write(tmp_path / "d.png", picture(channels=3).astype(np.uint16))
        )
    np.save(tmp_path / "d.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(FrameError, match="no NumPy array"):
        DepthReader("walk", DepthUnits(1000.0)).read(tmp_path / "d.npy")


def test_image_size_comes_from_the_first_good_image(
    tmp_path: Path, write: Write, picture: Picture
) -> None:
    (tmp_path / "0.png").write_bytes(b"")
    good = write(tmp_path / "1.png", picture())
    assert image_size([tmp_path / "0.png", good]) == (40, 30)
    with pytest.raises(DatasetError, match=r"none of the 1 image .* 0.png: the file is empty"):
        image_size([tmp_path / "0.png"])


def test_list_files_is_sorted_and_leaves_hidden_files_out(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "._a.png", "c.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in list_files(tmp_path)] == ["a.JPG", "b.png"]
    assert list_files(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"(24, 32), }      ", b"(24000000, 32000000), }"),
        (b"(24, 32), }", b"(24, 32), (  "),
        (b"(24, 32), }", b"(True, True), }"),
        (b"(24, 32), }", b"(99999999999999999999, 32), }"),
    ],
)
def test_arrays_with_a_false_header_are_refused(
    tmp_path: Path, before: bytes, after: bytes
) -> None:
    path = tmp_path / "d.npy"
    np.save(path, np.ones((24, 32), np.float32))
    data = path.read_bytes()
    end = data.index(b"\n")
    path.write_bytes(data[:end].replace(before, after).ljust(end)[:end] + data[end:])
    with pytest.raises(FrameError, match="is no NumPy array"):
        DepthReader("walk", DepthUnits(1.0)).read(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes in its file system")
def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(FrameError, match="pipe that nobody writes to"):
        read_image(tmp_path / "a.png")
    estimate_orientation(tmp_path / "a.png")
