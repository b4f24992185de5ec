"""From a map of probabilities to key points: threshold, suppression, sub-pixel position, even spread."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

# Other projects copy the decoder: what needs NumPy alone is there, and here what OpenCV does in a fraction of the time.
from .decoder import GATHER_SIGMA_PX, HEAT_RADIUS

_EIGHT_AROUND = np.ones((3, 3), np.uint8)


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
    """Rows and columns of the maxima that greedy non-maximum suppression keeps, best first.

    A maximum is not less than any of the eight pixels around it. Suppression of all pixels, as is usual, also finds
    points on the flanks of silenced ones, whose place only follows from the radius: half of the points of a smeared
    picture, and the time of sorting a hundred thousand pixels. Ties go to the upper, then the left point.

    Args:
        heat: (H, W) float32.
        threshold: points must be above it.
        nms_radius: pixels; no point is left in the square of it around a better one.
        border: pixels at each side without points; suppression happens before they are cut off.
    """
    peaks = heat == cv2.dilate(heat, _EIGHT_AROUND)
    peaks &= heat > threshold
    rows, columns = np.divmod(np.flatnonzero(peaks), heat.shape[1])
    order = np.argsort(-heat[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    height, width = heat.shape
    inside = (rows >= border) & (columns >= border) & (rows < height - border) & (columns < width - border)
    kept = suppress(rows, columns, nms_radius) & inside
    return rows[kept], columns[kept]


def suppress(rows: NDArray[np.int64], columns: NDArray[np.int64], radius: int) -> NDArray[np.bool_]:
    """Which pixels (N,), best first, greedy non-maximum suppression keeps.

    Greedy: the best is kept and silences the square of `radius` pixels around it, and so on. Computed for all at once:
    in each round all that are better than what is left around them are kept.
    """
    pairs = cKDTree(np.stack([rows, columns], axis=1)).query_pairs(radius, p=np.inf, output_type="ndarray")
    kept = np.ones(len(rows), np.bool_)
    undecided = np.zeros(len(rows), np.bool_)
    while len(pairs):
        better, worse = pairs[:, 0], pairs[:, 1]
        undecided[:] = False
        undecided[worse] = True
        kept[worse[~undecided[better]]] = False
        # What is silenced silences nothing.
        pairs = pairs[kept[better] & kept[worse]]
    return kept
