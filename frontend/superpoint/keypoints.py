"""Keypoints in a probability map and their descriptors, with OpenCV and SciPy."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.spatial import cKDTree

# Other projects copy the decoder, so it needs only NumPy. This module has its fast steps.
from .decoder import Backend, Sampling, gathering_weights

# A pixel and its eight neighbours.
_EIGHT_AROUND = np.ones((3, 3), np.uint8)
# Most pairs of pixels to compare at a time; bounds the memory.
_PAIRS_AT_A_TIME = 1 << 20
# The Gaussian of `gather_probability` along one axis.
_GATHERING = gathering_weights()
# Largest L2 distance of matching unit descriptors, for weights that do not give their own.
DEFAULT_MAX_DESCRIPTOR_DISTANCE = 0.8


class Scratch(threading.local):
    """An array that a thread reuses from image to image.

    Allocating and freeing it would cost more time than the work done in it.
    """

    def __init__(self) -> None:
        self._kept: NDArray[np.float32] = np.zeros((0, 0), np.float32)

    def of(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return an uninitialised array of this shape; this thread's last array if it fits."""
        if self._kept.shape != shape:
            self._kept = np.empty(shape, np.float32)
        return self._kept


# Each thread's memory for the dilated heat map and for the summed probabilities.
_highest = Scratch()
_gathered = Scratch()


def gather_probability(
    heat: NDArray[np.float32], out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Sum the probability around each pixel, weighted by a Gaussian that is 1 at the centre.

    The network spreads the probability of a point between pixels over these pixels. The highest
    pixel alone would rank such a point by its position between the pixels.

    Args:
        heat: probabilities (H, W).
        out: (H, W), gets the result if given.

    Returns:
        Summed probabilities (H, W), at most 1.
    """
    gathered = cv2.sepFilter2D(
        heat, cv2.CV_32F, _GATHERING, _GATHERING, dst=out, borderType=cv2.BORDER_CONSTANT
    )
    # In place: allocating an image would cost more time than this step.
    capped = cv2.threshold(gathered, 1.0, 0.0, cv2.THRESH_TRUNC, dst=gathered)[1]
    return np.asarray(capped, np.float32)


def find_maxima(
    heat: NDArray[np.float32], threshold: float, nms_radius: int, border: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the maxima that greedy non-maximum suppression keeps, best first.

    A maximum is not less than any of its eight neighbours. Only maxima take part. Suppression of
    all pixels, as is usual, also keeps points on the flanks of suppressed maxima; their positions
    depend on the radius only. It must also sort many more pixels. Of equal maxima, the upper comes
    first, then the left one.

    Args:
        heat: (H, W) float32.
        threshold: points must be above it; not negative.
        nms_radius: half the side of the square that a point keeps free of worse ones, pixels.
        border: margin without points, pixels; removed after the suppression.

    Returns:
        Rows and columns (N,).
    """
    peaks = heat == cv2.dilate(heat, _EIGHT_AROUND, dst=_highest.of(heat.shape))
    peaks &= heat > threshold
    places = np.flatnonzero(peaks)
    rows, columns = np.divmod(places[_descending(np.take(heat, places))], heat.shape[1])
    height, width = heat.shape
    inside = (
        (rows >= border)
        & (columns >= border)
        & (rows < height - border)
        & (columns < width - border)
    )
    kept = suppress(rows, columns, nms_radius) & inside
    return rows[kept], columns[kept]


def _descending(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the stable descending order of positive numbers (N,)."""
    # The bits of positive floats sort like the floats. Sorting value and index as one key is
    # faster than a stable argsort.
    keys = (~values.view(np.uint32)).astype(np.uint64) << np.uint64(32)
    keys |= np.arange(len(values), dtype=np.uint64)
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


def suppress(rows: NDArray[np.int64], columns: NDArray[np.int64], radius: int) -> NDArray[np.bool_]:
    """Return which pixels greedy non-maximum suppression keeps.

    Greedy suppression keeps the best pixel, drops all others in the square around it, and goes
    on with the best pixel left. A dilated image of ranks gives the best pixel of each square.
    Most pixels are the best of their own square and are kept. A pixel whose best is kept is
    dropped. The few undecided pixels go through the greedy suppression; they change no others.

    Args:
        rows: (N,), best pixel first.
        columns: (N,), in the same order.
        radius: half the side of the square, pixels.

    Returns:
        (N,) bool.
    """
    count = len(rows)
    if not count:
        return np.zeros(0, np.bool_)
    top, left = rows.min(), columns.min()
    # Dilation of two-byte numbers takes half the time of four-byte ones.
    kind = np.uint16 if count <= np.iinfo(np.uint16).max else np.float32
    ranks = np.zeros((int(rows.max() - top) + 1, int(columns.max() - left) + 1), kind)
    places = (rows - top) * ranks.shape[1] + columns - left
    rank = np.arange(count, 0, -1, dtype=kind)
    # Write the best rank last: several points may lie at one pixel.
    ranks.reshape(-1)[places[::-1]] = rank[::-1]
    highest = cv2.dilate(ranks, np.ones((2 * radius + 1,) * 2, np.uint8), dst=ranks)
    best = count - np.take(highest, places).astype(np.int64)
    kept: NDArray[np.bool_] = best == np.arange(count)
    rest = np.flatnonzero(~kept[best])
    if len(rest):
        rest = rest[~_near_any(rows, columns, rest, np.flatnonzero(kept), radius)]
        kept[rest] = _suppress_by_pairs(rows[rest], columns[rest], radius)
    return kept


def _near_any(
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    few: NDArray[np.int64],
    many: NDArray[np.int64],
    radius: int,
) -> NDArray[np.bool_]:
    """Return which of the pixels `few` lie in the square of any of the pixels `many`.

    Args:
        rows: (N,) of all pixels.
        columns: (N,) of all pixels.
        few: indices of the pixels to test.
        many: indices of the pixels with squares.
        radius: half the side of the square, pixels.
    """
    found = np.zeros(len(few), np.bool_)
    for part in np.array_split(np.arange(len(few)), -(-len(few) * len(many) // _PAIRS_AT_A_TIME)):
        near = np.abs(rows[few[part], None] - rows[many]) <= radius
        near &= np.abs(columns[few[part], None] - columns[many]) <= radius
        found[part] = near.any(axis=1)
    return found


def _suppress_by_pairs(
    rows: NDArray[np.int64], columns: NDArray[np.int64], radius: int
) -> NDArray[np.bool_]:
    """Suppress as `suppress` does, in rounds over all pairs of near pixels.

    Each round keeps all pixels that are better than every undecided pixel around them.
    """
    kept = np.ones(len(rows), np.bool_)
    if len(rows) < 2:
        return kept
    # The tree serves one search; balancing it would not pay.
    tree = cKDTree(np.stack([rows, columns], axis=1), balanced_tree=False, compact_nodes=False)
    pairs = tree.query_pairs(radius, p=np.inf, output_type="ndarray")
    undecided = np.zeros(len(rows), np.bool_)
    while len(pairs):
        better, worse = pairs[:, 0], pairs[:, 1]
        undecided[:] = False
        undecided[worse] = True
        kept[worse[~undecided[better]]] = False
        # A suppressed pixel suppresses no other pixel.
        pairs = pairs[kept[better] & kept[worse]]
    return kept


def _gather_in_scratch(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Call `gather_probability` with memory that the next call of this thread overwrites."""
    return gather_probability(heat, _gathered.of(heat.shape))


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


# The backend of `select` with OpenCV and SciPy; several times as fast as the one with NumPy.
FAST = Backend(_gather_in_scratch, find_maxima, sample_descriptors)
