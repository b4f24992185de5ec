"""Read calibration text: any Unicode encoding, YAML with OpenCV's dialect, JSON.

Every fault raises `CalibrationError`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from spslam.errors import CalibrationError
from spslam.io import structured_text
from spslam.io.given_files import read_given
from spslam.io.structured_text import StructureError

# Largest size of a calibration file, bytes; longer files are refused.
_LONGEST_BYTES = 1_000_000
# The same for JSON: nerfstudio's transforms.json also holds the pose of each image.
_LONGEST_JSON_BYTES = 30_000_000
_OPENCV_TAG = re.compile(r"!!opencv-(?:nd-)?matrix|!<?tag:yaml\.org,2002:opencv[-\w]*>?")
_OPENCV_HEADER = re.compile(r"^[ \t]*%YAML[^\n]*$", re.MULTILINE)
_NO_BLANK = re.compile(r"^([ \t]*[A-Za-z_][\w.]*):(?=[^\s:/\\])", re.MULTILINE)


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or UTF-16 with a byte order mark.

    Letters of other encodings become question marks.

    Raises:
        CalibrationError: the file cannot be read, is too large or is no text.
    """
    return as_text(path, read_data(path))


def read_data(path: Path) -> bytes:
    """Read the bytes of a calibration file.

    Raises:
        CalibrationError: the file cannot be read or is too large.
    """
    try:
        most = _LONGEST_JSON_BYTES if _is_json(path) else _LONGEST_BYTES
        if path.is_file() and path.stat().st_size > most:
            raise CalibrationError(
                f"calibration {path} has {path.stat().st_size / 1e6:.0f} MB: "
                "expected a text file with a few numbers"
            )
        return read_given(path, most)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise CalibrationError(f"calibration {path} cannot be read: {reason}") from None


def as_text(path: Path, data: bytes) -> str:
    """Decode the bytes of a calibration file.

    Raises:
        CalibrationError: these are no text.
    """
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = data.decode(encoding, errors="replace")
    if "\0" in text:
        raise CalibrationError(
            f"calibration {path} is no text{_binary(data)}: "
            "expected YAML (width height fx fy cx cy …)"
        )
    return text


def parse_yaml(text: str) -> Any:
    """Parse YAML, also OpenCV's dialect (`%YAML:1.0`, `!!opencv-matrix`), and JSON.

    Raises:
        CalibrationError: the text is no YAML, has a key twice, or expands to more than a
            calibration holds; the message is one line and names the place.
    """
    if text.lstrip().startswith("{"):
        # Try JSON first: it may be indented by tabs, which YAML forbids.
        with suppress(StructureError):
            return structured_text.parse_json(text)
    plain = _OPENCV_TAG.sub("", text)
    opencv = _OPENCV_HEADER.search(plain) is not None
    if opencv:
        plain = _NO_BLANK.sub(r"\1: ", _OPENCV_HEADER.sub("", plain))
    try:
        return structured_text.parse_yaml(plain)
    except StructureError as error:
        raise CalibrationError(str(error)) from None


def _is_json(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size <= _LONGEST_BYTES:
        return False
    with path.open("rb") as file:
        return file.read(64).lstrip().startswith(b"{")


def _binary(data: bytes) -> str:
    kinds = {
        b"PK\x03\x04": "a NumPy .npz or another zip archive",
        b"\x93NUMPY": "a NumPy .npy array",
        b"MATLAB": "a MATLAB file",
        b"\x80": "a Python pickle",
        b"\x89PNG": "an image",
        b"\xff\xd8": "an image",
    }
    return next((f" but {kind}" for start, kind in kinds.items() if data.startswith(start)), "")
