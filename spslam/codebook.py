"""Codebook of place recognition: cluster centres of descriptors in a subspace of fewer dimensions.

The global descriptor of an image is its VLAD over the codebook:

1. Each local descriptor is projected and normalised.
2. It is assigned to the most similar centre (largest dot product; the first of equals), and its
   component along that centre is removed. Subtracting the centre itself would make all residuals
   of a cluster similar to each other, and so unrelated images.
3. The residuals of each centre are summed, and each sum is normalised.
4. The K sums are concatenated to one vector (K·d,), which is normalised.

Sources: Jégou, Douze, Schmid, Pérez, Aggregating local descriptors into a compact image
representation, CVPR 2010, section 3; Arandjelović, Zisserman, All about VLAD, CVPR 2013, section 3
(normalisation of each sum); Jégou, Perronnin, Douze, Sánchez, Pérez, Schmid, Aggregating local
image descriptors into compact codes, PAMI 2012, section 3 (projection).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from spslam.errors import WeightsError
from spslam.notices import counted
from spslam.typing import Float32Array

# Prefix of the codebook's keys in a weights file.
KEY_PREFIX = "codebook."
# Default number of centres (K) and dimensions of each (d): 2,048 numbers per image.
CLUSTERS = 64
DIMENSIONS = 32
# Number of descriptors that are processed at once; limits the memory.
_CHUNK = 65536


@dataclass(frozen=True, eq=False)
class Codebook:
    """Cluster centres of projected descriptors.

    Attributes:
        centres: (K, d) float32 of unit length.
        projection: (d, D) float32 with orthonormal rows, the strongest direction first; None: no
            projection, d is D.
    """

    centres: Float32Array
    projection: Float32Array | None = None

    @property
    def descriptor_dim(self) -> int:
        """D, the length of the local descriptors."""
        rows = self.centres if self.projection is None else self.projection
        return int(rows.shape[1])

    def tensors(self) -> dict[str, Float32Array]:
        """The arrays by their keys in a weights file: `codebook.centres`, `codebook.projection`."""
        parts = {"centres": self.centres, "projection": self.projection}
        return {
            KEY_PREFIX + name: np.ascontiguousarray(part)
            for name, part in parts.items()
            if part is not None
        }

    def describe(self, descriptors: Float32Array) -> Float32Array:
        """Compute the VLAD of an image.

        Args:
            descriptors: (N, D) float32 of unit length.

        Returns:
            (K·d,) float32 of unit length; zeros if N is 0.
        """
        if len(descriptors) == 0:
            return np.zeros(self.centres.size, np.float32)
        projected = (
            descriptors if self.projection is None else _unit(descriptors @ self.projection.T)
        )
        labels, similarity = _nearest(projected, self.centres)
        sums = _sums(
            projected - similarity[:, None] * self.centres[labels], labels, len(self.centres)
        )
        return _unit(_unit(sums).ravel())


def learn_codebook(
    descriptors: Float32Array,
    clusters: int = CLUSTERS,
    dimensions: int = DIMENSIONS,
    seed: int = 0,
    iterations: int = 30,
) -> Codebook:
    """Learn a codebook by spherical k-means, seeded by k-means++, in the strongest subspace.

    The subspace is spanned by the eigenvectors with the largest eigenvalues of the second moment
    (the mean is not subtracted): it changes dot products of descriptors least.

    Sources: Dhillon, Modha, Concept decompositions for large sparse text data using clustering,
    Machine Learning 2001, section 3; Arthur, Vassilvitskii, k-means++, SODA 2007, section 2.2.

    Args:
        descriptors: (N, D) float32 of unit length.
        clusters: number of centres K, at most N.
        dimensions: dimensions d of the subspace; 0, or at least D: no projection.
        seed: seed of the first centres.
        iterations: maximum number of iterations; it ends earlier if no descriptor changes its
            cluster.

    Raises:
        WeightsError: there are fewer descriptors than clusters.
    """
    if len(descriptors) < clusters:
        raise WeightsError(
            f"a codebook of {counted(clusters, 'cluster')} needs at least "
            f"{counted(clusters, 'descriptor')}, found "
            f"{len(descriptors)}: give more images or fewer clusters"
        )
    projection = (
        _strongest_directions(descriptors, dimensions)
        if 0 < dimensions < descriptors.shape[1]
        else None
    )
    if projection is not None:
        descriptors = _unit(descriptors @ projection.T)
    return Codebook(
        _spherical_k_means(descriptors, clusters, np.random.default_rng(seed), iterations),
        projection,
    )


def _strongest_directions(descriptors: Float32Array, count: int) -> Float32Array:
    """The `count` strongest directions of descriptors (N, D) as orthonormal rows (count, D)."""
    moment = np.zeros((descriptors.shape[1], descriptors.shape[1]))
    for start in range(0, len(descriptors), _CHUNK):
        part = descriptors[start : start + _CHUNK]
        moment += part.T @ part
    _, vectors = np.linalg.eigh(moment)
    return np.ascontiguousarray(vectors[:, ::-1][:, :count].T, np.float32)


def _spherical_k_means(
    descriptors: Float32Array, clusters: int, rng: np.random.Generator, iterations: int
) -> Float32Array:
    centres = _first_centres(descriptors, clusters, rng)
    labels = np.full(len(descriptors), -1)
    for _ in range(iterations):
        previous = labels
        labels, similarity = _nearest(descriptors, centres)
        if np.array_equal(labels, previous):
            break
        centres = _means(descriptors, labels, similarity, clusters)
    return centres


def _first_centres(
    descriptors: Float32Array, clusters: int, rng: np.random.Generator
) -> Float32Array:
    """Draw K descriptors by k-means++: the chance is proportional to the squared distance."""
    chosen = [int(rng.integers(len(descriptors)))]
    distance = np.full(len(descriptors), np.inf)
    for _ in range(clusters - 1):
        distance = np.minimum(
            distance, np.maximum(1.0 - descriptors @ descriptors[chosen[-1]], 0.0)
        )
        # side="right": a descriptor of distance 0 is drawn only if all distances are 0.
        total = np.cumsum(distance, dtype=np.float64)
        drawn = np.searchsorted(total, rng.random() * total[-1], side="right")
        chosen.append(min(int(drawn), len(descriptors) - 1))
    return descriptors[chosen]


def _nearest(
    descriptors: Float32Array, centres: Float32Array
) -> tuple[NDArray[np.int64], Float32Array]:
    """The most similar centre (N,) of each descriptor, and the similarity (N,)."""
    labels = np.empty(len(descriptors), np.int64)
    similarity = np.empty(len(descriptors), np.float32)
    for start in range(0, len(descriptors), _CHUNK):
        part = slice(start, start + _CHUNK)
        products = descriptors[part] @ centres.T
        labels[part] = products.argmax(axis=1)
        similarity[part] = products.max(axis=1)
    return labels, similarity


def _means(
    descriptors: Float32Array, labels: NDArray[np.int64], similarity: Float32Array, clusters: int
) -> Float32Array:
    """Unit mean directions (K, d) of the clusters.

    An empty cluster restarts at one of the descriptors least similar to their centres.
    """
    sums = _sums(descriptors, labels, clusters)
    empty = np.flatnonzero(np.bincount(labels, minlength=clusters) == 0)
    sums[empty] = descriptors[np.argsort(similarity, kind="stable")[: len(empty)]]
    return _unit(sums)


def _sums(vectors: Float32Array, labels: NDArray[np.int64], clusters: int) -> Float32Array:
    """The sum (K, d) of the vectors (N, d) of each cluster."""
    count = len(labels)
    membership = scipy.sparse.csc_matrix(
        (np.ones(count, np.float32), labels, np.arange(count + 1)), shape=(clusters, count)
    )
    sums: Float32Array = membership @ vectors
    return sums


def _unit(vectors: Float32Array) -> Float32Array:
    unit: Float32Array = vectors / np.maximum(
        np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32(1e-12)
    )
    return unit
