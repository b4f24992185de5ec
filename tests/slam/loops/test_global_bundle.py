"""Refinement of the whole map in the background, merged with what changed meanwhile."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from spslam import geometry
from spslam.backend.bundle import SchurBundleAdjuster
from spslam.backend_interfaces import BundleProblem, BundleResult
from spslam.camera import Camera
from spslam.config import GlobalBundleConfig
from spslam.map.map import Map
from spslam.slam.loops.global_bundle import GlobalRefiner


def refiner(delay: int = 2, iterations: int = 20) -> GlobalRefiner:
    return GlobalRefiner(GlobalBundleConfig(delay=delay), SchurBundleAdjuster(0.3, iterations))


@pytest.fixture
def world(landmarks):
    """A map of eight views of a box; all keyframes and points but the first are displaced."""
    scene = landmarks.box()
    truth = [scene.pose(0.1 * k, 0.02 * k, 0.0, 0.01 * k) for k in range(8)]
    slam_map = scene.map_of(truth)
    rng = np.random.default_rng(3)
    for k in range(1, 8):
        slam_map.T_world_keyframe[k] = slam_map.T_world_keyframe[k] @ geometry.se3_exp(
            rng.normal(0, 0.01, 6)
        )
    slam_map.positions[:] += rng.normal(0, 0.03, slam_map.positions.shape)
    return scene, truth, slam_map


def pose_errors(slam_map: Map, truth) -> np.ndarray:
    return np.linalg.norm(
        slam_map.T_world_keyframe[:, :3, 3] - np.array(truth)[: len(slam_map.keyframes), :3, 3],
        axis=1,
    )


def test_the_whole_map_is_refined(world) -> None:
    scene, truth, slam_map = world
    before = pose_errors(slam_map, truth)
    refine = refiner()
    refine.start(slam_map, scene.camera)
    assert np.array_equal(pose_errors(slam_map, truth), before), (
        "nothing moves before the result is applied"
    )
    assert not refine.keyframe_added(slam_map)
    assert refine.keyframe_added(slam_map)
    after = pose_errors(slam_map, truth)
    assert after[0] == 0
    assert after.max() < 0.1 * before.max()
    assert not refine.keyframe_added(slam_map) and not refine.finish(slam_map)


def test_a_keyframe_and_points_added_meanwhile_move_with_the_map(world) -> None:
    scene, truth, slam_map = world
    refine = refiner()
    refine.start(slam_map, scene.camera)
    step = geometry.se3_exp(np.array([0.1, 0.0, 0.0, 0.0, 0.02, 0.0]))
    last = slam_map.pose(7)
    observations = scene.observe(truth[7] @ step, 20)
    keyframe_id = slam_map.add_keyframe(observations, last @ step, np.full(len(observations), -1))
    rows = slam_map.observation_rows(keyframe_id)
    in_camera = np.array([[0.1, 0.2, 4.0], [0.5, -0.1, 5.0]])
    ids = slam_map.add_points(
        keyframe_id, geometry.apply(last @ step, in_camera), np.arange(rows.start, rows.start + 2)
    )
    slam_map.remove_keyframe(3)
    assert refine.finish(slam_map)
    assert np.linalg.norm(slam_map.pose(7)[:3, 3] - truth[7][:3, 3]) < 0.005
    np.testing.assert_allclose(slam_map.pose(keyframe_id), slam_map.pose(7) @ step, atol=1e-9)
    expected = geometry.apply(slam_map.pose(7) @ step, in_camera)
    np.testing.assert_allclose(slam_map.positions[slam_map.point_rows(ids)], expected, atol=1e-9)


def test_outliers_are_unlinked(world) -> None:
    scene, _, slam_map = world
    rows = slam_map.observation_rows(5)
    linked = np.flatnonzero(slam_map.observations["point"][rows] >= 0)[:5] + rows.start
    slam_map.observations["pixel"][linked] += 60.0
    refine = refiner()
    refine.start(slam_map, scene.camera)
    refine.finish(slam_map)
    assert (slam_map.observations["point"][linked] < 0).all()
    assert (slam_map.observations["point"][rows] >= 0).sum() > 50


def test_a_second_loop_replaces_the_refinement_of_the_first(world) -> None:
    scene, _, slam_map = world

    class Waiting:
        """Records its problems; the first call waits until the refinement was started twice."""

        def __init__(self) -> None:
            self.problems: list[BundleProblem] = []
            self.gate = threading.Event()

        def adjust(self, problem: BundleProblem, camera: Camera) -> BundleResult:
            self.problems.append(problem)
            self.gate.wait(10)
            moved = problem.T_cam_world.copy()
            moved[1:, 0, 3] += len(self.problems)
            return BundleResult(moved, problem.points, np.ones(len(problem.pixels), bool), 1.0, 1.0)

    bundle = Waiting()
    refine = GlobalRefiner(GlobalBundleConfig(delay=1), bundle)
    refine.start(slam_map, scene.camera)
    slam_map.remove_keyframe(7)
    refine.start(slam_map, scene.camera)
    bundle.gate.set()
    before = geometry.inverse(slam_map.T_world_keyframe)
    assert refine.keyframe_added(slam_map)
    assert len(bundle.problems[-1].T_cam_world) == 7
    after = geometry.inverse(slam_map.T_world_keyframe)
    np.testing.assert_allclose(after[1:, 0, 3] - before[1:, 0, 3], len(bundle.problems), atol=1e-9)


def test_a_delay_of_zero_switches_the_refinement_off(world) -> None:
    scene, _, slam_map = world
    refine = refiner(delay=0)
    refine.start(slam_map, scene.camera)
    assert not refine.keyframe_added(slam_map) and not refine.finish(slam_map)
