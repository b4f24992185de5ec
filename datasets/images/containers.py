"""Find image files that are cut short or damaged, by their containers.

OpenCV decodes some of them to a picture that is partly grey, black or of an earlier file.
"""

from __future__ import annotations

import re
import struct
import zlib

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
# Binary PBM, PGM and PPM: width, height and, beside PBM, the largest value, with comments between.
_BLANK = rb"(?:\s|#[^\n]*\n)+"
_PNM = re.compile(rb"P([456])" + _BLANK + rb"(\d+)" + _BLANK + rb"(\d+)")
_PNM_LARGEST = re.compile(_BLANK + rb"(\d+)\s")
# TIFF tags of the positions and sizes, in bytes, of strips and of tiles.
_TIFF_PARTS = ((273, 279), (324, 325))
# Size in bytes and struct code of TIFF's integer types.
_TIFF_INTEGERS = {3: (2, "H"), 4: (4, "I")}
# Largest number of strips or tiles that is checked.
_MOST_PARTS = 100_000


def container_fault(data: bytes) -> str | None:
    """Return what is wrong with the container of an image file; None if nothing is found.

    PNG, JPEG, BMP, WebP, binary PNM and TIFF are checked; other files pass.

    Args:
        data: the whole file.
    """
    if not data:
        return "the file is empty"
    for begin, check in _CHECKS:
        if data.startswith(begin):
            return check(data)
    return None


def _png(data: bytes) -> str | None:
    view, offset = memoryview(data), len(PNG_SIGNATURE)
    while offset + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        end = offset + 12 + length
        if end > len(data):
            break
        if zlib.crc32(view[offset + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            return "the PNG file is damaged (a checksum is wrong)"
        if kind == b"IEND":
            return None
        offset = end
    return "the PNG file is cut short"


def _jpeg(data: bytes) -> str | None:
    # Search for the end marker after the start of the scan: an embedded preview has its own one.
    offset = 2
    while offset + 4 <= len(data) and data[offset] == 0xFF:
        marker = data[offset + 1]
        if marker == 0xFF:  # fill byte
            offset += 1
        elif marker == 0xDA:  # start of scan
            return None if data.rfind(_JPEG_END, offset) >= 0 else "the JPEG file is cut short"
        else:
            offset += 2 + int.from_bytes(data[offset + 2 : offset + 4], "big")
    return "the JPEG file is cut short or damaged"


def _bmp(data: bytes) -> str | None:
    stated = int.from_bytes(data[2:6], "little")
    return "the BMP file is cut short" if len(data) < max(stated, 26) else None


def _webp(data: bytes) -> str | None:
    if data[8:12] not in (b"WEBP", b""):
        return None
    stated = int.from_bytes(data[4:8], "little") + 8
    return "the WebP file is cut short" if len(data) < max(stated, 12) else None


def _pnm(data: bytes) -> str | None:
    header = _PNM.match(data)
    if header is None:
        return "the PNM file has no valid header"
    kind, width, height = (int(number[:9]) for number in header.groups())
    if kind == 4:
        rows, begin = (width + 7) // 8 * height, header.end() + 1
    else:
        largest = _PNM_LARGEST.match(data, header.end())
        if largest is None:
            return "the PNM file has no valid header"
        depth = 1 if int(largest[1][:9]) < 256 else 2
        rows, begin = width * height * depth * (3 if kind == 6 else 1), largest.end()
    return "the PNM file is cut short" if len(data) < begin + rows else None


def _tiff(data: bytes) -> str | None:
    order = "<" if data.startswith(b"II") else ">"
    try:
        directory = struct.unpack_from(f"{order}I", data, 4)[0]
        entries = {}
        for entry in range(struct.unpack_from(f"{order}H", data, directory)[0]):
            place = directory + 2 + 12 * entry
            tag, kind, count = struct.unpack_from(f"{order}HHI", data, place)
            entries[tag] = (kind, count, place + 8)
        for positions, sizes in _TIFF_PARTS:
            if positions in entries and sizes in entries:
                parts = zip(
                    _integers(data, order, *entries[positions]),
                    _integers(data, order, *entries[sizes]),
                    strict=False,
                )
                if any(position + size > len(data) for position, size in parts):
                    return "the TIFF file is cut short"
    except (struct.error, KeyError):
        return "the TIFF file is cut short or damaged"
    return None


def _integers(data: bytes, order: str, kind: int, count: int, place: int) -> tuple[int, ...]:
    """Read the integers of a TIFF entry; `place` is that of its value or of the values' position.

    Raises:
        struct.error: the file ends before them.
        KeyError: the type is no integer.
    """
    size, code = _TIFF_INTEGERS[kind]
    count = min(count, _MOST_PARTS)
    if size * count > 4:
        place = struct.unpack_from(f"{order}I", data, place)[0]
    return struct.unpack_from(f"{order}{count}{code}", data, place)


_CHECKS = (
    (PNG_SIGNATURE, _png),
    (JPEG_START, _jpeg),
    (b"BM", _bmp),
    (b"RIFF", _webp),
    (b"P4", _pnm),
    (b"P5", _pnm),
    (b"P6", _pnm),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
)
