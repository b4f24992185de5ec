"""Matroska files of JPEG images with arbitrary stamps, which OpenCV cannot write.

Source of the numbers: RFC 9559 (Matroska) and RFC 8794 (EBML).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

_MICROSECONDS = 1000  # nanoseconds of a tick


def write_matroska(
    path: Path,
    images: Sequence[np.ndarray],
    stamps_s: Sequence[float],
    *,
    announced_s: float | None = None,
    rate: float | None = 20.0,
    live: bool = False,
) -> Path:
    """Write images (H, W) uint8 with their stamps in seconds, rounded to microseconds.

    Args:
        announced_s: duration in the header; None: no duration, as from a browser's recorder.
        rate: frames per second in the track's header; None: no rate.
        live: sizes of the segment and of clusters are unknown, as in a stream.
    """
    height, width = images[0].shape
    info = (
        _element(0x2AD7B1, _integer(_MICROSECONDS))
        + _element(0x4D80, b"test")
        + _element(0x5741, b"test")
    )
    if announced_s is not None:
        info += _element(0x4489, struct.pack(">d", announced_s * 1e9 / _MICROSECONDS))
    video = _element(0xB0, _integer(width)) + _element(0xBA, _integer(height))
    track = _element(0xD7, b"\x01") + _element(0x73C5, b"\x01") + _element(0x83, b"\x01")
    track += _element(0x86, b"V_MJPEG") + _element(0xE0, video)
    if rate is not None:
        track += _element(0x23E383, _integer(round(1e9 / rate)))
    body = _element(0x1549A966, info) + _element(0x1654AE6B, _element(0xAE, track))
    for image, stamp in zip(images, stamps_s, strict=True):
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        block = _element(0xA3, b"\x81" + struct.pack(">hB", 0, 0x80) + data)
        body += _element(
            0x1F43B675, _element(0xE7, _integer(round(stamp * 1e9 / _MICROSECONDS))) + block, live
        )
    doctype = b"matroska" if path.suffix == ".mkv" else b"webm"
    head = _element(0x4282, doctype) + _element(0x4287, b"\x04") + _element(0x4285, b"\x02")
    path.write_bytes(_element(0x1A45DFA3, head) + _element(0x18538067, body, live))
    return path


def _element(identity: int, data: bytes, unknown_size: bool = False) -> bytes:
    name = identity.to_bytes((identity.bit_length() + 7) // 8, "big")
    size = b"\x01" + b"\xff" * 7 if unknown_size else (len(data) | 1 << 56).to_bytes(8, "big")
    return name + size + data


def _integer(value: int) -> bytes:
    return value.to_bytes(max((value.bit_length() + 7) // 8, 1), "big")
