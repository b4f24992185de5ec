"""Disparity of keypoints in a rectified stereo pair.

Block matching of reduced images gives a rough disparity; correlation and least squares refine it.
"""

from __future__ import annotations

import cv2
import numpy as np

from spslam.config import StereoConfig
from spslam.typing import Float32Array, FloatArray, IntArray, UInt8Array

# Side of a reduced image's pixel, pixels of the full image.
_REDUCTION = 3
# Side of the blocks, pixels of the reduced images.
_BLOCK = 11
# OpenCV requires a number of disparities that is a multiple of this.
_DISPARITY_STEP = 16
# Least disparity to search, pixels of the reduced images; below 0 for the noise of far points.
_LEAST_COARSE = -1
# Largest difference of the disparities from left to right and back, pixels of the reduced images.
_MOST_DISAGREEMENT = 1
# OpenCV returns disparities as integers in units of 1/16 pixel.
_FIXED_POINT = 16.0
# Search range of the correlation to each side, pixels; block matching errs by one or two pixels.
_SEARCH_PX = 3
# Least zero-mean normalised correlation of two patches that match.
_LEAST_CORRELATION = 0.7
# Least contrast of a patch (standard deviation, grey levels); flatter patches are not matched.
_LEAST_CONTRAST = 1.5
# Points to refine at a time; their patches stay in the processor's cache.
_POINTS_AT_A_TIME = 512


class BlockStereoMatcher:
    """Finds keypoints of the left image in the right image (a `StereoMatcher`).

    Dense block matching of the images at a third of their size, with a check from right to left,
    gives a rough disparity. Zero-mean normalised correlation of the patch along its row refines it
    to a pixel. Least squares on the grey values (Lucas & Kanade, IJCAI 1981, in one dimension)
    gives the sub-pixel position. The right image needs no features (docs/decisions/0011-speed.md).

    Args:
        config: range of disparities and patch size.
    """

    def __init__(self, config: StereoConfig) -> None:
        self._config = config
        span = config.max_disparity / _REDUCTION - _LEAST_COARSE
        self._disparities = int(np.ceil(span / _DISPARITY_STEP)) * _DISPARITY_STEP

    def match(
        self, image_left: UInt8Array, keypoints: Float32Array, image_right: UInt8Array
    ) -> FloatArray:
        """Find left keypoints in the right image.

        Args:
            image_left: rectified grey image (H, W) uint8.
            keypoints: (N, 2) x y in the left image, pixels.
            image_right: rectified grey image (H, W) uint8.

        Returns:
            Sub-pixel x in the right image, (N,) float64; NaN if not found.
        """
        left = keypoints.astype(np.float64)
        u_right = np.full(len(left), np.nan)
        coarse = self._coarse_disparity(image_left, left, image_right)
        known = np.flatnonzero(np.isfinite(coarse))
        if not len(known):
            return u_right
        refined = self._refine(image_left, left[known], image_right, left[known, 0] - coarse[known])
        disparity = left[known, 0] - refined
        inside = (disparity >= self._config.min_disparity) & (
            disparity <= self._config.max_disparity
        )
        u_right[known] = np.where(inside, refined, np.nan)
        return u_right

    def _coarse_disparity(
        self, image_left: UInt8Array, left: FloatArray, image_right: UInt8Array
    ) -> FloatArray:
        """Compute rough disparities (N,), pixels of the full image; NaN if no blocks match."""
        matcher = cv2.StereoBM.create(self._disparities, _BLOCK)
        matcher.setMinDisparity(_LEAST_COARSE)
        matcher.setDisp12MaxDiff(_MOST_DISAGREEMENT)
        # Accept the best block of every point: correlation at full size decides.
        matcher.setTextureThreshold(0)
        matcher.setUniquenessRatio(0)
        # OpenCV does not match blocks that leave the image, so extend the image.
        margin = _BLOCK // 2 + 1
        side = self._disparities + margin
        small = [
            cv2.copyMakeBorder(_reduced(image), margin, margin, side, margin, cv2.BORDER_REPLICATE)
            for image in (image_left, image_right)
        ]
        fixed_point = matcher.compute(*small)
        last = np.array(image_left.shape[::-1])[:, None] // _REDUCTION - 1
        x, y = np.clip(np.rint((left.T + 0.5) / _REDUCTION - 0.5).astype(np.int64), 0, last)
        found = fixed_point[y + margin, x + side]
        missing = (_LEAST_COARSE - 1) * _FIXED_POINT
        return np.where(found > missing, _REDUCTION * found / _FIXED_POINT, np.nan)

    def _refine(
        self, image_left: UInt8Array, left: FloatArray, image_right: UInt8Array, start: FloatArray
    ) -> FloatArray:
        """Refine the x of points in the right image.

        Args:
            image_left: (H, W).
            left: (N, 2), points of the left image.
            image_right: (H, W).
            start: (N,), rough x in the right image.

        Returns:
            Sub-pixel x (N,); NaN if the patches do not agree.
        """
        radius = self._config.patch_radius
        margin = radius + _SEARCH_PX + 1
        padded_left, padded_right = (
            np.asarray(
                cv2.copyMakeBorder(image, *(radius + 1,) * 2, *(margin,) * 2, cv2.BORDER_REPLICATE),
                np.uint8,
            )
            for image in (image_left, image_right)
        )
        refined = np.empty(len(start))
        for part in np.array_split(np.arange(len(start)), -(-len(start) // _POINTS_AT_A_TIME)):
            refined[part] = _sub_pixel(padded_left, padded_right, left[part], start[part], radius)
        return refined


def _reduced(image: UInt8Array) -> UInt8Array:
    """Reduce an image by averaging squares of pixels; partial squares at the border are dropped."""
    height, width = image.shape[0] // _REDUCTION, image.shape[1] // _REDUCTION
    whole = image[: height * _REDUCTION, : width * _REDUCTION]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _sub_pixel(
    padded_left: UInt8Array,
    padded_right: UInt8Array,
    left: FloatArray,
    start: FloatArray,
    radius: int,
) -> FloatArray:
    """Compute x (N,) in the right image, see `BlockStereoMatcher._refine`.

    The images have margins for patches of `radius` and for the search. Arrays of patches are
    (rows, columns, N), because NumPy is fast if the last axis is long.
    """
    width = 2 * radius + 1
    base = np.floor(left).astype(np.int64)
    fraction_x, fraction_y = (left - base).T.astype(np.float32)
    # Stay inside the margins.
    middle = np.clip(
        np.rint(start).astype(np.int64), -1, padded_right.shape[1] - width - 2 * _SEARCH_PX - 1
    )
    wide = _patches(padded_left, base[:, 0] + _SEARCH_PX, base[:, 1] + 1, width + 1, width + 3)
    wide = _between(wide[:-1], wide[1:], fraction_y)
    wide = _between(wide[:, :-1], wide[:, 1:], fraction_x)
    strip = _patches(padded_right, middle + 1, base[:, 1] + 1, width + 1, width + 2 * _SEARCH_PX)
    strip = _between(strip[:-1], strip[1:], fraction_y)
    mean = wide[:, 1:-1].sum(axis=0).sum(axis=0) / np.float32(width**2)
    template = wide[:, 1:-1] - mean
    # Shift the values near 0: the difference of sums then fits single precision.
    strip -= mean
    own = _products(template, template)
    score = _correlation(template, own, strip)
    best = score.argmax(axis=0)
    good = score.max(axis=0) >= _LEAST_CORRELATION
    good &= own >= width**2 * _LEAST_CONTRAST**2
    # A best shift at the end of the range may be the flank of a better match outside.
    good &= (best > 0) & (best < 2 * _SEARCH_PX)
    shift = _least_squares(
        template, wide[:, 2:] - wide[:, :-2], strip, np.clip(best, 1, 2 * _SEARCH_PX - 1)
    )
    return np.where(good, middle + shift - _SEARCH_PX, np.nan)


def _patches(padded: UInt8Array, x: IntArray, y: IntArray, rows: int, columns: int) -> Float32Array:
    """Cut out patches (rows, columns, N) with upper left corners x, y (N,), moved inside."""
    # View each run of `columns` bytes as one element, to copy it at once.
    last = (padded.shape[0] - rows, padded.shape[1] - columns)
    runs = np.ndarray((padded.shape[0], last[1] + 1), f"V{columns}", padded, strides=padded.strides)
    y = np.minimum(np.maximum(y, 0), last[0]) + np.arange(rows)[:, None]
    found = (
        runs[y, np.minimum(np.maximum(x, 0), last[1])].view(np.uint8).reshape(rows, len(x), columns)
    )
    # Transposing the bytes first and converting them then is faster than both at once.
    return np.ascontiguousarray(found.transpose(0, 2, 1)).astype(np.float32)


def _between(low: Float32Array, high: Float32Array, fraction: Float32Array) -> Float32Array:
    """Interpolate between neighbours, both (R, C, N), at fractions (N,)."""
    between: Float32Array = high - low
    between *= fraction
    between += low
    return between


def _products(first: Float32Array, second: Float32Array) -> Float32Array:
    """Compute scalar products (N,) of patches (R, C, N)."""
    products: Float32Array = np.einsum("rcn,rcn->n", first, second)
    return products


def _products_along(strip: Float32Array, patch: Float32Array) -> Float32Array:
    """Compute scalar products of patches with each window of strips.

    Args:
        strip: (R, width - 1 + shifts, N).
        patch: (R, width, N).

    Returns:
        (shifts, N).
    """
    width = patch.shape[1]
    return np.stack(
        [_products(strip[:, i : i + width], patch) for i in range(strip.shape[1] - width + 1)]
    )


def _correlation(template: Float32Array, own: Float32Array, strip: Float32Array) -> Float32Array:
    """Compute the zero-mean normalised correlation of templates with each window of strips.

    Args:
        template: (R, width, N), zero-mean.
        own: (N,), sums of squares of the templates.
        strip: (R, width - 1 + shifts, N).

    Returns:
        (shifts, N), from -1 to 1.
    """
    width = template.shape[1]
    sums = _sliding_sums(strip.sum(axis=0), width)
    squares = _sliding_sums(np.einsum("rcn,rcn->cn", strip, strip), width)
    energy = np.maximum(squares - sums * sums / np.float32(width * len(template)), np.float32(1e-6))
    score: Float32Array = _products_along(strip, template) / np.sqrt(
        energy * np.maximum(own, np.float32(1e-6))
    )
    return score


def _sliding_sums(columns: Float32Array, width: int) -> Float32Array:
    """Sum each `width` neighbouring rows of (C, N); returns (shifts, N)."""
    total = np.cumsum(columns, axis=0)
    sums: Float32Array = np.concatenate([total[width - 1 : width], total[width:] - total[:-width]])
    return sums


def _least_squares(
    template: Float32Array, slope: Float32Array, strip: Float32Array, near: IntArray
) -> FloatArray:
    """Find the shifts of windows that minimise the squared difference to templates.

    The slope of the template does not change with the shift (Baker & Matthews, IJCV 2004). The
    product of slope and difference is 0 at the minimum and linear between whole pixels. The shift
    therefore follows from the products at two pixels, without iterations.

    Args:
        template: (R, width, N).
        slope: (R, width, N), horizontal slope of the template.
        strip: (R, width - 1 + shifts, N).
        near: (N,), rough shifts; the minimum is searched within a pixel of them.

    Returns:
        Shifts (N,), pixels; NaN if there is no minimum.
    """
    # A slope with a sum of 0 makes the patch's mean irrelevant.
    slope = slope - slope.mean(axis=(0, 1))
    ahead = _products_along(strip, slope) - _products(slope, template)
    each = np.arange(len(near))
    first = np.where(ahead[near, each] > 0, near - 1, near)
    before, after = ahead[first, each], ahead[first + 1, each]
    crossing = (before <= 0) & (after > 0)
    return np.where(
        crossing, first - before / np.where(crossing, after - before, np.float32(1)), np.nan
    )
