"""A pose between two motions is detected; the motion of most of the image is found."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from spslam import geometry
from spslam.backend.pose import PnPSolver
from spslam.camera import Camera
from spslam.config import Config, MoversConfig
from spslam.frame import Observations
from spslam.slam.moving_objects.movers import Movers
from spslam.slam.moving_objects.two_motions import Cells, consensus, find_split, residuals, rival
from spslam.slam.track_results import TrackedFrame

LIMITS = MoversConfig()
SOLVER = PnPSolver(0.5)

CAMERA = Camera(640, 480, 400.0, 400.0, 319.5, 239.5)
TURNED = geometry.se3_exp(np.array([0.02, -0.01, 0.0, 0.0, 0.003, 0.0]))


def scene(
    box_points: int, noise_px: float = 0.15, box_px: float = 8.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (N, 3), their pixels (N, 2) in a camera at `TURNED`, and which lie on a moved box."""
    rng = np.random.default_rng(3)
    behind = rng.uniform((0, 0), (640, 480), (400, 2))
    behind = behind[~((behind > (300, 100)) & (behind < (600, 440))).all(axis=1)]
    # The wall is slanted: before a frontal wall, a camera cannot tell translation from rotation.
    wall = CAMERA.unproject(behind, 2.0 + 6.0 * behind[:, 0] / 640)
    box = CAMERA.unproject(
        rng.uniform((300, 100), (600, 440), (box_points, 2)), np.full(box_points, 1.2)
    )
    points = np.concatenate([wall, box])
    on_box = np.arange(len(points)) >= len(wall)
    pixels = CAMERA.project(geometry.apply(TURNED, points)) + rng.normal(
        0, noise_px, (len(points), 2)
    )
    pixels[on_box, 0] += box_px
    return points, pixels, on_box


def between(points: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """The least-squares pose of all points, by Gauss-Newton."""
    T = np.eye(4)
    for _ in range(10):
        base = residuals(T, points, pixels, CAMERA).ravel()
        steps = 1e-6 * np.eye(6)
        jacobian = np.stack(
            [
                (residuals(geometry.se3_exp(step) @ T, points, pixels, CAMERA).ravel() - base)
                / 1e-6
                for step in steps
            ],
            1,
        )
        step = np.linalg.lstsq(jacobian, base, rcond=None)[0].astype(np.float64)
        T = geometry.se3_exp(-step) @ T
    return T


@pytest.mark.parametrize("box_points", [100, 300, 600])
def test_the_consensus_is_the_pose_of_most_of_the_image(box_points: int) -> None:
    points, pixels, on_box = scene(box_points)
    T = between(points, pixels)
    assert np.linalg.norm(geometry.se3_log(T @ geometry.inverse(TURNED))[:3]) > 0.003
    found = find_split(
        LIMITS.min_explained,
        pixels,
        residuals(T, points, pixels, CAMERA),
        np.ones(len(points), bool),
        CAMERA,
    )
    assert found is not None and found.between
    pose, agree = consensus(found, T, points, pixels, CAMERA)

    assert np.mean(agree[~on_box]) > 0.8 and np.mean(agree[on_box]) < 0.1
    assert np.hypot(*residuals(pose, points, pixels, CAMERA)[~on_box].T).mean() < 0.8


@pytest.mark.parametrize("noise_px", [0.1, 0.5, 2.0])
def test_noise_is_not_taken_for_a_second_motion(noise_px: float) -> None:
    points, pixels, _ = scene(300, noise_px, box_px=0.0)
    off = residuals(between(points, pixels), points, pixels, CAMERA)
    assert find_split(LIMITS.min_explained, pixels, off, np.ones(len(points), bool), CAMERA) is None


def test_outliers_of_a_pose_may_be_most_of_the_image() -> None:
    points, pixels, on_box = scene(600, box_px=20.0)
    followed = between(points[on_box], pixels[on_box])
    off = residuals(followed, points, pixels, CAMERA)
    inlier = np.hypot(*off.T) < 2.5
    found = find_split(LIMITS.min_explained, pixels, off, inlier, CAMERA)
    assert found is not None and not found.between


@pytest.mark.parametrize("box_points", [300, 600, 1200])
def test_a_motion_of_more_of_the_image_outvotes_a_pose(box_points: int) -> None:
    points, pixels, on_box = scene(box_points, box_px=12.0)
    followed = between(points[on_box], pixels[on_box])
    inlier = np.hypot(*residuals(followed, points, pixels, CAMERA).T) < 1.5
    other = rival(LIMITS.min_rival_gain, followed, points, pixels, inlier, CAMERA)
    assert other is not None and other.wins and other.even
    assert np.mean(other.moving[on_box]) > 0.9 and np.mean(other.moving[~on_box]) < 0.01
    # The box does not outvote the pose of most of the image, even with more points.
    inlier = np.hypot(*residuals(TURNED, points, pixels, CAMERA).T) < 1.5
    other = rival(LIMITS.min_rival_gain, TURNED, points, pixels, inlier, CAMERA)
    assert other is None or not other.wins


@pytest.mark.parametrize("noise_px", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("outlier_fraction", [0.0, 0.3])
def test_a_static_scene_has_no_rival(noise_px: float, outlier_fraction: float) -> None:
    points, pixels, _ = scene(300, noise_px, box_px=0.0)
    wrong = np.random.default_rng(1).random(len(points)) < outlier_fraction
    pixels[wrong] += np.random.default_rng(2).uniform(-40, 40, (np.count_nonzero(wrong), 2))
    other = rival(
        LIMITS.min_rival_gain,
        between(points[~wrong], pixels[~wrong]),
        points,
        pixels,
        ~wrong,
        CAMERA,
    )
    assert other is None or not (other.wins or other.even)


def test_the_same_points_give_the_same_pose() -> None:
    points, pixels, _ = scene(300)
    T = between(points, pixels)
    found = find_split(
        LIMITS.min_explained,
        pixels,
        residuals(T, points, pixels, CAMERA),
        np.ones(len(points), bool),
        CAMERA,
    )
    assert found is not None
    first, second = (consensus(found, T, points, pixels, CAMERA)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_too_few_points_give_no_split() -> None:
    pixels = scene(0)[1]
    few = np.arange(10)
    off = np.ones((10, 2))
    assert find_split(LIMITS.min_explained, pixels[few], off, np.ones(10, bool), CAMERA) is None
    assert find_split(LIMITS.min_explained, pixels[:0], off[:0], np.ones(0, bool), CAMERA) is None


def test_a_cell_moves_if_most_of_its_points_move_in_one_direction() -> None:
    pixels = np.array([[10.0, 10.0]] * 4 + [[300.0, 300.0]] * 4 + [[600.0, 100.0]] * 4)
    vectors = np.array(
        [[3.0, 0.0]] * 4 + [[3.0, 0.0], [-3.0, 0.0], [0.0, 3.0], [0.0, -3.0]] + [[3.0, 0.0]] * 4
    )
    mask = np.array([True] * 8 + [True, True, False, False])
    together = Cells.over(pixels, CAMERA).together(mask, vectors)
    np.testing.assert_array_equal(together, [True] * 4 + [False] * 8)


def refined(T: np.ndarray, points: np.ndarray, pixels: np.ndarray) -> Any:
    return SOLVER.refine(T, points, pixels, np.full(len(points), np.nan), CAMERA)


def judged(
    movers: Movers,
    index: int,
    points: np.ndarray,
    pixels: np.ndarray,
    T: np.ndarray,
    ids: np.ndarray | None = None,
) -> TrackedFrame:
    """What the movers make of a frame at a pose that its points (ids; None: all) agree with."""
    ids = np.arange(len(points)) if ids is None else ids
    pixels, count = pixels[ids], len(ids)
    unknown = np.full(count, np.nan)
    seen = Observations(
        index, 0.05 * index, pixels, np.zeros((count, 8), np.float32),
        np.ones(count, np.float32),
        np.ones(count, np.float32), unknown, unknown, np.zeros(count),
    )  # fmt: skip
    estimate = refined(T, points[ids], pixels)
    estimate = replace(estimate, T_cam_world=T, inliers=np.ones(count, bool))
    none = np.full(count, -1)
    tracked = TrackedFrame(seen, estimate, ids, none, "motion")
    return movers.judge(tracked, map_of(points), CAMERA, TURNED, lambda: None)


def map_of(points: np.ndarray) -> Any:
    return SimpleNamespace(positions=points, point_rows=lambda ids: ids, next_ids=(len(points), 0))


def test_new_points_must_agree_with_the_pose_of_most_of_the_image() -> None:
    points, pixels, on_box = scene(300)
    wall, rng, movers = points[~on_box], np.random.default_rng(0), Movers(Config(), SOLVER)
    # New points move in one frame: from then on, new points do not vote.
    corner = CAMERA.unproject(rng.uniform((10, 10), (200, 200), (60, 2)), np.full(60, 1.2))
    first = np.concatenate([wall, corner])
    shown = CAMERA.project(geometry.apply(TURNED, first))
    shown[len(wall) :, 0] += 15.0
    movers.trust(map_of(wall))
    judged(movers, 1, first, shown, between(first, shown))
    assert movers.on_guard(2)
    # Then known points move; new ones agree with the pose between both motions only.
    movers.trust(map_of(points))
    T = refined(between(points, pixels), points, pixels).T_cam_world
    new = CAMERA.unproject(rng.uniform((20, 20), (620, 460), (80, 2)), np.full(80, 1.5))
    points = np.concatenate([points, new])
    pixels = np.concatenate([pixels, CAMERA.project(geometry.apply(T, new))])
    found = judged(movers, 2, points, pixels, T)

    error = geometry.se3_log(found.estimate.T_cam_world @ geometry.inverse(TURNED))
    assert np.linalg.norm(error[:3]) < 0.003
    far = np.hypot(*residuals(found.estimate.T_cam_world, points, pixels, CAMERA).T)
    assert np.count_nonzero(found.point_ids >= 0) > 200
    assert far[found.point_ids >= 0].max() <= LIMITS.outlier_px


def test_new_points_that_decide_do_not_make_proven_ones_move() -> None:
    points, _, on_box = scene(300)
    rng, movers = np.random.default_rng(0), Movers(Config(), SOLVER)
    wall = points[~on_box]
    corner = CAMERA.unproject(rng.uniform((10, 10), (200, 200), (60, 2)), np.full(60, 1.2))
    points = np.concatenate([wall, corner])
    pixels = CAMERA.project(geometry.apply(TURNED, points))
    pixels[len(wall) :, 0] += 15.0
    movers.trust(map_of(wall))
    judged(movers, 1, points, pixels, between(points, pixels))
    assert movers.on_guard(2)
    # 25 proven points are left. They contradict the prediction, with which new ones agree.
    movers.trust(map_of(points))
    new = CAMERA.unproject(rng.uniform((220, 20), (620, 460), (200, 2)), np.full(200, 3.0))
    seen = np.concatenate([points, new])
    some = rng.permutation(len(wall))[:25]
    ids = np.concatenate([some, np.arange(len(points), len(seen))])
    pixels = CAMERA.project(geometry.apply(TURNED, seen))
    judged(movers, 2, seen, pixels, TURNED, ids)
    pixels[some, 0] += 8.0
    judged(movers, 3, seen, pixels, TURNED, ids)
    assert not movers.are_moving(map_of(seen), some).any()
