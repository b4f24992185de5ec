"""Absolute pose: accuracy, realistic covariance, outliers, degenerate input, Jacobians."""

from dataclasses import replace

import numpy as np
import pytest

from spslam.backend.pose import PnPSolver
from spslam.backend.residuals import Reprojection, backward3, cholesky3, forward3, pose_jacobian
from spslam.camera import Camera
from spslam.geometry import apply, inverse, rotation_angle, se3_exp, se3_log

CAMERA = Camera(640, 480, 520.0, 510.0, 322.0, 238.0, baseline_m=0.1)


def make_scene(seed, count=300, outliers=0.0, sigma=1.0, stereo=0.5):
    """True pose, world points, pixels, u_right and which matches are correct."""
    rng = np.random.default_rng(seed)
    pixels = rng.uniform([0, 0], [640, 480], (count, 2))
    depth = rng.uniform(1.0, 10.0, count)
    T = se3_exp(np.concatenate([rng.normal(0, 2, 3), rng.normal(0, 1, 3)]))
    points = apply(inverse(T), CAMERA.unproject(pixels, depth))
    measured = pixels + rng.normal(0, sigma, (count, 2))
    u_right = pixels[:, 0] - CAMERA.bf / depth + rng.normal(0, sigma, count)
    u_right[rng.random(count) >= stereo] = np.nan
    wrong = np.arange(count) < outliers * count
    measured[wrong] = rng.uniform([0, 0], [640, 480], (int(wrong.sum()), 2))
    return T, points, measured, u_right, ~wrong


def disturb(T, seed, translation=0.1, rotation=0.03):
    rng = np.random.default_rng(seed)
    return se3_exp(np.concatenate([rng.normal(0, translation, 3), rng.normal(0, rotation, 3)])) @ T


def pose_error(T, estimate):
    delta = T @ inverse(estimate)
    return np.linalg.norm(delta[:3, 3]), np.degrees(rotation_angle(delta[:3, :3]))


def test_jacobian_equals_differences():
    T, points, pixels, u_right, _ = make_scene(0, count=20)
    measured = Reprojection(pixels, u_right, CAMERA, 1.5)
    in_camera = apply(T, points).T
    residuals, valid = measured.residuals(in_camera)
    jacobian = pose_jacobian(measured.jacobian(in_camera, valid), in_camera)
    for axis in range(6):
        step = np.zeros(6)
        step[axis] = 1e-6
        plus, _ = measured.residuals(apply(se3_exp(step) @ T, points).T)
        minus, _ = measured.residuals(apply(se3_exp(-step) @ T, points).T)
        np.testing.assert_allclose(jacobian[axis], (plus - minus) / 2e-6, rtol=1e-5, atol=1e-5)
    assert np.all(residuals[2, np.isnan(u_right)] == 0)


def test_block_solvers_equal_numpy():
    rng = np.random.default_rng(1)
    roots = rng.normal(size=(50, 3, 3))
    blocks = roots @ roots.transpose(0, 2, 1)
    rhs = rng.normal(size=(3, 50))
    rows, columns = [0, 1, 1, 2, 2, 2], [0, 0, 1, 0, 1, 2]
    factor = cholesky3(np.ascontiguousarray(blocks[:, rows, columns].T))
    expected = np.linalg.solve(blocks, rhs.T[..., None])[..., 0].T
    np.testing.assert_allclose(backward3(factor, forward3(factor, rhs)), expected, rtol=1e-6)


@pytest.mark.parametrize("stereo", [0.0, 0.5, 1.0])
def test_refine_without_noise_is_exact(stereo):
    T, points, pixels, u_right, _ = make_scene(2, sigma=0.0, stereo=stereo)
    estimate = PnPSolver().refine(disturb(T, 2), points, pixels, u_right, CAMERA)
    np.testing.assert_allclose(estimate.T_cam_world, T, atol=1e-7)
    assert estimate.inliers.all()
    assert estimate.median_error_px < 1e-4


@pytest.mark.parametrize("stereo", [0.0, 0.7])
def test_error_agrees_with_the_covariance(stereo):
    nees = []
    for seed in range(60):
        T, points, pixels, u_right, _ = make_scene(seed, count=120, stereo=stereo)
        estimate = PnPSolver(pixel_sigma=1.0).refine(
            disturb(T, seed), points, pixels, u_right, CAMERA
        )
        error = se3_log(T @ inverse(estimate.T_cam_world))
        nees.append(error @ np.linalg.solve(estimate.covariance, error))
    # χ² with 6 degrees of freedom; trimming at 95 % makes the covariance slightly too small, by
    # less than half.
    assert 4.5 < np.mean(nees) < 9.0


def test_precise_positions_decide_about_the_pose():
    errors, nees, scatters = [], [], []
    for seed in range(40):
        T, points, _, u_right, _ = make_scene(seed, count=120, stereo=0.0)
        relative = np.where(np.arange(120) % 3, 2.5, 0.4).astype(np.float32)
        noise = np.random.default_rng(seed).normal(0, relative[:, None], (120, 2))
        pixels = CAMERA.project(apply(T, points)) + noise
        start = disturb(T, seed)
        for sigma in (None, relative):
            estimate = PnPSolver().refine(
                start, points, pixels, u_right, CAMERA, relative_sigma=sigma
            )
            errors.append(pose_error(T, estimate.T_cam_world)[0])
        error = se3_log(T @ inverse(estimate.T_cam_world))
        nees.append(error @ np.linalg.solve(estimate.covariance, error))
        scatters.append(estimate.scatter)
    assert np.median(errors[1::2]) < 0.5 * np.median(errors[::2])
    assert 4.5 < np.mean(nees) < 9.0
    assert 0.85 < np.mean(scatters) < 1.05


@pytest.mark.parametrize("huber", [True, False])
def test_refine_classifies_outliers(huber):
    T, points, pixels, u_right, right = make_scene(3, outliers=0.1 if not huber else 0.4, sigma=0.7)
    start = disturb(T, 3, 0.03, 0.01)
    estimate = PnPSolver(huber=huber).refine(start, points, pixels, u_right, CAMERA)
    translation, rotation = pose_error(T, estimate.T_cam_world)
    assert translation < 0.02
    assert rotation < 0.2
    assert (estimate.inliers == right).mean() > 0.97
    assert 0.3 < estimate.median_error_px < 1.5


def test_an_outlier_in_u_right_only_is_found():
    T, points, pixels, u_right, _ = make_scene(4, sigma=0.3, stereo=1.0)
    u_right[:60] += 30.0
    estimate = PnPSolver().refine(disturb(T, 4), points, pixels, u_right, CAMERA)
    assert not estimate.inliers[:60].any()
    assert estimate.inliers[60:].all()


def test_points_behind_and_not_finite_are_outliers():
    T, points, pixels, u_right, _ = make_scene(5, sigma=0.5)
    behind = apply(T, points[:10]) * [1.0, 1.0, -1.0]
    points[:10] = apply(inverse(T), behind)
    points[10:20] = np.nan
    pixels[20:25] = np.inf
    estimate = PnPSolver().refine(disturb(T, 5), points, pixels, u_right, CAMERA)
    assert not estimate.inliers[:25].any()
    assert estimate.inliers[25:].mean() > 0.95
    assert np.isfinite(estimate.T_cam_world).all()
    assert pose_error(T, estimate.T_cam_world)[0] < 0.02


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_points_change_nothing(count):
    T, points, pixels, u_right, _ = make_scene(6, count=10)
    start = disturb(T, 6)
    estimate = PnPSolver().refine(start, points[:count], pixels[:count], u_right[:count], CAMERA)
    np.testing.assert_array_equal(estimate.T_cam_world, start)
    assert estimate.inliers.shape == (count,)
    assert not estimate.inliers.any()
    assert np.isnan(estimate.covariance).all()


def test_points_in_one_place_do_not_raise():
    points = np.tile([0.0, 0.0, 5.0], (30, 1))
    pixels = np.tile([[CAMERA.cx, CAMERA.cy]], (30, 1))
    solver = PnPSolver()
    estimate = solver.refine(np.eye(4), points, pixels, np.full(30, np.nan), CAMERA)
    assert np.isfinite(estimate.T_cam_world).all()
    solver.ransac(points, pixels, np.full(30, np.nan), CAMERA)


def test_mono_camera_ignores_u_right():
    T, points, pixels, u_right, _ = make_scene(7, stereo=1.0)
    mono = replace(CAMERA, baseline_m=None)
    with_right = PnPSolver().refine(disturb(T, 7), points, pixels, u_right, mono)
    without = PnPSolver().refine(disturb(T, 7), points, pixels, np.full_like(u_right, np.nan), mono)
    np.testing.assert_array_equal(with_right.T_cam_world, without.T_cam_world)


@pytest.mark.parametrize("outliers", [0.0, 0.5, 0.7])
def test_ransac_finds_the_pose(outliers):
    for seed in range(10):
        T, points, pixels, u_right, right = make_scene(seed, outliers=outliers, sigma=0.7)
        estimate = PnPSolver().ransac(points, pixels, u_right, CAMERA)
        assert estimate is not None
        translation, rotation = pose_error(T, estimate.T_cam_world)
        assert translation < 0.06
        assert rotation < 0.6
        assert np.count_nonzero(estimate.inliers & right) > 0.9 * np.count_nonzero(right)


def test_ransac_needs_support():
    _, points, pixels, u_right, _ = make_scene(8, outliers=1.0)
    assert PnPSolver().ransac(points, pixels, u_right, CAMERA) is None
    assert PnPSolver().ransac(points[:5], pixels[:5], u_right[:5], CAMERA) is None


def test_same_input_gives_same_bytes():
    _, points, pixels, u_right, _ = make_scene(9, outliers=0.5)
    first, second = (PnPSolver().ransac(points, pixels, u_right, CAMERA) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.T_cam_world.tobytes() == second.T_cam_world.tobytes()
    assert first.covariance.tobytes() == second.covariance.tobytes()
    assert (first.inliers == second.inliers).all()
