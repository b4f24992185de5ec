from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from point_room import BASELINE_M, PointRoom, ate, drive, look

from spslam import geometry
from spslam.camera import Camera
from spslam.config import load_config
from spslam.errors import CalibrationError
from spslam.frame import Features, Frame, Observations
from spslam.interfaces import Extractor
from spslam.slam.preprocessing import Preprocessor, readout_delays, undo_rolling_shutter

CAMERA = Camera(640, 480, 500.0, 500.0, 320.0, 240.0, baseline_m=0.1, readout_s=0.03)
VELOCITY = np.array([0.3, -0.2, 0.4, 0.5, -1.2, 0.8])


def seen(points: np.ndarray, delays: np.ndarray, *, depth: bool) -> Observations:
    count = len(points)
    z = points[:, 2]
    pixels = CAMERA.project(points)
    unknown = np.full(count, np.nan)
    return Observations(
        0, 0.0, pixels, np.zeros((count, 8), np.float32), np.ones(count, np.float32),
        np.ones(count, np.float32),
        pixels[:, 0] - CAMERA.bf / z if depth else unknown, z if depth else unknown, delays,
    )  # fmt: skip


def scan(points: np.ndarray, velocity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project points row by row for a camera of constant velocity, by fixed-point iteration.

    Returns the points in the camera at their row and the delay of that row.
    """
    delays = np.zeros(len(points))
    for _ in range(30):
        moved = np.stack(
            [
                geometry.apply(geometry.se3_exp(velocity * t), p[None])[0]
                for t, p in zip(delays, points, strict=True)
            ]
        )
        delays = readout_delays(CAMERA.project(moved)[:, 1], CAMERA)
    return moved, delays


@pytest.fixture
def points() -> np.ndarray:
    rng = np.random.default_rng(3)
    return CAMERA.unproject(rng.uniform((60, 40), (580, 440), (200, 2)), rng.uniform(2, 6, 200))


def test_points_with_depth_are_restored(points: np.ndarray) -> None:
    moved, delays = scan(points, VELOCITY)
    assert np.abs(CAMERA.project(moved) - CAMERA.project(points)).max() > 8, (
        "the shutter distorts the image"
    )
    straight, truth = (
        undo_rolling_shutter(seen(moved, delays, depth=True), CAMERA, VELOCITY),
        seen(points, delays, depth=True),
    )
    assert np.abs(straight.pixels - truth.pixels).max() < 0.02
    assert np.abs(straight.depth - truth.depth).max() < 1e-3
    assert np.abs(straight.u_right - truth.u_right).max() < 0.02
    assert not straight.delays.any(), "they are not corrected twice"


def test_without_depth_the_rotation_is_undone(points: np.ndarray) -> None:
    turning = np.concatenate([np.zeros(3), VELOCITY[3:]])
    moved, delays = scan(points, turning)
    straight = undo_rolling_shutter(seen(moved, delays, depth=False), CAMERA, turning)
    assert np.abs(straight.pixels - CAMERA.project(points)).max() < 1e-6
    assert np.isnan(straight.depth).all() and np.isnan(straight.u_right).all()


def test_observations_without_delay_or_motion_are_unchanged(points: np.ndarray) -> None:
    still = seen(points, np.zeros(len(points)), depth=True)
    assert undo_rolling_shutter(still, CAMERA, VELOCITY) is still
    bent = seen(points, np.full(len(points), 0.01), depth=True)
    assert undo_rolling_shutter(bent, CAMERA, np.zeros(6)) is bent


def test_an_impossible_velocity_gives_finite_pixels(points: np.ndarray) -> None:
    wild = undo_rolling_shutter(
        seen(points, np.full(len(points), 0.015), depth=True), CAMERA, np.full(6, 150.0)
    )
    assert np.isfinite(wild.pixels).all()


def test_delays_follow_from_the_rows_of_the_distorted_image() -> None:
    class Corners(Extractor):
        name, max_descriptor_distance, pixel_sigma = "corners", 1.0, 1.0

        def extract(self, image: np.ndarray) -> Features:
            corners = np.array([[100, 0], [100, 239.5], [100, 479]], np.float32)
            return Features(corners, np.ones(3, np.float32), np.eye(3, dtype=np.float32))

    camera = replace(CAMERA, distortion_model="radtan", distortion=(-0.2, 0.05, 0.0, 0.0))
    frame = Frame(0, 0.0, camera, np.zeros((480, 640), np.uint8))
    config = load_config("default")
    observed = Preprocessor(config, Corners(), PointRoom()).observe(frame)
    assert observed.delays == pytest.approx([-0.015, 0.0, 0.015])


@pytest.mark.parametrize("readout_s", [-0.01, 30.0, float("nan")])
def test_impossible_readout_times_are_refused(readout_s: float) -> None:
    with pytest.raises(CalibrationError, match="readout_s must be 0 to"):
        replace(CAMERA, readout_s=readout_s)


class RollingRoom(PointRoom):
    """A room seen by a camera that swings to and fro with a rolling shutter."""

    READOUT_S = 0.025

    def __init__(self, readout_s: float) -> None:
        super().__init__()
        self.believed_camera = replace(self.believed_camera, readout_s=readout_s)

    @staticmethod
    def pose_at(seconds: float) -> np.ndarray:
        return look(
            0.3 * np.sin(2 * seconds), 0.1 * np.cos(seconds), -2.0, 0.5 * np.sin(3 * seconds)
        )

    def _features(self, index: int, side: int) -> Features:
        now = 0.05 * (index + 1)
        # Poses one millisecond apart are close enough for a row.
        steps = np.arange(-13, 14) / 1000
        poses = np.stack([geometry.inverse(self.pose_at(now + step)) for step in steps])
        delays = np.zeros(len(self.points))
        for _ in range(4):
            nearest = poses[np.rint((delays - steps[0]) * 1000).astype(int)]
            points = geometry.apply(nearest, self.points)
            pixels = self.believed_camera.project(points - np.array([side * BASELINE_M, 0.0, 0.0]))
            rows = np.clip(np.nan_to_num(pixels[:, 1]), 0, 479)
            delays = (rows / 479 - 0.5) * self.READOUT_S
        seen = np.flatnonzero(self.believed_camera.in_image(pixels, 2.0) & (points[:, 2] > 0.3))
        descriptors = self.descriptors[seen]
        return Features(
            pixels[seen].astype(np.float32), np.ones(len(seen), np.float32), descriptors
        )


@pytest.mark.slow
def test_the_readout_time_reduces_the_error_of_a_run() -> None:
    poses = [RollingRoom.pose_at(0.05 * (i + 1)) for i in range(60)]
    errors = {}
    for readout_s in (0.0, RollingRoom.READOUT_S):
        slam, _ = drive(RollingRoom(readout_s), poses, "stereo")
        assert len(slam.trajectory()) == 60
        errors[readout_s] = ate(slam, poses, "se3")
    assert errors[RollingRoom.READOUT_S] < 0.1 * errors[0.0]
