"""True matches of two views, from homographies and from depth."""

import numpy as np
import torch

from spslam.frame import Features
from spslam.frontend.learned_matching.data.true_matches import (
    IGNORED,
    ViewPoints,
    true_matches,
)
from spslam.frontend.learned_matching.data.view_store import View
from spslam.frontend.learned_matching.data.views import PosedImage, world_places
from spslam.frontend.learned_matching.evaluation.metrics import (
    MatchPair,
    Pose,
    evaluate_matcher,
    judge,
)
from spslam.frontend.learned_matching.torch_matching import UNMATCHED
from spslam.typing import FloatArray

K = np.array([[200.0, 0, 160], [0, 200.0, 120], [0, 0, 1]])


def inverse(matrix: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.inv(matrix), np.float64)


def plane_view(keypoints: FloatArray, homography: FloatArray) -> ViewPoints:
    places = np.c_[keypoints, np.ones(len(keypoints))] @ np.linalg.inv(homography).T
    places = np.c_[places[:, :2] / places[:, 2:], np.ones(len(keypoints))]
    return ViewPoints(
        torch.from_numpy(keypoints)[None],
        torch.from_numpy(places)[None],
        torch.from_numpy(np.c_[homography, np.zeros(3)])[None],
        torch.ones(1, len(keypoints), dtype=torch.bool),
    )


def test_near_points_match_and_far_points_do_not() -> None:
    shift = np.array([[1.0, 0, 30], [0, 1, 10], [0, 0, 1]])
    first = plane_view(np.array([[10.0, 10], [50, 50], [90, 20], [130, 90]]), np.eye(3))
    # Off by 1 px, by 3.5 px (not judged), without a partner, and exact but twice.
    second = plane_view(np.array([[160.0, 100], [41, 20], [83.5, 60], [161.5, 100]]), shift)
    index0, index1 = true_matches(first, second, 3.0, 4.0)
    assert index0[0].tolist() == [1, IGNORED, UNMATCHED, 0]
    # The second point near the last match is not its partner, and not without one.
    assert index1[0].tolist() == [3, 0, IGNORED, IGNORED]


def test_a_point_of_unknown_place_may_be_the_match() -> None:
    first = plane_view(np.array([[10.0, 10], [50, 50], [90, 20]]), np.eye(3))
    second = plane_view(np.array([[11.0, 10], [50, 50], [150, 90]]), np.eye(3))
    second.places[0, 0] = torch.nan
    index0, index1 = true_matches(first, second, 3.0, 4.0)
    # Beside the first point lies one of unknown place; nothing lies beside the last one.
    assert index0[0].tolist() == [IGNORED, 1, UNMATCHED]
    assert index1[0].tolist() == [IGNORED, 1, UNMATCHED]


def test_an_error_counts_in_the_larger_view() -> None:
    twice = np.diag([2.0, 2.0, 1.0])
    first = plane_view(np.array([[10.0, 10], [50, 50]]), np.eye(3))
    second = plane_view(np.array([[22.0, 20], [104, 100]]), twice)
    index0, _ = true_matches(first, second, 3.0, 8.0)
    # 2 px in the larger view is 1 px in the smaller one; 4 px is too far, though 2 px there.
    assert index0[0].tolist() == [0, IGNORED]


def posed(T_world_cam: FloatArray, depth: FloatArray) -> PosedImage:
    image = np.zeros(depth.shape, np.uint8)
    return PosedImage(image, depth.astype(np.float32), T_world_cam, K)


def posed_view(image: PosedImage, keypoints: FloatArray) -> View:
    points = keypoints.astype(np.float32)
    features = Features(
        points, np.ones(len(points), np.float32), np.eye(len(points), 8, dtype=np.float32)
    )
    projection = K @ np.linalg.inv(image.T_world_cam)[:3]
    return View(features, world_places(image, points), projection)


def test_an_occluded_point_has_no_match() -> None:
    near, far = np.full((240, 320), 2.0), np.full((240, 320), 4.0)
    aside = np.eye(4)
    aside[0, 3] = 0.4
    # Camera 1 stands 0.4 m to the right: a point at 4 m moves 20 px to the left.
    first = posed_view(posed(np.eye(4), far), np.array([[160.0, 120], [200, 60]]))
    seen = posed_view(posed(aside, far), np.array([[140.0, 120], [180, 60]]))
    pair = MatchPair("seen", "worlds", first, seen, (240, 320), Pose(inverse(aside), K))
    assert judge(pair)[0].tolist() == [0, 1]
    hidden = posed_view(posed(aside, near), np.array([[140.0, 120], [180, 60]]))
    pair = MatchPair("hidden", "worlds", first, hidden, (240, 320), Pose(inverse(aside), K))
    assert judge(pair)[0].tolist() == [UNMATCHED, UNMATCHED]


def test_perfect_matches_have_perfect_metrics() -> None:
    rng = np.random.default_rng(0)
    turned = np.array([[0.8, -0.3, 60], [0.3, 0.8, 10], [1e-4, 0, 1]])
    keypoints = rng.uniform(20, 220, (80, 2))
    lifted = np.c_[keypoints, np.ones(80)] @ turned.T
    views = []
    for points, homography in ((keypoints, np.eye(3)), (lifted[:, :2] / lifted[:, 2:], turned)):
        features = Features(
            points.astype(np.float32), np.ones(80, np.float32), np.ones((80, 8), np.float32)
        )
        places = np.c_[keypoints, np.ones(80)]
        views.append(View(features, places, np.c_[homography, np.zeros(3)]))
    pair = MatchPair("plane", "photos", views[0], views[1], (240, 320))
    whole = evaluate_matcher(lambda given: np.arange(80), [pair])["photos"]
    assert whole["precision"] == whole["recall"] == whole["good"] == 1
    assert whole["auc_1"] > 0.95
    half = evaluate_matcher(
        lambda given: np.where(np.arange(80) % 2, np.arange(80), (np.arange(80) + 7) % 80), [pair]
    )["photos"]
    assert abs(half["recall"] - 0.5) < 0.02
    assert abs(half["precision"] - 0.5) < 0.02
    none = evaluate_matcher(lambda given: np.full(80, -1), [pair])["photos"]
    assert none["recall"] == none["auc_5"] == 0
