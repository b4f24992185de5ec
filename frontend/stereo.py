"""Disparity of key points of a rectified pair: block matching at half size, then correlation and least squares."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.config import StereoConfig

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Indices = NDArray[np.int64]

# Side of the blocks and steps between disparities, pixels at half size.
_BLOCK = 15
_DISPARITY_STEP = 16
# Least disparity that is looked for, for points that are far and a little off.
_LEAST_COARSE = -1
# Between left to right and back, pixels at half size.
_MOST_DISAGREEMENT = 1
# OpenCV's fixed point numbers.
_FIXED_POINT = 16.0
# Block matching is right to a pixel or two; correlation looks this far to each side of it.
_SEARCH_PX = 2
# Below this zero-mean normalised correlation two patches show different things.
_LEAST_CORRELATION = 0.7
_REFINEMENTS = 3
# Patches flatter than this (standard deviation, grey levels) have nothing to correlate.
_LEAST_CONTRAST = 1.5


class BlockStereoMatcher:
    """Finds key points of the left image in the right one (a `StereoMatcher`).

    Dense block matching of the images at half size, with its own check from right to left, says where to look. There
    the patch around the point slides along its row (zero-mean normalised correlation), and least squares on the grey
    values (Lucas & Kanade, IJCAI 1981, in one dimension) gives the sub-pixel position. The right image needs no
    features (docs/decisions/0011-speed.md).

    Args:
        config: range of disparities and patch size.
    """

    def __init__(self, config: StereoConfig) -> None:
        self._config = config
        span = config.max_disparity / 2 - _LEAST_COARSE
        self._disparities = int(np.ceil(span / _DISPARITY_STEP)) * _DISPARITY_STEP

    def match(self, image_left: NDArray[np.uint8], keypoints: Floats32, image_right: NDArray[np.uint8]) -> Floats:
        """(N,) float64: sub-pixel x in the right image of each left key point (N, 2); NaN where there is none."""
        left = keypoints.astype(np.float64)
        u_right = np.full(len(left), np.nan)
        coarse = self._coarse_disparity(image_left, left, image_right)
        known = np.flatnonzero(np.isfinite(coarse))
        if not len(known):
            return u_right
        refined = self._refine(image_left, left[known], image_right, left[known, 0] - coarse[known])
        disparity = left[known, 0] - refined
        inside = (disparity >= self._config.min_disparity) & (disparity <= self._config.max_disparity)
        u_right[known] = np.where(inside, refined, np.nan)
        return u_right

    def _coarse_disparity(self, image_left: NDArray[np.uint8], left: Floats, image_right: NDArray[np.uint8]) -> Floats:
        """(N,) disparities in pixels of the whole image, to a pixel or two; NaN where blocks agree nowhere."""
        matcher = cv2.StereoBM.create(self._disparities, _BLOCK)
        matcher.setMinDisparity(_LEAST_COARSE)
        matcher.setDisp12MaxDiff(_MOST_DISAGREEMENT)
        # Every point gets its best block: correlation at full size decides.
        matcher.setTextureThreshold(0)
        matcher.setUniquenessRatio(0)
        # Blocks that leave the image are no matches for OpenCV.
        side, margin = self._disparities + _BLOCK, _BLOCK
        halves = [
            cv2.copyMakeBorder(_half_size(image), margin, margin, side, side, cv2.BORDER_REPLICATE)
            for image in (image_left, image_right)
        ]
        fixed_point = matcher.compute(*halves)
        last = np.array(image_left.shape[::-1])[:, None] // 2 - 1
        x, y = np.minimum(np.rint((left.T + 0.5) / 2 - 0.5).astype(np.int64), last)
        found = fixed_point[y + margin, x + side]
        missing = (_LEAST_COARSE - 1) * _FIXED_POINT
        return np.where(found > missing, 2 * found / _FIXED_POINT, np.nan)

    def _refine(
        self, image_left: NDArray[np.uint8], left: Floats, image_right: NDArray[np.uint8], start: Floats
    ) -> Floats:
        """x (N,) in the right image of points (N, 2) of the left one, sought around `start` (N,); NaN where the
        patches do not agree."""
        radius = self._config.patch_radius
        width = 2 * radius + 1
        wide = _interpolate_x(_rows(image_left, left, radius, radius + 1), left[:, 0] % 1)
        template = wide[:, :, 1:-1] - wide[:, :, 1:-1].mean(axis=(1, 2), keepdims=True)
        own = np.einsum("nrc,nrc->n", template, template)
        # As far to each side as the best shift and the steps of least squares may reach.
        reach = radius + _SEARCH_PX + 1
        rows = _rows(image_right, np.column_stack([start, left[:, 1]]), radius, reach)
        strip = _interpolate_x(rows, start % 1)[:, :, 1:-1]
        score = _correlation(template, own, strip, width)
        best = score.argmax(axis=1)
        good = score[np.arange(len(best)), best] >= _LEAST_CORRELATION
        good &= own >= width**2 * _LEAST_CONTRAST**2
        # A best shift at the end of the range is the flank of a better match outside.
        good &= (best > 0) & (best < 2 * _SEARCH_PX)
        shift = best - _SEARCH_PX + start % 1
        slope = 0.5 * (wide[:, :, 2:] - wide[:, :, :-2])
        moved = _least_squares(rows, template, slope, shift)
        refined: Floats = np.where(good & (np.abs(moved - shift) <= 1.0), np.floor(start) + moved, np.nan)
        return refined


def _half_size(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Means of four pixels; an odd last row or column is left out."""
    height, width = image.shape
    even = image[: height - height % 2, : width - width % 2]
    half = cv2.resize(even, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return np.asarray(half, np.uint8)


def _rows(image: NDArray[np.uint8], centres: Floats, radius_y: int, radius_x: int) -> Floats32:
    """Rows (N, 2·radius_y + 1, 2·radius_x + 2) around centres (N, 2), at the sub-pixel y, from `radius_x` pixels to the
    left of the whole-pixel x to one more to the right of it; the image's border repeats outside."""
    base = np.floor(centres).astype(np.int64)
    margin_y, margin_x = radius_y + 1, radius_x + 1
    padded = cv2.copyMakeBorder(image, margin_y, margin_y, margin_x, margin_x, cv2.BORDER_REPLICATE)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * radius_y + 2, 2 * radius_x + 2))
    y = np.clip(base[:, 1] + 1, 0, windows.shape[0] - 1)
    x = np.clip(base[:, 0] + 1, 0, windows.shape[1] - 1)
    block = windows[y, x].astype(np.float32)
    fraction = (centres[:, 1] - base[:, 1]).astype(np.float32)[:, None, None]
    rows: Floats32 = block[:, :-1] + fraction * (block[:, 1:] - block[:, :-1])
    return rows


def _interpolate_x(rows: Floats32, fraction: Floats) -> Floats32:
    """Between neighbours of the last axis (N, R, C) → (N, R, C - 1), at fractions (N,)."""
    weight = fraction.astype(np.float32)[:, None, None]
    between: Floats32 = rows[:, :, :-1] + weight * (rows[:, :, 1:] - rows[:, :, :-1])
    return between


def _correlation(template: Floats32, own: Floats32, strip: Floats32, width: int) -> Floats32:
    """Zero-mean normalised correlation (N, shifts) of templates (N, R, width), whose sums of squares are `own` (N,),
    with the windows of strips (N, R, width - 1 + shifts)."""
    shifts = strip.shape[2] - width + 1
    windows = [strip[:, :, shift : shift + width] for shift in range(shifts)]
    cross = np.stack([np.einsum("nrc,nrc->n", window, template) for window in windows], axis=1)
    # Less a constant near the mean, so that single precision holds the difference of the sums.
    centred = strip - strip.mean(axis=(1, 2), keepdims=True)
    sums = _sliding_sums(centred.sum(axis=1), width)
    squares = _sliding_sums(np.einsum("nrc,nrc->nc", centred, centred), width)
    energy = np.maximum(squares - sums * sums / template[0].size, np.float32(1e-6))
    score: Floats32 = cross / np.sqrt(energy * np.maximum(own, np.float32(1e-6))[:, None])
    return score


def _sliding_sums(columns: Floats32, width: int) -> Floats32:
    """Sums (N, shifts) of `width` neighbours of (N, C)."""
    total = np.cumsum(np.pad(columns, ((0, 0), (1, 0))), axis=1)
    sums: Floats32 = total[:, width:] - total[:, :-width]
    return sums


def _least_squares(rows: Floats32, template: Floats32, slope: Floats32, shift: Floats) -> Floats:
    """Shifts (N,) along rows (N, R, C) that minimise the squared difference to zero-mean templates of this slope, both
    (N, R, width); 0 is the middle.

    The slope is the template's, which does not change (Baker & Matthews, IJCV 2004): each step costs a patch.
    """
    width = template.shape[2]
    windows = np.lib.stride_tricks.sliding_window_view(rows, width + 1, axis=2)
    middle = (rows.shape[2] - 1 - width) // 2
    # Sums to 0, so that the patch's mean does not matter.
    slope = slope - slope.mean(axis=(1, 2), keepdims=True)
    stiffness = np.maximum(np.einsum("nrc,nrc->n", slope, slope), 1e-6)
    aim = np.einsum("nrc,nrc->n", slope, template)
    each = np.arange(len(rows))
    for _ in range(_REFINEMENTS):
        base = np.floor(shift)
        first = np.clip(base.astype(np.int64) + middle, 0, windows.shape[2] - 1)
        patch = _interpolate_x(windows[each, :, first], shift - base)
        shift = shift + np.clip((aim - np.einsum("nrc,nrc->n", slope, patch)) / stiffness, -1.0, 1.0)
    return shift
