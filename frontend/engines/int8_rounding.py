"""Round the filters of a network's first convolution to int8.

The input of this convolution is the image. The correlation of pixels in photographs therefore gives
the error of its outputs, which the rounding minimises.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from spslam.typing import FloatArray

# Largest absolute whole number of a filter: seven bits, because sums of products of two bytes
# overflow with eight bits on processors without VNNI.
_LIMIT = 63
# The steps to try for each filter: its largest weight divided by each of these numbers.
_LARGEST = np.linspace(_LIMIT + 0.49, 40.0, 60)
# Most iterations of the descent; it converges long before.
_MOST_MOVES = 300
# Use every 37th patch of an image; a prime spreads the patches over all columns.
_EVERY = 37


def patch_moments(images: Iterable[NDArray[np.uint8]], kernel: int) -> FloatArray:
    """Compute the mean products (K², K²) of the pixels in patches (K, K) of images.

    Args:
        images: grey, (H, W) uint8; pixels are scaled to [0, 1].
        kernel: K, pixels.
    """
    patches = np.concatenate(
        [
            np.lib.stride_tricks.sliding_window_view(image, (kernel, kernel)).reshape(
                -1, kernel * kernel
            )[::_EVERY]
            for image in images
        ]
    )
    values = patches / 255.0
    moments: FloatArray = values.T @ values / len(values)
    return moments


def round_filters(
    filters: FloatArray, moments: FloatArray
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round filters to whole numbers times a step, by descent on the mean squared output error.

    Args:
        filters: (C, N).
        moments: (N, N), mean products of the filters' inputs.

    Returns:
        Whole numbers (C, N) within ±63, and steps (C,).
    """
    largest = np.maximum(np.abs(filters).max(axis=1), np.finfo(np.float32).tiny)
    steps = (largest[:, None] / _LARGEST).astype(np.float32)
    wanted = filters[:, None] / steps[:, :, None]
    whole = np.clip(np.round(wanted), -_LIMIT, _LIMIT)
    # A move adds 1 to a weight or subtracts 1 from it.
    moves = np.concatenate([np.eye(filters.shape[1]), -np.eye(filters.shape[1])])
    squares = np.tile(np.diagonal(moments), 2)
    for _ in range(_MOST_MOVES):
        # The change of the squared error by each move, in squared steps.
        slopes = 2.0 * (whole - wanted) @ moments
        change = np.concatenate([slopes, -slopes], axis=2) + squares
        change[np.concatenate([whole >= _LIMIT, whole <= -_LIMIT], axis=2)] = np.inf
        best = change.argmin(axis=2)
        better = np.take_along_axis(change, best[:, :, None], axis=2) < -1e-12
        if not better.any():
            break
        whole += moves[best] * better
    errors = whole - wanted
    squared = np.einsum("csi,ij,csj->cs", errors, moments, errors) * steps.astype(np.float64) ** 2
    chosen = squared.argmin(axis=1)
    rows = np.arange(len(filters))
    return whole[rows, chosen].astype(np.int8), steps[rows, chosen]
