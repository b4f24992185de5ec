"""The motion between two images, and how far points at rest lie from what it allows."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera

# Largest number of corners, and their least distance as a fraction of the image's width.
_CORNERS = 400
_APART = 1 / 64
# Side of the window of optical flow, pixels, and its number of halvings.
_WINDOW, _LEVELS = 15, 4
# Largest distance of a point that was tracked forward and backward from its start, pixels.
_CLOSED_PX = 0.7
# Motion above which a point moves, pixels.
_MOVED_PX = 1.0
# Least number of moving points, and least fraction of them that agree with one motion.
_LEAST_POINTS = 30
_AGREE = 0.5
# Largest distance of an agreeing point from its epipolar line, pixels.
_EPIPOLAR_PX = 0.7
# Least fraction of the image inside the convex hull of agreeing points: fewer may be an object that
# moves by itself.
_LEAST_HULL = 0.2
# Probability with which RANSAC finds the motion.
_CONFIDENCE = 0.999


@dataclass(frozen=True, eq=False)
class PairMotion:
    """Motion from one camera position to another.

    Attributes:
        R: (3, 3) rotation of rays.
        t: (3,) unit translation; arbitrary if the camera only turns.
    """

    R: NDArray[np.float64]
    t: NDArray[np.float64]

    def contradiction(self, rays: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where points at rest would have to be, at the nearest, if they were of the world.

        A point of the world at ray x (z = 1) moves to R x + t / depth: on a straight line that
        begins at the projection of R x, where points at infinity are. The result points from x to
        the nearest position on this line.

        Args:
            rays: (N, 3), z = 1.

        Returns:
            (N, 2), in units of the focal length; NaN where the line is behind the camera.
        """
        turned = rays @ self.R.T
        with np.errstate(divide="ignore", invalid="ignore"):
            infinity = np.where(turned[:, 2:] > 0, turned[:, :2] / turned[:, 2:], np.nan)
        along = self.t[:2] - infinity * self.t[2]
        length = np.sum(along**2, axis=1)
        farthest = 1.0 / self.t[2] if self.t[2] > 1e-9 else np.inf
        position = np.sum((rays[:, :2] - infinity) * along, axis=1) / np.maximum(length, 1e-12)
        nearest = infinity + np.clip(position, 0.0, farthest)[:, None] * along
        return np.asarray(nearest - rays[:, :2], dtype=np.float64)


def pair_motion(
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    camera: Camera,
    allowed: NDArray[np.bool_],
) -> PairMotion | None:
    """Estimate the motion between two images from the points that move.

    Args:
        first: (H, W), an image of `camera`.
        second: (H, W), a later one.
        camera: their camera.
        allowed: (H, W), where points may be.

    Returns:
        The motion; None if too few points move, or if they do not agree with one motion.
    """
    corners = cv2.goodFeaturesToTrack(
        first, _CORNERS, 0.005, max(camera.width * _APART, 3.0), mask=allowed.astype(np.uint8)
    )
    if corners is None or len(corners) < _LEAST_POINTS:
        return None
    start = np.asarray(corners, dtype=np.float32)
    window = (_WINDOW, _WINDOW)
    there, found, _ = cv2.calcOpticalFlowPyrLK(
        first, second, start, start.copy(), winSize=window, maxLevel=_LEVELS
    )
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(
        second, first, there, there.copy(), winSize=window, maxLevel=_LEVELS
    )
    begin, end = start[:, 0], there[:, 0]
    closed = np.linalg.norm(back[:, 0] - begin, axis=1) < _CLOSED_PX
    moved = np.linalg.norm(end - begin, axis=1) > _MOVED_PX
    kept = (found[:, 0] > 0) & (found_back[:, 0] > 0) & closed & moved
    if np.count_nonzero(kept) < _LEAST_POINTS:
        return None
    ideal = camera.without_distortion()
    pixels = [camera.undistort(points[kept].astype(np.float64)) for points in (begin, end)]
    finite = np.isfinite(np.hstack(pixels)).all(axis=1)
    pixels = [points[finite] for points in pixels]
    if len(pixels[0]) < _LEAST_POINTS:
        return None
    cv2.setRNGSeed(0)
    E, inliers = cv2.findEssentialMat(
        pixels[0], pixels[1], ideal.K, cv2.RANSAC, _CONFIDENCE, _EPIPOLAR_PX
    )
    if E is None or E.shape != (3, 3):
        return None
    kept = np.asarray(inliers)[:, 0] > 0
    if np.count_nonzero(kept) < max(_LEAST_POINTS, _AGREE * len(kept)):
        return None
    hull = cv2.contourArea(cv2.convexHull(pixels[0][kept].astype(np.float32)))
    if hull < _LEAST_HULL * camera.width * camera.height:
        return None
    rays = [ideal.unproject(points[kept], np.ones(np.count_nonzero(kept))) for points in pixels]
    return _motion(np.asarray(E, dtype=np.float64), rays[0], rays[1])


def _motion(
    E: NDArray[np.float64], rays0: NDArray[np.float64], rays1: NDArray[np.float64]
) -> PairMotion:
    """Return the motion of an essential matrix, with most points in front of the camera.

    OpenCV's `recoverPose` does not count points that are farther away than 50 baselines, which most
    are between neighbouring images.
    """
    first, second, unit = cv2.decomposeEssentialMat(E)
    # The other rotation is turned by half a turn about the baseline.
    R = np.asarray(first if np.trace(first) > np.trace(second) else second, dtype=np.float64)
    t = np.asarray(unit, dtype=np.float64)[:, 0]
    # depth1 · ray1 = depth0 · R ray0 + t, so that depth0 · (ray1 × R ray0) = -(ray1 × t).
    signs = np.sum(np.cross(rays1, rays0 @ R.T) * -np.cross(rays1, t), axis=1)
    return PairMotion(R, t if np.median(signs) > 0 else -t)
