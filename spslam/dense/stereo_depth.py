"""Dense depth of a rectified stereo pair by semi-global matching.

Source: Hirschmüller, Stereo processing by semiglobal matching and mutual information, PAMI 2008, in
OpenCV's block-matching variant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.typing import Float32Array, UInt8Array

# OpenCV's disparities are in sixteenths of a pixel.
_PER_PIXEL = 16.0
# Penalties of a step of one and of more pixels between neighbours, per pixel of the block and
# channel (values of OpenCV's documentation).
_SMALL_STEP, _LARGE_STEP = 8, 32
# Minimum percentage by which the best match is better than the second best.
_UNIQUENESS_PERCENT = 10
# Largest Sobel value of the prefilter, grey levels.
_PREFILTER_CAP = 63
# Iterations of the sub-pixel refinement; window, pixels; largest change in all, pixels.
_REFINEMENTS, _WINDOW, _MOST_CHANGE_PX = 2, 7, 1.0
# Smallest variance of the gradient in a window, (grey levels a pixel)²; disparities of windows with
# less texture are not refined.
_LEAST_TEXTURE = 1.0


@dataclass(frozen=True)
class StereoSettings:
    """Settings of the stereo matcher.

    Attributes:
        block: side of the compared blocks, pixels, odd.
        max_disparity: largest disparity, pixels; 0: an eighth of the image's width.
        left_right: largest difference between the disparity of the left and of the right image,
            pixels.
        speckle: smallest region of similar disparity that is kept, pixels.
    """

    block: int = 5
    max_disparity: int = 0
    left_right: int = 1
    speckle: int = 100


class StereoDepth:
    """Computes depth images of one rectified camera pair.

    Args:
        camera: the rectified left camera with its baseline.
        settings: settings of the matcher.

    Attributes:
        min_depth_m: smallest depth that the disparity range allows, metres.
    """

    def __init__(self, camera: Camera, settings: StereoSettings) -> None:
        wanted = settings.max_disparity or camera.width / 8
        self._range = int(np.ceil(wanted / 16)) * 16
        self._bf = camera.bf
        self.min_depth_m = self._bf / self._range
        area = settings.block**2
        # Type checkers do not know the class: OpenCV 5 has it in another module.
        opencv: Any = cv2
        self._matcher: Any = opencv.StereoSGBM_create(
            minDisparity=0,
            numDisparities=self._range,
            blockSize=settings.block,
            P1=_SMALL_STEP * area,
            P2=_LARGE_STEP * area,
            disp12MaxDiff=settings.left_right,
            preFilterCap=_PREFILTER_CAP,
            uniquenessRatio=_UNIQUENESS_PERCENT,
            speckleWindowSize=settings.speckle,
            speckleRange=1,
            mode=cv2.STEREO_SGBM_MODE_SGBM,
        )

    def depth(self, image: UInt8Array, image_right: UInt8Array) -> Float32Array:
        """Return the depth (H, W) float32 of the left image, metres; 0 where unknown."""
        # OpenCV leaves a margin as wide as the disparity range empty. Pixels of the margin whose
        # match lies inside the right image are kept.
        left, right = (
            cv2.copyMakeBorder(picture, 0, 0, self._range, 0, cv2.BORDER_REPLICATE)
            for picture in (image, image_right)
        )
        raw = np.asarray(self._matcher.compute(left, right))[:, self._range :]
        disparity = raw.astype(np.float32) / np.float32(_PER_PIXEL)
        disparity = refined(image, image_right, disparity)
        inside = np.arange(disparity.shape[1]) - disparity >= 0
        depth = np.zeros_like(disparity)
        np.divide(np.float32(self._bf), disparity, out=depth, where=(disparity > 0) & inside)
        return depth


def refined(image: UInt8Array, image_right: UInt8Array, disparity: Float32Array) -> Float32Array:
    """Refine disparities by the grey levels: least squares in a window, by Gauss-Newton.

    Semi-global matching fits a parabola to costs at whole pixels, which draws disparities towards
    whole and half pixels. The mean grey level of each window is free, because the two cameras may
    differ in exposure. Source: Lucas and Kanade, An iterative image registration technique with an
    application to stereo vision, IJCAI 1981.

    Args:
        image: (H, W) uint8, left.
        image_right: (H, W) uint8.
        disparity: (H, W) float32, pixels; not positive where unknown.

    Returns:
        (H, W) float32, pixels.
    """
    known = disparity > 0
    weight = known.astype(np.float32)
    left, right = image.astype(np.float32), image_right.astype(np.float32)
    slope_left, slope_right = _slope(left), _slope(right)
    y, x = (np.ascontiguousarray(grid, np.float32) for grid in np.indices(disparity.shape))
    count = np.maximum(_sum(weight), 1.0)
    found = disparity.copy()
    for _ in range(_REFINEMENTS):
        warped, warped_slope = (_moved(picture, x - found, y) for picture in (right, slope_right))
        slope = np.float32(0.5) * (slope_left + warped_slope) * weight
        difference = (left - warped) * weight
        mean_slope, mean_difference = _sum(slope) / count, _sum(difference) / count
        texture = _sum(slope * slope) / count - mean_slope**2
        agreement = _sum(slope * difference) / count - mean_slope * mean_difference
        # Averaged over the windows that hold a pixel: neighbours that step on their own would drift
        # apart, because each step assumes that its window moves as a whole.
        steepness, total = _sum(texture * weight), _sum(agreement * weight)
        step = np.zeros_like(found)
        textured = known & (steepness > _LEAST_TEXTURE * count)
        np.divide(-total, steepness, out=step, where=textured)
        change = np.clip(found + step - disparity, -_MOST_CHANGE_PX, _MOST_CHANGE_PX)
        found = disparity + change
    return np.where(known, found, disparity)


def _moved(image: Float32Array, x: Float32Array, y: Float32Array) -> Float32Array:
    """Return the image at pixels x, y (H, W), interpolated."""
    found = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, np.float32)


def _slope(image: Float32Array) -> Float32Array:
    """Return the derivative along x (H, W), grey levels a pixel."""
    kernel = np.array([[-0.5, 0.0, 0.5]], np.float32)
    return np.asarray(cv2.filter2D(image, cv2.CV_32F, kernel), np.float32)


def _sum(values: NDArray[np.floating]) -> Float32Array:
    """Return the sums (H, W) over windows."""
    size = (_WINDOW, _WINDOW)
    return np.asarray(cv2.boxFilter(values, cv2.CV_32F, size, normalize=False), np.float32)
