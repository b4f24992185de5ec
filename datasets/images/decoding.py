"""Decode image and depth files to arrays; an incomplete or damaged file raises `FrameError`."""

from __future__ import annotations

import io
import logging
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.errors import DatasetError, FrameError
from spslam.io.files import visible_files
from spslam.io.given_files import NO_ARRAYS, read_given
from spslam.notices import counted, notice

from .containers import JPEG_START, PNG_SIGNATURE, container_fault
from .exr import read_exr_depth
from .png import decode_png

_LOG = logging.getLogger(__name__)
IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".pgm", ".ppm", ".pnm", ".bmp", ".tif", ".tiff", ".webp"),
)
# The same for messages.
IMAGE_KINDS = "*.png, *.jpg, *.pgm, *.ppm, *.pnm, *.bmp, *.tif, *.webp"
DEPTH_SUFFIXES = (".png", ".tif", ".tiff", ".pgm", ".npy", ".exr")
# Search this many bytes at the beginning of a file for Exif data; a JPEG segment has 64 kB at most.
_EXIF_WITHIN = 1 << 17
# Bytes before the Exif data, by the first bytes of the file.
_EXIF_MARKS = {JPEG_START: b"Exif\x00\x00", PNG_SIGNATURE: b"eXIf"}
# Exif's tag of the orientation, and its type, a 16-bit integer.
_ORIENTATION_TAG = 0x0112
_EXIF_SHORT = 3
_LARGEST_UINT16 = 65535


def list_files(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[Path]:
    """List the visible files of `folder` with one of `suffixes` (any case), in natural order.

    The list is empty if there is no such folder.
    """
    return visible_files(folder, suffixes)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file as a (H, W) uint8 grey image.

    16 bits are scaled to 8 by the full range. The images of a sequence are read by a
    `grey_levels.GreyReader` instead, which scales by the range that the images fill.

    Raises:
        FrameError: the file is missing, cut short, damaged, or no image.
    """
    return _to_eight_bits(read_grey(path))


def read_grey(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Read an image file as a (H, W) grey image, uint8 or uint16 as in the file.

    Raises:
        FrameError: the file is missing, cut short, damaged, or no image.
    """
    return one_channel(_decode(path), path.name)


def read_pixels(path: Path) -> NDArray[Any]:
    """Read an image file as it is: (H, W) or (H, W, channels), blue first.

    Raises:
        FrameError: the file is missing, cut short, damaged, or no image.
    """
    return _decode(path)


def to_color(pixels: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Return the colours (H, W, 3), blue green red, of a decoded image; None without 8-bit ones."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        return None
    return np.asarray(pixels[:, :, :3], dtype=np.uint8)


def to_grey(pixels: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Convert a decoded image to (H, W) uint8.

    Args:
        pixels: (H, W) or (H, W, 1, 3 or 4), blue first, uint8 or uint16.
        name: name of the image, for the message.

    Raises:
        FrameError: the image has another type or shape.
    """
    return _to_eight_bits(one_channel(pixels, name))


def full_range_to_eight_bits(pixels: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Scale 16-bit pixels (H, W) to 8 bits: 65535 becomes 255."""
    return np.asarray(cv2.convertScaleAbs(pixels, alpha=255.0 / 65535.0), dtype=np.uint8)


def _to_eight_bits(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint16:
        pixels = full_range_to_eight_bits(pixels.astype(np.uint16, copy=False))
    return np.ascontiguousarray(pixels, dtype=np.uint8)


def one_channel(pixels: NDArray[Any], name: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Convert a decoded image to (H, W), uint8 or uint16 as it is.

    Raises:
        FrameError: the image has another type or shape.
    """
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim not in (2, 3):
        raise FrameError(
            f"{name}: expected an image of 8 or 16 bits, found {pixels.dtype} {pixels.shape}"
        )
    if pixels.ndim == 3:
        codes = {1: None, 3: cv2.COLOR_BGR2GRAY, 4: cv2.COLOR_BGRA2GRAY}
        if pixels.shape[2] not in codes:
            raise FrameError(f"{name}: expected 1, 3 or 4 channels, found {pixels.shape[2]}")
        code = codes[pixels.shape[2]]
        pixels = pixels[:, :, 0] if code is None else cv2.cvtColor(pixels, code)
    return np.ascontiguousarray(pixels)


def read_raw_depth(path: Path) -> NDArray[Any]:
    """Read a depth file unscaled: (H, W) integers of 16 or more bits, or floating point numbers.

    Raises:
        FrameError: the file is missing, cut short, damaged, or holds no depth.
    """
    readers = {".npy": _read_npy, ".exr": _read_exr}
    raw = readers.get(path.suffix.lower(), _decode)(path)
    if raw.ndim == 3 and raw.shape[2] == 1:
        raw = raw[:, :, 0]
    if raw.ndim != 2 or raw.size == 0 or raw.dtype.itemsize < 2 or raw.dtype.kind not in "uif":
        hint = ", a picture of the depth and no depth" if raw.dtype == np.uint8 else ""
        raise FrameError(
            f"depth image {path.parent.name}/{path.name}: expected depth as one channel of "
            f"16-bit integers or floats, found {raw.dtype} {raw.shape}{hint}"
        )
    return raw


def to_metres(raw: NDArray[Any], units_per_metre: float) -> NDArray[np.float32]:
    """Convert depth (H, W), integers or floats, to float32 metres.

    Pixels without a measurement become 0: those that are 0, negative, NaN, infinite or
    `not_measured`.
    """
    with np.errstate(over="ignore"):
        depth = raw.astype(np.float32)
        if units_per_metre != 1.0:
            depth /= np.float32(units_per_metre)
    depth[~np.isfinite(depth) | (depth < 0) | not_measured(raw)] = 0.0
    return depth


def estimate_orientation(path: Path) -> None:
    """Give one notice if a photo has an orientation tag, which is ignored.

    Pixels stay in the order in which the sensor stored them, because the calibration is of the
    sensor. Videos are read in the same way.
    """
    try:
        # Skip pipes: their contents were read before.
        if not path.is_file():
            return
        with path.open("rb") as file:
            orientation = orientation_tag(file.read(_EXIF_WITHIN))
    except OSError:
        return
    if orientation != 1:
        text = (
            "%s and later images: the orientation tag (%d) is ignored, pixels are used as the "
            "sensor stored them; calibrate with pictures as they are stored"
        )
        notice(_LOG, "orientation_tag", text, path, orientation)


def orientation_tag(data: bytes) -> int:
    """Read the orientation, 1 to 8, from the Exif data of a JPEG or PNG file.

    Source: Exif 2.32 (CIPA DC-008), tag 0x0112 of the first directory; PNG (W3C, third edition),
    chunk eXIf.

    Args:
        data: the beginning of the file.

    Returns:
        The orientation; 1 (upright) without Exif data.
    """
    mark = next((mark for begin, mark in _EXIF_MARKS.items() if data.startswith(begin)), b"")
    start = data.find(mark, 0, _EXIF_WITHIN) + len(mark)
    if not mark or start < len(mark):
        return 1
    tiff = data[start:]
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    try:
        if order is None:
            return 1
        directory = struct.unpack_from(f"{order}I", tiff, 4)[0]
        for entry in range(struct.unpack_from(f"{order}H", tiff, directory)[0]):
            tag, kind, _, value = struct.unpack_from(
                f"{order}HHIH", tiff, directory + 2 + 12 * entry
            )
            if tag == _ORIENTATION_TAG and kind == _EXIF_SHORT and 1 <= value <= 8:
                return int(value)
    except struct.error:
        pass
    return 1


def not_measured(raw: NDArray[Any]) -> NDArray[np.bool_]:
    """Return (H, W) bool: pixels of a depth image without a measurement.

    Cameras and tools write the largest number of the type for "none" or "too far". If 65535 is
    the largest value of an image, it counts too: 16 bits were converted to a wider type.
    """
    largest = np.finfo(raw.dtype).max if raw.dtype.kind == "f" else np.iinfo(raw.dtype).max
    none: NDArray[np.bool_] = raw == largest
    if float(largest) > _LARGEST_UINT16:
        converted = raw == _LARGEST_UINT16
        if converted.any() and not ((raw > _LARGEST_UINT16) & (raw < largest)).any():
            none |= converted
    return none


def image_size(paths: list[Path]) -> tuple[int, int]:
    """Return width and height, pixels, of the first image that can be decoded.

    Raises:
        DatasetError: no image can be decoded; the message gives the reason for the first one.
    """
    first_reason = "there are no images"
    for path in paths:
        try:
            height, width = read_image(path).shape
        except FrameError as error:
            first_reason = str(error) if path is paths[0] else first_reason
            continue
        return width, height
    where = paths[0].parent if paths else "the sequence"
    raise DatasetError(
        f"none of the {counted(len(paths), 'image')} in {where} can be decoded: {first_reason}"
    )


def _read_bytes(path: Path) -> bytes:
    try:
        return read_given(path)
    except OSError as error:
        raise FrameError(
            f"{path.name}: cannot be read from {path.parent} ({error.strerror or error})"
        ) from None


def _decode(path: Path) -> NDArray[Any]:
    return decode_image(_read_bytes(path), path.name)


def decode_image(data: bytes, name: str) -> NDArray[Any]:
    """Decode the bytes of a PNG or JPEG file as they are: (H, W) or (H, W, channels), blue first.

    Args:
        data: the whole file.
        name: of the image, for messages.

    Raises:
        FrameError: the image is cut short, damaged, or no image.
    """
    # Check the container: OpenCV returns a half grey or black image for a file that ends early.
    fault = container_fault(data)
    if fault is not None:
        raise FrameError(f"{name}: {fault} ({counted(len(data), 'byte')})")
    fast = decode_png(data)
    if fast is not None:
        return fast
    try:
        # IMREAD_UNCHANGED also ignores a photo's orientation tag: the calibration is of the sensor.
        pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise FrameError(f"{name}: cannot be decoded ({error.err or error.msg})") from None
    if pixels is None:
        raise FrameError(
            f"{name}: is no image that OpenCV can decode ({counted(len(data), 'byte')})"
        )
    return np.asarray(pixels)


def _read_exr(path: Path) -> NDArray[Any]:
    return read_exr_depth(_read_bytes(path), path.name)


def _read_npy(path: Path) -> NDArray[Any]:
    data = _read_bytes(path)
    try:
        return np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
    except NO_ARRAYS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FrameError(f"{path.name}: is no NumPy array ({reason})") from None
