"""Picture files of the tests."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from spslam.typing import UInt8Array


def read_picture(path: Path, flags: int = cv2.IMREAD_COLOR) -> UInt8Array:
    """The pixels of a picture with 8 bits a channel, colour or (`cv2.IMREAD_GRAYSCALE`) grey."""
    image = cv2.imread(str(path), flags)
    assert image is not None, path
    return np.asarray(image, dtype=np.uint8)
