"""Decode `sensor_msgs/CompressedImage`: JPEG, PNG, and compressed depth (PNG or RVL).

Sources: the comments of CompressedImage.msg; compression_common.h and rvl_codec.cpp of
image_transport_plugins; A. D. Wilson, Fast lossless depth image compression, ISS 2017 (RVL).
"""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.camera import LARGEST_PX
from spslam.errors import FrameError
from spslam.notices import counted

from ..images.decoding import decode_image
from .encodings import Pixels, demosaic, is_bayer

# Bytes before the data of compressed depth: the format, and the two numbers of its quantization.
_DEPTH_HEADER = struct.Struct("<iff")
# Bytes before the data of RVL: columns and rows.
_RVL_HEADER = struct.Struct("<ii")
_PNG = b"\x89PNG\r\n\x1a\n"
# Largest number of pixels of a compressed image.
_MOST_PIXELS = 1 << 28
# Markers of JPEG that are followed by the size of the image: SOF0 to SOF15 but DHT, JPG and DAC.
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def source_encoding(form: str) -> str:
    """Return the encoding of the image before it was compressed; empty if the format has none.

    Formats are `jpeg`, `png`, `rgb8; jpeg compressed bgr8`, `16UC1; compressedDepth png`, ….
    """
    return form.split(";")[0].strip() if ";" in form else ""


def decode_compressed(message: Any, what: str) -> Pixels:
    """Decode a compressed image as OpenCV has it; see `encodings.decode_raw`.

    Raises:
        FrameError: the image is damaged or of an unknown format.
    """
    form, data = str(message.format), np.asarray(message.data, dtype=np.uint8).tobytes()
    if "compressedDepth" in form:
        return _decode_depth(form, data, what)
    _check_size(data, what)
    pixels = decode_image(data, what)
    source = source_encoding(form)
    if pixels.ndim == 2 and is_bayer(source):
        return demosaic(pixels, source)
    # The transport names the order of the channels; JPEG and PNG of other software are red first,
    # which OpenCV turns round.
    if "compressed rgb" in form and pixels.ndim == 3:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return pixels


def _decode_depth(form: str, data: bytes, what: str) -> Pixels:
    if len(data) < _DEPTH_HEADER.size:
        raise FrameError(f"{what}: expected the 12 bytes of compressedDepth, found {len(data)}")
    _, a, b = _DEPTH_HEADER.unpack_from(data)
    body = data[_DEPTH_HEADER.size :]
    if "rvl" in form.lower().split("compresseddepth")[-1]:
        values: Pixels = _decode_rvl(body, what)
    else:
        _check_size(body, what)
        values = decode_image(body, what)
    if values.ndim != 2 or values.dtype != np.uint16:
        raise FrameError(f"{what}: expected depth of 16 bits, found {values.dtype} {values.shape}")
    if source_encoding(form).startswith("32FC1"):
        return _dequantized(values, a, b)
    return values


def _dequantized(values: Pixels, a: float, b: float) -> NDArray[np.float32]:
    """Return metres of inverse depths; 0, no measurement, becomes NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.float32(a) / (values.astype(np.float32) - np.float32(b))
    depth[values == 0] = np.nan
    return np.asarray(depth, dtype=np.float32)


def _decode_rvl(data: bytes, what: str) -> NDArray[np.uint16]:
    """Decode RVL: runs of zeros and of differences, in groups of three bits with a stop bit."""
    if len(data) < _RVL_HEADER.size:
        raise FrameError(f"{what}: RVL data end after {len(data)} bytes")
    columns, rows = _RVL_HEADER.unpack_from(data)
    if not (
        0 < columns <= LARGEST_PX and 0 < rows <= LARGEST_PX and columns * rows <= _MOST_PIXELS
    ):
        raise FrameError(f"{what}: RVL announces {columns}x{rows} pixels")
    numbers = _rvl_numbers(data[_RVL_HEADER.size :])
    values = np.zeros(columns * rows, dtype=np.int64)
    at = place = previous = 0
    while place < len(values):
        if at + 2 > len(numbers):
            raise FrameError(
                f"{what}: RVL data end after {place} of {counted(len(values), 'pixel')}"
            )
        zeros, count = numbers[at : at + 2].tolist()
        place += zeros
        steps = numbers[at + 2 : at + 2 + count]
        if place + count > len(values) or len(steps) < count or zeros + count == 0:
            raise FrameError(f"{what}: RVL data are damaged at pixel {place}")
        # Even numbers are differences of 0 and more, odd ones negative differences.
        values[place : place + count] = previous + np.cumsum((steps >> 1) ^ -(steps & 1))
        previous = int(values[place + count - 1]) if count else previous
        place, at = place + count, at + 2 + count
    return np.asarray(values & 0xFFFF, dtype=np.uint16).reshape(rows, columns)


def _rvl_numbers(data: bytes) -> NDArray[np.int64]:
    """Return the numbers of an RVL stream: nibbles of 32-bit words, the highest one first."""
    words = np.frombuffer(data[: len(data) - len(data) % 4], dtype="<u4").astype(np.int64)
    nibbles = ((words[:, None] >> np.arange(28, -1, -4)) & 0xF).ravel()
    ends = (nibbles & 8) == 0
    number = np.cumsum(ends) - ends
    first = np.flatnonzero(np.r_[True, ends[:-1]]) if len(nibbles) else np.empty(0, np.int64)
    shift = 3 * (np.arange(len(nibbles)) - first[number]) if len(nibbles) else nibbles
    # Longer numbers than a count of pixels are damage; they would overflow.
    groups = np.where(shift <= 30, (nibbles & 7) << np.minimum(shift, 30), 0)
    return np.bincount(number, weights=groups, minlength=0).astype(np.int64)


def _check_size(data: bytes, what: str) -> None:
    """Check the announced size of an image before memory is reserved for it."""
    width, height = _announced(data)
    if width * height > _MOST_PIXELS or max(width, height) > LARGEST_PX:
        raise FrameError(f"{what}: announces {width}x{height} pixels, which is too large")


def _announced(data: bytes) -> tuple[int, int]:
    """Return the size that a PNG or JPEG announces; (0, 0) if it is unknown."""
    if data.startswith(_PNG) and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        return int(width), int(height)
    at = 2
    while data.startswith(b"\xff\xd8") and at + 9 <= len(data) and data[at] == 0xFF:
        if data[at + 1] in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return int(width), int(height)
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0, 0
