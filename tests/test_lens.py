"""Lens models: names and coefficients; formulas against papers, OpenCV, pycolmap; round trips."""

from __future__ import annotations

import math
import re

import cv2
import numpy as np
import pytest

from spslam.camera import Camera
from spslam.errors import CalibrationError
from spslam.lens import lens, lens_model
from spslam.lens_models import (
    bend_angles,
    central_scale,
    positions_of,
    rays_of,
    straighten_angles,
    widest_angle,
    widest_slope,
)

FISHEYES = [
    (0.0, 0.0, 0.0, 0.0),
    (0.0034823894, 0.0007150348, -0.0020532361, 0.0002029367),  # TUM-VI
    (-0.0064, 0.0426, -0.0401, 0.0070),  # RealSense T265
    (0.01, -0.2, 0.0, 0.0),  # folds back
]
# Lenses: model, coefficients, focal length, and whether all of an 848 x 800 image is seen.
LENSES: dict[str, tuple[str, tuple[float, ...], float]] = {
    "T265": ("equidistant", FISHEYES[2], 286.0),
    "TUM-VI": ("double_sphere", (-0.1769, 0.5904), 260.0),
    "double sphere, inwards": ("double_sphere", (-0.2996, 0.5785), 190.0),
    "double sphere, wide": ("double_sphere", (0.3, 0.6), 300.0),
    "double sphere, no fold": ("double_sphere", (0.3, 0.3), 300.0),
    "eucm": ("eucm", (0.65, 1.1), 250.0),
    "eucm, no fold": ("eucm", (0.3, 0.8), 250.0),
    "ucm": ("ucm", (0.7,), 250.0),
    "omni, fold": ("omni", (1.5,), 700.0),
    "omni, distorted": ("omni", (1.8, -0.1, 0.03, 0.001, -0.002), 800.0),
    "omni, no fold": ("omni", (0.8, -0.1, 0.03, 0.001, -0.002), 500.0),
    "fov": ("fov", (0.93,), 400.0),
    "fov, wide": ("fov", (2.0,), 200.0),
    "EuRoC": ("radtan", (-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05), 458.0),
    "fr1": ("radtan", (0.262383, -0.953104, -0.005358, 0.002628, 1.163314), 700.0),
    "8": ("radtan", (-0.3, 0.1, 0.0004, -0.0003, 0.01, 0.05, -0.02, 0.004), 600.0),
    "12": ("radtan", (-0.28, 0.07, 1e-4, 2e-4, 0, 0.01, 0, 0, 1e-3, 2e-4, 3e-4, 1e-4), 600.0),
    "14": (
        "radtan",
        (-0.28, 0.07, 1e-4, 2e-4, 0, 0.01, 0, 0, 1e-3, 2e-4, 3e-4, 1e-4, 0.01, -0.02),
        600.0,
    ),
}


def camera(name: str, cx: float = 420.8, cy: float = 404.1) -> Camera:
    model, coefficients, focal = LENSES[name]
    return Camera(848, 800, focal, 1.01 * focal, cx, cy, model, coefficients)  # type: ignore[arg-type]


def by_hand(model: str, c: tuple[float, ...], ray: np.ndarray) -> tuple[float, float]:
    """Position of a ray by the formula in the paper of its model, in plain Python."""
    x, y, z = map(float, ray)
    rho, d = math.hypot(x, y), math.sqrt(x * x + y * y + z * z)
    if model == "equidistant":
        t = math.atan2(rho, z)
        r = t + c[0] * t**3 + c[1] * t**5 + c[2] * t**7 + c[3] * t**9
        return r * x / rho, r * y / rho
    if model == "fov":
        r = math.atan2(2 * rho * math.tan(c[0] / 2), z) / c[0]
        return r * x / rho, r * y / rho
    if model == "ucm":
        # In Mei's form, ξ = α / (1 - α) and the focal length divided by 1 - α.
        xi = c[0] / (1 - c[0])
        return x / (z + xi * d) / (1 - c[0]), y / (z + xi * d) / (1 - c[0])
    if model == "eucm":
        below = c[0] * math.sqrt(c[1] * (x * x + y * y) + z * z) + (1 - c[0]) * z
        return x / below, y / below
    if model == "double_sphere":
        second = math.sqrt(x * x + y * y + (c[0] * d + z) ** 2)
        below = c[1] * second + (1 - c[1]) * (c[0] * d + z)
        return x / below, y / below
    assert model == "omni"
    u, v = x / (z + c[0] * d), y / (z + c[0] * d)
    k1, k2, p1, p2 = c[1:] or (0.0,) * 4
    s = u * u + v * v
    radial = 1 + k1 * s + k2 * s * s
    return (
        u * radial + 2 * p1 * u * v + p2 * (s + 2 * u * u),
        v * radial + p1 * (s + 2 * v * v) + 2 * p2 * u * v,
    )


def fan(widest: float, seed: int = 0, count: int = 400) -> np.ndarray:
    """Rays (N, 3) of random lengths up to an angle from the axis, radians."""
    rng = np.random.default_rng(seed)
    theta, phi = rng.uniform(1e-3, widest, count), rng.uniform(-math.pi, math.pi, count)
    unit = np.stack(
        [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=1
    )
    return unit * rng.uniform(0.2, 30.0, (count, 1))


def grid(of: Camera, step: int = 9) -> np.ndarray:
    y, x = np.mgrid[0 : of.height : step, 0 : of.width : step].astype(np.float64)
    return np.stack([x.ravel(), y.ravel()], axis=1)


@pytest.mark.parametrize("name", [name for name in LENSES if LENSES[name][0] != "radtan"])
def test_projections_are_those_of_the_papers(name: str) -> None:
    model, coefficients, _ = LENSES[name]
    rays = fan(math.radians(89.0))
    found = positions_of(model, coefficients, rays)
    seen = np.isfinite(found).all(axis=1)
    assert seen.mean() > 0.9
    expected = np.array([by_hand(model, coefficients, ray) for ray in rays[seen]])
    np.testing.assert_allclose(found[seen], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", LENSES)
def test_pixels_and_rays_are_inverse_over_the_whole_image(name: str) -> None:
    lens = camera(name)
    pixels = grid(lens)
    rays = lens.lens_rays(pixels)
    seen = np.isfinite(rays).all(axis=1)
    assert seen.mean() > (0.4 if name == "fov, wide" else 0.7)
    np.testing.assert_allclose(np.linalg.norm(rays[seen], axis=1), 1.0, atol=1e-12)
    assert np.abs(lens.lens_pixels(2.5 * rays[seen]) - pixels[seen]).max() < 1e-9


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("model", ["double_sphere", "eucm", "ucm", "omni", "fov", "equidistant"])
def test_random_lenses_are_invertible(model: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    alpha = rng.uniform(0.05, 0.95)
    coefficients = {
        "double_sphere": (rng.uniform(-0.6, 0.9), alpha),
        "eucm": (alpha, rng.uniform(0.5, 2.0)),
        "ucm": (alpha,),
        "omni": (rng.uniform(0.3, 2.5), *rng.uniform(-0.05, 0.05, 2), *rng.uniform(-2e-3, 2e-3, 2)),
        "fov": (rng.uniform(0.1, 2.5),),
        "equidistant": tuple(rng.uniform(-0.02, 0.02, 4)),
    }[model]
    focal = rng.uniform(200.0, 900.0)
    lens = Camera(640, 480, focal, focal, 300.0, 250.0, model, coefficients)  # type: ignore[arg-type]
    pixels = grid(lens, 7)
    rays = lens.lens_rays(pixels)
    seen = np.isfinite(rays).all(axis=1)
    assert seen.mean() > 0.05
    assert np.abs(lens.lens_pixels(rays[seen]) - pixels[seen]).max() < 1e-9
    # What has a pixel has the same ray again: each direction is shown once.
    wide = fan(math.pi, seed)
    shown = lens.lens_pixels(wide)
    known = np.isfinite(shown).all(axis=1)
    assert 0.05 < known.mean() <= 1.0
    unit = wide[known] / np.linalg.norm(wide[known], axis=1, keepdims=True)
    np.testing.assert_allclose(lens.lens_rays(shown[known]), unit, atol=1e-5)


@pytest.mark.parametrize("name", LENSES)
def test_undistorted_pixels_are_those_of_the_ideal_camera(name: str) -> None:
    lens = camera(name)
    pixels = grid(lens, 23)
    undistorted = lens.undistort(pixels)
    known = np.isfinite(undistorted).all(axis=1)
    assert known.mean() > 0.1
    bearings = lens.without_distortion().bearings(undistorted[known])
    np.testing.assert_allclose(bearings, lens.lens_rays(pixels)[known], atol=2e-6)
    assert np.abs(lens.distort(undistorted[known]) - pixels[known]).max() < 1e-3
    # One pixel beside the principal point is one pixel of the ideal camera.
    beside = np.array([[lens.cx + 0.1, lens.cy], [lens.cx, lens.cy - 0.1]])
    np.testing.assert_allclose(lens.undistort(beside), beside, atol=1e-3)


def test_wide_lenses_see_behind_themselves_up_to_their_limit() -> None:
    for name, limit in (
        ("double sphere, wide", None),
        ("eucm", None),
        ("ucm", math.acos(-(0.3 / 0.7))),
        ("omni, fold", math.acos(-1 / 1.5)),
        ("eucm, no fold", None),
        ("fov, wide", math.pi),
    ):
        model, coefficients, _ = LENSES[name]
        theta = np.linspace(0.0, math.pi - 1e-9, 20001)
        rays = np.stack([np.sin(theta), np.zeros_like(theta), np.cos(theta)], axis=1)
        radius = positions_of(model, coefficients, rays)[:, 0]
        seen = np.isfinite(radius)
        # The field is one cone, in which the radius grows.
        assert seen[: seen.sum()].all() and (np.diff(radius[seen]) > 0).all()
        widest = theta[seen][-1]
        assert widest > math.radians(100.0)
        if limit is not None:
            assert widest == pytest.approx(limit, abs=2e-4)
        assert np.isnan(positions_of(model, coefficients, np.array([[0.0, 0.0, -1.0]]))).all()


def test_double_sphere_shows_all_that_its_pixels_show() -> None:
    """The paper's limit w2 leaves out rays that its own unprojection gives."""
    xi, alpha = -0.3, 0.6
    edge = 0.9999999 / math.sqrt(2 * alpha - 1)
    ray = rays_of("double_sphere", (xi, alpha), np.array([[edge, 0.0]]))
    w1 = (1 - alpha) / alpha
    w2 = (w1 + xi) / math.sqrt(2 * w1 * xi + xi * xi + 1)
    assert ray[0, 2] < -w2
    found = positions_of("double_sphere", (xi, alpha), ray)
    np.testing.assert_allclose(found, [[edge, 0.0]], atol=1e-9)


def test_pixels_outside_of_the_disc_of_a_lens_have_no_ray() -> None:
    for model, coefficients, edge in (
        ("double_sphere", (0.3, 0.6), 1 / math.sqrt(0.2)),
        ("eucm", (0.6, 1.2), 1 / math.sqrt(1.2 * 0.2)),
        ("ucm", (0.6,), 1 / math.sqrt(0.2)),
        ("omni", (1.5,), 1 / math.sqrt(1.25)),
        ("fov", (1.0,), math.pi),
    ):
        positions = np.array([[0.999 * edge, 0.0], [0.0, -1.001 * edge]])
        rays = rays_of(model, coefficients, positions)
        assert np.isfinite(rays).all(axis=1).tolist() == [True, False], model


def test_models_agree_where_one_is_a_case_of_the_other() -> None:
    rays = fan(math.radians(110.0), 3)
    one = positions_of("ucm", (0.6,), rays)
    np.testing.assert_allclose(positions_of("eucm", (0.6, 1.0), rays), one, rtol=1e-12)
    np.testing.assert_allclose(positions_of("double_sphere", (0.0, 0.6), rays), one, rtol=1e-12)
    np.testing.assert_allclose(positions_of("omni", (1.5,), rays) * 2.5, one, rtol=1e-12)
    ideal = rays[rays[:, 2] > 0.1]
    for model, coefficients in (("ucm", (0.0,)), ("omni", (0.0,)), ("fov", (1e-9,))):
        np.testing.assert_allclose(
            positions_of(model, coefficients, ideal), ideal[:, :2] / ideal[:, 2:], rtol=1e-9
        )


def test_scale_at_the_centre_is_the_derivative() -> None:
    step = 1e-6
    for name, (model, coefficients, _) in LENSES.items():
        if model != "radtan":
            bent = positions_of(model, coefficients, np.array([[step, 0.0, 1.0]]))
            centre = positions_of(model, coefficients, np.array([[0.0, 0.0, 1.0]]))
            slope = (bent - centre)[0, 0] / step
            assert slope == pytest.approx(central_scale(model, coefficients), rel=1e-4), name


@pytest.mark.parametrize("name", ["T265", "EuRoC", "8", "12", "14"])
def test_opencv_gives_the_same_pixels(name: str) -> None:
    lens, rays = camera(name), fan(math.radians(35.0))
    project = (
        cv2.fisheye.projectPoints if lens.distortion_model == "equidistant" else cv2.projectPoints
    )
    still = np.zeros(3)
    expected, _ = project(rays[:, None], still, still, lens.K, np.array(lens.distortion))
    np.testing.assert_allclose(lens.lens_pixels(rays), expected[:, 0], atol=1e-9)


@pytest.mark.parametrize(
    ("model", "theirs", "coefficients", "widest"),
    [
        ("eucm", "EUCM", (0.65, 1.1), 75.0),
        ("fov", "FOV", (0.93,), 75.0),
        ("equidistant", "OPENCV_FISHEYE", FISHEYES[1], 75.0),
        ("radtan", "FULL_OPENCV", (-0.3, 0.1, 4e-4, -3e-4, 0.01, 0.05, -0.02, 0.004), 35.0),
    ],
)
def test_pycolmap_gives_the_same_pixels_and_rays(
    model: str, theirs: str, coefficients: tuple[float, ...], widest: float
) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    lens = Camera(848, 800, 300.0, 305.0, 420.0, 404.0, model, coefficients)  # type: ignore[arg-type]
    params = (lens.fx, lens.fy, lens.cx, lens.cy, *coefficients)
    other = pycolmap.Camera(model=theirs, width=848, height=800, params=params)
    rays = fan(math.radians(widest), 5)
    expected = other.img_from_cam(rays)
    np.testing.assert_allclose(lens.lens_pixels(rays), expected, atol=1e-9)
    flat = lens.lens_rays(expected)
    np.testing.assert_allclose(flat[:, :2] / flat[:, 2:], other.cam_from_img(expected), atol=1e-6)


def test_a_principal_point_outside_of_a_cropped_image_is_legal() -> None:
    """A crop of an image shows the same rays: each model, rows cut off above the optical axis."""
    for name in LENSES:
        whole, cut = camera(name), 424
        cropped = camera(name, cy=whole.cy - cut)
        assert cropped.cy < 0
        pixels = grid(whole, 31)
        below = pixels[pixels[:, 1] >= cut]
        np.testing.assert_allclose(
            cropped.lens_rays(below - (0, cut)), whole.lens_rays(below), atol=1e-9
        )
        np.testing.assert_allclose(
            cropped.undistort(below - (0, cut)) + np.array([0, cut]),
            whole.undistort(below),
            atol=1e-3,
        )


def test_empty_arrays_stay_empty() -> None:
    for name in LENSES:
        lens = camera(name)
        assert lens.lens_rays(np.zeros((0, 2))).shape == (0, 3)
        assert lens.lens_pixels(np.zeros((0, 3))).shape == (0, 2)
        assert lens.undistort(np.zeros((0, 2))).shape == lens.distort(np.zeros((0, 2))).shape


@pytest.mark.parametrize("k", FISHEYES)
def test_bending_and_straightening_are_inverse_up_to_the_fold(k: tuple[float, ...]) -> None:
    theta = np.linspace(0.0, 0.999 * widest_angle(k), 500)
    radius = bend_angles(theta, k)
    assert (np.diff(radius) > 0).all()
    np.testing.assert_allclose(straighten_angles(radius, k), theta, atol=1e-6)
    beyond = bend_angles(np.array([widest_angle(k)]), k) + 1e-3
    assert np.isnan(straighten_angles(beyond, k)).all()


def test_lenses_fold_back_at_the_computed_angle() -> None:
    assert widest_angle(FISHEYES[0]) == np.pi
    k1, k2 = FISHEYES[3][:2]
    turn = widest_angle(FISHEYES[3])
    assert 1 + 3 * k1 * turn**2 + 5 * k2 * turn**4 == pytest.approx(0.0, abs=1e-9)
    assert np.isnan(bend_angles(np.array([turn + 1e-6]), FISHEYES[3])).all()
    # 1 - 3 · 0.3 r² = 0
    assert widest_slope((-0.3, 0.0, 0.0, 0.0)) == pytest.approx(np.sqrt(1 / 0.9), abs=0.01)
    assert widest_slope((0.1, 0.0, 0.0, 0.0)) == 20.0


def test_tiny_coefficients_do_not_overflow() -> None:
    with np.errstate(all="raise", under="ignore"):
        assert widest_angle((0.0, 0.0, 0.0, 5e-324)) == np.pi
        assert widest_angle((-0.1, 1e-300, -5e-265, 5e-324)) == pytest.approx(
            widest_angle((-0.1, 0.0, 0.0, 0.0))
        )


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("radtan", "radtan"),
        ("plumb_bob", "radtan"),
        ("radial-tangential", "radtan"),
        ("Brown-Conrady", "radtan"),
        ("rational_polynomial", "radtan"),
        ("equidistant", "equidistant"),
        ("fisheye", "equidistant"),
        ("KANNALA_BRANDT", "equidistant"),
        ("KannalaBrandt8", "equidistant"),
        ("kb4", "equidistant"),
        ("ds", "double_sphere"),
        ("double-sphere", "double_sphere"),
        ("Double Sphere", "double_sphere"),
        ("eucm", "eucm"),
        ("UCM", "ucm"),
        ("omni", "omni"),
        ("omni-radtan", "omni"),
        ("MEI", "omni"),
        ("fov", "fov"),
        ("ATAN", "fov"),
        ("None", "none"),
        (None, "none"),
    ],
)
def test_models_have_many_names(name: str | None, ours: str) -> None:
    assert lens_model(name) == ours


@pytest.mark.parametrize("name", ["ftheta", "ocam", "THIN_PRISM_FISHEYE", "omni-equi"])
def test_models_that_are_not_supported_are_named(name: str) -> None:
    with pytest.raises(
        CalibrationError, match="which is not supported: calibrate with one of none, radtan"
    ) as error:
        lens_model(name)
    assert "\n" not in str(error.value)


def test_an_ambiguous_name_is_refused() -> None:
    with pytest.raises(
        CalibrationError, match=r"'Unified' is ambiguous: write ucm \(α from 0 to 1\)"
    ):
        lens_model("Unified")


def test_trailing_zeros_change_nothing() -> None:
    k = (-0.28, 0.07, 0.0002, 0.00002)
    assert lens("radtan", k) == ("radtan", k)
    assert lens("plumb_bob", (*k, 0.0, 0.0)) == ("radtan", k)
    assert lens("radtan", (*k, 0.1, 0.2)) == ("radtan", (*k, 0.1, 0.2, 0.0, 0.0))
    assert lens("radtan", (*k, *(0.0,) * 8)) == ("radtan", k)
    assert lens("radtan", (*k, 0.1, 0.2, *(0.0,) * 8)) == ("radtan", (*k, 0.1, 0.2, 0.0, 0.0))
    prism = (*k, 0.1, 0.0, 0.0, 0.0, 0.01, 0.0, 0.0, 0.0)
    assert lens("radtan", (*prism, 0.0, 0.0)) == ("radtan", prism)
    assert lens("radtan", (*prism, 0.0, 0.3)) == ("radtan", (*prism, 0.0, 0.3))
    assert lens("radtan", (*k, 0.0)) == ("radtan", (*k, 0.0))
    assert lens("radtan", (*k, *(0.0,) * 11)) == ("radtan", k)
    assert lens("fisheye", (*k, 0.0)) == ("equidistant", k)
    assert lens("none", (0.0,) * 5) == ("none", ())
    assert lens("radtan", ()) == ("none", ())
    assert lens("omni", (1.2, 0.0, 0.0, 0.0, 0.0)) == ("omni", (1.2,))
    assert lens("omni", (1.2, -0.1, 0.0, 0.0, 0.0)) == ("omni", (1.2, -0.1, 0.0, 0.0, 0.0))
    assert lens("ds", (-0.2, 0.6, 0.0, 0.0)) == ("double_sphere", (-0.2, 0.6))
    assert lens("eucm", (0.6, 1.1)) == ("eucm", (0.6, 1.1))
    assert lens("fov", (0.0,)) == ("none", ())  # as DSO writes it


def test_surplus_coefficients_are_not_dropped() -> None:
    assert lens("equidistant", (0.1, 0.0, 0.0, 0.0, 0.2)) == (
        "equidistant",
        (0.1, 0.0, 0.0, 0.0, 0.2),
    )
    assert lens("radtan", (0.1, 0.2, 0.3)) == ("radtan", (0.1, 0.2, 0.3))
    assert lens("equidistant", ()) == ("equidistant", ())
    for name in (None, "none", "pinhole"):
        with pytest.raises(
            CalibrationError, match=r"5 coefficients, but its model is '(none|pinhole)'"
        ):
            lens(name, (0.1, 0.0, 0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("model", "coefficients", "text"),
    [
        ("double_sphere", (-1.0, 0.5), "ξ (-1 to 1) and α (0 to 1), found ξ=-1 α=0.5"),
        ("double_sphere", (-0.2, 1.2), "found ξ=-0.2 α=1.2"),
        ("eucm", (0.5, 0.0), "β (above 0)"),
        ("ucm", (1.7,), "write omni"),
        ("omni", (-0.1,), "ξ (0 or more) first"),
        ("fov", (3.2,), "below π"),
        ("fov", (0.9, 0.1), "takes 1 coefficients, found 2"),
        ("ds", (0.3,), "takes 2 coefficients, found 1"),
        ("omni", (1.2, 0.1, 0.2), "takes 1 or 5 coefficients, found 3"),
    ],
)
def test_impossible_coefficients_are_refused(
    model: str, coefficients: tuple[float, ...], text: str
) -> None:
    name, found = lens(model, coefficients)
    with pytest.raises(CalibrationError, match=re.escape(text)):
        Camera(640, 480, 300.0, 300.0, 319.5, 239.5, name, found)
