"""The validation metrics that choose the best weights."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from spslam.frontend.superpoint.checkpoints import load_superpoint
from spslam.frontend.training.data.shapes.cache import open_shapes
from spslam.frontend.training.evaluation.validation import PairValidation, ShapeValidation


def test_nearly_all_true_matches_are_within_the_matching_distance(tmp_path: Path) -> None:
    photo = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (240, 320), np.uint8), (0, 0), 2.0
    )
    cv2.imwrite(str(tmp_path / "a.png"), cv2.normalize(photo, photo, 0, 255, cv2.NORM_MINMAX))
    validation = PairValidation([tmp_path / "a.png"], 1, descriptors=True)
    assert 0.5 < validation.matching_distance(load_superpoint()) < 0.9
    # Without features the metrics are undefined.
    cv2.imwrite(str(tmp_path / "a.png"), np.full((240, 320), 128, np.uint8))
    blank = PairValidation([tmp_path / "a.png"], 1, descriptors=True)
    assert blank.matching_distance(load_superpoint()) > 0


def test_the_shapes_metric_is_the_mean_of_clean_and_noisy(tmp_path: Path) -> None:
    shapes = open_shapes(tmp_path, 9, (64, 80), 3)
    network = load_superpoint()
    found = ShapeValidation(shapes)(network.train())
    assert network.training
    assert found["metric"] == pytest.approx((found["map_clean"] + found["map_noisy"]) / 2)
    assert found["map_clean"] > found["map_noisy"] > 0.2
