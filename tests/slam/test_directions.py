"""A single camera that turns on the spot is tracked by directions, and they become points."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from point_room import PointRoom, drive, sway

from spslam import geometry
from spslam.geometry import rotation_angle
from spslam.slam.system import Slam
from spslam.slam.track_results import TrackResult
from spslam.typing import FloatArray

pytestmark = pytest.mark.slow

# Frames that start the map, and the angle of a turn in a frame, radians: 80° a second.
STARTED, STEP = 30, np.radians(4.0)


def start() -> list[np.ndarray]:
    return sway(STARTED)


def turned(pose: np.ndarray, steps: int, shift: tuple[float, float, float] = (0.0, 0.0, 0.0)):
    """A pose turned to the right by some steps and shifted, metres."""
    right = geometry.make_transform(
        geometry.so3_exp(np.array([0.0, steps * STEP, 0.0])), np.zeros(3)
    )
    moved = pose @ right
    moved[:3, 3] += shift
    return moved


def turn_errors(slam: Slam, poses: list[np.ndarray]) -> FloatArray:
    """Errors of the orientation in degrees, relative to the frames that started the map."""
    trajectory = slam.trajectory()
    truth = np.array(poses)[np.rint(trajectory.timestamps / 0.05).astype(int) - 1]
    R, Q = trajectory.T_world_cam[:, :3, :3], truth[:, :3, :3]
    u, _, v = np.linalg.svd((Q[:10] @ np.swapaxes(R[:10], 1, 2)).sum(axis=0))
    return np.degrees(rotation_angle(np.swapaxes(Q, 1, 2) @ (u @ v) @ R))


def lost(results: list[TrackResult]) -> list[int]:
    """Frames without a pose after the first one with a pose."""
    has = [result.T_world_cam is not None for result in results]
    return [i for i in range(has.index(True), len(has)) if not has[i]]


@pytest.fixture(scope="module")
def there_and_back() -> tuple[Slam, list[TrackResult], list[np.ndarray]]:
    """Turn by 120° on the spot, where nothing of the map is in view, and back."""
    poses = start()
    steps = [*range(1, 31), *([30] * 5), *range(29, -1, -1), *([0] * 5)]
    poses += [turned(poses[-1], step) for step in steps]
    slam, results = drive(PointRoom(2500), poses, "mono")
    return slam, results, poses


def test_a_pure_rotation_is_tracked_in_one_submap(there_and_back) -> None:
    slam, results, _ = there_and_back
    assert lost(results) == []
    assert slam.statistics.submaps == 1
    assert slam.statistics.frames_direction_only > 20


def test_the_orientation_is_kept(there_and_back) -> None:
    slam, _, poses = there_and_back
    errors = turn_errors(slam, poses)
    assert errors.max() < 2.0
    assert errors[-5:].max() < 0.5


def test_the_map_is_joined_again_after_the_turn(there_and_back) -> None:
    slam, results, _ = there_and_back
    assert results[-1].inliers > 100
    positions = slam.trajectory().positions
    # The 71st last frame has the same pose as the last one.
    moved = np.linalg.norm(positions[-71] - positions[0])
    assert np.linalg.norm(positions[-1] - positions[-71]) < 0.05 * moved


def test_directions_are_no_points(there_and_back) -> None:
    slam, _, _ = there_and_back
    to_points = slam.map.positions - slam.map.pose(int(slam.map.keyframes["id"][-1]))[:3, 3]
    axis = slam.map.pose(int(slam.map.keyframes["id"][-1]))[:3, 2]
    ahead = to_points @ axis / np.linalg.norm(to_points, axis=1)
    # Without a step aside, nothing behind the camera of the map has a position.
    assert np.mean(ahead < 0) < 0.02


def test_directions_become_points_with_parallax() -> None:
    poses = start()
    poses += [turned(poses[-1], step) for step in range(1, 26)]
    away = poses[-1]
    poses += [turned(away, 0, (0.0, 0.0, 0.03 * step)) for step in range(1, 26)]
    slam, results = drive(PointRoom(2500), poses, "mono")
    assert lost(results) == []
    assert results[-1].inliers > 100
    assert turn_errors(slam, poses).max() < 4.0


def test_guessed_positions_are_told(caplog: pytest.LogCaptureFixture) -> None:
    poses = start()
    poses += [turned(poses[-1], step) for step in range(1, 26)]
    with caplog.at_level(logging.WARNING):
        slam, _ = drive(PointRoom(2500), poses, "mono")
    count = slam.statistics.frames_direction_only
    assert count > 0
    notices = [r for r in caplog.records if getattr(r, "notice_topic", "") == "direction_only"]
    assert [vars(r)["notice_count"] for r in notices] == [count]


def test_stereo_needs_no_directions() -> None:
    poses = start()
    poses += [turned(poses[-1], step) for step in range(1, 26)]
    slam, results = drive(PointRoom(2500), poses, "stereo")
    assert lost(results) == []
    assert slam.statistics.frames_direction_only == 0
