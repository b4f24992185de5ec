from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spslam.camera import Camera
from spslam.errors import CalibrationError
from spslam.typing import FloatArray

examples = settings(deadline=None, max_examples=60)

# Published calibrations: KITTI 00, TUM fr1 (strong distortion), EuRoC cam0, TUM-VI cam0 (fisheye)
CAMERAS = {
    "ideal": Camera(1241, 376, 718.856, 718.856, 607.1928, 185.2157, baseline_m=0.537),
    "fr1": Camera(
        640, 480, 517.3, 516.5, 318.6, 255.3, "radtan",
        (0.2624, -0.9531, -0.0054, 0.0026, 1.1633),
    ),
    "euroc": Camera(
        752, 480, 458.654, 457.296, 367.215, 248.375, "radtan",
        (-0.28340811, 0.07395907, 1.9e-4, 1.8e-5),
    ),
    "fisheye": Camera(
        512, 512, 190.97847715, 190.97330735, 254.93170605, 256.89744175, "equidistant",
        (
            0.0034823894022493434, 0.0007150348452162257,
            -0.0020532361418706202, 0.00020293673591811182,
        ),
    ),
}  # fmt: skip


def pixels_of(camera: Camera, border: float = 0.0) -> FloatArray:
    """A grid of pixels over the whole image."""
    x = np.linspace(border, camera.width - 1 - border, 17)
    y = np.linspace(border, camera.height - 1 - border, 13)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def test_depth_needs_a_baseline() -> None:
    assert CAMERAS["ideal"].has_depth and not CAMERAS["fr1"].has_depth


@pytest.mark.parametrize("name", ["ideal", "fr1", "euroc"])
def test_distortion_undoes_undistortion_over_the_whole_image(name: str) -> None:
    camera = CAMERAS[name]
    pixels = pixels_of(camera)
    np.testing.assert_allclose(camera.distort(camera.undistort(pixels)), pixels, atol=1e-3)


def test_a_fisheye_is_undistorted_where_a_pinhole_can_show_it() -> None:
    camera = CAMERAS["fisheye"]
    pixels = pixels_of(camera)
    # A pinhole sees less than 90 degrees off axis: use 75.
    pixels = pixels[
        np.linalg.norm((pixels - (camera.cx, camera.cy)) / camera.fx, axis=1) < np.radians(75)
    ]
    assert len(pixels) > 130
    np.testing.assert_allclose(camera.distort(camera.undistort(pixels)), pixels, atol=1e-3)


@examples
@given(st.sampled_from(sorted(CAMERAS)), st.integers(0, 2**32 - 1))
def test_undistortion_undoes_distortion_of_what_the_camera_sees(name: str, seed: int) -> None:
    camera = CAMERAS[name]
    seen = np.random.default_rng(seed).uniform(
        [80, 60], [camera.width - 81, camera.height - 61], (30, 2)
    )
    undistorted = camera.undistort(seen)
    np.testing.assert_allclose(
        camera.undistort(camera.distort(undistorted)), undistorted, atol=1e-2
    )


@examples
@given(
    st.floats(-0.35, 0.35),
    st.floats(-0.1, 0.1),
    st.floats(-2e-3, 2e-3),
    st.floats(-2e-3, 2e-3),
    st.floats(-0.02, 0.02),
)
def test_distortion_and_undistortion_are_inverse_for_moderate_lenses(
    k1: float, k2: float, p1: float, p2: float, k3: float
) -> None:
    camera = Camera(640, 480, 460.0, 458.0, 322.0, 237.0, "radtan", (k1, k2, p1, p2, k3))
    pixels = pixels_of(camera, border=120)
    np.testing.assert_allclose(camera.undistort(camera.distort(pixels)), pixels, atol=1e-3)


@pytest.mark.parametrize("name", sorted(CAMERAS))
def test_the_principal_point_is_undistorted_already(name: str) -> None:
    camera = CAMERAS[name]
    centre = np.array([[camera.cx, camera.cy]])
    np.testing.assert_allclose(camera.undistort(centre), centre, atol=1e-6)
    np.testing.assert_allclose(camera.distort(centre), centre, atol=1e-6)


def test_distortion_equals_that_of_opencv() -> None:
    camera = CAMERAS["fr1"]
    points = np.random.default_rng(0).uniform([-1, -0.7, 2], [1, 0.7, 3], (20, 3))
    expected, _ = cv2.projectPoints(
        points, np.zeros(3), np.zeros(3), camera.K, np.array(camera.distortion)
    )
    np.testing.assert_allclose(
        camera.distort(camera.project(points)), expected.reshape(-1, 2), atol=1e-9
    )


@pytest.mark.parametrize("name", sorted(CAMERAS))
def test_no_pixels_and_other_number_types_pass_through(name: str) -> None:
    camera = CAMERAS[name]
    for function in (camera.undistort, camera.distort):
        assert function(np.zeros((0, 2))).shape == (0, 2)
        out = function(np.array([[100.0, 90.0]], dtype=np.float32))
        assert out.dtype == np.float64
        assert out.shape == (1, 2)


def test_undistort_returns_a_copy() -> None:
    pixels = np.array([[10.0, 20.0]])
    CAMERAS["ideal"].undistort(pixels)[:] = 0
    CAMERAS["ideal"].distort(pixels)[:] = 0
    assert pixels.tolist() == [[10.0, 20.0]]


@examples
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 200.0))
def test_unprojection_undoes_projection(seed: int, depth: float) -> None:
    camera = CAMERAS["ideal"]
    rng = np.random.default_rng(seed)
    pixels = rng.uniform([0, 0], [camera.width, camera.height], (4, 5, 2))
    depths = depth * rng.uniform(0.5, 2.0, (4, 5))
    points = camera.unproject(pixels, depths)
    assert points.shape == (4, 5, 3)
    np.testing.assert_allclose(points[..., 2], depths)
    np.testing.assert_allclose(camera.project(points), pixels, atol=1e-9)
    rays = camera.bearings(pixels)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1.0)
    np.testing.assert_allclose(rays * np.linalg.norm(points, axis=-1)[..., None], points, atol=1e-9)


def test_points_behind_the_camera_have_no_pixel_and_give_no_warning() -> None:
    with np.errstate(all="raise"):
        pixels = CAMERAS["ideal"].project(
            np.array([[0.0, 0, 1], [0, 0, 0], [1, 1, -2], [1, 2, np.nan]])
        )
    np.testing.assert_allclose(pixels[0], [607.1928, 185.2157])
    assert np.isnan(pixels[1:]).all()


def test_in_image_counts_pixel_centres_and_leaves_out_nan() -> None:
    camera = CAMERAS["fr1"]
    pixels = np.array([[0.0, 0.0], [639.0, 479.0], [639.1, 0], [-0.1, 5], [np.nan, 5]])
    assert camera.in_image(pixels).tolist() == [True, True, False, False, False]
    assert camera.in_image(pixels, border=1).sum() == 0


def test_baseline_and_focal_length_give_the_disparity() -> None:
    assert CAMERAS["ideal"].bf == pytest.approx(718.856 * 0.537)
    assert CAMERAS["fr1"].bf == 0.0
    assert CAMERAS["fr1"].without_distortion().distortion == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "image size"),
        ({"fx": -1.0}, "fx and fy"),
        ({"fy": float("nan")}, "fx and fy"),
        ({"fy": -480.0}, r"camera's y axis points up \(as in ICL-NUIM\): give fy 480"),
        ({"cx": 7000.0}, "check the image size"),
        ({"distortion_model": "wavy"}, "one of none, radtan, equidistant"),
        ({"distortion": (0.1, 0.2)}, "takes 0 coefficients, found 2"),
        (
            {"distortion_model": "radtan", "distortion": (0.1,)},
            "takes 4, 5, 8, 12 or 14 coefficients, found 1",
        ),
        ({"distortion_model": "radtan", "distortion": (0.1, float("nan"), 0.0, 0.0)}, "finite"),
        ({"baseline_m": 0.0}, "baseline"),
        ({"baseline_m": float("nan")}, "baseline"),
        ({"baseline_m": float("inf")}, "baseline"),
        ({"fps": 0.0}, "fps"),
    ],
)
def test_impossible_calibrations_are_refused(change: dict[str, Any], message: str) -> None:
    values = {
        "width": 640,
        "height": 480,
        "fx": 500.0,
        "fy": 500.0,
        "cx": 320.0,
        "cy": 240.0,
    } | change
    with pytest.raises(CalibrationError, match=message) as caught:
        Camera(**values)
    assert "\n" not in str(caught.value)


def test_pixels_beyond_the_pinhole_have_no_undistorted_position() -> None:
    """TUM-VI's fisheye sees more than 180 degrees; its corners do not exist in a pinhole camera."""
    camera = Camera(
        512,
        512,
        190.978,
        190.973,
        254.931,
        256.897,
        "equidistant",
        (0.00348, 0.000715, -0.00205, 0.000202),
    )
    pixels = np.array([[0.0, 0.0], [254.931, 256.897], [350.0, 300.0]])
    undistorted = camera.undistort(pixels)
    assert np.isnan(undistorted[0]).all()
    assert np.allclose(camera.distort(undistorted[1:]), pixels[1:], atol=1e-6)


def test_an_ideal_fisheye_has_no_undistorted_pixels_from_90_degrees_on() -> None:
    camera = Camera(800, 800, 200.0, 200.0, 399.5, 399.5, "equidistant", (0.0, 0.0, 0.0, 0.0))
    angles = np.radians([0.0, 45.0, 89.0, 89.8, 89.95, 90.0, 90.05, 90.15, 95.0, 110.0])
    undistorted = camera.undistort(np.stack([399.5 + 200.0 * angles, np.full(10, 399.5)], axis=1))
    assert np.isfinite(undistorted).all(axis=1).tolist() == [True] * 4 + [False] * 6
    np.testing.assert_allclose(undistorted[:4, 0], 399.5 + 200.0 * np.tan(angles[:4]), rtol=1e-9)


def test_a_fisheye_shows_each_point_once() -> None:
    """OpenCV's projection mirrors points behind a lens into its image."""
    camera = CAMERAS["fisheye"]
    rng = np.random.default_rng(3)
    rays = rng.normal(size=(400, 3))
    pixels = camera.lens_pixels(rays)
    ahead = rays[:, 2] > 0.05
    expected, _ = cv2.fisheye.projectPoints(
        rays[ahead].reshape(-1, 1, 3),
        np.zeros(3),
        np.zeros(3),
        camera.K,
        np.array(camera.distortion),
    )
    np.testing.assert_allclose(pixels[ahead], expected.reshape(-1, 2), atol=1e-6)
    unit = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    known = np.isfinite(pixels).all(axis=1)
    assert known.mean() > 0.5
    np.testing.assert_allclose(camera.lens_rays(pixels[known]), unit[known], atol=1e-6)
    assert np.isnan(camera.lens_pixels(np.array([[0.0, 0.0, -1.0]]))).all()
    np.testing.assert_allclose(
        camera.lens_pixels(np.array([[0.0, 0.0, 2.0]])), [[camera.cx, camera.cy]]
    )


@pytest.mark.parametrize("name", ["ideal", "fr1", "euroc"])
def test_other_lenses_show_nothing_behind_them_and_each_point_once(name: str) -> None:
    camera = CAMERAS[name]
    pixels = pixels_of(camera)
    rays = camera.lens_rays(pixels)
    np.testing.assert_allclose(camera.lens_pixels(3.0 * rays), pixels, atol=1e-3)
    assert np.isnan(camera.lens_pixels(-rays)).all()


def test_a_lens_that_folds_back_shows_each_point_once() -> None:
    camera = Camera(640, 480, 460.0, 458.0, 322.0, 236.0, "radtan", (-0.3, 0.0, 0.0, 0.0))
    ray = np.array([[1.8, 0.0, 1.0]])
    assert camera.in_image(camera.distort(camera.project(ray))).all()
    assert np.isnan(camera.lens_pixels(ray)).all()


@pytest.mark.parametrize("count", [12, 14])
def test_thin_prisms_and_tilted_sensors_equal_those_of_opencv(count: int) -> None:
    k = (
        -0.2,
        0.05,
        0.001,
        -0.002,
        0.003,
        0.01,
        0.002,
        0.001,
        0.003,
        -0.002,
        0.001,
        0.002,
        0.02,
        -0.03,
    )[:count]
    camera = Camera(640, 480, 460.0, 458.0, 322.0, 236.0, "radtan", k)
    pixels = pixels_of(camera)
    np.testing.assert_allclose(camera.distort(camera.undistort(pixels)), pixels, atol=1e-3)
    map_x, map_y = cv2.initUndistortRectifyMap(
        camera.K, np.array(k), np.eye(3), camera.K, (camera.width, camera.height), cv2.CV_32FC1
    )
    x, y = pixels.round().astype(int).T
    mapped = np.stack([map_x[y, x], map_y[y, x]], axis=1)
    np.testing.assert_allclose(camera.distort(np.stack([x, y], axis=1)), mapped, atol=1e-3)


@pytest.mark.parametrize(("height", "cy"), [(235, -8.6), (200, 236.0)])
def test_the_principal_point_of_a_crop_may_lie_outside(height: int, cy: float) -> None:
    camera = Camera(640, height, 460.0, 458.0, 322.0, cy, "radtan", (-0.28, 0.07, 0.0002, 0.00002))
    pixels = pixels_of(camera)
    np.testing.assert_allclose(camera.distort(camera.undistort(pixels)), pixels, atol=1e-3)
    ideal = camera.without_distortion()
    np.testing.assert_allclose(
        ideal.project(ideal.unproject(pixels, np.full(len(pixels), 3.0))), pixels, atol=1e-9
    )
