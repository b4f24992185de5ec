"""Decode `sensor_msgs/Image`: raw pixels, in the encodings of ROS.

Source: sensor_msgs/image_encodings.hpp of ROS 2 and the comments of Image.msg.
"""

from __future__ import annotations

import re
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.camera import LARGEST_PX
from spslam.errors import FrameError

from ..images import bayer
from ..images.bayer import BayerPattern

Pixels = NDArray[Any]

# Names of plain encodings: type and channels of OpenCV, and the order of the channels.
_PLAIN = {
    "mono8": ("u1", 1, ""),
    "mono16": ("u2", 1, ""),
    "rgb8": ("u1", 3, "rgb"),
    "bgr8": ("u1", 3, ""),
    "rgba8": ("u1", 4, "rgb"),
    "bgra8": ("u1", 4, ""),
    "rgb16": ("u2", 3, "rgb"),
    "bgr16": ("u2", 3, ""),
    "rgba16": ("u2", 4, "rgb"),
    "bgra16": ("u2", 4, ""),
}
# OpenCV's names, as 8UC3; the channels are those of bgr8.
_OPENCV = re.compile(r"(8U|16U|32F|64F)C?([1-4])?")
_TYPES = {"8U": "u1", "16U": "u2", "32F": "f4", "64F": "f8"}
_BAYER = re.compile(r"bayer_(rggb|bggr|gbrg|grbg)(8|16)")
# Two bytes a pixel.
_PACKED_YUV = {
    "yuv422": cv2.COLOR_YUV2BGR_UYVY,
    "uyvy": cv2.COLOR_YUV2BGR_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2BGR_YUY2,
    "yuyv": cv2.COLOR_YUV2BGR_YUY2,
}
# Half as many rows of colours below the rows of grey.
_PLANAR_YUV = {"nv12": cv2.COLOR_YUV2BGR_NV12, "nv21": cv2.COLOR_YUV2BGR_NV21}
_SWAPS = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}


def decode_raw(message: Any, what: str) -> Pixels:
    """Decode an image as OpenCV has it.

    Args:
        message: a `sensor_msgs/Image`.
        what: the message, for errors.

    Returns:
        (H, W), or (H, W, 3 or 4) blue first; uint8, uint16 or floating point, in the order of bytes
        of this machine.

    Raises:
        FrameError: the encoding is unknown, or the data are fewer than it needs.
    """
    encoding, width, height = str(message.encoding), int(message.width), int(message.height)
    if not (0 < width <= LARGEST_PX and 0 < height <= LARGEST_PX):
        raise FrameError(
            f"{what}: expected an image of 1 to {LARGEST_PX} pixels a side, found {width}x{height}"
        )
    if encoding in _PACKED_YUV:
        _check_even(width, height, 1, encoding, what)
        pixels = _rows(message, what, "u1", height, width, 2)
        return _convert(pixels, _PACKED_YUV[encoding])
    if encoding in _PLANAR_YUV:
        _check_even(width, height, 2, encoding, what)
        pixels = _rows(message, what, "u1", height * 3 // 2, width, 1)
        return _convert(pixels, _PLANAR_YUV[encoding])
    if mosaic := _BAYER.fullmatch(encoding):
        pixels = _rows(message, what, "u1" if mosaic[2] == "8" else "u2", height, width, 1)
        return demosaic(pixels, encoding)
    kind, channels, order = _plain(encoding, what)
    pixels = _rows(message, what, kind, height, width, channels)
    return _convert(pixels, _SWAPS[channels]) if order == "rgb" else pixels


def is_bayer(encoding: str) -> bool:
    """Return whether an encoding is a mosaic of colours."""
    return _BAYER.fullmatch(encoding) is not None


def demosaic(pixels: Pixels, encoding: str) -> Pixels:
    """Return the colours (H, W, 3), blue first, of a mosaic (H, W) of uint8 or uint16."""
    found = _BAYER.fullmatch(encoding)
    assert found is not None
    return bayer.demosaic(pixels, cast(BayerPattern, found[1].upper()))


def _plain(encoding: str, what: str) -> tuple[str, int, str]:
    if encoding in _PLAIN:
        return _PLAIN[encoding]
    found = _OPENCV.fullmatch(encoding)
    if found is None:
        raise FrameError(f"{what}: the encoding {encoding[:40]!r} is not supported")
    channels = int(found[2] or 1)
    if channels == 2:
        raise FrameError(f"{what}: {encoding} is no image: it has two channels")
    return _TYPES[found[1]], channels, ""


def _rows(message: Any, what: str, kind: str, height: int, width: int, channels: int) -> Pixels:
    """Return the pixels (height, width[, channels]) without the bytes that pad rows."""
    dtype = np.dtype((">" if message.is_bigendian else "<") + kind)
    line = width * channels * dtype.itemsize
    step = int(message.step) or line
    data = np.asarray(message.data, dtype=np.uint8)
    needed = step * (height - 1) + line
    if step < line or len(data) < needed:
        raise FrameError(
            f"{what}: {width}x{height} {str(message.encoding)[:40]} needs rows of {line} bytes and "
            f"{needed} bytes in all, found rows of {step} and {len(data)} bytes"
        )
    shape = (height, width) if channels == 1 else (height, width, channels)
    inner = (dtype.itemsize,) if channels == 1 else (channels * dtype.itemsize, dtype.itemsize)
    strided: Pixels = np.ndarray(shape, dtype, data.data, strides=(step, *inner))
    return np.array(strided, dtype=dtype.newbyteorder("="), order="C")


def _check_even(width: int, height: int, rows: int, encoding: str, what: str) -> None:
    if width % 2 or height % rows:
        raise FrameError(f"{what}: {encoding} has even sizes, found {width}x{height}")


def _convert(pixels: Pixels, code: int) -> Pixels:
    return np.asarray(cv2.cvtColor(pixels, code))
