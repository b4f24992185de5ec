"""Matching of unit descriptors: mutual nearest neighbours, everywhere or within a gate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spslam.frame import Features, KeypointView, unit_descriptors
from spslam.interfaces import ViewMatches, WideStage
from spslam.typing import Float32Array, FloatArray, IntArray

from ..superpoint.decoder import stable_order
from .radius_search import pairs_within_radius

KeptDescriptors = NDArray[np.float32] | NDArray[np.float16]

# Fraction of all pairs: up to this many candidate pairs are compared pair by pair, more of them by
# one matrix product.
_SPARSE_FRACTION = 0.1
# Candidate pairs per descriptor from which they are compared in two steps.
_MANY_CANDIDATES = 3
# Epipolar lines to compare with all points at a time; their distances fit into the cache.
_CHUNK = 64
# Elements of descriptors, per side of the pairs, to compare at a time; fits into the cache.
_CHUNK_ELEMENTS = 1 << 16
# Bound of the error of a squared length by half precision, with a wide margin.
_ROUNDING = np.float32(5e-3)
# Sign, exponent and fraction of half precision at their places in float32, and the ratio of the
# values that the same exponents mean in the two.
_HALF_BITS = np.int32(-0x70002000)
_HALF_SCALE = np.float32(2.0**112)


class DescriptorMatcher:
    """Matches mutual nearest neighbours with whole-array operations (a `Matcher`).

    Two points match if each is the other's nearest among its candidates; a gate limits the
    candidates of both. Of equally near candidates the first counts, so results depend only on the
    input. All distances of descriptors are L2 distances of unit vectors.

    Args:
        max_descriptor_distance: largest distance of a match of `match_images`.
    """

    def __init__(self, max_descriptor_distance: float = np.inf) -> None:
        self._max_descriptor_distance = max_descriptor_distance

    def match_images(
        self,
        features0: Features,
        features1: Features,
        size0: tuple[int, int],
        size1: tuple[int, int],
    ) -> IntArray:
        """Match the features of two whole images by their descriptors only.

        Args:
            features0: features of image 0.
            features1: features of image 1.
            size0: width and height of image 0; without effect.
            size1: the same of image 1.

        Returns:
            `matches0` (N0,) int64: indices in image 1, -1 for no match.
        """
        return self.match(
            unit_descriptors(features0.descriptors),
            unit_descriptors(features1.descriptors),
            self._max_descriptor_distance,
        )

    @property
    def description(self) -> str:
        """How views far apart are matched."""
        return "mutual nearest neighbours"

    @property
    def learned_pairs(self) -> dict[WideStage, int] | None:
        """None: there is no network."""
        return None

    def attempts(self, stage: WideStage) -> tuple[WideStage | None, ...]:
        """Return one attempt, by nearest neighbours, for any `stage`."""
        return (None,)

    def match_views(
        self,
        view0: KeypointView,
        view1: KeypointView,
        max_descriptor_distance: float,
        ratio: float | None = None,
        *,
        among: IntArray | None = None,
        stage: WideStage | None = None,
    ) -> ViewMatches:
        """Match the nearest neighbours of two views; see `spslam.interfaces.Matcher`."""
        candidates = view1.descriptors if among is None else view1.descriptors[among]
        matches0 = self.match(
            view0.descriptors.astype(np.float32, copy=False),
            candidates.astype(np.float32, copy=False),
            max_descriptor_distance,
            ratio,
        )
        if among is not None:
            hit = matches0 >= 0
            matches0[hit] = among[matches0[hit]]
        return ViewMatches(matches0)

    def match(
        self,
        descriptors0: Float32Array,
        descriptors1: Float32Array,
        max_descriptor_distance: float,
        ratio: float | None = None,
    ) -> IntArray:
        """Match all points of two images.

        Args:
            descriptors0: (N0, D) unit.
            descriptors1: (N1, D) unit.
            max_descriptor_distance: largest distance of a match.
            ratio: largest nearest / second nearest distance (Lowe, IJCV 2004); a single candidate
                passes. None: no ratio test.

        Returns:
            `matches0` (N0,) int64: indices in image 1, -1 for no match.
        """
        matches = np.full(len(descriptors0), -1, np.int64)
        if not len(descriptors0) or not len(descriptors1):
            return matches
        similarity = descriptors0 @ descriptors1.T
        nearest, good = _mutual(similarity, max_descriptor_distance)
        if ratio is not None and len(descriptors1) > 1:
            rows = np.flatnonzero(good)
            first = _distance(similarity[rows, nearest[rows]])
            similarity[rows, nearest[rows]] = -np.inf
            good[rows] = first < ratio * _distance(similarity[rows].max(axis=1))
        matches[good] = nearest[good]
        return matches

    def match_near(
        self,
        pixels0: FloatArray,
        descriptors0: Float32Array,
        pixels1: FloatArray,
        descriptors1: KeptDescriptors,
        radius: FloatArray | float,
        max_descriptor_distance: float,
    ) -> IntArray:
        """Match points near their predicted positions.

        Args:
            pixels0: (N0, 2), predicted positions in image 1; NaN positions match nothing.
            descriptors0: (N0, D) unit.
            pixels1: (N1, 2).
            descriptors1: (N1, D) unit.
            radius: largest distance from the prediction, pixels; scalar or (N0,).
            max_descriptor_distance: largest distance of the descriptors of a match.

        Returns:
            `matches0` (N0,) int64: indices in image 1, -1 for no match.
        """
        index0, index1 = pairs_within_radius(pixels0, pixels1, radius)
        return match_pairs(descriptors0, descriptors1, index0, index1, max_descriptor_distance)

    def match_epipolar(
        self,
        pixels0: FloatArray,
        descriptors0: KeptDescriptors,
        pixels1: FloatArray,
        descriptors1: KeptDescriptors,
        F_10: FloatArray,
        max_line_distance: float,
        max_descriptor_distance: float,
    ) -> IntArray:
        """Match points near their epipolar lines.

        Args:
            pixels0: (N0, 2).
            descriptors0: (N0, D) unit.
            pixels1: (N1, 2).
            descriptors1: (N1, D) unit.
            F_10: (3, 3) fundamental matrix; the epipolar line in image 1 is `F_10 @ [x0, y0, 1]`.
            max_line_distance: largest distance of a point from the line, pixels.
            max_descriptor_distance: largest distance of the descriptors of a match.

        Returns:
            `matches0` (N0,) int64: indices in image 1, -1 for no match.
        """
        lines = np.column_stack([pixels0, np.ones(len(pixels0))]) @ F_10.T
        with np.errstate(invalid="ignore", divide="ignore"):
            lines /= np.linalg.norm(lines[:, :2], axis=1, keepdims=True)
        points = np.column_stack([pixels1, np.ones(len(pixels1))]).T
        near = np.empty((len(lines), points.shape[1]), np.bool_)
        buffer = np.empty((_CHUNK, points.shape[1]))
        for start in range(0, len(lines), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            distances = buffer[: len(near[chunk])]
            np.abs(np.matmul(lines[chunk], points, out=distances), out=distances)
            np.less_equal(distances, max_line_distance, out=near[chunk])
        index0, index1 = np.divmod(np.flatnonzero(near), points.shape[1])
        return match_pairs(descriptors0, descriptors1, index0, index1, max_descriptor_distance)


def match_pairs(
    descriptors0: KeptDescriptors,
    descriptors1: KeptDescriptors,
    index0: IntArray,
    index1: IntArray,
    max_descriptor_distance: float,
) -> IntArray:
    """Match mutual nearest neighbours among candidate pairs.

    Args:
        descriptors0: (N0, D) unit; compared in float32.
        descriptors1: (N1, D) unit.
        index0: (P,) points of image 0 in the pairs, in any order.
        index1: (P,) points of image 1 in the pairs.
        max_descriptor_distance: largest L2 distance of a match.

    Returns:
        `matches0` (N0,) int64: indices in image 1, -1 for no match.
    """
    matches = np.full(len(descriptors0), -1, np.int64)
    if not len(index0):
        return matches
    if len(index0) > _SPARSE_FRACTION * len(descriptors0) * len(descriptors1):
        similarity = np.full((len(descriptors0), len(descriptors1)), -np.inf, np.float32)
        first, second = as_float32(descriptors0), as_float32(descriptors1)
        similarity[index0, index1] = (first @ second.T)[index0, index1]
        nearest, good = _mutual(similarity, max_descriptor_distance)
        matches[good] = nearest[good]
        return matches
    near, values = _near_pairs(
        descriptors0, descriptors1, index0, index1, _least_similarity(max_descriptor_distance)
    )
    # Sorting one key is several times as fast as sorting two.
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
    index0: IntArray,
    index1: IntArray,
    least: np.float32,
) -> tuple[IntArray, NDArray[np.float32]]:
    """Select the pairs with a scalar product of at least `least`.

    With many candidates, the first 3/8 of the elements rule out nearly all pairs: the other
    elements add at most the product of their lengths (Cauchy-Schwarz).

    Returns:
        Indices of the pairs, ascending, and their scalar products.
    """
    if len(index0) < _MANY_CANDIDATES * (len(descriptors0) + len(descriptors1)):
        values = _products(descriptors0, descriptors1, index0, index1)
        near = np.flatnonzero(values >= least)
        return near, values[near]
    count = -(-3 * descriptors0.shape[1] // 8)
    first0, first1 = (
        np.ascontiguousarray(as_float32(d[:, :count])) for d in (descriptors0, descriptors1)
    )
    rest0, rest1 = _rest(first0), _rest(first1)
    most = _products(first0, first1, index0, index1) + rest0[index0] * rest1[index1]
    near = np.flatnonzero(most >= least)
    values = _products(descriptors0, descriptors1, index0[near], index1[near])
    kept = values >= least
    return near[kept], values[kept]


def _rest(first: Float32Array) -> NDArray[np.float32]:
    """Bound the lengths (N,) of the other elements of unit vectors with first elements (N, C)."""
    rest: NDArray[np.float32] = np.sqrt(
        np.maximum(1 - np.einsum("nd,nd->n", first, first), 0) + _ROUNDING
    )
    return rest


def _products(
    descriptors0: KeptDescriptors, descriptors1: KeptDescriptors, index0: IntArray, index1: IntArray
) -> NDArray[np.float32]:
    """Compute scalar products (P,) of pairs in chunks.

    A chunk fits into the cache, and no call allocates a large array.
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
        # In modes other than "clip", NumPy first writes to a buffer of its own.
        np.take(descriptors0, index0[chunk], axis=0, out=first[:count], mode="clip")
        np.take(descriptors1, index1[chunk], axis=0, out=second[:count], mode="clip")
        np.einsum(
            "pd,pd->p", as_float32(first[:count]), as_float32(second[:count]), out=values[chunk]
        )
    return values


def as_float32(values: KeptDescriptors) -> NDArray[np.float32]:
    """Convert finite half-precision values exactly; float32 values are returned as they are.

    Whole-array operations on the bits take a third of the time of `astype`.
    """
    if values.dtype != np.float16:
        return values.astype(np.float32, copy=False)
    # The sign stays in front; exponent and fraction move to their places of float32. The two
    # exponents differ by the difference of the biases, 127 - 15.
    bits = values.view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= _HALF_BITS
    widened: NDArray[np.float32] = bits.view(np.float32)
    widened *= _HALF_SCALE
    return widened


def _mutual(
    similarity: NDArray[np.float32], max_descriptor_distance: float
) -> tuple[IntArray, NDArray[np.bool_]]:
    """Find the nearest column (N0,) of each row, and whether it is mutual and near enough."""
    nearest = similarity.argmax(axis=1)
    rows = np.arange(len(similarity))
    mutual = similarity.argmax(axis=0)[nearest] == rows
    return nearest, mutual & (
        similarity[rows, nearest] >= _least_similarity(max_descriptor_distance)
    )


def _best_of_group(groups: IntArray, values: NDArray[np.float32]) -> IntArray:
    """Find the position of the first highest value in each run of equal `groups`."""
    is_first = _begins_run(groups)
    starts = np.flatnonzero(is_first)
    highest = np.maximum.reduceat(values, starts)[np.cumsum(is_first) - 1]
    hits = np.flatnonzero(values == highest)
    return hits[_begins_run(groups[hits])]


def _begins_run(groups: IntArray) -> NDArray[np.bool_]:
    """Whether each element (N,) begins a run of equal values."""
    begins = np.ones(len(groups), np.bool_)
    np.not_equal(groups[1:], groups[:-1], out=begins[1:])
    return begins


def _least_similarity(max_descriptor_distance: float) -> np.float32:
    """Convert the L2 distance of unit vectors to their scalar product."""
    return np.float32(1.0 - 0.5 * max_descriptor_distance * max_descriptor_distance)


def _distance(similarity: NDArray[np.float32]) -> NDArray[np.float32]:
    """Convert scalar products of unit vectors to L2 distances."""
    distance: NDArray[np.float32] = np.sqrt(np.maximum(2.0 - 2.0 * similarity, 0.0))
    return distance
