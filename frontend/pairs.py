"""Candidate pairs of points inside a gate, without comparing every point with every other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .decoder import stable_order

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

# Smaller cells, of small gates, would hardly hold a point, and be too many.
_LEAST_CELL_PX = 8.0


def expand_ranges(starts: Indices, stops: Indices) -> tuple[Indices, Indices]:
    """All (row, position) with `starts[row] <= position < stops[row]`, as two (P,) arrays ordered by row."""
    lengths = np.maximum(stops - starts, 0)
    rows = np.repeat(np.arange(len(starts)), lengths)
    ends = np.cumsum(lengths)
    positions = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths) + starts[rows]
    return rows, positions


def pairs_within_radius(pixels0: Floats, pixels1: Floats, radius: Floats | float) -> tuple[Indices, Indices]:
    """Pairs of points no farther apart than a radius, sorted by the first, then the second index.

    The points of image 1 are put into a grid of cells at least as wide as the largest radius; the candidates of a
    point are then three runs of cells (its own row of cells and the two beside it).

    Args:
        pixels0, pixels1: (N0, 2), (N1, 2); points that are not finite pair with nothing.
        radius: pixels, scalar or (N0,); NaN pairs with nothing.

    Returns:
        index0, index1: (P,) int64.
    """
    none = np.zeros(0, np.int64)
    radii = np.broadcast_to(np.asarray(radius, np.float64), (len(pixels0),))
    use0 = np.flatnonzero(np.isfinite(pixels0).all(axis=1) & (radii >= 0))
    use1 = np.flatnonzero(np.isfinite(pixels1).all(axis=1))
    if not len(use0) or not len(use1):
        return none, none
    points0, points1, gates = pixels0[use0], pixels1[use1], radii[use0]
    origin = points1.min(axis=0)
    extent = points1.max(axis=0) - origin
    cell = max(float(gates.max()), _LEAST_CELL_PX)
    columns, rows = (np.floor(extent / cell).astype(np.int64) + 1).tolist()

    cell1 = np.floor((points1 - origin) / cell).astype(np.int64)
    key1 = cell1[:, 1] * columns + cell1[:, 0]
    order = stable_order(key1)
    bounds = np.cumsum(np.bincount(key1 + 1, minlength=rows * columns + 1))

    # Clipped to one cell outside the grid: far predictions must not overflow, and find nothing there.
    limit = np.array([columns, rows], np.float64)
    cell0 = np.clip(np.floor((points0 - origin) / cell), -2.0, limit + 1.0).astype(np.int64)
    left, right = np.clip(cell0[:, 0] - 1, 0, columns), np.clip(cell0[:, 0] + 2, 0, columns)
    row = cell0[:, 1] + np.array([[-1], [0], [1]])
    inside = (row >= 0) & (row < rows)
    base = np.where(inside, row, 0) * columns
    starts, stops = bounds[base + left], bounds[base + right]
    run, position = expand_ranges(starts.ravel(), np.where(inside, stops, starts).ravel())
    index0 = run % len(points0)
    # Coordinates one after the other, in the order of the cells: much less memory is touched than by gathering pairs.
    x0, y0 = points0.T
    x1, y1 = points1[order].T
    dx, dy = x0[index0] - x1[position], y0[index0] - y1[position]
    near = np.flatnonzero(dx * dx + dy * dy <= (gates * gates)[index0])
    index0, index1 = use0[index0[near]], use1[order[position[near]]]
    # One key sorts several times as fast as two.
    key = index0 * len(pixels1) + index1
    key.sort()
    return np.divmod(key, len(pixels1))
