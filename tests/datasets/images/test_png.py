"""PNG files that are decoded without OpenCV: the same pixels, and OpenCV for all others."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from spslam.datasets.images.decoding import decode_image
from spslam.datasets.images.png import decode_png
from spslam.errors import FrameError

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def image(dtype: type = np.uint8, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(0)
    shape = (45, 67) if channels == 1 else (45, 67, channels)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def written(pixels: np.ndarray, *options: int) -> bytes:
    return bytes(cv2.imencode(".png", pixels, [*options])[1])


def chunk_of(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def by_hand(
    pixels: np.ndarray, filters: list[int], extra: bytes = b"", interlaced: int = 0
) -> bytes:
    """A grey PNG (H, W) whose rows have the filters None (0), Sub (1) or Up (2)."""
    rows = b""
    above = np.zeros_like(pixels[0])
    for row, kind in zip(pixels, filters, strict=True):
        before = {0: 0 * row, 1: np.concatenate([[0], row[:-1]]), 2: above}[kind]
        rows += bytes([kind]) + (row - before).astype(np.uint8).tobytes()
        above = row
    height, width = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlaced)
    return (
        SIGNATURE
        + chunk_of(b"IHDR", header)
        + extra
        + chunk_of(b"IDAT", zlib.compress(rows))
        + chunk_of(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "pixels", [image(), image(np.uint16), image(channels=3)], ids=["grey", "deep", "colour"]
)
def test_files_of_opencv_are_decoded_to_their_pixels(pixels: np.ndarray) -> None:
    pytest.importorskip("isal")
    data = written(pixels, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB)
    decoded = decode_png(data)
    assert decoded is not None and decoded.dtype == pixels.dtype
    assert np.array_equal(decoded, pixels)
    assert np.array_equal(decode_image(data, "a.png"), pixels)


def test_a_text_beside_the_pixels_changes_nothing() -> None:
    pytest.importorskip("isal")
    pixels = image()
    data = by_hand(pixels, [1] * len(pixels), chunk_of(b"tEXt", b"Title\x00a"))
    decoded = decode_png(data)
    assert decoded is not None and np.array_equal(decoded, pixels)


@pytest.mark.parametrize("other", [0, 2])
@pytest.mark.parametrize("where", [0, 30])
def test_other_filters_are_left_to_opencv(other: int, where: int) -> None:
    pixels = image()
    filters = [1] * len(pixels)
    filters[where] = other
    data = by_hand(pixels, filters)
    assert decode_png(data) is None
    assert np.array_equal(decode_image(data, "a.png"), pixels)


@pytest.mark.parametrize("channels", [2, 4])
def test_transparency_is_left_to_opencv(channels: int) -> None:
    pixels = image(channels=4) if channels == 4 else image()
    data = written(pixels)
    if channels == 2:
        transparent = by_hand(pixels, [1] * len(pixels), chunk_of(b"tRNS", b"\x00\x07"))
        assert decode_png(transparent) is None
    else:
        assert decode_png(data) is None
        assert np.array_equal(decode_image(data, "a.png"), pixels)


def test_a_wrong_number_of_rows_is_left_to_opencv() -> None:
    pixels = image()
    right = by_hand(pixels, [1] * len(pixels))
    rows = by_hand(pixels[:-3], [1] * (len(pixels) - 3))
    header = len(SIGNATURE) + 25
    for data in (right[:header] + rows[header:], rows[:header] + right[header:]):
        assert decode_png(data) is None


def test_a_damaged_file_is_refused_with_a_reason(tmp_path: Path) -> None:
    pixels = image()
    data = bytearray(by_hand(pixels, [1] * len(pixels)))
    data[len(data) // 2] ^= 0x10
    with pytest.raises(FrameError, match=r"a\.png: the PNG file is damaged"):
        decode_image(bytes(data), "a.png")


def test_damaged_rows_in_a_sound_container_are_left_to_opencv() -> None:
    pixels = image()
    data = by_hand(pixels, [1] * len(pixels))
    start = data.index(b"IDAT") + 4
    packed = bytearray(data[start : len(data) - 16])
    packed[-1] ^= 0x01
    sealed = data[: start - 8] + chunk_of(b"IDAT", bytes(packed)) + chunk_of(b"IEND", b"")
    assert decode_png(sealed) is None
