"""Left-right matching of a rectified pair: descriptors along rows, then sub-pixel disparity by correlation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spslam.config import StereoConfig
from spslam.frame import Features, unit_descriptors

from .matching import match_pairs
from .pairs import expand_ranges

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

# The descriptor's candidate is right to a pixel or two; correlation looks this far to each side of it.
_SEARCH_PX = 4
# Below this zero-mean normalised correlation two patches show different things.
_LEAST_CORRELATION = 0.6
_REFINEMENTS = 3
# Right to left must lead back to within this distance.
_LEAST_AGREEMENT_PX = 0.5
# Patches flatter than this (standard deviation, grey levels) have nothing to correlate.
_LEAST_CONTRAST = 1.5


class RowStereoMatcher:
    """Matches left key points to right ones along rows (a `StereoMatcher`).

    Candidates lie within a few rows and the range of disparities; they match by mutually nearest
    descriptors. Then the patch around the left point slides along its row in the right image (zero-mean
    normalised correlation), and least squares on the grey values (Lucas & Kanade, IJCAI 1981, in one
    dimension) gives the sub-pixel position.

    Args:
        config: gates and patch size.
        max_distance: L2 distance of descriptors above which two points are no match.
    """

    def __init__(self, config: StereoConfig, max_distance: float) -> None:
        self._config = config
        self._max_distance = max_distance

    def match(
        self,
        image_left: NDArray[np.uint8],
        features_left: Features,
        image_right: NDArray[np.uint8],
        features_right: Features,
    ) -> Floats:
        """(N,) float64: sub-pixel x in the right image of each left key point; NaN where there is none."""
        left = features_left.keypoints.astype(np.float64)
        right = features_right.keypoints.astype(np.float64)
        u_right = np.full(len(left), np.nan)
        index0, index1 = self._candidates(left, right)
        matches = match_pairs(
            unit_descriptors(features_left.descriptors),
            unit_descriptors(features_right.descriptors),
            index0,
            index1,
            self._max_distance,
        )
        matched = np.flatnonzero(matches >= 0)
        if not len(matched):
            return u_right
        start = right[matches[matched], 0]
        refined = self._correlate(image_left, image_right, left[matched], start)
        known = np.isfinite(refined)
        matched, refined = matched[known], refined[known]
        if self._config.check and len(matched):
            back_points = np.column_stack([refined, left[matched, 1]])
            back = self._correlate(image_right, image_left, back_points, left[matched, 0])
            refined[~(np.abs(back - left[matched, 0]) <= _LEAST_AGREEMENT_PX)] = np.nan
        disparity = left[matched, 0] - refined
        refined[~((disparity >= self._config.min_disparity) & (disparity <= self._config.max_disparity))] = np.nan
        u_right[matched] = refined
        return u_right

    def _candidates(self, left: Floats, right: Floats) -> tuple[Indices, Indices]:
        config = self._config
        by_row = np.argsort(right[:, 1], kind="stable")
        rows = right[by_row, 1]
        index0, position = expand_ranges(
            np.searchsorted(rows, left[:, 1] - config.max_row_difference, "left"),
            np.searchsorted(rows, left[:, 1] + config.max_row_difference, "right"),
        )
        index1 = by_row[position]
        disparity = left[index0, 0] - right[index1, 0]
        # Key points are a pixel or so off; the range proper is applied to the refined disparity.
        slack = float(_SEARCH_PX)
        inside = (disparity >= config.min_disparity - slack) & (disparity <= config.max_disparity + slack)
        index0, index1 = index0[inside], index1[inside]
        order = np.lexsort((index1, index0))
        return index0[order], index1[order]

    def _correlate(
        self, image0: NDArray[np.uint8], image1: NDArray[np.uint8], points0: Floats, start: Floats
    ) -> Floats:
        """x (N,) in image 1 of points (N, 2) of image 0 on the same row, sought around `start` (N,); NaN where
        the patches do not agree."""
        radius = self._config.patch_radius
        patch = _patches(image0, points0, radius, radius)
        template = patch - patch.mean(axis=(1, 2), keepdims=True)
        strip = _patches(image1, np.column_stack([start, points0[:, 1]]), radius, radius + _SEARCH_PX)
        windows = np.lib.stride_tricks.sliding_window_view(strip, 2 * radius + 1, axis=2)
        # (N, rows, shifts, columns) against (N, rows, columns)
        cross = np.einsum("nrsc,nrc->ns", windows, template)
        area = template[0].size
        sums, squares = _sliding_sums(strip, 2 * radius + 1)
        energy = np.maximum(squares - sums * sums / area, 1e-6)
        own = np.einsum("nrc,nrc->n", template, template)
        score = cross / np.sqrt(energy * np.maximum(own, 1e-6)[:, None])
        best = score.argmax(axis=1)
        good = (score[np.arange(len(best)), best] >= _LEAST_CORRELATION) & (own >= area * _LEAST_CONTRAST**2)
        # A best shift at the end of the range is the flank of a better match outside.
        good &= (best > 0) & (best < 2 * _SEARCH_PX)
        coarse = start + best - _SEARCH_PX
        refined = _least_squares(image1, template, coarse, points0[:, 1], radius)
        return np.where(good & (np.abs(refined - coarse) <= 1.0), refined, np.nan)


def _least_squares(
    image: NDArray[np.uint8], template: NDArray[np.float32], x: Floats, y: Floats, radius: int
) -> Floats:
    """Positions x (N,) that minimise the squared difference of zero-mean patches along the row."""
    for _ in range(_REFINEMENTS):
        wide = _patches(image, np.column_stack([x, y]), radius, radius + 1)
        patch = wide[:, :, 1:-1]
        slope = 0.5 * (wide[:, :, 2:] - wide[:, :, :-2])
        slope = slope - slope.mean(axis=(1, 2), keepdims=True)
        patch = patch - patch.mean(axis=(1, 2), keepdims=True)
        step = np.einsum("nrc,nrc->n", slope, template - patch) / np.maximum(
            np.einsum("nrc,nrc->n", slope, slope), 1e-6
        )
        x = x + np.clip(step, -1.0, 1.0)
    return x


def _patches(image: NDArray[np.uint8], centres: Floats, radius_y: int, radius_x: int) -> NDArray[np.float32]:
    """Patches (N, 2·radius_y + 1, 2·radius_x + 1) around sub-pixel centres (N, 2), bilinear; the image's border
    repeats outside."""
    height, width = image.shape
    base = np.floor(centres).astype(np.int64)
    fraction = (centres - base).astype(np.float32)[:, :, None, None]
    y = np.clip(base[:, 1, None] + np.arange(-radius_y, radius_y + 2), 0, height - 1)
    x = np.clip(base[:, 0, None] + np.arange(-radius_x, radius_x + 2), 0, width - 1)
    block = image[y[:, :, None], x[:, None, :]].astype(np.float32)
    rows = block[:, :-1] + fraction[:, 1] * (block[:, 1:] - block[:, :-1])
    patches: NDArray[np.float32] = rows[:, :, :-1] + fraction[:, 0] * (rows[:, :, 1:] - rows[:, :, :-1])
    return patches


def _sliding_sums(strip: NDArray[np.float32], width: int) -> tuple[Floats, Floats]:
    """Sums (N, shifts) of values and of squares in windows of all rows and `width` columns."""

    def windowed(values: NDArray[np.float32]) -> Floats:
        total = np.cumsum(values.sum(axis=1, dtype=np.float64), axis=1)
        total = np.concatenate([np.zeros((len(total), 1)), total], axis=1)
        sums: Floats = total[:, width:] - total[:, :-width]
        return sums

    return windowed(strip), windowed(strip * strip)
