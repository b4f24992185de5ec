"""Colours of map points: the median over the keyframes that see a point."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spslam.map.map import Map
from spslam.typing import IntArray


def point_colors(slam_map: Map, point_ids: IntArray) -> NDArray[np.uint8] | None:
    """Return the colours of points, red green blue, (N, 3) uint8.

    A colour is the median over the observations of the point, of each channel alone; the lower one
    of two middle values. Observations in colour count before those in grey. A point that is only
    seen by keyframes without colours is grey, 128.

    Args:
        slam_map: The map.
        point_ids: (N,) ids of points of the map.

    Returns:
        The colours; None if no keyframe has colours, as in maps of earlier versions.
    """
    channels = slam_map.keyframes["channels"]
    if not channels.any():
        return None
    seen = np.flatnonzero(slam_map.observations["point"] >= 0)
    rows = slam_map.point_rows(slam_map.observations["point"][seen])
    quality = channels[slam_map.keyframe_rows(slam_map.observations["keyframe"][seen])]
    best = np.zeros(len(slam_map.points), dtype=np.int64)
    np.maximum.at(best, rows, quality)
    used = (quality == best[rows]) & (quality > 0)
    rows, values = rows[used], slam_map.observations["color"][seen[used]]
    counts = np.bincount(rows, minlength=len(slam_map.points))
    known = counts > 0
    middle = (np.cumsum(counts) - counts + (counts - 1) // 2)[known]
    colors = np.full((len(slam_map.points), 3), 128, dtype=np.uint8)
    for channel in range(3):
        # Values of one point lie together, in ascending order.
        order = np.lexsort((values[:, channel], rows))
        colors[known, channel] = values[order, channel][middle]
    chosen: NDArray[np.uint8] = colors[slam_map.point_rows(point_ids)]
    return chosen
