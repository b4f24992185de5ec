"""Evaluation on corners of synthetic shapes."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from spslam.config import FeatureConfig
from spslam.frontend.extractors.registry import create_extractor
from spslam.frontend.training.evaluation import shapes_evaluation as evaluation


class Squares:
    """Bright squares, half of the images without any label."""

    def __init__(self, count: int = 6) -> None:
        rng = np.random.default_rng(0)
        self.images = np.full((count, 96, 128), 60, np.uint8)
        self.primitives = (np.arange(count) % 2).astype(np.uint8)
        self._corners = np.zeros((count, 4, 2), np.float32)
        for i in range(count):
            x, y = (int(value) for value in rng.integers(20, 40, 2))
            cv2.rectangle(self.images[i], (x, y), (x + 40, y + 35), 200, -1)
            # FAST keeps none of several equal neighbours.
            self.images[i] = cv2.GaussianBlur(self.images[i], (0, 0), 0.8)
            self._corners[i] = [[x, y], [x + 40, y], [x, y + 35], [x + 40, y + 35]]

    def corners(self, index: int) -> NDArray[np.float32]:
        return self._corners[index] if self.primitives[index] == 0 else np.zeros((0, 2), np.float32)


SQUARES = Squares()


@pytest.mark.parametrize("name", list(evaluation.OPENCV_DETECTORS))
def test_opencv_detectors_find_corners(name: str) -> None:
    keypoints, scores = evaluation.OPENCV_DETECTORS[name](SQUARES.images[0])
    assert len(keypoints) == len(scores) >= 4
    assert np.all(np.diff(scores) <= 0)
    assert np.isfinite(evaluation.detection_errors(keypoints, SQUARES.corners(0))).sum() == 4


def test_each_corner_is_counted_once() -> None:
    corners = np.array([[10.0, 10.0], [14.0, 10.0]], np.float32)
    found = np.array([[11.0, 10.0], [10.0, 10.0], [10.0, 11.0], [40.0, 10.0]], np.float32)
    # The second match takes the next one within reach; the third finds none.
    np.testing.assert_allclose(
        evaluation.detection_errors(found, corners), [1.0, 4.0, np.inf, np.inf]
    )
    assert np.isinf(evaluation.detection_errors(found, corners[:0])).all()


def test_an_oracle_has_perfect_average_precision() -> None:
    by_image = {SQUARES.images[i].tobytes(): SQUARES.corners(i) for i in range(len(SQUARES.images))}

    def oracle(image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        corners = by_image.get(image.tobytes(), np.zeros((0, 2), np.float32))
        return corners + np.array([0.0, 1.5], np.float32), np.ones(len(corners), np.float32)

    scores = evaluation.evaluate_shapes(oracle, SQUARES, ("square", "nothing"))
    assert scores["clean"]["map"] == scores["clean"]["ap"] == 1.0
    assert scores["clean"]["mle_px"] == pytest.approx(1.5)
    assert list(scores["clean"]["primitives"]) == ["square"]
    # The oracle knows nothing about a noisy image.
    assert scores["noisy"]["map"] == 0.0
    assert np.isnan(scores["noisy"]["mle_px"])


def test_false_detections_in_images_without_corners_lower_only_ap() -> None:
    scores = evaluation.evaluate_shapes(evaluation.detect_harris, SQUARES, ("square", "nothing"))[
        "clean"
    ]
    assert scores["map"] == scores["primitives"]["square"]["ap"] > scores["ap"] + 0.2


def test_noise_is_seeded_and_keeps_the_shape() -> None:
    image = SQUARES.images[0]
    noisy = evaluation.shape_noise(np.random.default_rng(5), image)
    np.testing.assert_array_equal(noisy, evaluation.shape_noise(np.random.default_rng(5), image))
    assert noisy.dtype == np.uint8
    assert np.abs(noisy.astype(float) - image).mean() > 2
    assert np.corrcoef(noisy.ravel(), image.ravel())[0, 1] > 0.7


def test_nonmaximum_suppression_thins_the_points_of_an_extractor() -> None:
    detect = evaluation.detector_of(
        create_extractor(FeatureConfig(extractor="orb", border=0, spread_cell=0))
    )
    keypoints, scores = detect(SQUARES.images[0])
    apart = np.abs(np.rint(keypoints)[:, None] - np.rint(keypoints)[None]).max(axis=2)
    assert np.all(apart[~np.eye(len(apart), dtype=bool)] > 4)
    assert np.all(np.diff(scores) <= 0)


def test_evaluation_shapes_hold_every_primitive(tmp_path: Path) -> None:
    shapes = evaluation.evaluation_shapes(tmp_path, 18)
    assert shapes.images.shape == (18, *evaluation.SHAPES_SIZE)
    scores = evaluation.evaluate_shapes(evaluation.detect_shi_tomasi, shapes)
    assert {"polygon", "cube", "star"} <= set(scores["clean"]["primitives"])
    assert "noise" not in scores["clean"]["primitives"]
    assert scores["noisy"]["ap"] < scores["clean"]["ap"]
