"""Projection with its derivatives, and parts of a structure."""

import numpy as np

from spslam.calibrate.model import NAMES, Intrinsics, Structure, project

VALUES = np.array([500.0, 1.02, 322.0, 236.0, -0.25, 0.06, 0.002, -0.003])


def rays(count: int = 40) -> np.ndarray:
    rng = np.random.default_rng(4)
    return np.concatenate(
        [rng.uniform(-0.6, 0.6, (count, 2)), np.ones((count, 1))], axis=1
    ) * rng.uniform(1.0, 9.0, (count, 1))


def test_projection_agrees_with_the_camera() -> None:
    points = rays()
    pixels, _, _ = project(points, VALUES)
    camera = Intrinsics(640, 480, VALUES).camera()
    assert camera.fy == 500.0 * 1.02
    assert np.allclose(pixels, camera.lens_pixels(points), atol=1e-9)


def test_derivatives_agree_with_differences() -> None:
    points = rays()
    _, by_point, by_values = project(points, VALUES)
    for axis in range(3):
        step = np.zeros(3)
        step[axis] = 1e-6
        slope = (project(points + step, VALUES)[0] - project(points - step, VALUES)[0]) / 2e-6
        assert np.allclose(by_point[:, :, axis], slope, rtol=1e-5, atol=1e-5)
    for index in range(len(NAMES)):
        step = np.zeros(len(NAMES))
        step[index] = 1e-6
        slope = (project(points, VALUES + step)[0] - project(points, VALUES - step)[0]) / 2e-6
        assert np.allclose(by_values[:, :, index], slope, rtol=1e-5, atol=1e-5)


def test_an_ideal_lens_has_no_coefficients() -> None:
    camera = Intrinsics.central(640, 480, 500.0).camera(fps=25.0)
    assert (camera.distortion_model, camera.cx, camera.fps) == ("none", 319.5, 25.0)


def test_the_longest_points_keep_their_observations() -> None:
    structure = Structure(
        ("a", "b", "c"),
        np.tile(np.eye(4), (3, 1, 1)),
        np.arange(6.0).reshape(2, 3),
        np.array([0, 1, 0, 1, 2]),
        np.array([0, 0, 1, 1, 1]),
        np.arange(10.0).reshape(5, 2),
    )
    longest = structure.longest(1)
    assert longest.points.tolist() == [[3.0, 4.0, 5.0]]
    assert longest.image.tolist() == [0, 1, 2]
    assert longest.point.tolist() == [0, 0, 0]
    assert longest.pixels.tolist() == [[4.0, 5.0], [6.0, 7.0], [8.0, 9.0]]
