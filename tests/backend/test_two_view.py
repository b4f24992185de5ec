"""Two views: correct motions are found, unclear ones refused with a reason; triangulation."""

import numpy as np
import pytest

from spslam.backend.two_view import EpipolarSolver, _linearize_sampson
from spslam.backend_interfaces import TwoViewEstimate
from spslam.camera import Camera
from spslam.errors import Refusal
from spslam.geometry import apply, hat, inverse, make_transform, rotation_angle, se3_exp, so3_exp

CAMERA = Camera(640, 480, 520.0, 510.0, 322.0, 238.0)


def make_views(
    seed, kind="volume", baseline=0.4, outliers=0.0, sigma=0.7, count=400, forward=False
):
    """True T_1_0, points in camera 0, pixels in both views, which matches are correct."""
    rng = np.random.default_rng(seed)
    pixels0 = rng.uniform([10, 10], [630, 470], (count, 2))
    depth = rng.uniform(2.0, 8.0, count)
    if kind == "plane":
        normal = np.array([0.35, -0.25, 0.9])
        depth = 3.0 / (CAMERA.unproject(pixels0, np.ones(count)) @ normal)
    points = CAMERA.unproject(pixels0, depth)
    direction = np.array([0.1, 0.1, -1.0]) if forward else np.array([1.0, 0.3, 0.2])
    translation = baseline * direction / np.linalg.norm(direction)
    T = make_transform(so3_exp(rng.normal(0, 0.04, 3)), translation)
    pixels1 = CAMERA.project(apply(T, points))
    seen = CAMERA.in_image(pixels1)
    points, pixels0, pixels1 = points[seen], pixels0[seen], pixels1[seen]
    wrong = np.arange(len(points)) < outliers * len(points)
    pixels0 = pixels0 + rng.normal(0, sigma, pixels0.shape)
    pixels1 = pixels1 + rng.normal(0, sigma, pixels1.shape)
    pixels1[wrong] = rng.uniform([0, 0], [640, 480], (int(wrong.sum()), 2))
    return T, points, pixels0, pixels1, ~wrong


def direction_error_deg(T, estimate):
    return np.degrees(
        np.arccos(np.clip(T[:3, 3] @ estimate[:3, 3] / np.linalg.norm(T[:3, 3]), -1, 1))
    )


@pytest.mark.parametrize("outliers", [0.0, 0.5])
@pytest.mark.parametrize("forward", [False, True])
def test_solves_a_volume_by_the_essential_matrix(outliers, forward):
    for seed in range(4):
        T, points, pixels0, pixels1, right = make_views(
            seed, outliers=outliers, forward=forward, baseline=1.0 if forward else 0.4
        )
        found = EpipolarSolver().solve(pixels0, pixels1, CAMERA)
        assert isinstance(found, TwoViewEstimate), found
        assert found.model == "essential"
        assert np.degrees(rotation_angle(T[:3, :3] @ found.T_1_0[:3, :3].T)) < 0.5
        assert direction_error_deg(T, found.T_1_0) < 4.0
        assert np.linalg.norm(found.T_1_0[:3, 3]) == pytest.approx(1.0)
        triangulated = np.isfinite(found.points).all(axis=1)
        assert (triangulated & right).sum() > 0.85 * right.sum()
        scaled = found.points[triangulated & right] * np.linalg.norm(T[:3, 3])
        error = np.abs(scaled[:, 2] / points[triangulated & right][:, 2] - 1.0)
        assert np.median(error) < 0.08


def test_solves_a_plane_by_the_homography():
    solved = 0
    for seed in range(8):
        T, _, pixels0, pixels1, _ = make_views(seed, kind="plane", outliers=0.3, baseline=0.6)
        found = EpipolarSolver().solve(pixels0, pixels1, CAMERA)
        if isinstance(found, TwoViewEstimate):
            solved += 1
            assert found.model == "homography"
            assert direction_error_deg(T, found.T_1_0) < 8.0
        else:
            assert "ambiguous" in found.reason
            assert "(homography)" in found.reason
    assert solved >= 4


@pytest.mark.parametrize("kind", ["volume", "plane"])
@pytest.mark.parametrize("sigma", [0.0, 0.7])
def test_refuses_a_pure_rotation(kind, sigma):
    for seed in range(6):
        _, _, pixels0, pixels1, _ = make_views(
            seed, kind=kind, baseline=0.0, sigma=sigma, outliers=0.1
        )
        refusal = EpipolarSolver().solve(pixels0, pixels1, CAMERA)
        assert isinstance(refusal, Refusal)
        assert "\n" not in refusal.reason


def test_refuses_low_parallax_and_names_the_angles():
    _, _, pixels0, pixels1, _ = make_views(0, baseline=0.2, sigma=0.2)
    refusal = EpipolarSolver(min_parallax_deg=5.0).solve(pixels0, pixels1, CAMERA)
    assert isinstance(refusal, Refusal)
    assert refusal.reason.startswith("too little parallax: 1.9")
    assert "at least 5°" in refusal.reason
    assert isinstance(
        EpipolarSolver(min_parallax_deg=1.0).solve(pixels0, pixels1, CAMERA), TwoViewEstimate
    )


def test_never_wrong_with_twice_the_noise_on_a_plane():
    for seed in range(20):
        T, _, pixels0, pixels1, _ = make_views(seed, kind="plane", sigma=1.5)
        found = EpipolarSolver().solve(pixels0, pixels1, CAMERA)
        assert isinstance(found, Refusal) or direction_error_deg(T, found.T_1_0) < 20.0


@pytest.mark.parametrize("count", [0, 7, 79])
def test_refuses_few_matches(count):
    _, _, pixels0, pixels1, _ = make_views(1)
    refusal = EpipolarSolver().solve(pixels0[:count], pixels1[:count], CAMERA)
    assert refusal == Refusal(f"too few matches: {count} of at least 80")


@pytest.mark.parametrize("what", ["random", "same place", "one line", "identical views"])
def test_degenerate_matches_are_refused(what):
    rng = np.random.default_rng(0)
    pixels0 = rng.uniform([0, 0], [640, 480], (200, 2))
    pixels1 = rng.uniform([0, 0], [640, 480], (200, 2))
    if what == "same place":
        pixels0[:], pixels1[:] = (100.0, 100.0), (120.0, 100.0)
    elif what == "one line":
        pixels0[:, 1] = pixels1[:, 1] = 200.0
    elif what == "identical views":
        pixels1 = pixels0
    assert isinstance(EpipolarSolver().solve(pixels0, pixels1, CAMERA), Refusal)


def test_nan_matches_stay_nan():
    _, _, pixels0, pixels1, _ = make_views(2)
    pixels1[:10] = np.nan
    found = EpipolarSolver().solve(pixels0, pixels1, CAMERA)
    assert isinstance(found, TwoViewEstimate)
    assert len(found.points) == len(pixels0)
    assert np.isnan(found.points[:10]).all()


def test_same_input_gives_same_bytes():
    _, _, pixels0, pixels1, _ = make_views(3, outliers=0.4)
    first, second = (EpipolarSolver().solve(pixels0, pixels1, CAMERA) for _ in range(2))
    assert isinstance(first, TwoViewEstimate)
    assert isinstance(second, TwoViewEstimate)
    assert first.T_1_0.tobytes() == second.T_1_0.tobytes()
    assert first.points.tobytes() == second.points.tobytes()


@pytest.mark.parametrize("forward", [False, True])
def test_triangulates_in_world_coordinates(forward):
    T_1_0, points0, pixels0, pixels1, _ = make_views(4, sigma=0.0, forward=forward)
    T_0_world = se3_exp(np.array([0.3, -2.0, 1.0, 0.5, -1.0, 0.2]))
    solver = EpipolarSolver(min_point_parallax_deg=0.5)
    points = solver.triangulate(T_0_world, T_1_0 @ T_0_world, pixels0, pixels1, CAMERA)
    good = np.isfinite(points).all(axis=1)
    assert good.mean() > (0.5 if forward else 0.99)
    np.testing.assert_allclose(
        points[good], apply(inverse(T_0_world), points0)[good], rtol=1e-6, atol=1e-6
    )


def test_triangulation_minimises_the_reprojection_error():
    scipy_optimize = pytest.importorskip("scipy.optimize")
    T_1_0, _, pixels0, pixels1, _ = make_views(5, sigma=0.7, count=20)
    square = Camera(640, 480, 515.0, 515.0, 322.0, 238.0)
    points = EpipolarSolver(pixel_sigma=10.0).triangulate(
        np.eye(4), T_1_0, pixels0, pixels1, square
    )
    for point, pixel0, pixel1 in zip(points, pixels0, pixels1, strict=True):

        def residual(x, pixel0=pixel0, pixel1=pixel1):
            return np.concatenate(
                [square.project(x) - pixel0, square.project(apply(T_1_0, x)) - pixel1]
            )

        best = scipy_optimize.least_squares(residual, point, xtol=1e-12, ftol=1e-14)
        assert np.sum(residual(point) ** 2) <= 2.0 * best.cost * (1 + 1e-3) + 1e-9


def test_triangulation_refuses_inconsistent_or_low_parallax_points():
    T_1_0, _, pixels0, pixels1, _ = make_views(6, sigma=0.0)
    solver = EpipolarSolver()
    identity = np.eye(4)
    off_line = pixels1 + np.array([0.0, 15.0])
    assert np.isnan(solver.triangulate(identity, T_1_0, pixels0, off_line, CAMERA)).all()
    backwards = make_transform(T_1_0[:3, :3], -T_1_0[:3, 3])
    assert np.isnan(solver.triangulate(identity, backwards, pixels0, pixels1, CAMERA)).all()
    strict = EpipolarSolver(min_point_parallax_deg=30.0)
    assert np.isnan(strict.triangulate(identity, T_1_0, pixels0, pixels1, CAMERA)).all()
    assert np.isnan(solver.triangulate(identity, identity, pixels0, pixels0, CAMERA)).all()
    assert solver.triangulate(
        identity, T_1_0, np.zeros((0, 2)), np.zeros((0, 2)), CAMERA
    ).shape == (0, 3)


def test_sampson_jacobian_equals_differences_on_the_epipolar_lines():
    T, _, pixels0, pixels1, _ = make_views(7, sigma=0.0, count=30)
    T = make_transform(T[:3, :3], T[:3, 3] / np.linalg.norm(T[:3, 3]))
    x0, x1 = (CAMERA.unproject(p, np.ones(len(p))) for p in (pixels0, pixels1))
    _, jacobian, tangent = _linearize_sampson(x0, x1, T, 1e-3)
    for axis in range(5):
        difference = []
        for h in (1e-6, -1e-6):
            step = np.zeros(5)
            step[axis] = h
            moved = make_transform(so3_exp(step[:3]) @ T[:3, :3], T[:3, 3] + tangent @ step[3:])
            difference.append(_linearize_sampson(x0, x1, moved, 1e-3)[0])
        np.testing.assert_allclose(
            jacobian[:, axis], (difference[0] - difference[1]) / 2e-6, rtol=1e-3, atol=0.05
        )


def test_standstill_is_measured_from_the_epipolar_lines():
    T, _, pixels0, pixels1, right = make_views(3, outliers=0.2, sigma=0.5)
    still = np.random.default_rng(1).uniform([10, 10], [630, 470], (200, 2))
    found = EpipolarSolver(0.7).standstill(pixels0, pixels1, still, CAMERA)
    assert found is not None
    agree, distance = found
    assert np.mean(agree[right]) > 0.9 and np.mean(agree[~right]) < 0.3
    # The distance of a pixel to its epipolar line by the true motion; Sampson's distance divides it
    # between both images.
    K_inv = np.linalg.inv(CAMERA.K)
    homogeneous = np.column_stack([still, np.ones(len(still))])
    lines = homogeneous @ (K_inv.T @ hat(T[:3, 3]) @ T[:3, :3] @ K_inv).T
    true = np.abs(np.sum(lines * homogeneous, axis=1)) / np.linalg.norm(lines[:, :2], axis=1)
    assert np.median(true) > 3.0
    assert distance * np.sqrt(2) == pytest.approx(true, rel=0.25, abs=2.0)


def test_standstill_fits_a_camera_that_does_not_turn():
    points = np.random.default_rng(0).uniform([-3, -2, 3], [3, 2, 8], (300, 3))
    moved = points - [0.3, 0.05, 0.1]
    still = np.random.default_rng(1).uniform([10, 10], [630, 470], (200, 2))
    found = EpipolarSolver(0.7).standstill(
        CAMERA.project(points), CAMERA.project(moved), still, CAMERA
    )
    assert found is not None
    agree, distance = found
    assert agree.all()
    assert distance.max() < 0.5, "points at infinity stay where they are"
    assert EpipolarSolver(0.7).standstill(still[:7], still[:7], still, CAMERA) is None
