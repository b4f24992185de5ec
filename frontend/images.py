"""The check that every extractor makes of an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def check_image(image: NDArray[np.uint8]) -> tuple[int, int]:
    """Return the height and width of a grey image, pixels.

    Raises:
        ValueError: the image is not (H, W) uint8, or is empty.
    """
    if image.ndim != 2 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"expected a grey (H, W) uint8 image, found {image.shape} {image.dtype}")
    height, width = image.shape
    return height, width
