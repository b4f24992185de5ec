"""Draw layers to a picture with NumPy: points as squares, lines as bars, nearest first.

A picture needs no graphics library, no display and no driver, and is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spslam.geometry import apply
from spslam.typing import Float32Array, FloatArray, IntArray, UInt8Array
from spslam.visualization.layers import Color, Layer, Lines, Points
from spslam.visualization.map_view import Viewpoint

# Distance of the near plane, ratio to the scene's distance; nearer things are not drawn.
_NEAR = 0.005
# Largest number of pixels to fill at a time; bounds the memory.
_PIXELS_AT_A_TIME = 1 << 16


@dataclass(frozen=True, eq=False)
class _Bars:
    """Lines on the picture, with values at their two ends; all change linearly between them.

    Attributes:
        ends: (N, 2, 2) x y, pixels.
        widths: (N, 2), pixels.
        nearness: (N, 2), one divided by the depth.
    """

    ends: FloatArray
    widths: FloatArray
    nearness: FloatArray

    def select(self, rows: IntArray | NDArray[np.bool_]) -> _Bars:
        """Return some of the lines."""
        return _Bars(self.ends[rows], self.widths[rows], self.nearness[rows])


class Picture:
    """Some rows of a picture, with a depth buffer.

    Args:
        size: width and height of the whole picture, pixels.
        view: the viewpoint.
        background: its colour.
        rows: the rows to draw; None: all.
    """

    def __init__(
        self,
        size: tuple[int, int],
        view: Viewpoint,
        background: Color,
        rows: slice | None = None,
    ) -> None:
        self._width, whole = size
        rows = slice(0, whole) if rows is None else rows
        self._height = min(rows.stop, whole) - rows.start
        self._view = view
        self._focal = 0.5 * whole / float(np.tan(0.5 * view.field_of_view))
        self._centre = np.array([0.5 * self._width - 0.5, 0.5 * whole - 0.5 - rows.start])
        # One divided by the depth of the nearest thing at each pixel.
        self._nearest = np.zeros(self._width * self._height, np.float32)
        # Copying whole rows is many times as fast as copying pixels.
        row = np.tile(_bytes(background), self._width)
        self._colors = np.tile(row, self._height).reshape(-1, 3)

    @property
    def pixels(self) -> UInt8Array:
        """The drawn rows (H, W, 3), blue first."""
        return self._colors.reshape(self._height, self._width, 3)

    def draw(self, layers: Mapping[str, Layer], point_size: float, pixel: float) -> None:
        """Draw layers.

        Args:
            layers: by name.
            point_size: side of a point's square, pixels.
            pixel: length in the scene that is the unit of the widths of lines.
        """
        for layer in layers.values():
            if isinstance(layer, Points):
                self._points(layer, point_size)
            else:
                self._lines(layer, pixel)

    def _points(self, layer: Points, size: float) -> None:
        seen = apply(self._view.T_cam_world, layer.positions)
        ahead = seen[:, 2] > _NEAR * self._view.distance
        seen, colors = seen[ahead], _bytes(layer.colors[ahead])
        side = max(round(size), 1)
        corner = np.ceil(self._projected(seen) - 0.5 * side).astype(np.int64)
        shown = (corner[:, 1] > -side) & (corner[:, 1] < self._height)
        seen, corner, colors = seen[shown], corner[shown], colors[shown]
        nearness = (1.0 / seen[:, 2]).astype(np.float32)
        square = np.stack(np.divmod(np.arange(side * side), side)[::-1])
        for some in _chunks(np.full(len(seen), side * side)):
            x, y = corner[some].T[:, :, None] + square[:, None]
            which = np.repeat(np.arange(some.start, some.stop), side * side)
            self._fill(x.ravel(), y.ravel(), nearness[which], colors[which])

    def _lines(self, layer: Lines, pixel: float) -> None:
        bars = self._bars(layer, pixel)
        color = _bytes(layer.color)
        spans, along = _spans(bars, (self._width, self._height))
        for some in _chunks(spans[:, 1] - spans[:, 0]):
            chosen, steps = _expanded(spans[some])
            part = bars.select(chosen + some.start)
            axis = along[chosen + some.start]
            each = np.arange(len(axis))
            begin, end = part.ends[each, :, axis].T
            fraction = (steps - begin) / np.where(end == begin, 1.0, end - begin)
            fraction = np.clip(fraction, 0.0, 1.0)
            across = _between(part.ends[each, :, 1 - axis], fraction)
            # A bar that crosses the rows obliquely is longer along them than it is wide.
            slope = np.hypot(*(part.ends[:, 1] - part.ends[:, 0]).T) / np.maximum(
                np.abs(end - begin), 1e-9
            )
            half = 0.5 * np.maximum(_between(part.widths, fraction) * slope, 1.0)
            low, high = np.ceil(across - half), np.ceil(across + half)
            limit = np.where(axis == 0, self._height, self._width)
            inner = np.stack([np.clip(low, 0, limit), np.clip(high, 0, limit)], axis=1)
            # Bars are round: a thick one covers a thin one with the same axis.
            front = 1.0 + 0.5 * _between(part.widths, fraction) / self._focal
            nearness = (front * _between(part.nearness, fraction)).astype(np.float32)
            for few in _chunks((inner[:, 1] - inner[:, 0]).astype(np.int64)):
                row, other = _expanded(inner[few].astype(np.int64))
                row += few.start
                flat = axis[row] == 0
                x = np.where(flat, steps[row], other)
                y = np.where(flat, other, steps[row])
                self._fill(x, y, nearness[row], color)

    def _bars(self, layer: Lines, pixel: float) -> _Bars:
        """Project lines; what is behind the near plane is cut off."""
        near = _NEAR * self._view.distance
        ends = np.stack([layer.starts, layer.ends], axis=1)
        widths = np.broadcast_to(
            np.asarray(layer.width, np.float64).reshape(-1, 1 if np.ndim(layer.width) == 0 else 2),
            ends.shape[:2],
        )
        seen = np.concatenate(
            [apply(self._view.T_cam_world, ends), pixel * widths[..., None]], axis=2
        )
        seen = seen[(seen[:, :, 2] > near).any(axis=1)]
        for here, there in ((0, 1), (1, 0)):
            depth, other = seen[:, here, 2], seen[:, there, 2]
            cut = np.where(
                depth < near, (near - depth) / np.where(depth < near, other - depth, 1), 0
            )
            seen[:, here] += cut[:, None] * (seen[:, there] - seen[:, here])
        depths = seen[:, :, 2]
        bars = _Bars(
            self._projected(seen[:, :, :3]), self._focal * seen[:, :, 3] / depths, 1.0 / depths
        )
        y, margin = bars.ends[:, :, 1], 1.0 + bars.widths.max(axis=1)
        return bars.select((y.max(axis=1) > -margin) & (y.min(axis=1) < self._height + margin))

    def _projected(self, seen: FloatArray) -> FloatArray:
        """Project points (..., 3) of the camera to pixels (..., 2); (0, 0) is a pixel's centre."""
        projected: FloatArray = self._focal * seen[..., :2] / seen[..., 2:] + self._centre
        return projected

    def _fill(self, x: IntArray, y: IntArray, nearness: Float32Array, colors: UInt8Array) -> None:
        """Colour pixels (N,) where nothing nearer is; `colors` is (N, 3) or (3,)."""
        inside = (x >= 0) & (x < self._width) & (y >= 0) & (y < self._height)
        place, nearness = (y * self._width + x)[inside], nearness[inside]
        np.maximum.at(self._nearest, place, nearness)
        shown = self._nearest[place] == nearness
        self._colors[place[shown]] = colors if colors.ndim == 1 else colors[inside][shown]


def _spans(bars: _Bars, size: tuple[int, int]) -> tuple[IntArray, IntArray]:
    """Return the pixels (N, 2) that lines cover along their longer axis, and that axis (N,).

    Pixels outside the picture are left out.
    """
    extent = np.abs(bars.ends[:, 1] - bars.ends[:, 0])
    along = np.argmax(extent, axis=1)
    both = bars.ends[np.arange(len(along)), :, along]
    limit = np.array(size)[along]
    low = np.clip(np.ceil(both.min(axis=1) - 0.5), 0, limit)
    high = np.clip(np.floor(both.max(axis=1) + 0.5) + 1, 0, limit)
    return np.stack([low, np.maximum(high, low)], axis=1).astype(np.int64), along


def _expanded(spans: IntArray) -> tuple[IntArray, IntArray]:
    """List the numbers of each span (N, 2), from its first to before its second, and its row."""
    counts = spans[:, 1] - spans[:, 0]
    rows = np.repeat(np.arange(len(spans)), counts)
    before = np.cumsum(counts) - counts
    return rows, np.arange(len(rows)) - before[rows] + spans[rows, 0]


def _chunks(counts: IntArray) -> Iterator[slice]:
    """Split elements into slices with about `_PIXELS_AT_A_TIME` pixels, given those of each."""
    total = np.cumsum(counts)
    start = 0
    while start < len(counts):
        done = total[start - 1] if start else 0
        stop = int(np.searchsorted(total, done + _PIXELS_AT_A_TIME, side="right"))
        stop = max(stop, start + 1)
        yield slice(start, stop)
        start = stop


def _between(ends: FloatArray, fraction: FloatArray) -> FloatArray:
    """Return values (N,) between two ends (N, 2)."""
    return ends[:, 0] + fraction * (ends[:, 1] - ends[:, 0])


def _bytes(colors: Color | FloatArray) -> UInt8Array:
    """Convert colours (..., 3) from 0 to 1, red first, to bytes, blue first."""
    return np.round(255 * np.asarray(colors)[..., ::-1]).clip(0, 255).astype(np.uint8)
