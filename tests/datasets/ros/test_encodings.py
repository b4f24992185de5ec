"""Raw images of bags: every encoding, padded rows, order of bytes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from recordings.bags import START_NS, BagMaker

from spslam.datasets.ros.bag import open_bag
from spslam.datasets.ros.images import ImageRef, read_pixels
from spslam.errors import FrameError

WIDTH, HEIGHT = 38, 26
COLORS = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GREY = COLORS[:, :, 0].copy()
WIDE = np.random.default_rng(2).integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
METRES = np.random.default_rng(3).uniform(0.1, 9.0, (HEIGHT, WIDTH)).astype(np.float32)
ALPHA = np.dstack([COLORS, GREY])


def decoded(folder: Path, ros: int, pixels: np.ndarray, encoding: str, **how: object) -> np.ndarray:
    maker = BagMaker(ros)
    maker.image("/image", pixels, encoding, START_NS, **how)  # type: ignore[arg-type]
    path = maker.write(folder / ("x.bag" if ros == 1 else "x.mcap"))
    return read_pixels(ImageRef(open_bag(path), "/image", 0))


@pytest.mark.parametrize("ros", [1, 2])
@pytest.mark.parametrize(
    ("encoding", "sent", "expected"),
    [
        ("mono8", GREY, GREY),
        ("8UC1", GREY, GREY),
        ("mono16", WIDE, WIDE),
        ("mono16", WIDE.astype(">u2"), WIDE),
        ("16UC1", WIDE, WIDE),
        ("32FC1", METRES, METRES),
        ("32FC1", METRES.astype(">f4"), METRES),
        ("bgr8", COLORS, COLORS),
        ("8UC3", COLORS, COLORS),
        ("rgb8", COLORS[:, :, ::-1], COLORS),
        ("bgra8", ALPHA, ALPHA),
        ("rgba8", ALPHA[:, :, [2, 1, 0, 3]], ALPHA),
    ],
)
def test_pixels_come_back(
    ros: int, encoding: str, sent: np.ndarray, expected: np.ndarray, tmp_path: Path
) -> None:
    padding = 0 if ros == 1 else 10
    found = decoded(tmp_path, ros, sent, encoding, padding=padding)
    assert found.dtype == expected.dtype and found.dtype.isnative
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_mosaics_get_their_colours(pattern: str, bits: int, tmp_path: Path) -> None:
    """A scene of one colour: each place of the pattern holds its own channel."""
    level = 1 if bits == 8 else 256
    values = {"r": 200 * level, "g": 120 * level, "b": 40 * level}
    tile = np.array([values[name] for name in pattern]).reshape(2, 2)
    mosaic = np.tile(tile, (HEIGHT // 2, WIDTH // 2)).astype(f"u{bits // 8}")
    found = decoded(tmp_path, 1, mosaic, f"bayer_{pattern}{bits}", padding=6)
    assert found.shape == (HEIGHT, WIDTH, 3)
    assert (found == (values["b"], values["g"], values["r"])).all()


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21"])
def test_yuv_gets_its_colours(encoding: str, tmp_path: Path) -> None:
    """ITU-R BT.601 in the studio range, computed here."""
    red, green, blue = 180.0, 90.0, 60.0
    y = 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255
    u = 128 + (-37.797 * red - 74.203 * green + 112.0 * blue) / 255
    v = 128 + (112.0 * red - 93.786 * green - 18.214 * blue) / 255
    size = None
    if encoding.startswith("nv"):
        rows = np.full((HEIGHT * 3 // 2, WIDTH), y)
        rows[HEIGHT:, 0::2], rows[HEIGHT:, 1::2] = (u, v) if encoding == "nv12" else (v, u)
        size = (WIDTH, HEIGHT)
    else:
        rows = np.full((HEIGHT, WIDTH, 2), y)
        color = 0 if encoding in ("yuv422", "uyvy") else 1
        rows[:, 0::2, color], rows[:, 1::2, color] = u, v
    pixels = np.rint(rows).astype(np.uint8)
    found = decoded(tmp_path, 2, pixels, encoding, padding=8, size=size)
    assert found.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(found.astype(float) - (blue, green, red)).max() <= 2.5


def test_nv12_keeps_the_rows_of_grey(tmp_path: Path) -> None:
    """A third of the picture would be lost if the rows of colours were counted as grey."""
    steps = np.repeat(np.linspace(16, 235, HEIGHT)[:, None], WIDTH, axis=1)
    rows = np.vstack([steps, np.full((HEIGHT // 2, WIDTH), 128.0)])
    pixels = np.rint(rows).astype(np.uint8)
    found = decoded(tmp_path, 1, pixels, "nv12", size=(WIDTH, HEIGHT))
    expected = (pixels[:HEIGHT].astype(float) - 16) * 255 / 219
    assert np.abs(cv2.cvtColor(found, cv2.COLOR_BGR2GRAY) - expected).max() <= 2


@pytest.mark.parametrize(
    ("encoding", "pixels", "how", "words"),
    [
        ("yuv444", GREY, {}, "'yuv444' is not supported"),
        ("32FC2", np.dstack([METRES, METRES]), {}, "two channels"),
        ("mono16", GREY, {}, "needs rows of 76 bytes"),
        ("mono8", GREY, {"size": (WIDTH, HEIGHT + 1)}, f"{WIDTH * (HEIGHT + 1)} bytes in all"),
        ("mono8", GREY, {"size": (0, 5)}, "found 0x5"),
        ("mono8", GREY, {"size": (2**31, 5)}, "found 2147483648x5"),
        ("nv12", GREY[:, :37], {}, "even sizes"),
    ],
)
def test_what_is_no_image_is_refused(
    encoding: str, pixels: np.ndarray, how: dict[str, object], words: str, tmp_path: Path
) -> None:
    with pytest.raises(FrameError, match=words):
        decoded(tmp_path, 2, pixels, encoding, **how)
