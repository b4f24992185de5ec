"""Preprocessing: extract features, undistort them, and add depth where the sensor measures it.

The distortion by a rolling shutter is corrected once the velocity of the camera is known.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam import geometry
from spslam.camera import Camera
from spslam.config import Config, DepthConfig
from spslam.errors import CalibrationError, DatasetError
from spslam.frame import (
    Features,
    Frame,
    Observations,
    check_features,
    colors_at,
    rows_at,
    unit_descriptors,
)
from spslam.interfaces import Extractor, StereoMatcher
from spslam.typing import BoolArray, FloatArray, IntArray

# Margin around masked parts in which no keypoint is used, pixels: descriptors there see the masked
# texture. It matters little: demo-small, mono, 40 % masked, 0 px 9.4 mm, 4 px 9.3 mm (ATE).
MASK_MARGIN_PX = 4


def tracking_camera(frame: Frame, config: Config) -> Camera:
    """Return the ideal camera of a frame's observations; for RGB-D with a virtual baseline.

    Raises:
        CalibrationError: a stereo frame without a baseline.
    """
    camera = frame.camera.without_distortion()
    if frame.sensor == "rgbd":
        return replace(camera, baseline_m=config.depth.virtual_baseline_m)
    if frame.sensor == "mono":
        return replace(camera, baseline_m=None)
    if not camera.has_depth:
        raise CalibrationError("a stereo frame needs a camera with baseline_m")
    return camera


class Preprocessor:
    """Extracts the features of frames and adds their depth.

    Attributes:
        extractor: identity of the front end, weights included.
        engine: inference engine and precision of the extractor.
        max_concurrency: number of threads that may call `observe` at the same time.
    """

    def __init__(self, config: Config, extractor: Extractor, stereo_matcher: StereoMatcher) -> None:
        self.extractor = extractor.identity
        self.engine = extractor.engine
        self.max_concurrency = extractor.max_concurrency
        self._config = config
        self._extractor = extractor
        self._stereo_matcher = stereo_matcher

    def observe(self, frame: Frame) -> Observations:
        """Return the observations of a frame.

        They depend on no other frame: another thread may compute them ahead of `Slam.track`.

        Raises:
            CalibrationError: a stereo frame without a baseline.
            DatasetError: the images do not fit the camera.
            ExtractorError: the extractor returns features that cannot be right.
        """
        camera = tracking_camera(frame, self._config)
        check_images(frame)
        if frame.image_right is not None:
            left = self._extract(frame)
            u_right = self._stereo_matcher.match(frame.image, left.keypoints, frame.image_right)
            pixels = left.keypoints.astype(np.float64)
            if frame.mask_right is not None:
                u_right = _outside_mask(u_right, pixels[:, 1], frame.mask_right)
            disparity = pixels[:, 0] - u_right
            with np.errstate(divide="ignore", invalid="ignore"):
                depth = np.where(
                    disparity >= self._config.stereo.min_disparity, camera.bf / disparity, np.nan
                )
            u_right = np.where(np.isfinite(depth), u_right, np.nan)
            return _observations(frame, left, pixels, u_right, depth)
        features = self._extract(frame)
        pixels = frame.camera.undistort(features.keypoints)
        depth = np.full(len(features), np.nan)
        if frame.depth is not None:
            measured = frame.depth
            if frame.mask is not None:
                measured = np.where(frame.mask, measured, np.float32(0))
            depth = depth_at(measured, features.keypoints, self._config.depth)
        return _observations(frame, features, pixels, pixels[:, 0] - camera.bf / depth, depth)

    def _extract(self, frame: Frame) -> Features:
        """Extract the features of the left image, `MASK_MARGIN_PX` or more from masked pixels."""
        features = (
            self._extractor.extract(frame.image)
            if frame.mask is None
            else self._extractor.extract_inside(frame.image, with_margin(frame.mask))
        )
        return check_features(features, frame.image.shape, self._extractor.name)


def with_margin(mask: BoolArray) -> BoolArray:
    """Return a mask (H, W) of used pixels without a margin of `MASK_MARGIN_PX` at masked ones."""
    side = 2 * MASK_MARGIN_PX + 1
    return cv2.erode(mask.astype(np.uint8), np.ones((side, side), np.uint8)) > 0


def _outside_mask(u_right: FloatArray, rows: FloatArray, mask: BoolArray) -> FloatArray:
    """Replace matches (N,) in masked parts of the right image by NaN.

    Args:
        u_right: x in the right image, pixels; NaN where unknown.
        rows: y in both images, pixels.
        mask: (H, W), which pixels of the right image are used.
    """
    allowed = with_margin(mask)
    column = np.clip(np.rint(np.nan_to_num(u_right)), 0, mask.shape[1] - 1).astype(np.int64)
    row = np.clip(np.rint(rows), 0, mask.shape[0] - 1).astype(np.int64)
    return np.where(allowed[row, column], u_right, np.nan)


def check_images(frame: Frame) -> None:
    """Check that the images fit the frame's camera.

    Raises:
        DatasetError: wrong size or type.
    """
    expected = (frame.camera.height, frame.camera.width)
    for name, image in (
        ("image", frame.image),
        ("right image", frame.image_right),
        ("depth", frame.depth),
        ("mask", frame.mask),
        ("right mask", frame.mask_right),
    ):
        if image is not None and image.shape != expected:
            found = "x".join(map(str, image.shape[::-1]))
            raise DatasetError(
                f"frame {frame.index}: {name} is {found}, but the calibration is for "
                f"{frame.camera.width}x{frame.camera.height}"
            )
    if frame.image.dtype != np.uint8:
        raise DatasetError(
            f"frame {frame.index}: images must be 8-bit grey, found {frame.image.dtype}"
        )


def depth_at(
    depth: NDArray[np.float32], keypoints: NDArray[np.float32], config: DepthConfig
) -> FloatArray:
    """Interpolate a depth image at keypoints; NaN where unknown, out of range or near a depth edge.

    Keypoints lie on outlines of objects. The depth image has another lens and another exposure
    time, and may show the background there.

    Args:
        depth: (H, W) metres.
        keypoints: (N, 2) sub-pixel positions.
        config: range and edge limits.

    Returns:
        (N,) metres.
    """
    height, width = depth.shape
    x0 = np.clip(np.floor(keypoints[:, 0]).astype(np.int64), 0, width - 2)
    y0 = np.clip(np.floor(keypoints[:, 1]).astype(np.int64), 0, height - 2)
    corners = np.stack(
        [depth[y0, x0], depth[y0, x0 + 1], depth[y0 + 1, x0], depth[y0 + 1, x0 + 1]]
    ).astype(np.float64)
    valid = np.isfinite(corners) & (corners >= config.min_m) & (corners <= config.max_m)
    inverse = np.where(valid, 1.0 / np.where(valid, corners, 1.0), np.nan)
    fx, fy = keypoints[:, 0] - x0, keypoints[:, 1] - y0
    weights = np.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy])
    # On a plane, inverse depth is affine in the image; depth is not.
    metres: FloatArray = 1.0 / np.sum(weights * inverse, axis=0)
    around = _depth_range_around(depth, x0, y0, config)
    return np.where(around <= config.edge_step * metres, metres, np.nan)


def _depth_range_around(
    depth: NDArray[np.float32], x0: IntArray, y0: IntArray, config: DepthConfig
) -> NDArray[np.float32]:
    """(N,) largest minus smallest known depth around pixels (N,), metres; infinite without any.

    The windows reach equally far beyond each of the four interpolated pixels.
    """
    side = 2 * config.edge_margin_px + 2
    if side * side * len(x0) > depth.size:
        return _depth_range(depth, side)[y0, x0]
    aside = np.arange(side)[:, None] - config.edge_margin_px
    # Pixels outside the image are replaced by the nearest pixel, which is in the window anyway.
    rows, columns = (
        np.clip(first + aside, 0, size - 1)
        for first, size in zip((y0, x0), depth.shape, strict=True)
    )
    window = depth[rows[:, None], columns[None]].reshape(side * side, len(x0))
    known = np.isfinite(window) & (window > 0)
    nearest = np.where(known, window, np.float32(np.inf)).min(axis=0)
    largest = np.where(known, window, np.float32(0)).max(axis=0)
    return np.where(largest > 0, largest - nearest, np.float32(np.inf))


def _depth_range(depth: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """(H, W) largest minus smallest known depth in a window of each pixel, metres."""
    known = np.isfinite(depth) & (depth > 0)
    kernel = np.ones((side, side), dtype=np.uint8)
    # The anchor makes the window reach equally far beyond each of the four interpolated pixels.
    anchor = (side // 2 - 1, side // 2 - 1)
    farthest = np.float32(np.finfo(np.float32).max)
    nearest = cv2.erode(np.where(known, depth, farthest), kernel, anchor=anchor)
    largest = cv2.dilate(np.where(known, depth, np.float32(0)), kernel, anchor=anchor)
    return np.where(nearest <= largest, largest - nearest, np.float32(np.inf))


def _observations(
    frame: Frame, features: Features, pixels: FloatArray, u_right: FloatArray, depth: FloatArray
) -> Observations:
    descriptors = unit_descriptors(features.descriptors)
    delays = readout_delays(rows_at(frame, features.keypoints), frame.camera)
    colors = colors_at(frame, features.keypoints)
    sigma = features.relative_sigma
    sigma = np.ones(len(features), dtype=np.float32) if sigma is None else sigma
    finite = np.isfinite(pixels).all(axis=1)
    if not finite.all():
        # Strong fisheye lenses have pixels outside the view of any pinhole camera.
        pixels, descriptors, u_right, depth = (
            pixels[finite],
            descriptors[finite],
            u_right[finite],
            depth[finite],
        )
        delays, colors, sigma = delays[finite], colors[finite], sigma[finite]
    return Observations(
        index=frame.index,
        timestamp=frame.timestamp,
        pixels=pixels,
        descriptors=descriptors,
        scores=features.scores[finite],
        relative_sigma=sigma,
        u_right=u_right,
        depth=depth,
        delays=delays,
        colors=colors,
    )


def readout_delays(rows: NDArray[np.floating], camera: Camera) -> FloatArray:
    """(N,) seconds from the read-out of the middle row to that of these rows (N,), as recorded."""
    last = camera.height - 1
    delays: FloatArray = (np.asarray(rows, dtype=np.float64) / last - 0.5) * camera.readout_s
    return delays


def undo_rolling_shutter(
    observations: Observations, camera: Camera, velocity: FloatArray
) -> Observations:
    """Correct observations to a global shutter at the middle row, for a constant velocity.

    Each point is rotated back by the rotation since the middle row. With depth it is also
    translated back; without depth the translation is ignored, which is small for distant points. A
    velocity that is constant within an image is the usual model (Hedborg et al., Rolling shutter
    bundle adjustment, CVPR 2012).

    Args:
        observations: to correct.
        camera: the ideal one that the observations refer to.
        velocity: (6,) [translation, rotation] per second: after t seconds a point X of camera
            coordinates is at exp(velocity · t) X.
    """
    if not observations.delays.any() or not velocity.any():
        return observations
    depth, u_right = observations.depth, observations.u_right
    known = np.isfinite(depth)
    points = camera.unproject(observations.pixels, np.where(known, depth, 1.0))
    back = -observations.delays[:, None] * velocity
    back[~known, :3] = 0.0
    moved = geometry.apply(geometry.se3_exp(back), points)
    # A wrong velocity may rotate points behind the camera: keep those as they are.
    valid = moved[:, 2] > 0
    pixels = np.where(valid[:, None], camera.project(moved), observations.pixels)
    depth = np.where(valid & known, moved[:, 2], depth)
    with np.errstate(invalid="ignore"):
        shifted = pixels[:, 0] - camera.bf / depth
    return replace(
        observations,
        pixels=pixels,
        u_right=np.where(np.isfinite(u_right) & valid, shifted, u_right),
        depth=depth,
        delays=np.zeros(len(observations)),
    )
