"""Plane geometry of points, segments and polygons, pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

LEAST_EDGE_PX = 7.0
LEAST_ANGLE_DEG = 25.0
_FLATTEST_DEG = 155.0


def cross_product(a: Points, b: Points) -> Points:
    product: Points = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return product


def vector_lengths(vectors: Points) -> Points:
    length: Points = np.sqrt(vectors[..., 0] ** 2 + vectors[..., 1] ** 2)
    return length


def edges_of(polygons: Points) -> Points:
    """The edges (..., K, 2, 2) of polygons (..., K, 2)."""
    following = np.concatenate([polygons[..., 1:, :], polygons[..., :1, :]], axis=-2)
    return np.stack([polygons, following], axis=-2)


def point_distances(first: Points, second: Points) -> Points:
    """(N, M) distances between points (N, 2) and (M, 2)."""
    return vector_lengths(first[:, None] - second[None])


def segment_distances(points: Points, segments: Points) -> Points:
    """(..., N, S) distances of points (..., N, 2) from segments (..., S, 2, 2)."""
    # Coordinate by coordinate: sums over an axis of two are what NumPy is slowest at.
    start, along = segments[..., 0, :], segments[..., 1, :] - segments[..., 0, :]
    dx, dy = along[..., None, :, 0], along[..., None, :, 1]
    x = points[..., :, None, 0] - start[..., None, :, 0]
    y = points[..., :, None, 1] - start[..., None, :, 1]
    share = np.minimum(
        np.maximum((x * dx + y * dy) / np.maximum(dx * dx + dy * dy, 1e-12), 0.0), 1.0
    )
    distances: Points = np.sqrt((x - share * dx) ** 2 + (y - share * dy) ** 2)
    return distances


def find_crossings(first: Points, second: Points) -> tuple[Points, NDArray[np.int64], Points]:
    """Where segments (K, 2, 2) cross segments (S, 2, 2): points (N, 2), second's indices (N,), sines of angles (N,)."""
    a = (first[:, 1] - first[:, 0])[:, None]
    b = (second[:, 1] - second[:, 0])[None]
    offset = second[None, :, 0] - first[:, None, 0]
    normal = cross_product(a, b)
    safe = np.where(np.abs(normal) > 1e-9, normal, np.inf)
    t, u = cross_product(offset, b) / safe, cross_product(offset, a) / safe
    i, j = np.nonzero((t > 0) & (t < 1) & (u > 0) & (u < 1) & np.isfinite(safe))
    points = first[i, 0] + t[i, j, None] * a[i, 0]
    return points, j, np.abs(normal[i, j]) / (vector_lengths(a)[i, 0] * vector_lengths(b)[0, j])


def inside_polygons(points: Points, polygons: Points) -> NDArray[np.bool_]:
    """(N, F): which points (N, 2) lie in which convex polygons (F, K, 2), their vertices from x towards y."""
    start = polygons[None]
    along = np.concatenate([polygons[:, 1:], polygons[:, :1]], axis=1) - polygons
    x, y = points[:, 0, None, None] - start[..., 0], points[:, 1, None, None] - start[..., 1]
    return np.asarray((along[..., 0] * y >= along[..., 1] * x).all(axis=-1), np.bool_)


def ring_indices(
    sizes: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """For polygons of `sizes` vertices, one after another: index of each first, each next and each previous vertex."""
    ends = np.cumsum(sizes)
    first = ends - sizes
    following, previous = np.arange(1, ends[-1] + 1), np.arange(-1, ends[-1] - 1)
    following[ends - 1] = first
    previous[first] = ends - 1
    return first, following, previous


def well_formed(vertices: Points, sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,): which polygons, their vertices (V, 2) one after another, have long edges and no acute or flat corner."""
    first, following, previous = ring_indices(sizes)
    outgoing = vertices[following] - vertices
    incoming = outgoing[previous]
    inner = incoming[:, 0] * outgoing[:, 0] + incoming[:, 1] * outgoing[:, 1]
    turn = np.abs(np.arctan2(cross_product(incoming, outgoing), inner))
    clear = (turn > np.radians(180 - _FLATTEST_DEG)) & (turn < np.radians(180 - LEAST_ANGLE_DEG))
    clear &= vector_lengths(outgoing) > LEAST_EDGE_PX
    return np.asarray(np.logical_and.reduceat(clear, first), np.bool_)


def random_rotation(rng: np.random.Generator) -> Points:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def ellipse_outline(centre: Points, radii: Points, turned: Points, vertices: int) -> Points:
    angle = np.arange(vertices) * (2 * np.pi / vertices)
    disc: Points = centre + (np.stack([np.cos(angle), np.sin(angle)], axis=1) * radii) @ turned.T
    return disc
