"""Radius search: find pairs of near points without comparing every point with every other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spslam.typing import FloatArray, IntArray

from ..superpoint.decoder import stable_order

# Least height of a cell, pixels; smaller cells would be too many, and mostly empty.
_LEAST_CELL_PX = 8.0
# Height of a cell divided by its width. The candidates of a point are whole cells of three rows;
# narrow cells hold fewer points outside the radius.
_SLENDER = 4.0
# Largest radius for the choice of cells, pixels: farther than any image is wide. An infinite radius
# would have no cell.
_FAR_PX = 1e9
# Added to the radius for the choice of cells, pixels: rounding must not lose a point on the circle.
_RIM_PX = 1e-6


def expand_ranges(labels: IntArray, starts: IntArray, stops: IntArray) -> tuple[IntArray, IntArray]:
    """List all positions with `starts[i] <= position < stops[i]`, with `labels[i]`, in order of i.

    Returns:
        Labels (P,) and positions (P,).
    """
    lengths = np.maximum(stops - starts, 0)
    ends = np.cumsum(lengths)
    positions = np.repeat(starts - ends + lengths, lengths)
    positions += np.arange(len(positions))
    return np.repeat(labels, lengths), positions


def pairs_within_radius(
    pixels0: FloatArray, pixels1: FloatArray, radius: FloatArray | float
) -> tuple[IntArray, IntArray]:
    """Find the pairs of points at most `radius` apart, in an order that depends only on the input.

    The points of image 1 are sorted into a grid of cells at least as high as the largest radius.
    The candidates of a point are then three runs of cells: one in its own row of cells, one above
    and one below.

    Args:
        pixels0: (N0, 2); points that are not finite have no pairs.
        pixels1: (N1, 2); points that are not finite have no pairs.
        radius: pixels, scalar or (N0,); points with a radius of NaN have no pairs.

    Returns:
        Indices in `pixels0` (P,) int64, and indices in `pixels1` (P,) int64.
    """
    none = np.zeros(0, np.int64)
    radii = np.broadcast_to(np.asarray(radius, np.float64), (len(pixels0),))
    use0, use1 = np.flatnonzero(_finite(pixels0) & (radii >= 0)), np.flatnonzero(_finite(pixels1))
    if not len(use0) or not len(use1):
        return none, none
    # Separate arrays for x and y: NumPy is slow if the last axis has only two elements.
    (x0, y0), (x1, y1) = pixels0[use0].T.copy(), pixels1[use1].T.copy()
    gates = radii[use0]
    reach = np.minimum(gates, _FAR_PX) + _RIM_PX
    left, top = x1.min(), y1.min()
    height = max(float(reach.max()), _LEAST_CELL_PX)
    width = height / _SLENDER
    column1, row1 = ((x1 - left) / width).astype(np.int64), ((y1 - top) / height).astype(np.int64)
    columns, rows = int(column1.max()) + 1, int(row1.max()) + 1
    key1 = row1 * columns + column1
    order = stable_order(key1)
    bounds = np.cumsum(np.bincount(key1 + 1, minlength=rows * columns + 1))

    # Clip to one cell outside the grid: far predictions must not overflow, and find nothing there.
    first, last = (
        np.clip(np.floor((end - left) / width), -1.0, columns).astype(np.int64)
        for end in (x0 - reach, x0 + reach)
    )
    begin, end = np.clip(first, 0, columns), np.clip(last + 1, 0, columns)
    row = np.clip(np.floor((y0 - top) / height), -2.0, rows + 1.0).astype(np.int64) + np.array(
        [[-1], [0], [1]]
    )
    inside = (row >= 0) & (row < rows)
    base = np.where(inside, row, 0) * columns
    starts, stops = bounds[base + begin], bounds[base + end]
    points = np.broadcast_to(np.arange(len(use0)), starts.shape)
    index0, position = expand_ranges(
        points.ravel(), starts.ravel(), np.where(inside, stops, starts).ravel()
    )
    # Sort the points by cell: the pairs then read memory in order.
    x1, y1 = x1[order], y1[order]
    dx, dy = x0[index0] - x1[position], y0[index0] - y1[position]
    near = np.flatnonzero(dx * dx + dy * dy <= (gates * gates)[index0])
    return use0[index0[near]], use1[order[position[near]]]


def _finite(pixels: FloatArray) -> NDArray[np.bool_]:
    """Whether both coordinates of each point (N, 2) are finite."""
    finite: NDArray[np.bool_] = np.isfinite(pixels[:, 0]) & np.isfinite(pixels[:, 1])
    return finite
