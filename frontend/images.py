"""What every extractor expects of an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def check_images(images: list[NDArray[np.uint8]]) -> tuple[int, int]:
    """Height and width shared by grey uint8 images.

    Raises:
        ValueError: an image is not (H, W) uint8, is empty, or has another size than the first.
    """
    for image in images:
        if image.ndim != 2 or image.dtype != np.uint8 or 0 in image.shape:
            raise ValueError(f"expected a grey (H, W) uint8 image, found {image.shape} {image.dtype}")
        if image.shape != images[0].shape:
            raise ValueError(f"images of one batch must have one size, found {images[0].shape} and {image.shape}")
    height, width = images[0].shape
    return height, width
