"""The fit of a camera model to points that a moving camera sees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spslam import geometry
from spslam.camera import Camera
from spslam.check.lens_fit import (
    CENTRE_X,
    FOCAL,
    RADIAL,
    READOUT,
    LensFit,
    PairMatches,
    rotation_only,
)

CAMERA = Camera(640, 480, 500.0, 500.0, 319.5, 239.5, fps=30.0)


def seen_pairs(camera: Camera = CAMERA, readout: float = 0.0, noise_px: float = 0.1) -> list:
    """Matches of six pairs of a camera that turns and moves among points."""
    random = np.random.default_rng(5)
    pairs = []
    for _ in range(6):
        turn, move = random.normal(0.0, 0.06, 3), random.normal(0.0, 0.25, 3)
        pixels = random.uniform((20, 20), (620, 460), (150, 2))
        points = CAMERA.unproject(pixels, random.uniform(2.0, 6.0, 150))

        def image(time: float, points=points, turn=turn, move=move) -> np.ndarray:  # type: ignore[no-untyped-def]
            T = geometry.make_transform(geometry.so3_exp(turn * time), move * time)
            ideal = camera.project(geometry.apply(T, points))
            return camera.distort(ideal)

        def rolled(time: float, image=image) -> np.ndarray:  # type: ignore[no-untyped-def]
            """Each point at the time at which its row is read; 8 frame steps between the images."""
            at = image(time)
            velocity = (image(time + 1e-3) - at) / 1e-3 / 8.0
            return at + velocity * (readout * (at[:, 1] / 479.0 - 0.5))[:, None]

        first, second = rolled(0.0), rolled(1.0)
        velocities = [(image(t + 1e-3) - image(t)) / 1e-3 / 8.0 for t in (0.0, 1.0)]
        keep = np.isfinite(first).all(1) & np.isfinite(second).all(1) & CAMERA.in_image(second)
        noise = random.normal(0.0, noise_px, (2, 150, 2))
        pairs.append(
            PairMatches(first + noise[0], second + noise[1], velocities[0], velocities[1]).select(
                keep
            )
        )
    return pairs


def test_a_true_camera_is_left_as_it_is() -> None:
    lens = LensFit(seen_pairs(), CAMERA).fit((FOCAL, RADIAL))
    assert np.abs(lens.values[[FOCAL, RADIAL]]).max() < 0.01
    assert lens.rms_px == pytest.approx(0.1, rel=0.4)


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_the_focal_length_is_found(factor: float) -> None:
    wrong = replace(CAMERA, fx=500.0 * factor, fy=500.0 * factor)
    lens = LensFit(seen_pairs(), wrong).fit((FOCAL,))
    assert np.exp(lens.values[FOCAL]) == pytest.approx(1 / factor, rel=0.01)
    assert lens.sigma[FOCAL] < 0.01


def test_distortion_is_found() -> None:
    bent = replace(CAMERA, distortion_model="radtan", distortion=(-0.2, 0.0, 0.0, 0.0))
    lens = LensFit(seen_pairs(bent), CAMERA).fit((RADIAL,))
    # What maps radius 0.7 of the bent image to 0.8, and 0.475 to 0.5: 0.30 and 0.23.
    assert lens.values[RADIAL] == pytest.approx(0.27, abs=0.04)


def test_the_principal_point_is_found() -> None:
    lens = LensFit(seen_pairs(), replace(CAMERA, cx=259.5)).fit((CENTRE_X,))
    assert lens.values[CENTRE_X] * 640 == pytest.approx(60.0, abs=3.0)


def test_a_rolling_shutter_is_found() -> None:
    lens = LensFit(seen_pairs(readout=0.6), CAMERA).fit((READOUT,))
    assert lens.values[READOUT] == pytest.approx(0.6, abs=0.05)


def test_a_known_rolling_shutter_is_taken_into_account() -> None:
    known = replace(CAMERA, readout_s=0.6 / 30.0)
    lens = LensFit(seen_pairs(readout=0.6), known).fit((READOUT,))
    assert lens.values[READOUT] == pytest.approx(0.0, abs=0.05)


def test_rotation_only_ignores_outliers() -> None:
    random = np.random.default_rng(0)
    rays = CAMERA.bearings(random.uniform((0, 0), (640, 480), (100, 2)))
    R = geometry.so3_exp(np.array([0.1, -0.05, 0.02]))
    turned = rays @ R.T
    turned[:20] = CAMERA.bearings(random.uniform((0, 0), (640, 480), (20, 2)))
    assert np.abs(rotation_only(rays, turned) - R).max() < 0.01
