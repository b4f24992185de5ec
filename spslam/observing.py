"""From a frame to what tracking sees of it: features, undistorted, with depth where the sensor tells it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.config import Config, DepthConfig
from spslam.errors import CalibrationError, DatasetError
from spslam.frame import Features, Frame, Observations, unit_descriptors
from spslam.ports import Extractor, StereoMatcher

Array = NDArray[np.float64]


def tracking_camera(frame: Frame, config: Config) -> Camera:
    """The ideal camera that observations of a frame refer to; for RGB-D with the baseline of a virtual stereo pair.

    Raises:
        CalibrationError: a stereo frame without a baseline.
    """
    camera = frame.camera.without_distortion()
    if frame.sensor == "rgbd":
        return replace(camera, baseline_m=config.depth.virtual_baseline_m)
    if frame.sensor == "mono":
        return replace(camera, baseline_m=None)
    if camera.baseline_m is None:
        raise CalibrationError("a stereo frame needs a camera with baseline_m, found none")
    return camera


class Observer:
    """Extracts the features of frames and gives them depth.

    Args:
        min_disparity: least disparity of a stereo match, pixels.
    """

    def __init__(self, config: Config, extractor: Extractor, stereo_matcher: StereoMatcher) -> None:
        self._config = config
        self._extractor = extractor
        self._stereo_matcher = stereo_matcher

    def observe(self, frame: Frame, camera: Camera) -> Observations:
        """Observations of a frame; `camera` is its `tracking_camera`."""
        check_images(frame)
        if frame.image_right is not None:
            left, right = self._extractor.extract_batch([frame.image, frame.image_right])
            u_right = self._stereo_matcher.match(frame.image, left, frame.image_right, right)
            pixels = left.keypoints.astype(np.float64)
            disparity = pixels[:, 0] - u_right
            with np.errstate(divide="ignore", invalid="ignore"):
                depth = np.where(disparity >= self._config.stereo.min_disparity, camera.bf / disparity, np.nan)
            u_right = np.where(np.isfinite(depth), u_right, np.nan)
            return _observations(frame, left, pixels, u_right, depth)
        features = self._extractor.extract(frame.image)
        pixels = frame.camera.undistort(features.keypoints)
        depth = np.full(len(features), np.nan)
        if frame.depth is not None:
            depth = depth_at(frame.depth, features.keypoints, self._config.depth)
        return _observations(frame, features, pixels, pixels[:, 0] - camera.bf / depth, depth)


def check_images(frame: Frame) -> None:
    """Refuse images that do not fit the frame's camera.

    Raises:
        DatasetError: wrong size or type.
    """
    expected = (frame.camera.height, frame.camera.width)
    for name, image in (("image", frame.image), ("right image", frame.image_right), ("depth", frame.depth)):
        if image is not None and image.shape != expected:
            found = "x".join(map(str, image.shape[::-1]))
            raise DatasetError(
                f"frame {frame.index}: {name} is {found}, but the calibration is for "
                f"{frame.camera.width}x{frame.camera.height}"
            )
    if frame.image.dtype != np.uint8:
        raise DatasetError(f"frame {frame.index}: images must be 8-bit grey, found {frame.image.dtype}")


def depth_at(depth: NDArray[np.float32], keypoints: NDArray[np.float32], config: DepthConfig) -> Array:
    """(N,) metres at sub-pixel positions (N, 2) of a depth image; NaN where unknown, out of range or at an edge.

    Depth is interpolated between the four pixels around a point only where they lie on one surface: half-way
    between two surfaces there is nothing.
    """
    height, width = depth.shape
    x0 = np.clip(np.floor(keypoints[:, 0]).astype(np.int64), 0, width - 2)
    y0 = np.clip(np.floor(keypoints[:, 1]).astype(np.int64), 0, height - 2)
    corners = np.stack([depth[y0, x0], depth[y0, x0 + 1], depth[y0 + 1, x0], depth[y0 + 1, x0 + 1]]).astype(np.float64)
    valid = np.isfinite(corners) & (corners >= config.min_m) & (corners <= config.max_m)
    inverse = np.where(valid, 1.0 / np.where(valid, corners, 1.0), np.nan)
    fx, fy = keypoints[:, 0] - x0, keypoints[:, 1] - y0
    weights = np.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy])
    # Inverse depth is affine in the image on a plane, depth is not.
    interpolated = np.sum(weights * inverse, axis=0)
    spread = corners.max(axis=0) - corners.min(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        metres: Array = 1.0 / interpolated
        return np.where(spread <= 0.05 * metres, metres, np.nan)


def _observations(frame: Frame, features: Features, pixels: Array, u_right: Array, depth: Array) -> Observations:
    descriptors = unit_descriptors(features.descriptors)
    finite = np.isfinite(pixels).all(axis=1)
    if not finite.all():
        # Strong fisheye lenses see pixels that no pinhole camera does.
        pixels, descriptors, u_right, depth = pixels[finite], descriptors[finite], u_right[finite], depth[finite]
    return Observations(
        index=frame.index,
        timestamp=frame.timestamp,
        pixels=pixels,
        descriptors=descriptors,
        scores=features.scores[finite],
        u_right=u_right,
        depth=depth,
    )
