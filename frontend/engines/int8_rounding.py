"""Whole numbers for the filters of a network's first convolution, which sees images: what rounding does to its outputs
is known from how the pixels of photographs go together, and is made as small as it gets.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Seven bits: sums of products of two bytes overflow on processors without VNNI otherwise.
_LIMIT = 63
# Steps that are tried for each filter, as whole numbers that its largest weight may become.
_LARGEST = np.linspace(_LIMIT + 0.49, 40.0, 60)
# The descent ends long before; two weights at once find nothing better.
_MOST_MOVES = 300
# A prime, so that patches lie anywhere in an image.
_EVERY = 37


def patch_moments(images: Iterable[NDArray[np.uint8]], kernel: int) -> Array:
    """(K², K²) mean products of the pixels, from 0 to 1, of patches (K, K) of grey images (H, W)."""
    patches = np.concatenate(
        [
            np.lib.stride_tricks.sliding_window_view(image, (kernel, kernel)).reshape(
                -1, kernel * kernel
            )[::_EVERY]
            for image in images
        ]
    )
    values = patches / 255.0
    moments: Array = values.T @ values / len(values)
    return moments


def round_filters(filters: Array, moments: Array) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Filters as whole numbers times a step, by descent on the mean squared error of their outputs.

    Args:
        filters: (C, N).
        moments: (N, N) mean products of what they are applied to.

    Returns:
        (C, N) within ±63, and (C,) the steps.
    """
    largest = np.maximum(np.abs(filters).max(axis=1), np.finfo(np.float32).tiny)
    steps = (largest[:, None] / _LARGEST).astype(np.float32)
    wanted = filters[:, None] / steps[:, :, None]
    whole = np.clip(np.round(wanted), -_LIMIT, _LIMIT)
    # One more or less of each weight.
    moves = np.concatenate([np.eye(filters.shape[1]), -np.eye(filters.shape[1])])
    squares = np.tile(np.diagonal(moments), 2)
    for _ in range(_MOST_MOVES):
        # What each move changes in the squared error, in squared steps.
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
