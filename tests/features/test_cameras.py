"""Cameras for COLMAP: the same pixels by pycolmap, or a refusal."""

from __future__ import annotations

import numpy as np
import pytest

from spslam.camera import Camera
from spslam.errors import CalibrationError
from spslam.features.cameras import CameraChoice, colmap_camera


@pytest.mark.parametrize(
    ("model", "coefficients", "theirs"),
    [
        ("none", (), "PINHOLE"),
        ("radtan", (-0.3, 0.1, 1e-3, -2e-3), "OPENCV"),
        ("equidistant", (0.01, -0.02, 0.003, 1e-3), "OPENCV_FISHEYE"),
        ("eucm", (0.6, 1.1), "EUCM"),
        ("ucm", (0.6,), "EUCM"),
        ("omni", (1.4,), "EUCM"),
        ("fov", (0.93,), "FOV"),
    ],
)
def test_colmap_has_the_same_pixels(
    model: str, coefficients: tuple[float, ...], theirs: str
) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    lens = Camera(640, 480, 400.0, 410.0, 311.0, 244.0, model, coefficients)  # type: ignore[arg-type]
    found = colmap_camera(CameraChoice(lens), "1.png", (640, 480))
    assert found.model == theirs
    other = pycolmap.Camera(model=found.model, width=640, height=480, params=found.params)
    rays = np.random.default_rng(0).uniform((-0.6, -0.5, 1.0), (0.6, 0.5, 1.5), (50, 3))
    np.testing.assert_allclose(lens.lens_pixels(rays) + 0.5, other.img_from_cam(rays), atol=1e-9)


@pytest.mark.parametrize(
    ("model", "coefficients", "text"),
    [
        ("double_sphere", (-0.2, 0.6), "no double_sphere lens: calibrate with equidistant"),
        ("omni", (1.2, 0.1, 0.0, 0.0, 0.0), "no omni lens with k1 k2 p1 p2: calibrate with"),
    ],
)
def test_lenses_that_colmap_lacks_are_refused(
    model: str, coefficients: tuple[float, ...], text: str
) -> None:
    lens = Camera(640, 480, 400.0, 410.0, 311.0, 244.0, model, coefficients)  # type: ignore[arg-type]
    with pytest.raises(CalibrationError, match=text):
        colmap_camera(CameraChoice(lens), "1.png", (640, 480))
