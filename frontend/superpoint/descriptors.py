"""Descriptors of keypoints, interpolated in the coarse descriptor map of any engine."""

from __future__ import annotations

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from .decoder import Sampling

# Largest L2 distance of matching unit descriptors, for weights that do not give their own.
DEFAULT_MAX_DESCRIPTOR_DISTANCE = 0.8


def sample_descriptors(
    dense: NDArray[np.float32], keypoints: NDArray[np.float32], sampling: Sampling
) -> NDArray[np.float32]:
    """Interpolate unit descriptors at keypoints.

    Equivalent to normalising the map, `grid_sample` with zero padding, and normalising again.
    Here the norms of the cells are part of the interpolation weights, a sparse matrix. This is
    several times as fast as the decoder's version, which needs only NumPy.

    Args:
        dense: descriptor map (rows, columns, D), not normalised.
        keypoints: (N, 2) x y, pixels.
        sampling: the interpolation.

    Returns:
        Unit descriptors (N, D).
    """
    rows, columns, _ = dense.shape
    flat = dense.reshape(rows * columns, -1)
    index, weight = sampling.neighbours(keypoints.astype(np.float64), (columns, rows))
    weight /= np.maximum(np.sqrt(np.vecdot(flat, flat)), np.float32(1e-12))[index]
    # With int64 indices, SciPy would first check whether they fit into int32.
    starts = np.arange(len(keypoints) + 1, dtype=np.int32) * np.int32(index.shape[1])
    matrix = scipy.sparse.csr_matrix(
        (weight.ravel(), index.ravel(), starts), shape=(len(keypoints), len(flat))
    )
    sampled: NDArray[np.float32] = matrix @ flat
    lengths = np.sqrt(np.vecdot(sampled, sampled))
    sampled /= np.maximum(lengths, np.float32(1e-12))[:, None]
    return sampled
