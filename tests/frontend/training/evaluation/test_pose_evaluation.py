"""Relative poses of frames estimated from matches."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from spslam import geometry
from spslam.frame import Features
from spslam.frontend.training.evaluation.pose_evaluation import evaluate_pose, relative_pose_error
from spslam.interfaces import Extractor

K = np.array([[400.0, 0.0, 319.5], [0.0, 400.0, 239.5], [0.0, 0.0, 1.0]])
RNG = np.random.default_rng(0)
POINTS = RNG.uniform((-4.0, -3.0, 4.0), (4.0, 3.0, 12.0), (300, 3))
DESCRIPTORS = RNG.normal(size=(300, 32)).astype(np.float32)
DESCRIPTORS /= np.linalg.norm(DESCRIPTORS, axis=1, keepdims=True)


def pose(index: int) -> NDArray[np.float64]:
    """`T_world_cam` of a camera that drives along a bend."""
    rotation = geometry.so3_exp(np.array([0.0, 0.02 * index, 0.0]))
    return geometry.make_transform(rotation, np.array([0.1 * index, 0.0, 0.2 * index]))


def view(T_world_cam: NDArray[np.float64]) -> Features:
    points = geometry.apply(geometry.inverse(T_world_cam), POINTS) @ K.T
    pixels = (points[:, :2] / points[:, 2:]).astype(np.float32)
    return Features(pixels, np.ones(len(pixels), np.float32), DESCRIPTORS)


class Oracle(Extractor):
    """An extractor that reads the number of the frame from its image."""

    name = "oracle"
    max_descriptor_distance = 0.7
    pixel_sigma = 1.0

    def extract(self, image: NDArray[np.uint8]) -> Features:
        return view(pose(int(image[0, 0])))


def frames(
    count: int,
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]]:
    for index in range(count):
        yield np.full((4, 4), index, np.uint8), pose(index), K


def test_exact_matches_give_the_exact_motion() -> None:
    result = evaluate_pose(Oracle(), frames(8))
    assert list(result) == ["gap_1", "gap_5"]
    assert (result["gap_1"]["pairs"], result["gap_5"]["pairs"]) == (7, 3)
    for scores in result.values():
        assert scores["rotation_deg"] < 0.02
        assert scores["direction_deg"] < 0.2
        assert scores["auc_5"] > 0.95
        assert scores["inliers"] > 250


def test_errors_are_angles_to_the_truth() -> None:
    turned = geometry.make_transform(
        geometry.so3_exp(np.array([0.0, np.radians(3.0), 0.0])), np.zeros(3)
    )
    T_10 = geometry.inverse(pose(5)) @ pose(0)
    truth = T_10.copy()
    truth[:3, :3] = turned[:3, :3] @ T_10[:3, :3]
    truth[:3, 3] = -T_10[:3, 3]
    error = relative_pose_error(view(pose(0)), view(pose(5)), K, truth)
    assert error.rotation_deg == pytest.approx(3.0, abs=0.05)
    assert error.direction_deg == pytest.approx(180.0, abs=0.5)


def test_no_matches_count_as_a_failure() -> None:
    few = view(pose(0)).select(np.arange(5))
    error = relative_pose_error(few, few, K, pose(1))
    assert (error.rotation_deg, error.direction_deg, error.inliers) == (180.0, 180.0, 0)


def test_frames_without_motion_and_short_sequences_are_left_out() -> None:
    still = [(np.zeros((4, 4), np.uint8), pose(0), K)] * 3
    assert evaluate_pose(Oracle(), still) == {}
    assert list(evaluate_pose(Oracle(), frames(3))) == ["gap_1"]
