"""Candidate pairs of points inside a gate, without comparing every point with every other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..superpoint.decoder import stable_order

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

# Smaller cells, of small gates, would hardly hold a point, and be too many.
_LEAST_CELL_PX = 8.0
# Cells are so many times as high as wide: the candidates of a point are whole cells of a few rows, and narrow ones hold
# fewer that are none.
_SLENDER = 4.0
# Farther than any image is wide; infinite numbers have no cell.
_FAR_PX = 1e9
# A point on the rim must not be missed for the last bit of where the rim is.
_RIM_PX = 1e-6


def expand_ranges(labels: Indices, starts: Indices, stops: Indices) -> tuple[Indices, Indices]:
    """All (label, position) with `starts[i] <= position < stops[i]` and `labels[i]`, two (P,) arrays by i."""
    lengths = np.maximum(stops - starts, 0)
    ends = np.cumsum(lengths)
    positions = np.repeat(starts - ends + lengths, lengths)
    positions += np.arange(len(positions))
    return np.repeat(labels, lengths), positions


def pairs_within_radius(
    pixels0: Floats, pixels1: Floats, radius: Floats | float
) -> tuple[Indices, Indices]:
    """Pairs of points no farther apart than a radius, in an order that depends on the input only.

    The points of image 1 are put into a grid of cells at least as high as the largest radius; the candidates of a
    point are then three runs of cells (its own row of cells and the two beside it).

    Args:
        pixels0, pixels1: (N0, 2), (N1, 2); points that are not finite pair with nothing.
        radius: pixels, scalar or (N0,); NaN pairs with nothing.

    Returns:
        index0, index1: (P,) int64.
    """
    none = np.zeros(0, np.int64)
    radii = np.broadcast_to(np.asarray(radius, np.float64), (len(pixels0),))
    use0, use1 = np.flatnonzero(_finite(pixels0) & (radii >= 0)), np.flatnonzero(_finite(pixels1))
    if not len(use0) or not len(use1):
        return none, none
    # Coordinates one after the other: NumPy is slow where the last axis has two elements.
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

    # Clipped to one cell outside the grid: far predictions must not overflow, and find nothing there.
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
    # In the order of the cells: much less memory is touched than by gathering pairs.
    x1, y1 = x1[order], y1[order]
    dx, dy = x0[index0] - x1[position], y0[index0] - y1[position]
    near = np.flatnonzero(dx * dx + dy * dy <= (gates * gates)[index0])
    return use0[index0[near]], use1[order[position[near]]]


def _finite(pixels: Floats) -> NDArray[np.bool_]:
    finite: NDArray[np.bool_] = np.isfinite(pixels[:, 0]) & np.isfinite(pixels[:, 1])
    return finite
