"""Compressed images of bags: JPEG, PNG, and compressed depth as PNG and RVL."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from recordings.bags import START_NS, BagMaker

from spslam.datasets.ros.bag import open_bag
from spslam.datasets.ros.images import ImageRef, read_pixels
from spslam.errors import FrameError

SHAPE = (26, 38)
COLORS = cv2.GaussianBlur(
    np.random.default_rng(1).integers(0, 256, (*SHAPE, 3), dtype=np.uint8), (0, 0), 5
)
WIDE = np.random.default_rng(2).integers(300, 65536, SHAPE, dtype=np.uint16)


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def decoded(folder: Path, data: bytes, form: str) -> np.ndarray:
    maker = BagMaker(1)
    maker.compressed("/image/compressed", data, form, START_NS)
    bag = open_bag(maker.write(folder / "x.bag"))
    return read_pixels(ImageRef(bag, "/image/compressed", 0))


def depth_header(a: float = 0.0, b: float = 0.0) -> bytes:
    return struct.pack("<iff", 0, a, b)


def rvl(depth: np.ndarray) -> bytes:
    """Wilson's codec, written down from the paper: one nibble after the other."""
    nibbles: list[int] = []

    def put(value: int) -> None:
        while True:
            value, low = value >> 3, value & 7
            nibbles.append(low | (8 if value else 0))
            if not value:
                return

    flat, at, previous = depth.ravel().astype(int).tolist(), 0, 0
    while at < len(flat):
        zeros = at
        while at < len(flat) and flat[at] == 0:
            at += 1
        put(at - zeros)
        end = at
        while end < len(flat) and flat[end] != 0:
            end += 1
        put(end - at)
        for value in flat[at:end]:
            step = value - previous
            put((step << 1) ^ (step >> 63))
            previous = value
        at = end
    nibbles += [0] * (-len(nibbles) % 8)
    words = [
        int("".join(f"{n:x}" for n in nibbles[i : i + 8]), 16) for i in range(0, len(nibbles), 8)
    ]
    height, width = depth.shape
    return struct.pack(f"<ii{len(words)}I", width, height, *words)


@pytest.mark.parametrize("form", ["png", "bgr8; png compressed bgr8", "rgb8; png compressed bgr8"])
def test_png_in_colour_is_exact(form: str, tmp_path: Path) -> None:
    np.testing.assert_array_equal(decoded(tmp_path, png(COLORS), form), COLORS)


def test_channels_in_the_order_that_the_format_names(tmp_path: Path) -> None:
    found = decoded(tmp_path, png(COLORS), "rgb8; png compressed rgb8")
    np.testing.assert_array_equal(found, COLORS[:, :, ::-1])


def test_png_of_16_bits_keeps_them(tmp_path: Path) -> None:
    np.testing.assert_array_equal(decoded(tmp_path, png(WIDE), "mono16; png compressed "), WIDE)


def test_jpeg_is_near(tmp_path: Path) -> None:
    data = cv2.imencode(".jpg", COLORS, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    found = decoded(tmp_path, data, "rgb8; jpeg compressed bgr8")
    assert np.abs(found.astype(int) - COLORS).mean() < 2


def test_a_compressed_mosaic_gets_its_colours(tmp_path: Path) -> None:
    mosaic = np.tile(np.array([[200, 120], [120, 40]], dtype=np.uint8), (13, 19))
    found = decoded(tmp_path, png(mosaic), "bayer_rggb8; png compressed ")
    assert (found == (40, 120, 200)).all()


def test_compressed_depth_of_integers(tmp_path: Path) -> None:
    data = depth_header() + png(WIDE)
    found = decoded(tmp_path, data, "16UC1; compressedDepth png")
    np.testing.assert_array_equal(found, WIDE)
    # Old versions of the transport name no codec.
    (tmp_path / "x.bag").unlink()
    np.testing.assert_array_equal(decoded(tmp_path, data, "16UC1; compressedDepth"), WIDE)


def test_compressed_depth_of_floats_is_dequantized(tmp_path: Path) -> None:
    """The transport stores a / depth + b in 16 bits; its error grows with the square of depth."""
    metres = np.random.default_rng(4).uniform(0.5, 8.0, SHAPE)
    a, b = 100.0 * (100.0 + 1.0), 1.0 - 100.0 * 101.0 / 100.0
    values = np.rint(a / metres + b).astype(np.uint16)
    values[0, :5] = 0
    found = decoded(tmp_path, depth_header(a, b) + png(values), "32FC1; compressedDepth png")
    assert found.dtype == np.float32 and np.isnan(found[0, :5]).all()
    known = ~np.isnan(found)
    assert (np.abs(found - metres)[known] <= 0.51 * metres[known] ** 2 / a * 1.01).all()


@pytest.mark.parametrize("holes", [0.0, 0.4, 1.0])
def test_rvl_is_exact(holes: float, tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    depth = random.integers(1, 60_000, SHAPE).astype(np.uint16)
    depth[random.uniform(size=SHAPE) < holes] = 0
    found = decoded(tmp_path, depth_header() + rvl(depth), "16UC1; compressedDepth rvl")
    np.testing.assert_array_equal(found, depth)


def huge_png() -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 16, 0, 0, 0, 0)
    body = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("data", "form", "words"),
    [
        (b"", "png", "empty"),
        (png(COLORS)[:-40], "png", "cut short"),
        (b"nonsense", "jpeg", "no image"),
        (huge_png(), "png", "30000x30000 pixels, which is too large"),
        (depth_header()[:7], "16UC1; compressedDepth png", "12 bytes"),
        (depth_header() + png(COLORS), "16UC1; compressedDepth png", "16 bits"),
        (depth_header() + rvl(WIDE)[:200], "16UC1; compressedDepth rvl", "RVL data are damaged"),
        (
            depth_header() + struct.pack("<ii", 30_000, 30_000),
            "16UC1; compressedDepth rvl",
            "30000x30000",
        ),
    ],
)
def test_what_is_damaged_is_refused(data: bytes, form: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(FrameError, match=words):
        decoded(tmp_path, data, form)
