"""Prediction of the next pose; earlier motion makes uncertain poses steadier."""

from __future__ import annotations

import numpy as np
import pytest
from point_room import PointRoom, components_of

from spslam import geometry
from spslam.config import Config, TrackingConfig
from spslam.map.map import Map
from spslam.slam import camera_tracking
from spslam.slam.motion import Motion, SteadyMotion
from spslam.slam.track_results import TrackedFrame
from spslam.slam.tracking import Tracker
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


# -- constant velocity -----------------------------------------------------------------------------

VELOCITY = np.array([0.4, -0.1, 0.7, 0.02, 0.3, -0.05])


@pytest.fixture
def slam_map(landmarks) -> Map:
    scene = landmarks.box()
    return scene.map_of([scene.pose(0.3 * i) for i in range(4)])


def moved(seconds: float) -> np.ndarray:
    """`T_cam_world` after that time."""
    return geometry.se3_exp(VELOCITY * seconds)


def test_constant_velocity_with_irregular_steps(slam_map) -> None:
    motion = Motion(Config())
    assert motion.predict(0.0, slam_map) is None
    for timestamp in (0.0, 0.1, 0.13, 0.4, 0.45):
        motion.update(timestamp, moved(timestamp), 0, slam_map)
        assert motion.last(slam_map) == pytest.approx(moved(timestamp))
        if timestamp > 0:
            for ahead in (0.01, 0.2, 0.5):
                assert motion.predict(timestamp + ahead, slam_map) == pytest.approx(
                    moved(timestamp + ahead)
                )


def test_prediction_follows_corrections_of_the_map(slam_map) -> None:
    motion = Motion(Config())
    motion.update(0.0, moved(0.0), 1, slam_map)
    motion.update(0.1, moved(0.1), 1, slam_map)
    correction = geometry.se3_exp(np.array([0.5, 0.2, -0.3, 0.1, -0.2, 0.05]))
    slam_map.T_world_keyframe[:] = correction @ slam_map.T_world_keyframe
    assert motion.last(slam_map) == pytest.approx(moved(0.1) @ geometry.inverse(correction))
    assert motion.predict(0.2, slam_map) == pytest.approx(moved(0.2) @ geometry.inverse(correction))
    # A new reference keyframe: the velocity is that of the camera, without the correction.
    motion.update(0.2, moved(0.2) @ geometry.inverse(correction), 3, slam_map)
    assert motion.predict(0.3, slam_map) == pytest.approx(moved(0.3) @ geometry.inverse(correction))


def test_prediction_without_its_keyframe_is_none(slam_map) -> None:
    motion = Motion(Config())
    motion.update(0.0, moved(0.0), 1, slam_map)
    motion.update(0.1, moved(0.1), 2, slam_map)
    slam_map.remove_keyframe(1)
    assert motion.last(slam_map) == pytest.approx(moved(0.1))
    slam_map.remove_keyframe(2)
    assert motion.last(slam_map) is None
    assert motion.predict(0.2, slam_map) is None
    motion.update(0.2, moved(0.2), 3, slam_map)
    assert motion.last(slam_map) == pytest.approx(moved(0.2))


def test_anchoring_keeps_the_velocity_and_an_equal_stamp_does_not_divide_by_zero(slam_map) -> None:
    motion = Motion(Config())
    motion.update(0.0, moved(0.0), 0, slam_map)
    motion.update(0.1, moved(0.1), 0, slam_map)
    motion.anchor(0.1, moved(0.1), 2, slam_map)
    motion.update(0.1, moved(0.1), 2, slam_map)
    assert motion.predict(0.2, slam_map) == pytest.approx(moved(0.2))


def test_the_top_speed_decays_with_speed_memory_s(slam_map) -> None:
    motion = Motion(Config(tracking=TrackingConfig(speed_memory_s=2.0)))
    for timestamp, pose in ((0.0, moved(0.0)), (0.1, moved(0.1)), (3.1, moved(0.1))):
        motion.update(timestamp, pose, 0, slam_map)
    speeds = np.linalg.norm(VELOCITY.reshape(2, 3), axis=1)
    assert motion.fastest == pytest.approx(tuple(speeds * np.exp(-1.5)))


def test_motion_changes_with_the_scale_of_the_map(slam_map) -> None:
    motion = Motion(Config())
    motion.rescale(2.0)
    assert motion.last(slam_map) is None
    for timestamp in (0.0, 0.1):
        motion.update(timestamp, moved(timestamp), 1, slam_map)
    relative = moved(0.1) @ slam_map.pose(1)
    relative[:3, 3] *= 0.5
    motion.rescale(0.5)
    last = relative @ geometry.inverse(slam_map.pose(1))
    assert motion.last(slam_map) == pytest.approx(last)
    slower = VELOCITY * np.array([0.5, 0.5, 0.5, 1.0, 1.0, 1.0])
    assert motion.predict(0.3, slam_map) == pytest.approx(geometry.se3_exp(slower * 0.2) @ last)
