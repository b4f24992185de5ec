"""Pictures of a colour sensor as its pixels give them: a Bayer mosaic of red, green and blue."""

from __future__ import annotations

from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

# The colours of the first two pixels of the first row, and of the second.
BayerPattern = Literal["RGGB", "BGGR", "GBRG", "GRBG"]
BAYER_PATTERNS: tuple[BayerPattern, ...] = get_args(BayerPattern)
# OpenCV names a pattern by the second and third pixel of the second row.
_OPENCV_NAMES = {"RGGB": "BG", "BGGR": "RG", "GBRG": "GR", "GRBG": "GB"}
# Neighbours of a mosaic differ by more than this times what pixels two apart do. Pictures and
# noise are at most 1.
_MOSAIC_RATIO = 1.2
# Minimum mean difference of neighbours in a mosaic, fraction of the largest value of the picture.
_LEAST_DIFFERENCE = 0.01


def demosaic(pixels: NDArray[Any], pattern: BayerPattern) -> NDArray[Any]:
    """Interpolate the colours of a mosaic (H, W), uint8 or uint16: (H, W, 3), blue green red."""
    code = getattr(cv2, f"COLOR_Bayer{_OPENCV_NAMES[pattern]}2BGR")
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), code))


def demosaic_grey(pixels: NDArray[Any], pattern: BayerPattern) -> NDArray[Any]:
    """Interpolate the grey values (H, W) of a mosaic (H, W), uint8 or uint16."""
    code = getattr(cv2, f"COLOR_Bayer{_OPENCV_NAMES[pattern]}2GRAY")
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), code))


def likely_patterns(pixels: NDArray[Any]) -> tuple[BayerPattern, ...]:
    """Return the two patterns that a grey picture (H, W) may have; none if it is no mosaic.

    In a mosaic, pixels of one colour are two apart: neighbours differ more. The green ones, which
    have similar values, lie on one of the two diagonals. The picture does not tell which of the
    others is red.
    """
    if pixels.ndim != 2 or min(pixels.shape) < 16:
        return ()
    values = pixels.astype(np.float32)
    least = _LEAST_DIFFERENCE * float(values.max())
    for along in (values, values.T):
        near, far = np.abs(along[1:] - along[:-1]).mean(), np.abs(along[2:] - along[:-2]).mean()
        if not (near > least and near > _MOSAIC_RATIO * far):
            return ()
    corner = values[: values.shape[0] // 2 * 2, : values.shape[1] // 2 * 2]
    a, b, c, d = corner[::2, ::2], corner[::2, 1::2], corner[1::2, ::2], corner[1::2, 1::2]
    green_second = np.abs(b - c).mean() < np.abs(a - d).mean()
    return ("RGGB", "BGGR") if green_second else ("GBRG", "GRBG")
