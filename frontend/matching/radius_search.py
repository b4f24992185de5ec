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
# Number of empty rows of cells above and below the points.
_EMPTY_ROWS = 3
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
    use0, use1 = _finite(pixels0), _finite(pixels1)
    radii: FloatArray | None = None
    if np.ndim(radius):
        radii = np.asarray(radius, np.float64)
        use0 &= radii >= 0
    elif not radius >= 0:
        return none, none
    # Separate arrays for x and y: NumPy is slow if the last axis has only two elements.
    (points0, x0, y0), (points1, x1, y1) = _chosen(pixels0, use0), _chosen(pixels1, use1)
    if not len(x0) or not len(x1):
        return none, none
    gates = float(radius) if radii is None else radii[points0]
    reach = np.minimum(gates, _FAR_PX) + _RIM_PX
    height = max(float(np.max(reach)), _LEAST_CELL_PX)
    grid = _Grid(x1, y1, height)
    starts, stops = grid.runs(x0, y0, reach)
    index0, position = expand_ranges(
        np.broadcast_to(np.arange(len(x0)), starts.shape).ravel(), starts.ravel(), stops.ravel()
    )
    # The points are sorted by cell: the pairs read memory in order.
    squared, dy = x0.take(index0), y0.take(index0)
    squared -= grid.x.take(position)
    dy -= grid.y.take(position)
    squared *= squared
    dy *= dy
    squared += dy
    squares = np.square(gates)
    near = np.flatnonzero(squared <= (squares if radii is None else squares.take(index0)))
    return points0.take(index0.take(near)), points1.take(grid.order.take(position.take(near)))


class _Grid:
    """Points of an image, sorted by cells of a grid.

    Attributes:
        order: (N,) indices of the points, by cell.
        x, y: (N,) their coordinates in that order.
    """

    def __init__(self, x: FloatArray, y: FloatArray, height: float) -> None:
        self._height, self._width = height, height / _SLENDER
        self._left, self._top = x.min(), y.min()
        column = ((x - self._left) / self._width).astype(np.int64)
        row = ((y - self._top) / height).astype(np.int64)
        self._columns, self._rows = int(column.max()) + 1, int(row.max()) + 1
        # Empty rows above and below spare tests of whether a row of cells is in the grid.
        key = (row + _EMPTY_ROWS) * self._columns + column
        self.order = stable_order(key)
        self.x, self.y = x.take(self.order), y.take(self.order)
        count = (self._rows + 2 * _EMPTY_ROWS) * self._columns
        self._bounds = np.cumsum(np.bincount(key + 1, minlength=count + 1))

    def runs(self, x: FloatArray, y: FloatArray, reach: FloatArray) -> tuple[IntArray, IntArray]:
        """Find the runs (3, M) of sorted points in the cells around positions (M,).

        They hold all points within `reach`, a scalar or (M,), and others.
        """
        middle, aside = (x - self._left) / self._width, reach / self._width
        # Clip before the conversion to integers: far predictions must not overflow. Of positive
        # numbers, it rounds down.
        begin = np.minimum(np.maximum(middle - aside, 0.0), self._columns).astype(np.int64)
        end = np.minimum(np.maximum(middle + aside + 1.0, 0.0), self._columns).astype(np.int64)
        row = (y - self._top) / self._height
        row = np.minimum(np.maximum(row, 1.0 - _EMPTY_ROWS), self._rows + 1.0)
        base = (row + (_EMPTY_ROWS - 1.0)).astype(np.int64) * self._columns
        rows = base + self._columns * np.array([[0], [1], [2]])
        return self._bounds.take(rows + begin), self._bounds.take(rows + end)


def _chosen(pixels: FloatArray, use: NDArray[np.bool_]) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return the indices (M,) and contiguous coordinates (M,), (M,) of the used points (N, 2)."""
    index = np.flatnonzero(use)
    x, y = (pixels if len(index) == len(pixels) else pixels.take(index, axis=0)).T.copy()
    return index, x, y


def _finite(pixels: FloatArray) -> NDArray[np.bool_]:
    """Whether both coordinates of each point (N, 2) are finite."""
    finite: NDArray[np.bool_] = np.isfinite(pixels[:, 0]) & np.isfinite(pixels[:, 1])
    return finite
