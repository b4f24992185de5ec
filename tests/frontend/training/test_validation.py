"""The small measurements that choose the best weights."""

import numpy as np
import pytest

from spslam.frontend.training.validation import best_threshold, correct_detections, mean_average_precision


def test_the_threshold_separates() -> None:
    distances = np.array([0.1, 0.9, 0.3, 0.5, 0.7, 0.4])
    assert best_threshold(distances, np.array([True, False, True, False, False, True])) == 0.4
    # One false match below costs less than half of the true ones.
    assert best_threshold(distances, np.array([True, False, False, True, False, True])) == 0.5


def test_a_corner_is_found_once() -> None:
    corners = np.array([[10, 10], [30, 30]], np.float32)
    keypoints = np.array([[11, 10], [10, 11], [50, 50], [30, 33]], np.float32)
    np.testing.assert_array_equal(correct_detections(keypoints, corners, 4.0), [True, False, False, True])


def test_mean_average_precision() -> None:
    corners = np.array([[10, 10], [30, 30]], np.float32)
    scores = np.array([0.9, 0.5], np.float32)
    perfect, half, nothing = (corners, scores), (corners[:1], scores[:1]), (corners[:0], scores[:0])
    assert mean_average_precision([perfect], [corners]) == 1
    assert mean_average_precision([half], [corners]) == 0.5
    assert mean_average_precision([perfect, nothing], [corners, corners]) == 0.5
    # Images without corners say nothing about precision here.
    assert mean_average_precision([perfect, perfect], [corners, corners[:0]]) == 1
    assert mean_average_precision([], []) == pytest.approx(0)
