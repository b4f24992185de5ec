"""The small measurements that choose the best weights."""

from pathlib import Path

import numpy as np
import pytest

from spslam.frontend.checkpoints import load_superpoint
from spslam.frontend.training.shapes import open_shapes
from spslam.frontend.training.validation import ShapeValidation, best_threshold


def test_the_threshold_separates() -> None:
    distances = np.array([0.1, 0.9, 0.3, 0.5, 0.7, 0.4])
    assert best_threshold(distances, np.array([True, False, True, False, False, True])) == 0.4
    # One false match below costs less than half of the true ones.
    assert best_threshold(distances, np.array([True, False, False, True, False, True])) == 0.5


def test_shapes_are_judged_by_the_mean_of_clean_and_noisy(tmp_path: Path) -> None:
    shapes = open_shapes(tmp_path, 9, (64, 80), 3)
    network = load_superpoint()
    found = ShapeValidation(shapes)(network.train())
    assert network.training
    assert found["metric"] == pytest.approx((found["map_clean"] + found["map_noisy"]) / 2)
    assert found["map_clean"] > found["map_noisy"] > 0.2
