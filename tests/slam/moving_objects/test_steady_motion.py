"""Earlier motion makes uncertain poses steadier, and gives way to a real change."""

from __future__ import annotations

import numpy as np
import pytest
from point_room import PointRoom, components_of

from spslam import geometry
from spslam.config import Config
from spslam.slam import camera_tracking
from spslam.slam.moving_objects.steady_motion import SteadyMotion
from spslam.slam.tracking import TrackedFrame, Tracker
from spslam.typing import FloatArray

DT, SPEED = 0.05, np.array([0.8, 0.0, 0.2, 0.0, 0.1, 0.0])
SIGMA = np.array([0.02, 0.02, 0.005, 0.001, 0.003, 0.001])


def path(count: int) -> list[FloatArray]:
    """Poses of a camera at a constant velocity."""
    return [geometry.se3_exp(SPEED * DT * k) for k in range(count)]


def combined(
    truth: list[FloatArray], measured: list[FloatArray], sigma: FloatArray
) -> list[FloatArray]:
    motion, found = SteadyMotion(), measured[:1]
    for pose in measured[1:]:
        fused, _ = motion.combine(found[-1], pose, np.diag(sigma**2), DT, (0.85, 0.1), 4.0)
        found = [*found, fused]
    return found


def errors(truth: list[FloatArray], found: list[FloatArray]) -> FloatArray:
    return np.array(
        [
            np.linalg.norm(geometry.inverse(a)[:3, 3] - geometry.inverse(b)[:3, 3])
            for a, b in zip(truth, found, strict=True)
        ]
    )


def test_uncertain_poses_become_steadier() -> None:
    truth, rng = path(60), np.random.default_rng(3)
    measured = [geometry.se3_exp(rng.normal(0.0, SIGMA)) @ pose for pose in truth]
    before, after = errors(truth, measured)[20:], errors(truth, combined(truth, measured, SIGMA))
    assert np.sqrt(np.mean(after[20:] ** 2)) < 0.7 * np.sqrt(np.mean(before**2))
    assert after[20:].max() < before.max()


def test_certain_poses_stay() -> None:
    truth = path(20)
    found = combined(truth, truth, np.full(6, 1e-4))
    assert errors(truth, found).max() < 1e-6


def test_poses_stay_rigid_for_a_camera_that_stands_still() -> None:
    still = [np.eye(4)] * 400
    rng = np.random.default_rng(1)
    measured = [geometry.se3_exp(rng.normal(0.0, SIGMA / 4)) @ pose for pose in still]
    R = combined(still, measured, SIGMA / 4)[-1][:3, :3]
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)


def test_a_jump_is_taken_up_at_once() -> None:
    jump = geometry.se3_exp(np.array([0.5, 0.0, 0.0, 0.0, 0.0, 0.0]))
    truth = path(20)
    truth = [*truth[:10], *(jump @ pose for pose in truth[10:])]
    found = combined(truth, truth, SIGMA)
    assert errors(truth, found)[10] < 1e-9
    assert errors(truth, found)[11:].max() < 0.05


def test_a_pose_that_points_hardly_determine_does_not_end_the_run() -> None:
    """As of points on a line: the variance along one combination of axes has no limit."""
    truth, motion, axis = path(30), SteadyMotion(), np.array([0.3, -0.5, 0.9, 0.2, -0.7, 0.4])
    found = truth[:1]
    for index, pose in enumerate(truth[1:]):
        loose = 1e18 * np.outer(axis, axis) if index in (0, 15) else 0.0
        fused, _ = motion.combine(found[-1], pose, np.diag(SIGMA**2) + loose, DT, (0.85, 0.1), 4.0)
        found = [*found, fused]
    assert errors(truth, found).max() < 1e-3


def test_without_a_last_pose_or_a_covariance_the_measured_pose_stays() -> None:
    pose, motion = path(2)[1], SteadyMotion()
    for last, covariance in ((None, np.eye(6)), (np.eye(4), np.full((6, 6), np.nan))):
        fused, kept = motion.combine(last, pose, covariance, DT, (1.0, 1.0), 4.0)
        np.testing.assert_array_equal(fused, pose)
        np.testing.assert_array_equal(kept, covariance)


def test_a_frame_tracked_by_directions_ends_the_known_motion(
    landmarks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The covariance is of the frame before it, and the last pose is its own."""
    motion, pose = SteadyMotion(), path(2)[1]
    monkeypatch.setattr(camera_tracking, "SteadyMotion", lambda: motion)
    config, components = Config(), components_of(PointRoom())
    tracker = Tracker(config, components.matcher, components.pose_solver, 0.7)
    tracking = camera_tracking.CameraTracking(config, components, tracker)
    scene = landmarks.box()
    slam_map, seen = scene.map_of([scene.pose(0.3 * i) for i in range(4)]), scene.observe(pose, 5)
    motion.combine(np.eye(4), pose, np.diag(SIGMA**2), DT, (0.85, 0.1), 4.0)
    none = np.full(len(seen), -1)
    estimate = components.pose_solver.refine(
        pose, np.zeros((0, 3)), seen.pixels[:0], seen.u_right[:0], scene.camera
    )
    frame = TrackedFrame(seen, estimate, none, none, "directions", anchors=np.array([0]))
    assert tracking.without_movers(frame, slam_map, scene.camera) is frame

    fused, _ = motion.combine(pose, path(4)[3], np.diag(SIGMA**2), DT, (0.85, 0.1), 4.0)
    np.testing.assert_array_equal(fused, path(4)[3])
