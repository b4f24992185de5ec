"""Metrics of the features of two images with a known homography.

Repeatability, localisation error, nearest-neighbour mAP, matching score and homography accuracy:
DeTone, Malisiewicz, Rabinovich: SuperPoint, CVPR workshops 2018, section 7 and appendices A to C.
Mean matching accuracy: Mikolajczyk & Schmid, A performance evaluation of local descriptors, PAMI
2005.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.frame import Features, unit_descriptors
from spslam.typing import BoolArray, FloatArray

from ...matching.matching import DescriptorMatcher
from ...superpoint.keypoints import suppress

Estimator = Literal["ransac", "magsac"]

# Names of the metrics that need keypoints only.
LOCALISATION_METRICS = ("repeatability", "mle_px")
# Names of the metrics that need descriptors.
MATCHING_METRICS = (
    "homography_accuracy_1",
    "homography_accuracy_3",
    "homography_accuracy_5",
    "nn_map",
    "matching_score",
    "mma_1",
    "mma_3",
    "mma_5",
    "auc_5",
)
# Names of all metrics.
METRICS = (*LOCALISATION_METRICS, *MATCHING_METRICS)

# Largest distance of a correct point or match, pixels.
CORRECT_PX = 3.0
# Radius of the non-maximum suppression before localisation metrics, pixels.
NMS_RADIUS = 4
# Thresholds of the accuracies, pixels.
ACCURACIES_PX = (1, 3, 5)
# Limit of the area under the curve of corner errors, pixels.
AUC_PX = 5.0
# Plain RANSAC returns the best sample of four points. MAGSAC++ (Barath et al., CVPR 2020) refines
# samples with the matches around, so its error depends less on the sampling.
_ESTIMATORS = {"ransac": cv2.RANSAC, "magsac": cv2.USAC_MAGSAC}
# Largest distance of an inlier, pixels.
_RANSAC_PX = 3.0
# Most samples.
_RANSAC_ITERATIONS = 5000
# Probability of a sample without outliers at which sampling ends.
_RANSAC_CONFIDENCE = 0.9995


def warp_points(points: NDArray[np.floating], homography: FloatArray) -> FloatArray:
    """Map pixels (N, 2) by a homography (3, 3); NaN for points at infinity or behind the camera."""
    mapped = np.c_[points.astype(np.float64), np.ones(len(points))] @ homography.T
    depth = np.where(mapped[:, 2:] > 1e-9, mapped[:, 2:], np.nan)
    return np.asarray(mapped[:, :2] / depth, np.float64)


def in_shared_area(features: Features, homography: FloatArray, shape: tuple[int, ...]) -> Features:
    """Return the features whose keypoints `homography` maps into the other image, of `shape`."""
    mapped = warp_points(features.keypoints, homography)
    height, width = shape[0], shape[1]
    return features.select(np.all((mapped >= 0) & (mapped <= [width - 1, height - 1]), axis=1))


def best_features(features: Features, count: int) -> Features:
    """Return the `count` features with the highest scores, best first."""
    return features.select(np.argsort(-features.scores, kind="stable")[:count])


def suppress_near(features: Features, radius: int = NMS_RADIUS) -> Features:
    """Suppress features within a square of `radius` pixels around a better one; best first.

    This is greedy non-maximum suppression.
    """
    best_first = np.argsort(-features.scores, kind="stable")
    columns, rows = np.rint(features.keypoints[best_first].T).astype(np.int64)
    return features.select(best_first[suppress(rows, columns, radius)])


def average_precision(correct: BoolArray, total: int) -> float:
    """Return the area under the precision-recall curve of answers (N,), best first.

    The curve is interpolated from the right. NaN if there is nothing to find (`total` is 0).
    """
    if total == 0:
        return float("nan")
    precision = np.cumsum(correct) / np.arange(1, len(correct) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[correct].sum() / total)


def area_under_curve(errors: FloatArray, limit: float) -> float:
    """Return the area, 0 to 1, under the cumulative curve of errors (N,) up to `limit`.

    NaN stands for a failure.
    """
    return float(np.mean(np.clip(1.0 - np.nan_to_num(errors, nan=np.inf) / limit, 0.0, 1.0)))


def localisation_scores(
    features0: Features,
    features1: Features,
    homography: FloatArray,
    shape: tuple[int, ...],
    count: int = 300,
    correct_px: float = CORRECT_PX,
) -> dict[str, float]:
    """Compute repeatability and mean localisation error (pixels) of the best points.

    Points near better ones are dropped first for every extractor, because crowded points are
    repeated by chance. The best `count` points in the shared area remain. A point is repeated if it
    is mapped within `correct_px` pixels of a point of the other image; both directions have the
    same weight.
    """
    backward = _inverse(homography)
    shared0 = in_shared_area(suppress_near(features0), homography, shape)
    shared1 = in_shared_area(suppress_near(features1), backward, shape)
    keypoints0, keypoints1 = (
        best_features(shared0, count).keypoints,
        best_features(shared1, count).keypoints,
    )
    errors = np.concatenate(
        [
            nearest_distance(warp_points(keypoints0, homography), keypoints1),
            nearest_distance(warp_points(keypoints1, backward), keypoints0),
        ]
    )
    repeated = errors <= correct_px
    return {
        "repeatability": float(repeated.mean()) if len(errors) else 0.0,
        "mle_px": float(errors[repeated].mean()) if repeated.any() else float("nan"),
    }


def matching_scores(
    features0: Features,
    features1: Features,
    homography: FloatArray,
    shape: tuple[int, ...],
    estimator: Estimator = "ransac",
) -> dict[str, float]:
    """Compute the descriptor metrics (`MATCHING_METRICS`) of the features in the shared area."""
    backward = _inverse(homography)
    features0 = in_shared_area(features0, homography, shape)
    features1 = in_shared_area(features1, backward, shape)
    errors = pairwise_distance(warp_points(features0.keypoints, homography), features1.keypoints)
    back_errors = pairwise_distance(warp_points(features1.keypoints, backward), features0.keypoints)
    descriptors0, descriptors1 = (
        unit_descriptors(features0.descriptors),
        unit_descriptors(features1.descriptors),
    )
    matches = DescriptorMatcher().match(descriptors0, descriptors1, np.inf)
    rows = np.flatnonzero(matches >= 0)
    error = errors[rows, matches[rows]]
    corner_error = homography_error(
        features0.keypoints[rows], features1.keypoints[matches[rows]], homography, shape, estimator
    )
    scores = {
        f"homography_accuracy_{limit}": float(corner_error <= limit) for limit in ACCURACIES_PX
    }
    similarity = (
        descriptors0 @ descriptors1.T
        if len(features0) and len(features1)
        else np.zeros(errors.shape)
    )
    directions = (_nearest_map(similarity, errors), _nearest_map(similarity.T, back_errors))
    # NaN (nothing to find) counts as zero.
    scores["nn_map"] = float(np.nan_to_num(directions).mean())
    found = np.array(
        [(error <= CORRECT_PX).sum(), (back_errors[matches[rows], rows] <= CORRECT_PX).sum()]
    )
    scores["matching_score"] = float(
        np.mean(found / np.maximum([len(features0), len(features1)], 1))
    )
    for limit in ACCURACIES_PX:
        scores[f"mma_{limit}"] = float(np.mean(error <= limit)) if len(error) else 0.0
    scores["auc_5"] = area_under_curve(np.array([corner_error]), AUC_PX)
    return scores


def homography_error(
    points0: NDArray[np.float32],
    points1: NDArray[np.float32],
    homography: FloatArray,
    shape: tuple[int, ...],
    estimator: Estimator = "ransac",
) -> float:
    """Return the mean corner error, pixels, of the homography estimated from matches (N, 2).

    Infinite if the estimation fails.
    """
    if len(points0) < 4:
        return float("inf")
    cv2.setRNGSeed(0)
    estimate, _ = cv2.findHomography(
        points0,
        points1,
        _ESTIMATORS[estimator],
        _RANSAC_PX,
        maxIters=_RANSAC_ITERATIONS,
        confidence=_RANSAC_CONFIDENCE,
    )
    if estimate is None:
        return float("inf")
    height, width = shape[0], shape[1]
    corners = np.array(
        [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64
    )
    error = np.linalg.norm(
        warp_points(corners, np.asarray(estimate, np.float64)) - warp_points(corners, homography),
        axis=1,
    ).mean()
    return float(np.nan_to_num(error, nan=np.inf))


def pairwise_distance(points0: NDArray[np.floating], points1: NDArray[np.floating]) -> FloatArray:
    """Return distances (N, M) between points (N, 2) and (M, 2); infinite for NaN points."""
    difference = points0[:, None].astype(np.float64) - points1[None].astype(np.float64)
    return np.asarray(np.nan_to_num(np.linalg.norm(difference, axis=2), nan=np.inf), np.float64)


def nearest_distance(points0: NDArray[np.floating], points1: NDArray[np.floating]) -> FloatArray:
    """Return the distance (N,) of points (N, 2) to the nearest of (M, 2); infinite if M is 0."""
    return np.asarray(pairwise_distance(points0, points1).min(axis=1, initial=np.inf), np.float64)


def _inverse(homography: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.inv(homography), np.float64)


def _nearest_map(similarity: NDArray[np.floating], errors: FloatArray) -> float:
    """Return the average precision of each row's nearest neighbour, ranked by similarity."""
    if not similarity.size:
        return float("nan")
    nearest = similarity.argmax(axis=1)
    rows = np.arange(len(similarity))
    order = np.argsort(-similarity[rows, nearest], kind="stable")
    correct = errors[rows, nearest] <= CORRECT_PX
    return average_precision(correct[order], int((errors <= CORRECT_PX).any(axis=1).sum()))
