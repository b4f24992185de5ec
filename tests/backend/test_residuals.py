"""Residuals of stereo points: their derivatives, and what an error of the keypoint means."""

import numpy as np
import pytest

from spslam.backend.bundle import SchurBundleAdjuster
from spslam.backend.residuals import Reprojection, pose_jacobian
from spslam.backend_interfaces import BundleProblem
from spslam.camera import Camera

CAMERA = Camera(width=1241, height=376, fx=718.0, fy=717.0, cx=607.0, cy=185.0, baseline_m=0.54)


def street_points(n: int = 200) -> np.ndarray:
    rng = np.random.default_rng(3)
    return np.column_stack([rng.uniform(-8, 8, n), rng.uniform(-4, 1.6, n), rng.uniform(10, 60, n)])


@pytest.mark.parametrize("disparity_sigma", [None, 0.2])
def test_jacobian_equals_finite_differences(disparity_sigma: float | None) -> None:
    points = street_points(20).T
    pixels = CAMERA.project(points.T) + 0.3
    u_right = pixels[:, 0] - CAMERA.bf / points[2]
    u_right[::4] = np.nan
    measured = Reprojection(pixels, u_right, CAMERA, 0.7, disparity_sigma)
    _, valid = measured.residuals(points)
    jacobian = measured.jacobian(points, valid)
    for axis in range(3):
        step = np.zeros((3, 1))
        step[axis] = 1e-5
        ahead, back = measured.residuals(points + step)[0], measured.residuals(points - step)[0]
        np.testing.assert_allclose(jacobian[axis], (ahead - back) / 2e-5, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("disparity_sigma", [None, 0.2])
@pytest.mark.parametrize("kind", ["stereo", "mono", "some", "one behind"])
def test_jacobian_by_the_pose_follows_from_that_by_the_point(
    disparity_sigma: float | None, kind: str
) -> None:
    points = street_points(20).T
    pixels = CAMERA.project(points.T) + 0.3
    u_right = pixels[:, 0] - CAMERA.bf / points[2]
    u_right[:: {"some": 3, "mono": 1}.get(kind, 100)] = np.nan
    if kind == "one behind":
        points[2, 5] = -3.0
    measured = Reprojection(pixels, u_right, CAMERA, 0.7, disparity_sigma)
    residuals, valid = measured.residuals(points)
    assert np.count_nonzero(~valid) == (kind == "one behind")
    assert np.all(residuals[:, ~valid] == 0.0)
    expected = pose_jacobian(measured.jacobian(points, valid), points)
    jacobian = measured.pose_jacobian(points, valid)
    assert jacobian.shape == (6, 2 if kind == "mono" else 3, 20)
    assert np.all(expected[:, 2:] == 0.0) == (kind == "mono")
    np.testing.assert_array_equal(jacobian, expected[:, : jacobian.shape[1]])


def test_an_error_of_the_keypoint_does_not_change_the_disparity() -> None:
    points = street_points(20)
    pixels = CAMERA.project(points)
    u_right = pixels[:, 0] - CAMERA.bf / points[:, 2]
    shift = np.array([1.4, 0.0])
    measured = Reprojection(pixels + shift, u_right + 1.4, CAMERA, 0.7, 0.2)
    residuals, _ = measured.residuals(points.T)
    np.testing.assert_allclose(residuals, [[-2.0], [0.0], [0.0]] * np.ones(20), atol=1e-9)


@pytest.mark.parametrize("disparity_sigma", [None, 0.2])
def test_each_position_has_its_own_standard_deviation(disparity_sigma: float | None) -> None:
    points = street_points(20)
    pixels = CAMERA.project(points)
    u_right = pixels[:, 0] - CAMERA.bf / points[:, 2] + 0.1
    relative = np.linspace(0.5, 2.0, 20).astype(np.float32)

    def of(pixel_sigma: float, relative_sigma: np.ndarray | None) -> Reprojection:
        return Reprojection(
            pixels + 1.4, u_right, CAMERA, pixel_sigma, disparity_sigma, relative_sigma
        )

    own = of(0.7, relative)
    residuals, valid = own.residuals(points.T)
    np.testing.assert_allclose(residuals[:2], [-2.0 / relative] * 2, rtol=1e-6)
    jacobian = own.pose_jacobian(points.T, valid)
    few = np.array([3, 17, 4])
    np.testing.assert_array_equal(own.select(few).residuals(points[few].T)[0], residuals[:, few])
    for row in few:
        alone = of(0.7 * float(relative[row]), None).select(np.array([row]))
        at = points[[row]].T
        np.testing.assert_allclose(alone.residuals(at)[0], residuals[:, [row]], rtol=1e-6)
        np.testing.assert_allclose(
            alone.pose_jacobian(at, alone.everything), jacobian[:, :, [row]], rtol=1e-6
        )


def test_bundle_adjustment_follows_precise_positions() -> None:
    points, rng = street_points(200), np.random.default_rng(4)
    T = np.stack([np.eye(4)] * 4)
    T[:, 2, 3] = -np.arange(4) * 0.8
    camera_index, point_index = (a.ravel() for a in np.indices((4, len(points))))
    exact = CAMERA.project(points[point_index] + T[camera_index, :3, 3])
    relative = np.where(camera_index % 2, 3.0, 0.3).astype(np.float32)
    pixels = exact + rng.normal(0.0, 0.5, exact.shape) * relative[:, None]
    unknown = np.full(len(pixels), np.nan)
    errors = []
    for sigma in (None, relative):
        problem = BundleProblem(
            T, np.ones(4, bool), points * 1.01, camera_index, point_index, pixels, unknown, sigma
        )
        found = SchurBundleAdjuster(0.5, 12).adjust(problem, CAMERA).points
        errors.append(np.median(np.abs(1 / found[:, 2] - 1 / points[:, 2])))
    assert errors[1] < 0.5 * errors[0]


def test_depth_is_better_where_both_images_have_the_same_error() -> None:
    """Keypoints err by 0.7 px, disparities by 0.15 px, as measured on `demo-street`."""
    points, rng = street_points(400), np.random.default_rng(8)
    T = np.stack([np.eye(4)] * 4)
    T[:, 2, 3] = -np.arange(4) * 0.8
    camera_index, point_index = (a.ravel() for a in np.indices((4, len(points))))
    seen = points[point_index] + T[camera_index, :3, 3]
    exact = CAMERA.project(seen)
    pixels = exact + rng.normal(0.0, 0.7, exact.shape)
    u_right = pixels[:, 0] - CAMERA.bf / seen[:, 2] + rng.normal(0.0, 0.15, len(seen))
    problem = BundleProblem(
        T, np.ones(4, bool), points * 1.03, camera_index, point_index, pixels, u_right
    )
    errors = []
    for disparity_sigma in (None, 0.15):
        adjuster = SchurBundleAdjuster(0.7, 12, disparity_sigma=disparity_sigma)
        found = adjuster.adjust(problem, CAMERA).points
        errors.append(np.sqrt(np.mean((1 / found[:, 2] - 1 / points[:, 2]) ** 2)))
    assert errors[1] < 0.4 * errors[0]
