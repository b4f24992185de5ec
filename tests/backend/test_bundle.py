"""Bundle adjustment: SciPy and g2o as reference, outliers, gauge, degenerate input, determinism."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize

from spslam.backend import bundle
from spslam.backend.bundle import SchurBundleAdjuster
from spslam.backend.residuals import Reprojection, chi_squared, huber_cost
from spslam.backend_interfaces import BundleProblem
from spslam.camera import Camera
from spslam.geometry import apply, inverse, se3_exp

CAMERA = Camera(640, 480, 520.0, 510.0, 322.0, 238.0, baseline_m=0.1)


def make_problem(
    seed=0,
    cameras=5,
    points=120,
    per_point=4,
    stereo=0.5,
    outliers=0.0,
    sigma=1.0,
    fixed=1,
    start=1.0,
):
    """A camera moving sideways past points; `start` scales the error of the initial values.

    Returns the true poses and points, the problem, and which observations are wrong.
    """
    rng = np.random.default_rng(seed)
    motion = np.column_stack(
        [0.3 * np.arange(cameras), np.zeros((cameras, 2)), rng.normal(0, 0.02, (cameras, 3))]
    )
    T = inverse(se3_exp(motion))
    per_point = min(per_point, cameras)
    first = rng.integers(0, cameras - per_point + 1, points)
    middle = 0.3 * (first + per_point / 2)
    xyz = np.column_stack(
        [
            middle + rng.uniform(-1, 1, points),
            rng.uniform(-1, 1, points),
            rng.uniform(2.5, 8.0, points),
        ]
    )
    camera_index = (first[:, None] + np.arange(per_point)).ravel()
    point_index = np.repeat(np.arange(points), per_point)
    shuffled = rng.permutation(len(camera_index))
    camera_index, point_index = (
        camera_index[shuffled].astype(np.int64),
        point_index[shuffled].astype(np.int64),
    )
    in_camera = apply(T[camera_index], xyz[point_index])
    exact = CAMERA.project(in_camera)
    u_right = exact[:, 0] - CAMERA.bf / in_camera[:, 2] + rng.normal(0, sigma, len(exact))
    u_right[rng.random(len(exact)) >= stereo] = np.nan
    pixels = exact + rng.normal(0, sigma, exact.shape)
    wrong = rng.random(len(exact)) < outliers
    pixels[wrong] += 20.0 + rng.uniform(0, 50, (int(wrong.sum()), 2))
    holds = np.arange(cameras) < fixed
    guess = (
        se3_exp(start * rng.normal(0, 1, (cameras, 6)) * [0.03, 0.03, 0.03, 0.01, 0.01, 0.01]) @ T
    )
    guess[holds] = T[holds]
    near = xyz + start * rng.normal(0, 0.05, xyz.shape)
    return (
        T,
        xyz,
        BundleProblem(guess, holds, near, camera_index, point_index, pixels, u_right),
        wrong,
    )


def residuals_of(problem, T_cam_world, points, sigma=1.0):
    measured = Reprojection(problem.pixels, problem.u_right, CAMERA, sigma)
    in_camera = apply(T_cam_world[problem.camera_index], points[problem.point_index])
    residuals, valid = measured.residuals(in_camera.T)
    assert valid.all()
    return residuals, measured.limit


def robust_cost(problem, T_cam_world, points):
    residuals, limit = residuals_of(problem, T_cam_world, points)
    return huber_cost(chi_squared(residuals), limit).sum()


def test_without_noise_the_truth_is_found():
    T, points, problem, _ = make_problem(sigma=0.0)
    result = SchurBundleAdjuster(iterations=20).adjust(problem, CAMERA)
    np.testing.assert_allclose(result.T_cam_world, T, atol=1e-5)
    np.testing.assert_allclose(result.points, points, atol=1e-4)
    assert result.inliers.all()
    assert result.cost_after < 1e-3 < result.cost_before


@pytest.mark.parametrize("stereo", [0.0, 0.6])
def test_optimum_equals_scipy(stereo):
    _, _, problem, _ = make_problem(1, cameras=3, points=25, per_point=3, stereo=stereo, fixed=2)

    def unpack(x):
        T = problem.T_cam_world.copy()
        T[2] = se3_exp(x[:6]) @ T[2]
        return T, problem.points + x[6:].reshape(-1, 3)

    # With a large σ all observations stay in the quadratic part of the kernel, as in SciPy's plain
    # least squares.
    sigma = 5.0

    def to_minimize(x):
        T_cam_world, points = unpack(x)
        return residuals_of(problem, T_cam_world, points, sigma)[0].ravel()

    best = scipy.optimize.least_squares(to_minimize, np.zeros(6 + 75), xtol=1e-12, ftol=1e-12)
    result = SchurBundleAdjuster(pixel_sigma=sigma, iterations=30).adjust(problem, CAMERA)
    assert result.inliers.all()
    assert result.cost_after == pytest.approx(2.0 * best.cost, rel=1e-4)
    T, points = unpack(best.x)
    np.testing.assert_allclose(result.T_cam_world, T, atol=2e-3)
    if stereo:
        np.testing.assert_allclose(result.points, points, atol=2e-2)


@pytest.mark.parametrize("stereo", [0.0, 0.5])
def test_optimum_equals_g2o(stereo):
    g2o = pytest.importorskip("g2opy")
    _, _, problem, _ = make_problem(2, cameras=6, points=150, stereo=stereo, fixed=2)
    optimizer = g2o.SparseOptimizer()
    optimizer.set_algorithm(
        g2o.OptimizationAlgorithmLevenberg(g2o.BlockSolverSE3(g2o.LinearSolverEigenSE3()))
    )
    keep = []
    for k, T in enumerate(problem.T_cam_world):
        vertex = g2o.VertexSE3Expmap()
        vertex.set_id(k)
        vertex.set_estimate(g2o.SE3Quat(T[:3, :3], T[:3, 3]))
        vertex.set_fixed(bool(problem.fixed[k]))
        optimizer.add_vertex(vertex)
        keep.append(vertex)
    for p, xyz in enumerate(problem.points):
        vertex = g2o.VertexPointXYZ()
        vertex.set_id(len(problem.fixed) + p)
        vertex.set_marginalized(True)
        vertex.set_estimate(xyz)
        optimizer.add_vertex(vertex)
        keep.append(vertex)
    for k, p, pixel, right in zip(
        problem.camera_index, problem.point_index, problem.pixels, problem.u_right, strict=True
    ):
        seen_right = np.isfinite(right)
        edge = g2o.EdgeStereoSE3ProjectXYZ() if seen_right else g2o.EdgeSE3ProjectXYZ()
        edge.set_vertex(0, optimizer.vertex(len(problem.fixed) + int(p)))
        edge.set_vertex(1, optimizer.vertex(int(k)))
        edge.set_measurement(np.array([*pixel, right]) if seen_right else pixel)
        edge.set_information(np.eye(3 if seen_right else 2))
        edge.set_robust_kernel(g2o.RobustKernelHuber(np.sqrt(7.815 if seen_right else 5.991)))
        edge.fx, edge.fy, edge.cx, edge.cy = CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy
        if seen_right:
            edge.bf = CAMERA.bf
        optimizer.add_edge(edge)
        keep.append(edge)
    optimizer.initialize_optimization()
    optimizer.optimize(30)
    theirs = robust_cost(problem, *result_of_g2o(problem, optimizer, len(problem.fixed)))
    # Only the first stage minimises the same cost as g2o.
    scene = bundle._Scene(problem, CAMERA, 1.0, None)
    state = bundle._State(problem.T_cam_world, problem.points.T.copy())
    state = bundle._Stage(scene, scene.usable(state), 1e-9).minimize(state, 30)
    ours = robust_cost(problem, state.T_cam_world, state.points.T)
    assert ours == pytest.approx(theirs, rel=1e-3)


def result_of_g2o(problem, optimizer, cameras):
    """Poses and points of a g2o optimizer."""
    T = np.array(
        [np.asarray(optimizer.vertex(k).estimate().to_homogeneous_matrix()) for k in range(cameras)]
    )
    points = np.array(
        [np.asarray(optimizer.vertex(cameras + p).estimate()) for p in range(len(problem.points))]
    )
    return T, points


def test_point_jacobian_of_the_normal_equations():
    """The gradient used by the solver is the derivative of the cost that it reports."""
    _, _, problem, _ = make_problem(3, cameras=3, points=10, per_point=3)
    scene = bundle._Scene(problem, CAMERA, 1.0, None)
    state = bundle._State(problem.T_cam_world, problem.points.T.copy())
    stage = bundle._Stage(scene, scene.usable(state), 1e-9)
    seen = stage.evaluate(state)
    normal = stage.linearize(seen)
    for row in range(12):
        step = np.zeros(12)
        step[row] = 1e-6
        plus, minus = (stage.move(seen, (s * step, np.zeros((3, 10)))).cost for s in (1, -1))
        assert (plus - minus) / 2e-6 == pytest.approx(
            2.0 * normal.camera_gradient[row], rel=1e-3, abs=1.0
        )
    for axis in range(3):
        for column in range(10):
            step = np.zeros((3, 10))
            step[axis, column] = 1e-6
            plus, minus = (stage.move(seen, (np.zeros(12), s * step)).cost for s in (1, -1))
            assert (plus - minus) / 2e-6 == pytest.approx(
                2.0 * normal.point_gradient[axis, column], rel=1e-3, abs=1.0
            )


def test_outliers_are_found_and_do_not_bend_the_map():
    T, points, problem, wrong = make_problem(4, cameras=8, points=400, outliers=0.1)
    result = SchurBundleAdjuster(iterations=10).adjust(problem, CAMERA)
    # A few wrong observations lie along their epipolar line, where nothing contradicts them.
    assert result.inliers[wrong].mean() < 0.05
    assert result.inliers[~wrong].mean() > 0.9
    assert np.abs(result.T_cam_world - T).max() < 0.05
    assert np.median(np.linalg.norm(result.points - points, axis=1)) < 0.15
    assert result.cost_after < 0.5 * result.cost_before


def test_dense_and_sparse_solvers_agree(monkeypatch):
    _, _, problem, _ = make_problem(5, cameras=8, points=200, outliers=0.05)
    dense = SchurBundleAdjuster().adjust(problem, CAMERA)
    monkeypatch.setattr(bundle, "_DENSE_CAMERAS", 0)
    sparse = SchurBundleAdjuster().adjust(problem, CAMERA)
    monkeypatch.setattr(bundle, "_DENSE_SYSTEM", 0)
    sparser = SchurBundleAdjuster().adjust(problem, CAMERA)
    for other in (sparse, sparser):
        np.testing.assert_allclose(other.T_cam_world, dense.T_cam_world, atol=1e-9)
        np.testing.assert_allclose(other.points, dense.points, atol=1e-8)
        assert (other.inliers == dense.inliers).all()


def test_fixed_keyframes_keep_their_bytes_and_the_input_is_unchanged():
    _, _, problem, _ = make_problem(6, fixed=2)
    poses, points = problem.T_cam_world.copy(), problem.points.copy()
    result = SchurBundleAdjuster().adjust(problem, CAMERA)
    assert result.T_cam_world[:2].tobytes() == poses[:2].tobytes()
    assert not np.array_equal(result.T_cam_world[2:], poses[2:])
    np.testing.assert_array_equal(problem.T_cam_world, poses)
    np.testing.assert_array_equal(problem.points, points)


def test_all_keyframes_fixed_moves_points_only():
    _, points, problem, _ = make_problem(7, fixed=5, sigma=0.0)
    result = SchurBundleAdjuster(iterations=10).adjust(problem, CAMERA)
    np.testing.assert_array_equal(result.T_cam_world, problem.T_cam_world)
    np.testing.assert_allclose(result.points, points, atol=1e-3)


def test_a_gauge_is_required():
    _, _, problem, _ = make_problem(8, fixed=0)
    with pytest.raises(ValueError, match="needs a fixed keyframe, found none among 5"):
        SchurBundleAdjuster().adjust(problem, CAMERA)


def test_undetermined_points_stay_in_place():
    _, _, problem, _ = make_problem(9, stereo=0.0)
    once = problem.point_index == 0
    keep = ~once | (np.cumsum(once) == 1)
    keep &= problem.point_index != 1
    problem = replace(
        problem,
        camera_index=problem.camera_index[keep],
        point_index=problem.point_index[keep],
        pixels=problem.pixels[keep],
        u_right=problem.u_right[keep],
    )
    result = SchurBundleAdjuster().adjust(problem, CAMERA)
    np.testing.assert_array_equal(result.points[:2], problem.points[:2])
    assert not np.array_equal(result.points[2:], problem.points[2:])


def test_bad_input_is_left_out():
    T, _, problem, _ = make_problem(10, points=200)
    problem.points[:3] = np.nan
    problem.pixels[5:8] = np.nan
    problem.points[3:6] *= -1.0
    result = SchurBundleAdjuster(iterations=10).adjust(problem, CAMERA)
    assert not result.inliers[np.isin(problem.point_index, [0, 1, 2])].any()
    assert not result.inliers[5:8].any()
    assert np.isfinite(result.points[3:]).all()
    assert np.abs(result.T_cam_world - T).max() < 0.1


@pytest.mark.parametrize("fixed", [1, 5])
def test_no_observations(fixed):
    _, _, problem, _ = make_problem(11, fixed=fixed)
    empty = np.zeros(0, dtype=np.int64)
    problem = replace(
        problem, camera_index=empty, point_index=empty, pixels=np.zeros((0, 2)), u_right=np.zeros(0)
    )
    result = SchurBundleAdjuster().adjust(problem, CAMERA)
    np.testing.assert_allclose(result.T_cam_world, problem.T_cam_world, atol=1e-12)
    np.testing.assert_array_equal(result.points, problem.points)
    assert result.inliers.shape == (0,)


def test_a_point_seen_twice_by_one_keyframe():
    _, _, problem, _ = make_problem(12)
    twice = np.concatenate([np.arange(len(problem.pixels)), [0, 1, 2]])
    problem = replace(
        problem,
        camera_index=problem.camera_index[twice],
        point_index=problem.point_index[twice],
        pixels=problem.pixels[twice],
        u_right=problem.u_right[twice],
    )
    result = SchurBundleAdjuster().adjust(problem, CAMERA)
    assert result.cost_after < result.cost_before


@pytest.mark.parametrize("seed", range(6))
def test_the_cost_never_rises(seed):
    _, _, problem, _ = make_problem(
        20 + seed, outliers=0.3, start=0.2 * seed, stereo=0.2 * (seed % 3)
    )
    adjuster = SchurBundleAdjuster()
    result = adjuster.adjust(problem, CAMERA)
    assert result.cost_after <= result.cost_before
    again = adjuster.adjust(
        replace(problem, T_cam_world=result.T_cam_world, points=result.points), CAMERA
    )
    assert again.cost_before == pytest.approx(result.cost_after)
    assert again.cost_after <= again.cost_before


def test_same_input_gives_same_bytes():
    _, _, problem, _ = make_problem(13, outliers=0.1)
    first, second = (SchurBundleAdjuster().adjust(problem, CAMERA) for _ in range(2))
    assert first.T_cam_world.tobytes() == second.T_cam_world.tobytes()
    assert first.points.tobytes() == second.points.tobytes()
