"""The focal length in Exif data."""

import struct
from pathlib import Path

import pytest

from spslam.calibrate.exif import focal_length_35mm, focal_length_from_exif


def exif(order: str, millimetres: int, pointer_kind: int = 4) -> bytes:
    """A JPEG's beginning with the Exif directory behind the first one."""
    mark = b"II*\x00" if order == "<" else b"MM\x00*"
    first = struct.pack(f"{order}HHHII", 1, 0x8769, pointer_kind, 1, 26) + bytes(4)
    second = struct.pack(f"{order}HHHIHH", 1, 0xA405, 3, 1, millimetres, 0)
    tiff = mark + struct.pack(f"{order}I", 8) + first + second + bytes(4)
    return b"\xff\xd8\xff\xe1\x00\x40Exif\x00\x00" + tiff


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_are_read(order: str) -> None:
    assert focal_length_35mm(exif(order, 26)) == 26


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8\xff", exif("<", 26)[:40], exif("<", 0), exif("<", 26, pointer_kind=2)]
)
def test_data_without_a_focal_length_give_none(data: bytes) -> None:
    assert focal_length_35mm(data) is None


def test_the_diagonal_of_a_full_frame_gives_pixels(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(exif("<", 36))
    # 36 mm on a diagonal of 43.27 mm; the image's diagonal is 5000 px.
    assert focal_length_from_exif(path, 4000, 3000) == pytest.approx(5000 * 36 / 43.2666, rel=1e-5)
    assert focal_length_from_exif(tmp_path / "none.jpg", 4000, 3000) is None
