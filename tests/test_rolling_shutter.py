from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spslam import geometry
from spslam.camera import Camera
from spslam.config import load_config
from spslam.errors import CalibrationError
from spslam.frame import Features, Frame, Observations
from spslam.observing import Observer, tracking_camera
from spslam.rolling_shutter import as_read_at_once, readout_delays

CAMERA = Camera(640, 480, 500.0, 500.0, 320.0, 240.0, baseline_m=0.1, readout_s=0.03)
VELOCITY = np.array([0.3, -0.2, 0.4, 0.5, -1.2, 0.8])


def seen(points: np.ndarray, delays: np.ndarray, *, depth: bool) -> Observations:
    count = len(points)
    z = points[:, 2]
    pixels = CAMERA.project(points)
    unknown = np.full(count, np.nan)
    return Observations(
        0, 0.0, pixels, np.zeros((count, 8), np.float32), np.ones(count, np.float32),
        pixels[:, 0] - CAMERA.bf / z if depth else unknown, z if depth else unknown, delays,
    )  # fmt: skip


def scan(points: np.ndarray, velocity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points as a camera of constant velocity meets them in its rows, and when: by repeated insertion."""
    delays = np.zeros(len(points))
    for _ in range(30):
        moved = np.stack(
            [geometry.apply(geometry.se3_exp(velocity * t), p[None])[0] for t, p in zip(delays, points, strict=True)]
        )
        delays = readout_delays(CAMERA.project(moved)[:, 1], CAMERA)
    return moved, delays


@pytest.fixture
def points() -> np.ndarray:
    rng = np.random.default_rng(3)
    return CAMERA.unproject(rng.uniform((60, 40), (580, 440), (200, 2)), rng.uniform(2, 6, 200))


def test_points_with_depth_come_back(points: np.ndarray) -> None:
    moved, delays = scan(points, VELOCITY)
    assert np.abs(CAMERA.project(moved) - CAMERA.project(points)).max() > 8, "the shutter bends the image"
    straight, truth = (
        as_read_at_once(seen(moved, delays, depth=True), CAMERA, VELOCITY),
        seen(points, delays, depth=True),
    )
    assert np.abs(straight.pixels - truth.pixels).max() < 0.02
    assert np.abs(straight.depth - truth.depth).max() < 1e-3
    assert np.abs(straight.u_right - truth.u_right).max() < 0.02
    assert not straight.delays.any(), "they are not straightened twice"


def test_without_depth_the_rotation_is_undone(points: np.ndarray) -> None:
    turning = np.concatenate([np.zeros(3), VELOCITY[3:]])
    moved, delays = scan(points, turning)
    straight = as_read_at_once(seen(moved, delays, depth=False), CAMERA, turning)
    assert np.abs(straight.pixels - CAMERA.project(points)).max() < 1e-6
    assert np.isnan(straight.depth).all() and np.isnan(straight.u_right).all()


def test_nothing_happens_without_need(points: np.ndarray) -> None:
    still = seen(points, np.zeros(len(points)), depth=True)
    assert as_read_at_once(still, CAMERA, VELOCITY) is still
    bent = seen(points, np.full(len(points), 0.01), depth=True)
    assert as_read_at_once(bent, CAMERA, np.zeros(6)) is bent


def test_an_impossible_velocity_gives_finite_pixels(points: np.ndarray) -> None:
    wild = as_read_at_once(seen(points, np.full(len(points), 0.015), depth=True), CAMERA, np.full(6, 150.0))
    assert np.isfinite(wild.pixels).all()


def test_rows_of_the_image_as_it_was_taken_say_when() -> None:
    class Corners:
        max_distance = 1.0

        def extract(self, image: np.ndarray) -> Features:
            corners = np.array([[100, 0], [100, 239.5], [100, 479]], np.float32)
            return Features(corners, np.ones(3, np.float32), np.eye(3, dtype=np.float32))

    frame = Frame(0, 0.0, replace(CAMERA, distortion_model="radtan", distortion=(-0.2, 0.05, 0.0, 0.0)),
                  np.zeros((480, 640), np.uint8))  # fmt: skip
    config = load_config("default")
    observed = Observer(config, Corners(), None).observe(frame, tracking_camera(frame, config))
    assert observed.delays == pytest.approx([-0.015, 0.0, 0.015])


@pytest.mark.parametrize("readout_s", [-0.01, 30.0, float("nan")])
def test_refuses_impossible_times(readout_s: float) -> None:
    with pytest.raises(CalibrationError, match="readout_s must be 0 to"):
        replace(CAMERA, readout_s=readout_s)
