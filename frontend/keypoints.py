"""From a map of probabilities to key points: threshold, suppression, sub-pixel position, even spread."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# On warped photographs the localisation loss took positions by this centre of mass from 1.48 to 1.18 px; moving them on
# to corners of the image, which weights from before that loss need, costs repeated points and is worse in tracking.
HEAT_RADIUS = 2
GATHER_SIGMA_PX = 1.0


def gather_probability(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """How probable a point is around each pixel of a heat map (H, W): its neighbourhood, weighted by a Gaussian that is
    1 at the centre.

    A point between pixels shares its probability among them; by the largest share alone its rank would depend on where
    between them it lies. Measured on warped photographs: repeatability .61 to .63, matches within 3 px .66 to .69.
    """
    side = 2 * HEAT_RADIUS + 1
    # GaussianBlur's sum is 1.
    gathered = cv2.GaussianBlur(heat, (side, side), GATHER_SIGMA_PX, borderType=cv2.BORDER_CONSTANT)
    weight = cv2.getGaussianKernel(side, GATHER_SIGMA_PX)[HEAT_RADIUS, 0]
    scaled: NDArray[np.float32] = np.minimum(gathered * np.float32(1 / weight**2), np.float32(1))
    return scaled


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
    probable = heat > threshold
    if nms_radius > 0:
        probable = _without_the_silenced(heat, probable, nms_radius)
    rows, columns = np.nonzero(probable)
    order = np.argsort(-heat[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    if nms_radius > 0 and len(rows):
        kept = _suppress(heat.shape, rows, columns, nms_radius)
        rows, columns = rows[kept], columns[kept]
    height, width = heat.shape
    inside = (rows >= border) & (columns >= border) & (rows < height - border) & (columns < width - border)
    return rows[inside], columns[inside]


def _without_the_silenced(heat: NDArray[np.float32], probable: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """The pixels (H, W) bool left when the best of each square have silenced those around them: the first round of
    suppression, by the probabilities themselves, so that only what is left has to be sorted."""
    side = 2 * radius + 1
    shown = np.where(probable, heat, np.float32(-1))
    # Of equals the upper, then the left is better: rows above and pixels to the left must be less, not as much.
    above, left = np.full_like(shown, -1), np.full_like(shown, -1)
    above[1:] = cv2.dilate(shown, np.ones((radius, side), np.uint8), anchor=(radius, radius - 1))[:-1]
    left[:, 1:] = cv2.dilate(shown, np.ones((1, radius), np.uint8), anchor=(radius - 1, 0))[:, :-1]
    square = np.ones((side, side), np.uint8)
    best = probable & (shown == cv2.dilate(shown, square)) & (shown > above) & (shown > left)
    left_over: NDArray[np.bool_] = best | (probable & (cv2.dilate(best.astype(np.uint8), square) == 0))
    return left_over


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


def refine_on_heat(
    heat: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Sub-pixel positions (N, 2) x y of maxima: the centre of mass of the 5×5 patch around each (soft-argmax)."""
    radius = HEAT_RADIUS
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


def first_at_each_pixel(keypoints: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Ascending indices of the best point (the first of equals) of those (N, 2) that round to one pixel."""
    pixels = np.rint(keypoints)
    order = np.lexsort((-scores, pixels[:, 0], pixels[:, 1]))
    ordered = pixels[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = np.any(ordered[1:] != ordered[:-1], axis=1)
    return np.sort(order[new])


def spread_top_k(
    keypoints: NDArray[np.float32], scores: NDArray[np.float32], count: int, cell: int
) -> NDArray[np.int64]:
    """Indices of at most `count` points that are spread over the image, best score first.

    Half of them are taken in rounds: the best point of every square cell of `cell` pixels, then the second
    best, and so on, so that places of little texture keep points. The best of the rest fill up: all in rounds
    would cost an eighth of the matches (measured on KITTI), half in rounds costs a fiftieth. Ties go to the
    upper, then the left point.

    Args:
        keypoints: (N, 2) x y, pixels.
        scores: (N,).
        count: how many to keep.
        cell: pixels; 0 takes the best scores wherever they are.
    """
    order = np.lexsort((keypoints[:, 0], keypoints[:, 1], -scores))
    if len(order) <= count or cell <= 0:
        return order[:count]
    round_of = _rank_in_cell(np.floor(keypoints[order] / cell).astype(np.int64))
    chosen = np.zeros(len(order), np.bool_)
    chosen[np.argsort(round_of, kind="stable")[: count // 2]] = True
    chosen[np.flatnonzero(~chosen)[: count - count // 2]] = True
    return order[chosen]


def _rank_in_cell(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many earlier points lie in the cell of each point, (N,), of cells (N, 2)."""
    cells = cells - cells.min(axis=0)
    index = cells[:, 1] * (cells[:, 0].max() + 1) + cells[:, 0]
    by_cell = np.argsort(index, kind="stable")
    grouped = index[by_cell]
    starts = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]])
    lengths = np.diff(np.r_[starts, len(grouped)])
    rank = np.empty(len(index), np.int64)
    rank[by_cell] = np.arange(len(index)) - np.repeat(starts, lengths)
    return rank
