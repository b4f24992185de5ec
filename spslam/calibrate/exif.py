"""The focal length in the Exif data of a photograph, as a first guess."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

# Bytes at the beginning of a file in which Exif data are searched.
_WITHIN = 1 << 17
_MARK = b"Exif\x00\x00"
# Tags (Exif 2.32, CIPA DC-008): pointer to the Exif directory, focal length of the same view on a
# full-frame sensor.
_EXIF_DIRECTORY, _FOCAL_LENGTH_35MM = 0x8769, 0xA405
_SHORT, _LONG = 3, 4
# Diagonal of a full-frame sensor, millimetres: 36 × 24.
_FULL_FRAME_DIAGONAL_MM = math.hypot(36.0, 24.0)
# Plausible values, millimetres.
_SHORTEST_MM, _LONGEST_MM = 5, 2000


def focal_length_from_exif(path: Path, width: int, height: int) -> float | None:
    """Return the focal length of a photograph, pixels; None if its file does not say it.

    Args:
        path: a JPEG or PNG file.
        width: width of the image, pixels.
        height: height of the image, pixels.
    """
    try:
        with path.open("rb") as file:
            millimetres = focal_length_35mm(file.read(_WITHIN))
    except OSError:
        return None
    return (
        None
        if millimetres is None
        else millimetres / _FULL_FRAME_DIAGONAL_MM * math.hypot(width, height)
    )


def focal_length_35mm(data: bytes) -> int | None:
    """Return the focal length of the same view on a full-frame sensor, millimetres, or None.

    Args:
        data: the beginning of a JPEG file, or of a PNG file with Exif data.
    """
    start = data.find(_MARK)
    start = start + len(_MARK) if start >= 0 else data.find(b"eXIf") + 4
    tiff = data[start:]
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if start < 4 or order is None:
        return None
    try:
        (first,) = struct.unpack_from(f"{order}I", tiff, 4)
        pointer = dict(_entries(tiff, first, order)).get(_EXIF_DIRECTORY)
        if pointer is None:
            return None
        found = dict(_entries(tiff, pointer, order)).get(_FOCAL_LENGTH_35MM)
    except struct.error:
        return None
    return found if found is not None and _SHORTEST_MM <= found <= _LONGEST_MM else None


def _entries(tiff: bytes, directory: int, order: str) -> Iterator[tuple[int, int]]:
    """Yield tag and value of the single integers of a directory."""
    (count,) = struct.unpack_from(f"{order}H", tiff, directory)
    for entry in range(count):
        place = directory + 2 + 12 * entry
        tag, kind, number = struct.unpack_from(f"{order}HHI", tiff, place)
        if kind in (_SHORT, _LONG) and number == 1:
            (value,) = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), tiff, place + 8)
            yield tag, int(value)
