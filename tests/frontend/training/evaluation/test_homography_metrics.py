"""Metrics of two images with a known homography."""

import numpy as np
import pytest
from numpy.typing import NDArray

from spslam.frame import Features
from spslam.frontend.training.evaluation import homography_metrics as metrics

SHAPE = (240, 320)
SHIFT = np.array([[1.0, 0.0, 20.0], [0.0, 1.0, -10.0], [0.0, 0.0, 1.0]])


def grid_features(step: int = 20, seed: int = 0) -> Features:
    """Points on a grid, with random scores and descriptors."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(5, SHAPE[1], step), np.arange(5, SHAPE[0], step))
    points = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    descriptors = rng.normal(size=(len(points), 64)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return Features(points, rng.uniform(size=len(points)).astype(np.float32), descriptors)


def moved(
    features: Features, homography: NDArray[np.float64], offset: tuple[float, float] = (0.0, 0.0)
) -> Features:
    """Features as another image sees them, without those outside it."""
    points = (metrics.warp_points(features.keypoints, homography) + offset).astype(np.float32)
    inside = np.all((points >= 0) & (points <= [SHAPE[1] - 1, SHAPE[0] - 1]), axis=1)
    return Features(points, features.scores, features.descriptors).select(inside)


def test_warp_points_drops_points_behind_the_camera() -> None:
    homography = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-0.01, 0.0, 1.0]])
    mapped = metrics.warp_points(np.array([[50.0, 10.0], [150.0, 10.0]]), homography)
    np.testing.assert_allclose(mapped[0], [100.0, 20.0])
    assert np.isnan(mapped[1]).all()


def test_exact_agreement_gives_the_best_metrics() -> None:
    features = grid_features()
    other = moved(features, SHIFT)
    localisation = metrics.localisation_scores(features, other, SHIFT, SHAPE)
    assert localisation == pytest.approx({"repeatability": 1.0, "mle_px": 0.0}, abs=1e-5)
    matching = metrics.matching_scores(features, other, SHIFT, SHAPE)
    assert set(matching) == set(metrics.MATCHING_METRICS)
    assert matching == pytest.approx(dict.fromkeys(metrics.MATCHING_METRICS, 1.0), abs=1e-3)


@pytest.mark.parametrize(("offset", "repeatability"), [((1.2, 1.6), 1.0), ((0.0, 3.2), 0.0)])
def test_localisation_error_of_moved_points(
    offset: tuple[float, float], repeatability: float
) -> None:
    features = grid_features()
    # Stay away from the border, so that the same points are in both images.
    features = features.select(
        np.all((features.keypoints > 40) & (features.keypoints < [260, 190]), axis=1)
    )
    scores = metrics.localisation_scores(features, moved(features, SHIFT, offset), SHIFT, SHAPE)
    assert scores["repeatability"] == repeatability
    assert (
        np.isnan(scores["mle_px"])
        if repeatability == 0
        else scores["mle_px"] == pytest.approx(2.0, abs=1e-4)
    )


def test_errors_are_measured_in_both_images() -> None:
    features = grid_features(40)
    features = features.select(np.all(features.keypoints < [140, 100], axis=1))
    double = np.diag([2.0, 2.0, 1.0])
    scores = metrics.localisation_scores(
        features, moved(features, double, (2.0, 0.0)), double, SHAPE
    )
    assert scores["mle_px"] == pytest.approx(1.5, abs=1e-4)


def test_only_the_best_points_of_the_shared_area_count() -> None:
    features = grid_features()
    rng = np.random.default_rng(1)
    # These score higher but lie outside what image 1 sees, so they must not count.
    left = Features(
        np.stack([np.arange(2, 300, 10), np.full(30, 4)], axis=1).astype(np.float32),
        np.full(30, 9.0, np.float32),
        rng.normal(size=(30, 64)).astype(np.float32),
    )
    both = Features(
        *(np.concatenate(pair) for pair in zip(_arrays(left), _arrays(features), strict=True))
    )
    scores = metrics.localisation_scores(both, moved(features, SHIFT), SHIFT, SHAPE, count=50)
    assert scores["repeatability"] == 1.0
    # A detector half as good: every second of the best points is not repeated.
    kept = np.ones(len(features), np.bool_)
    inside = np.flatnonzero(
        np.all((features.keypoints[:, :2] < [300, 400]) & (features.keypoints >= 10), axis=1)
    )
    kept[inside[::2]] = False
    lost = metrics.localisation_scores(features, moved(features.select(kept), SHIFT), SHIFT, SHAPE)
    assert 0.6 < lost["repeatability"] < 0.75


def test_wrong_descriptors_lower_the_matching_metrics() -> None:
    features = grid_features()
    other = moved(features, SHIFT)
    descriptors = other.descriptors.copy()
    swapped = np.arange(0, len(other), 2)
    descriptors[swapped] = descriptors[np.roll(swapped, 1)]
    scores = metrics.matching_scores(
        features, Features(other.keypoints, other.scores, descriptors), SHIFT, SHAPE
    )
    for key in ("matching_score", "mma_1", "mma_5"):
        assert scores[key] == pytest.approx(0.5, abs=0.01)
    assert scores["nn_map"] < 0.6
    assert scores["homography_accuracy_1"] == 1.0


def test_binary_descriptors() -> None:
    features = grid_features()
    bits = np.random.default_rng(0).integers(0, 256, (len(features), 32), dtype=np.uint8)
    features = Features(features.keypoints, features.scores, bits)
    assert metrics.matching_scores(features, moved(features, SHIFT), SHIFT, SHAPE)["mma_1"] == 1.0


@pytest.mark.parametrize("count", [0, 2])
def test_too_few_features_count_as_a_failure(count: int) -> None:
    few = grid_features().select(np.arange(count) + 50)
    for pair in ((few, grid_features()), (grid_features(), few), (few, few)):
        scores = metrics.matching_scores(*pair, SHIFT, SHAPE)
        assert scores["homography_accuracy_5"] == scores["auc_5"] == 0.0
        assert np.isfinite(list(scores.values())).all()
    assert (
        metrics.localisation_scores(few.select(np.arange(0)), few, SHIFT, SHAPE)["repeatability"]
        == 0.0
    )


def test_homography_error_is_the_mean_corner_error() -> None:
    features = grid_features()
    other = moved(features, np.eye(3), (3.0, 4.0))
    kept = metrics.in_shared_area(features, np.array([[1, 0, 3.0], [0, 1, 4.0], [0, 0, 1]]), SHAPE)
    error = metrics.homography_error(kept.keypoints, other.keypoints, np.eye(3), SHAPE)
    assert error == pytest.approx(5.0, abs=1e-3)


def test_magsac_is_more_accurate_than_ransac_on_noisy_matches() -> None:
    homography = np.array([[1.02, 0.05, 3.0], [-0.04, 0.98, 2.0], [1e-4, -5e-5, 1.0]])
    size = np.array([SHAPE[1] - 1, SHAPE[0] - 1])
    errors = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        points = rng.uniform(0, size, (500, 2)).astype(np.float32)
        others = (
            metrics.warp_points(points, homography) + rng.normal(0, 1.5, points.shape)
        ).astype(np.float32)
        others[::3] = rng.uniform(0, size, others[::3].shape)
        pair = (points, others, homography, SHAPE)
        errors.append(
            [metrics.homography_error(*pair, "ransac"), metrics.homography_error(*pair, "magsac")]
        )
    plain, fitted = np.median(errors, axis=0)
    assert fitted < 0.75 * plain
    assert fitted < 0.8


def test_suppress_near_keeps_the_better_of_near_points() -> None:
    points = np.array([[10, 10], [13, 14], [15.4, 10], [18.2, 10.1]], np.float32)
    features = Features(
        points, np.array([0.5, 0.9, 0.2, 0.6], np.float32), np.zeros((4, 8), np.float32)
    )
    kept = metrics.suppress_near(features)
    np.testing.assert_array_equal(kept.scores, np.array([0.9, 0.6], np.float32))
    assert len(metrics.suppress_near(features, 0)) == 4
    assert len(metrics.suppress_near(features.select(np.arange(0)))) == 0


def test_average_precision() -> None:
    right, wrong = True, False
    assert metrics.average_precision(np.array([right, right]), 2) == 1.0
    assert metrics.average_precision(np.array([right, wrong]), 2) == 0.5
    assert metrics.average_precision(np.array([wrong, right, right]), 2) == pytest.approx(2 / 3)
    assert metrics.average_precision(np.array([wrong]), 2) == 0.0
    assert np.isnan(metrics.average_precision(np.array([wrong]), 0))


def test_area_under_curve() -> None:
    assert metrics.area_under_curve(
        np.array([0.0, 2.5, 5.0, 80.0, np.inf, np.nan]), 5.0
    ) == pytest.approx(1.5 / 6)


def _arrays(features: Features) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return features.keypoints, features.scores, features.descriptors
