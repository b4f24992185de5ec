"""Evaluation of features by the relative pose of two frames, from the essential matrix."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from spslam.frame import Features, unit_descriptors
from spslam.interfaces import Extractor
from spslam.typing import FloatArray, UInt8Array

from ...matching.matching import DescriptorMatcher
from .homography_metrics import area_under_curve

# Distances between the two frames, frames.
POSE_GAPS = (1, 5)
# Limit of the area under the curve of pose errors, degrees.
AUC_DEG = 5.0
# Largest distance of an inlier from its epipolar line, pixels.
_RANSAC_PX = 1.0
# Probability of a sample without outliers at which sampling ends.
_RANSAC_CONFIDENCE = 0.9999
# Fewest matches for an estimate.
_LEAST_MATCHES = 8
# Shortest true motion that is evaluated, metres: a standing camera has no direction of motion.
_LEAST_MOTION_M = 0.05


@dataclass(frozen=True)
class RelativePoseError:
    """Errors of one estimated relative pose.

    Attributes:
        rotation_deg: angle between the rotations, degrees; 180 if the estimation failed.
        direction_deg: angle between the translations, degrees; 180 if the estimation failed.
        inliers: number of matches that agree with the estimate.
    """

    rotation_deg: float
    direction_deg: float
    inliers: int


def evaluate_pose(
    extractor: Extractor,
    frames: Iterable[tuple[UInt8Array, FloatArray, FloatArray]],
    gaps: Sequence[int] = POSE_GAPS,
) -> dict[str, dict[str, float]]:
    """Compute the errors of the motion between frames that are `gaps` apart.

    Args:
        extractor: extractor to evaluate; mutual nearest neighbours are matched.
        frames: undistorted image (H, W) uint8, `T_world_cam` (4, 4) and camera matrix (3, 3) of
            each frame, in the order of time.
        gaps: distances in frames.

    Returns:
        `gap_1`, `gap_5`, …: medians `rotation_deg`, `direction_deg` and `inliers`; `auc_5`, the
        area under the cumulative curve of the larger angle up to 5 degrees; number of `pairs`.
        Pairs without motion are left out.
    """
    errors: dict[int, list[RelativePoseError]] = {gap: [] for gap in gaps}
    window: deque[tuple[Features, FloatArray]] = deque(maxlen=max(gaps) + 1)
    for image, T_world_cam, camera_matrix in frames:
        window.append((extractor.extract(image), T_world_cam))
        for gap in gaps:
            if gap >= len(window):
                continue
            (features0, T_world_cam0), (features1, T_world_cam1) = window[-1 - gap], window[-1]
            T_10 = np.linalg.inv(T_world_cam1) @ T_world_cam0
            if np.linalg.norm(T_10[:3, 3]) >= _LEAST_MOTION_M:
                errors[gap].append(relative_pose_error(features0, features1, camera_matrix, T_10))
    return {f"gap_{gap}": _summary(found) for gap, found in errors.items() if found}


def relative_pose_error(
    features0: Features, features1: Features, camera_matrix: FloatArray, T_10: FloatArray
) -> RelativePoseError:
    """Compare the motion estimated from the features of two images with the true one.

    Args:
        features0: features of the first image.
        features1: features of the second image.
        camera_matrix: (3, 3), of both images.
        T_10: (4, 4), true motion; maps points of the first camera to the second.
    """
    descriptors0, descriptors1 = (
        unit_descriptors(features0.descriptors),
        unit_descriptors(features1.descriptors),
    )
    matches = DescriptorMatcher().match(descriptors0, descriptors1, np.inf)
    rows = np.flatnonzero(matches >= 0)
    points0 = features0.keypoints[rows].astype(np.float64)
    points1 = features1.keypoints[matches[rows]].astype(np.float64)
    return matched_pose_error(points0, points1, camera_matrix, T_10)


def matched_pose_error(
    points0: FloatArray, points1: FloatArray, camera_matrix: FloatArray, T_10: FloatArray
) -> RelativePoseError:
    """Compare the motion estimated from matched pixels (N, 2) with the true one."""
    failure = RelativePoseError(180.0, 180.0, 0)
    if len(points0) < _LEAST_MATCHES:
        return failure
    cv2.setRNGSeed(0)
    essential, mask = cv2.findEssentialMat(
        points0, points1, camera_matrix, cv2.USAC_MAGSAC, _RANSAC_CONFIDENCE, _RANSAC_PX
    )
    if essential is None or essential.shape != (3, 3):
        return failure
    inliers = int(np.count_nonzero(mask))
    _, rotation, translation, _ = cv2.recoverPose(
        essential, points0, points1, camera_matrix, mask=mask
    )
    cosine = 0.5 * float(np.trace(rotation.T @ T_10[:3, :3]) - 1.0)
    along = float(translation[:, 0] @ T_10[:3, 3] / np.linalg.norm(T_10[:3, 3]))
    return RelativePoseError(_angle(cosine), _angle(along), inliers)


def _angle(cosine: float) -> float:
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def _summary(errors: list[RelativePoseError]) -> dict[str, float]:
    rotation = np.array([error.rotation_deg for error in errors])
    direction = np.array([error.direction_deg for error in errors])
    return {
        "rotation_deg": float(np.median(rotation)),
        "direction_deg": float(np.median(direction)),
        "auc_5": area_under_curve(np.maximum(rotation, direction), AUC_DEG),
        "inliers": float(np.median([error.inliers for error in errors])),
        "pairs": float(len(errors)),
    }
