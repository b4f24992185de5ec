"""Which points a frame should see, and how often each is counted as seen."""

from __future__ import annotations

import numpy as np
import pytest

from spslam import geometry
from spslam.backend.pose import PnPSolver
from spslam.config import Config, TrackingConfig
from spslam.frontend.matching.matching import DescriptorMatcher
from spslam.slam.tracking import Tracker
from spslam.slam.visibility import count_visibility, project_points

NOISE_PX = 0.5


@pytest.fixture
def scene(landmarks):
    return landmarks.box()


def test_visible_points_are_in_view_at_a_similar_scale_and_angle(scene) -> None:
    slam_map = scene.map_of([scene.pose()])
    rows = slam_map.point_rows(scene.ids[scene.labels[0]])
    config = TrackingConfig(max_scale_change=2.0, max_view_angle_deg=45.0)

    def visible(T_world_cam: np.ndarray) -> np.ndarray:
        T_cam_world = geometry.inverse(T_world_cam)
        return project_points(config, slam_map, scene.camera, T_cam_world, rows)[1]

    pixels, seen = project_points(config, slam_map, scene.camera, np.eye(4), rows)
    assert seen.all()
    assert pixels == pytest.approx(scene.camera.project(slam_map.positions[rows]))
    assert not visible(scene.pose(yaw=np.pi)).any(), "behind the camera"
    assert not visible(scene.pose(z=-9.0)).any(), "too far away to look similar"
    centre = np.array([0.0, 0.0, 4.5])
    for angle, expected in ((0.5, True), (1.2, False)):
        side = scene.pose(-4.5 * np.sin(angle), 0.0, 4.5 - 4.5 * np.cos(angle), angle)
        middle = np.linalg.norm(slam_map.positions[rows] - centre, axis=1) < 0.8
        assert middle.any()
        assert (visible(side)[middle] == expected).all(), "limited by the viewing angle"
    assert project_points(config, slam_map, scene.camera, np.eye(4), rows[:0])[0].shape == (0, 2)


def test_visibility_is_counted_once_a_frame(scene) -> None:
    config, truth = Config(), scene.pose(0.5)
    slam_map = scene.map_of([scene.pose(0.3 * i) for i in range(4)])
    observations = scene.observe(truth, 9, noise_px=NOISE_PX)
    points, T_cam_world = slam_map.points["id"].copy(), geometry.inverse(truth)
    tracker = Tracker(config, DescriptorMatcher(), PnPSolver(NOISE_PX), 0.7)
    tracked = tracker.track(observations, slam_map, scene.camera, T_cam_world, points)
    assert tracked is not None
    before = {name: slam_map.points[name].copy() for name in ("visible", "found")}
    count_visibility(config.tracking, slam_map, scene.camera, tracked, np.append(points, 10**6))
    found = slam_map.points["found"] - before["found"]
    visible = slam_map.points["visible"] - before["visible"]
    assert np.array_equal(
        slam_map.points["id"][found == 1], np.sort(tracked.point_ids[tracked.point_ids >= 0])
    )
    assert set(np.unique(found)) <= {0, 1}
    assert set(np.unique(visible)) <= {0, 1}
    assert (visible >= found).all()
    assert visible.sum() < len(points), "points out of view are not counted"
