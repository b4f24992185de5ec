"""Metrics of matchers on pairs of views with known geometry, from their `matches0`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from spslam.typing import FloatArray, IntArray

from ...training.evaluation.homography_metrics import Estimator, area_under_curve, homography_error
from ...training.evaluation.pose_evaluation import matched_pose_error
from ..data.true_matches import IGNORED, ViewPoints, true_matches
from ..data.view_store import View

# Function that matches two views: `matches0` (N0,).
MatchViews = Callable[["MatchPair"], IntArray]
# Largest reprojection error of a right match, in both views, and distance from which a point has no
# match, pixels.
CORRECT_PX, WRONG_PX = 3.0, 5.0
# Limits of the areas under the curves of errors: of corners, pixels, and of poses, degrees.
HOMOGRAPHY_AUC_PX = (1.0, 3.0, 5.0)
POSE_AUC_DEG = (5.0, 10.0, 20.0)
# Error of a pose or homography below which its estimation counts as successful.
_GOOD_CORNER_PX, _GOOD_POSE_DEG = 3.0, 10.0


@dataclass(frozen=True, eq=False)
class Pose:
    """True relative pose of two images of one camera.

    Attributes:
        T_10: (4, 4), camera 0 to camera 1.
        camera_matrix: (3, 3).
    """

    T_10: FloatArray
    camera_matrix: FloatArray


@dataclass(frozen=True, eq=False)
class MatchPair:
    """Two views with known geometry.

    Attributes:
        name: name for messages.
        group: group whose metrics are averaged.
        view0: features of image 0, and what they show.
        view1: the same of image 1.
        shape: height and width of both images, pixels.
        pose: true relative pose; None for a homography.
    """

    name: str
    group: str
    view0: View
    view1: View
    shape: tuple[int, int]
    pose: Pose | None = None

    @property
    def homography(self) -> FloatArray:
        """Homography (3, 3) from pixels of image 0 to pixels of image 1."""
        found = self.view1.projection[:, :3] @ np.linalg.inv(self.view0.projection[:, :3])
        return np.asarray(found / found[2, 2], np.float64)


def evaluate_matcher(
    match: MatchViews, pairs: Iterable[MatchPair], estimator: Estimator = "magsac"
) -> dict[str, dict[str, float]]:
    """Compute the metrics of a matcher by group of pairs.

    Args:
        match: the matcher.
        pairs: the pairs.
        estimator: `magsac` or `ransac`, for homographies; poses are always estimated by MAGSAC.

    Returns:
        For each group `precision` and `recall` (means over pairs), `matches` (mean number),
        `pairs`, and `auc_1`, `auc_3`, `auc_5` of the corner error with `good`, the fraction below
        3 px; for poses `auc_5`, `auc_10`, `auc_20` with `good`, the fraction below 10 degrees.
    """
    rows: dict[str, list[dict[str, float]]] = {}
    for pair in pairs:
        rows.setdefault(pair.group, []).append(pair_metrics(match(pair), pair, estimator))
    return {group: summary(found) for group, found in rows.items()}


def pair_metrics(
    matches: IntArray, pair: MatchPair, estimator: Estimator = "magsac"
) -> dict[str, float]:
    """Return `precision`, `recall`, `matches` and `error` of one pair.

    The error is that of the corners, pixels, or the larger angle of the pose, degrees. Precision
    counts only matches that can be judged. It is NaN without any, and recall without true matches.
    """
    index0, _ = judge(pair)
    matched = matches >= 0
    judged = matched & (index0 != IGNORED)
    right = int((judged & (matches == index0)).sum())
    rows = np.flatnonzero(matched)
    points0 = pair.view0.features.keypoints[rows]
    points1 = pair.view1.features.keypoints[matches[rows]]
    if pair.pose is None:
        error = homography_error(points0, points1, pair.homography, pair.shape, estimator)
    else:
        found = matched_pose_error(
            points0.astype(np.float64),
            points1.astype(np.float64),
            pair.pose.camera_matrix,
            pair.pose.T_10,
        )
        error = max(found.rotation_deg, found.direction_deg)
    return {
        "precision": right / judged.sum() if judged.any() else float("nan"),
        "recall": right / (index0 >= 0).sum() if (index0 >= 0).any() else float("nan"),
        "matches": float(len(rows)),
        "error": error,
        "pose": float(pair.pose is not None),
    }


def judge(pair: MatchPair) -> tuple[IntArray, IntArray]:
    """Return the true matches of both views, see `true_matches`."""
    index0, index1 = true_matches(_points(pair.view0), _points(pair.view1), CORRECT_PX, WRONG_PX)
    return index0[0].numpy(), index1[0].numpy()


def _points(view: View) -> ViewPoints:
    return ViewPoints(
        torch.from_numpy(view.features.keypoints)[None],
        torch.from_numpy(view.places)[None],
        torch.from_numpy(view.projection)[None],
        torch.ones((1, len(view.places)), dtype=torch.bool),
    )


def summary(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the metrics of a group from those of its pairs (see `evaluate_matcher`)."""
    errors = np.array([row["error"] for row in rows])
    means = {key: _mean([row[key] for row in rows]) for key in ("precision", "recall", "matches")}
    pose = bool(rows[0]["pose"])
    limits = POSE_AUC_DEG if pose else HOMOGRAPHY_AUC_PX
    areas = {f"auc_{limit:g}": area_under_curve(errors, limit) for limit in limits}
    good = float(np.mean(errors <= (_GOOD_POSE_DEG if pose else _GOOD_CORNER_PX)))
    return {**means, **areas, "good": good, "pairs": float(len(rows))}


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
