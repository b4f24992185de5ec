"""Plane geometry of points, segments and polygons, in pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spslam.typing import FloatArray

# Shortest edge of a well-formed polygon, pixels.
LEAST_EDGE_PX = 7.0
# Smallest angle of its corners and of crossing outlines, degrees.
LEAST_ANGLE_DEG = 25.0
# Largest angle of its corners, degrees.
_FLATTEST_DEG = 155.0


def cross_product(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the z components (...) of the cross products of vectors (..., 2)."""
    product: FloatArray = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return product


def vector_lengths(vectors: FloatArray) -> FloatArray:
    """Return the lengths (...) of vectors (..., 2)."""
    length: FloatArray = np.sqrt(vectors[..., 0] ** 2 + vectors[..., 1] ** 2)
    return length


def edges_of(polygons: FloatArray) -> FloatArray:
    """Return the edges (..., K, 2, 2) of polygons (..., K, 2)."""
    following = np.concatenate([polygons[..., 1:, :], polygons[..., :1, :]], axis=-2)
    return np.stack([polygons, following], axis=-2)


def point_distances(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the distances (N, M) between points (N, 2) and (M, 2)."""
    return vector_lengths(first[:, None] - second[None])


def segment_distances(points: FloatArray, segments: FloatArray) -> FloatArray:
    """Return the distances (..., N, S) of points (..., N, 2) from segments (..., S, 2, 2)."""
    # By coordinate, because NumPy is slow at sums over an axis of length 2.
    start, along = segments[..., 0, :], segments[..., 1, :] - segments[..., 0, :]
    dx, dy = along[..., None, :, 0], along[..., None, :, 1]
    x = points[..., :, None, 0] - start[..., None, :, 0]
    y = points[..., :, None, 1] - start[..., None, :, 1]
    fraction = np.minimum(
        np.maximum((x * dx + y * dy) / np.maximum(dx * dx + dy * dy, 1e-12), 0.0), 1.0
    )
    distances: FloatArray = np.sqrt((x - fraction * dx) ** 2 + (y - fraction * dy) ** 2)
    return distances


def find_crossings(
    first: FloatArray, second: FloatArray
) -> tuple[FloatArray, NDArray[np.int64], FloatArray]:
    """Find where segments (K, 2, 2) cross segments (S, 2, 2).

    Returns:
        Points (N, 2), indices (N,) of the second segments, sines (N,) of the angles.
    """
    a = (first[:, 1] - first[:, 0])[:, None]
    b = (second[:, 1] - second[:, 0])[None]
    offset = second[None, :, 0] - first[:, None, 0]
    normal = cross_product(a, b)
    safe = np.where(np.abs(normal) > 1e-9, normal, np.inf)
    t, u = cross_product(offset, b) / safe, cross_product(offset, a) / safe
    i, j = np.nonzero((t > 0) & (t < 1) & (u > 0) & (u < 1) & np.isfinite(safe))
    points = first[i, 0] + t[i, j, None] * a[i, 0]
    return points, j, np.abs(normal[i, j]) / (vector_lengths(a)[i, 0] * vector_lengths(b)[0, j])


def inside_polygons(points: FloatArray, polygons: FloatArray) -> NDArray[np.bool_]:
    """Return which points (N, 2) lie in which convex polygons (F, K, 2), as (N, F) bool.

    The vertices are ordered from the x axis towards the y axis.
    """
    start = polygons[None]
    along = np.concatenate([polygons[:, 1:], polygons[:, :1]], axis=1) - polygons
    x, y = points[:, 0, None, None] - start[..., 0], points[:, 1, None, None] - start[..., 1]
    return np.asarray((along[..., 0] * y >= along[..., 1] * x).all(axis=-1), np.bool_)


def ring_indices(
    sizes: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the first, next and previous vertex indices of concatenated polygons of `sizes`."""
    ends = np.cumsum(sizes)
    first = ends - sizes
    following, previous = np.arange(1, ends[-1] + 1), np.arange(-1, ends[-1] - 1)
    following[ends - 1] = first
    previous[first] = ends - 1
    return first, following, previous


def well_formed(vertices: FloatArray, sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which polygons have long edges and no acute or flat corners, as (N,) bool.

    Their vertices (V, 2) are concatenated.
    """
    first, following, previous = ring_indices(sizes)
    outgoing = vertices[following] - vertices
    incoming = outgoing[previous]
    inner = incoming[:, 0] * outgoing[:, 0] + incoming[:, 1] * outgoing[:, 1]
    turn = np.abs(np.arctan2(cross_product(incoming, outgoing), inner))
    clear = (turn > np.radians(180 - _FLATTEST_DEG)) & (turn < np.radians(180 - LEAST_ANGLE_DEG))
    clear &= vector_lengths(outgoing) > LEAST_EDGE_PX
    return np.asarray(np.logical_and.reduceat(clear, first), np.bool_)


def random_rotation(rng: np.random.Generator) -> FloatArray:
    """Return a random rotation (2, 2)."""
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def ellipse_outline(
    centre: FloatArray, radii: FloatArray, turned: FloatArray, vertices: int
) -> FloatArray:
    """Return `vertices` points of an ellipse with half axes `radii`, rotated by `turned` (2, 2)."""
    angle = np.arange(vertices) * (2 * np.pi / vertices)
    disc: FloatArray = (
        centre + (np.stack([np.cos(angle), np.sin(angle)], axis=1) * radii) @ turned.T
    )
    return disc
