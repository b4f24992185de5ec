"""Dense depth of a rectified stereo pair by semi-global matching.

Source: Hirschmüller, Stereo processing by semiglobal matching and mutual information, PAMI 2008, in
OpenCV's block-matching variant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

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
_PREFILTER_CAP = 31


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
        self._matcher: Any = cv2.StereoSGBM_create(
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
        inside = np.arange(disparity.shape[1]) - disparity >= 0
        depth = np.zeros_like(disparity)
        np.divide(np.float32(self._bf), disparity, out=depth, where=(disparity > 0) & inside)
        return depth
