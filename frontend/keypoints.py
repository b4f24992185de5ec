"""From a map of probabilities to key points: threshold, suppression, sub-pixel position, even spread."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_REFINE_RADIUS = 2


def find_maxima(
    heat: NDArray[np.float32], threshold: float, nms_radius: int, border: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the points that greedy non-maximum suppression keeps, best first.

    Greedy: the best point is kept and silences the square of `nms_radius` pixels around it, and so on.
    Computed for all pixels at once: every point that is the best of its square is kept in each round, until
    none is left. Ties go to the upper, then the left point.

    Args:
        heat: (H, W) float32.
        threshold: points must be above it.
        nms_radius: pixels; 0 keeps everything.
        border: pixels at each side without points; suppression happens before they are cut off.
    """
    rows, columns = np.nonzero(heat > threshold)
    order = np.argsort(-heat[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    if nms_radius > 0 and len(rows):
        kept = _suppress(heat.shape, rows, columns, nms_radius)
        rows, columns = rows[kept], columns[kept]
    height, width = heat.shape
    inside = (rows >= border) & (columns >= border) & (rows < height - border) & (columns < width - border)
    return rows[inside], columns[inside]


def _suppress(
    shape: tuple[int, ...], rows: NDArray[np.int64], columns: NDArray[np.int64], radius: int
) -> NDArray[np.bool_]:
    # Ranks instead of scores: no ties are left, so that two equal neighbours can never both survive.
    count = len(rows)
    rank = np.zeros((shape[0], shape[1]), np.float32)
    rank[rows, columns] = np.arange(count, 0, -1, dtype=np.float32)
    square = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    kept = np.zeros(count, np.bool_)
    alive = np.arange(count)
    while len(alive):
        highest = cv2.dilate(rank, square)
        best = highest[rows[alive], columns[alive]] == rank[rows[alive], columns[alive]]
        winners = alive[best]
        kept[winners] = True
        kept_map = np.zeros(rank.shape, np.uint8)
        kept_map[rows[winners], columns[winners]] = 1
        silenced = cv2.dilate(kept_map, square)
        rest = silenced[rows[alive], columns[alive]] == 0
        lost = alive[~rest]
        rank[rows[lost], columns[lost]] = 0
        alive = alive[rest]
    return kept


def refine(heat: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
    """Sub-pixel positions (N, 2) x y float32 of maxima: the centre of mass of the 5×5 patch around each
    (soft-argmax)."""
    radius = _REFINE_RADIUS
    steps = np.arange(-radius, radius + 1)
    height, width = heat.shape
    y = np.clip(rows[:, None, None] + steps[None, :, None], 0, height - 1)
    x = np.clip(columns[:, None, None] + steps[None, None, :], 0, width - 1)
    patch = heat[y, x].astype(np.float64)
    total = patch.sum(axis=(1, 2))
    total = np.where(total > 0, total, 1.0)
    shift = np.stack([patch.sum(axis=1) @ steps / total, patch.sum(axis=2) @ steps / total], axis=1)
    refined: NDArray[np.float32] = (np.stack([columns, rows], axis=1) + shift).astype(np.float32)
    return refined


def spread_top_k(
    keypoints: NDArray[np.float32], scores: NDArray[np.float32], count: int, cell: int
) -> NDArray[np.int64]:
    """Indices of at most `count` points that are spread evenly over the image, best score first.

    In rounds: the best point of every square cell of `cell` pixels first, then the second best, and so on,
    so that places of little texture keep points. Ties go to the upper, then the left point.

    Args:
        keypoints: (N, 2) x y, pixels.
        scores: (N,).
        cell: pixels; 0 takes the best scores wherever they are.
    """
    order = np.lexsort((keypoints[:, 0], keypoints[:, 1], -scores))
    if len(order) <= count or cell <= 0:
        return order[:count]
    cells = np.floor(keypoints[order] / cell).astype(np.int64)
    index = (cells[:, 1] - cells[:, 1].min()) * (np.ptp(cells[:, 0]) + 1) + cells[:, 0] - cells[:, 0].min()
    by_cell = np.argsort(index, kind="stable")
    sorted_index = index[by_cell]
    starts = np.flatnonzero(np.r_[True, sorted_index[1:] != sorted_index[:-1]])
    lengths = np.diff(np.r_[starts, len(by_cell)])
    round_of = np.empty(len(order), np.int64)
    round_of[by_cell] = np.arange(len(order)) - np.repeat(starts, lengths)
    chosen = np.argsort(round_of, kind="stable")[:count]
    return order[np.sort(chosen)]
