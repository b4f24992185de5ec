"""Matching of unit descriptors: mutual nearest neighbours, everywhere or inside a gate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..superpoint.decoder import stable_order
from .radius_search import pairs_within_radius

Floats = NDArray[np.float64]
Descriptors = NDArray[np.float32]
KeptDescriptors = NDArray[np.float32] | NDArray[np.float16]
Indices = NDArray[np.int64]

# Fewer candidate pairs than this share are compared one by one, more by one matrix product.
_SPARSE_SHARE = 0.1
# More candidates a descriptor than these are looked through in two steps.
_MANY_CANDIDATES = 3
# Epipolar lines that points are compared with at a time.
_CHUNK = 256
# Elements of descriptors on one side of pairs that are compared at a time.
_CHUNK_ELEMENTS = 1 << 16
# What half precision makes of the square of a length, by far.
_ROUNDING = np.float32(5e-3)


class DescriptorMatcher:
    """Mutual nearest neighbours by whole-array operations (a `Matcher`).

    Two points match when each is the other's nearest among its candidates; a gate limits the candidates of
    both. Of equally near ones the first is taken, so that results depend on the input only.
    """

    def match(
        self,
        descriptors0: Descriptors,
        descriptors1: Descriptors,
        max_distance: float,
        ratio: float | None = None,
    ) -> Indices:
        """Mutual nearest neighbours of (N0, D) in (N1, D) within `max_distance` (L2), optionally with Lowe's
        ratio test (nearest / second nearest distance < `ratio`; a single candidate passes).
        """
        matches = np.full(len(descriptors0), -1, np.int64)
        if not len(descriptors0) or not len(descriptors1):
            return matches
        similarity = descriptors0 @ descriptors1.T
        nearest, good = _mutual(similarity, max_distance)
        if ratio is not None and len(descriptors1) > 1:
            rows = np.flatnonzero(good)
            first = _distance(similarity[rows, nearest[rows]])
            similarity[rows, nearest[rows]] = -np.inf
            good[rows] = first < ratio * _distance(similarity[rows].max(axis=1))
        matches[good] = nearest[good]
        return matches

    def match_near(
        self,
        pixels0: Floats,
        descriptors0: Descriptors,
        pixels1: Floats,
        descriptors1: KeptDescriptors,
        radius: Floats | float,
        max_distance: float,
    ) -> Indices:
        """As `match`, among pairs no farther apart than `radius` pixels (scalar or (N0,)) only: `pixels0` (N0, 2)
        are predicted positions in the image of `pixels1` (N1, 2). NaN positions match nothing.
        """
        index0, index1 = pairs_within_radius(pixels0, pixels1, radius)
        return match_pairs(descriptors0, descriptors1, index0, index1, max_distance)

    def match_epipolar(
        self,
        pixels0: Floats,
        descriptors0: KeptDescriptors,
        pixels1: Floats,
        descriptors1: KeptDescriptors,
        F_10: Floats,
        max_line_distance: float,
        max_distance: float,
    ) -> Indices:
        """As `match`, among pairs whose pixel in image 1 lies within `max_line_distance` pixels of the epipolar
        line `F_10 @ [x0, y0, 1]` only.
        """
        lines = np.column_stack([pixels0, np.ones(len(pixels0))]) @ F_10.T
        with np.errstate(invalid="ignore", divide="ignore"):
            lines /= np.linalg.norm(lines[:, :2], axis=1, keepdims=True)
        points = np.column_stack([pixels1, np.ones(len(pixels1))]).T
        near = np.empty((len(lines), points.shape[1]), np.bool_)
        for start in range(0, len(lines), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            np.less_equal(np.abs(lines[chunk] @ points), max_line_distance, out=near[chunk])
        index0, index1 = np.divmod(np.flatnonzero(near), points.shape[1])
        return match_pairs(descriptors0, descriptors1, index0, index1, max_distance)


def match_pairs(
    descriptors0: KeptDescriptors,
    descriptors1: KeptDescriptors,
    index0: Indices,
    index1: Indices,
    max_distance: float,
) -> Indices:
    """Mutual nearest neighbours among candidate pairs.

    Args:
        descriptors0, descriptors1: (N0, D), (N1, D) unit; compared in float32.
        index0, index1: (P,) the pairs, in any order.
        max_distance: L2.

    Returns:
        `matches0` (N0,) int64, -1 for none.
    """
    matches = np.full(len(descriptors0), -1, np.int64)
    if not len(index0):
        return matches
    if len(index0) > _SPARSE_SHARE * len(descriptors0) * len(descriptors1):
        similarity = np.full((len(descriptors0), len(descriptors1)), -np.inf, np.float32)
        first, second = (d.astype(np.float32, copy=False) for d in (descriptors0, descriptors1))
        similarity[index0, index1] = (first @ second.T)[index0, index1]
        nearest, good = _mutual(similarity, max_distance)
        matches[good] = nearest[good]
        return matches
    near, values = _near_pairs(
        descriptors0, descriptors1, index0, index1, _least_similarity(max_distance)
    )
    # One key sorts several times as fast as two, and few pairs are left.
    keys = index0[near] * len(descriptors1) + index1[near]
    order = np.argsort(keys)
    (index0, index1), values = np.divmod(keys[order], len(descriptors1)), values[order]
    if not len(values):
        return matches
    best0 = _best_of_group(index0, values)
    by_column = stable_order(index1)
    best1 = by_column[_best_of_group(index1[by_column], values[by_column])]
    chosen = np.zeros(len(values), np.bool_)
    chosen[best1] = True
    mutual = best0[chosen[best0]]
    matches[index0[mutual]] = index1[mutual]
    return matches


def _near_pairs(
    descriptors0: KeptDescriptors,
    descriptors1: KeptDescriptors,
    index0: Indices,
    index1: Indices,
    least: np.float32,
) -> tuple[Indices, NDArray[np.float32]]:
    """Which pairs (indices, ascending) are at least so similar, and their scalar products.

    The first elements of two descriptors say of nearly all pairs that they are not: the rest adds no more than the
    product of the rests' lengths (Cauchy-Schwarz). Where a descriptor has many candidates, that is less work.
    """
    if len(index0) < _MANY_CANDIDATES * (len(descriptors0) + len(descriptors1)):
        values = _products(descriptors0, descriptors1, index0, index1)
        near = np.flatnonzero(values >= least)
        return near, values[near]
    count = -(-3 * descriptors0.shape[1] // 8)
    first0, first1 = (
        np.ascontiguousarray(d[:, :count], dtype=np.float32) for d in (descriptors0, descriptors1)
    )
    rest0, rest1 = _rest(first0), _rest(first1)
    most = _products(first0, first1, index0, index1) + rest0[index0] * rest1[index1]
    near = np.flatnonzero(most >= least)
    values = _products(descriptors0, descriptors1, index0[near], index1[near])
    kept = values >= least
    return near[kept], values[kept]


def _rest(first: Descriptors) -> NDArray[np.float32]:
    """Lengths (N,) at most of what is left of unit vectors without their first elements (N, C)."""
    rest: NDArray[np.float32] = np.sqrt(
        np.maximum(1 - np.einsum("nd,nd->n", first, first), 0) + _ROUNDING
    )
    return rest


def _products(
    descriptors0: KeptDescriptors, descriptors1: KeptDescriptors, index0: Indices, index1: Indices
) -> NDArray[np.float32]:
    """Scalar products (P,) of pairs, a chunk after the other: they fit into the cache, and no large array is taken from
    the system and given back for each call.
    """
    values = np.empty(len(index0), np.float32)
    size = descriptors0.shape[1]
    length = _CHUNK_ELEMENTS // size
    first, second = (
        np.empty((length, size), descriptors0.dtype),
        np.empty((length, size), descriptors1.dtype),
    )
    for start in range(0, len(index0), length):
        chunk = slice(start, start + length)
        count = len(index0[chunk])
        # In any other mode than clip NumPy takes into a buffer of its own first.
        np.take(descriptors0, index0[chunk], axis=0, out=first[:count], mode="clip")
        np.take(descriptors1, index1[chunk], axis=0, out=second[:count], mode="clip")
        pair = (d[:count].astype(np.float32, copy=False) for d in (first, second))
        np.einsum("pd,pd->p", *pair, out=values[chunk])
    return values


def _mutual(
    similarity: NDArray[np.float32], max_distance: float
) -> tuple[Indices, NDArray[np.bool_]]:
    """Nearest column (N0,) of each row, and whether that is mutual and near enough."""
    nearest = similarity.argmax(axis=1)
    rows = np.arange(len(similarity))
    mutual = similarity.argmax(axis=0)[nearest] == rows
    return nearest, mutual & (similarity[rows, nearest] >= _least_similarity(max_distance))


def _best_of_group(groups: Indices, values: NDArray[np.float32]) -> Indices:
    """Position of the first highest value of each run of equal `groups`."""
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    lengths = np.diff(np.r_[starts, len(groups)])
    highest = np.repeat(np.maximum.reduceat(values, starts), lengths)
    hits = np.flatnonzero(values == highest)
    hit_groups = groups[hits]
    return hits[np.r_[True, hit_groups[1:] != hit_groups[:-1]]]


def _least_similarity(max_distance: float) -> np.float32:
    return np.float32(1.0 - 0.5 * max_distance * max_distance)


def _distance(similarity: NDArray[np.float32]) -> NDArray[np.float32]:
    distance: NDArray[np.float32] = np.sqrt(np.maximum(2.0 - 2.0 * similarity, 0.0))
    return distance
