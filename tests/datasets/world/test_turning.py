"""A camera that turns on the spot: its path, and the rows of its rolling shutter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spslam.camera import Camera
from spslam.datasets.world.path import PATHS
from spslam.datasets.world.render import Renderer, build_atlas
from spslam.datasets.world.rolling import RollingShutter
from spslam.datasets.world.scene import LAYOUTS
from spslam.datasets.world.world import RenderedWorld, world_spec
from spslam.errors import DatasetError
from spslam.geometry import make_transform, rotation_angle, so3_exp
from spslam.typing import FloatArray

CAMERA = Camera(160, 120, 115.0, 115.0, 80.2, 58.7, readout_s=0.018)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPSLAM_CACHE", str(tmp_path))


def turning(times: FloatArray) -> FloatArray:
    """2 rad/s to the right, without translation."""
    turn = so3_exp(np.stack([0 * times, 2.0 * times, 0 * times], axis=1))
    return make_transform(turn, np.tile([0.1, -1.4, -0.7], (len(times), 1)))


@pytest.fixture(scope="module")
def rendering() -> tuple[RollingShutter, Renderer]:
    faces = LAYOUTS["room"]().faces()
    atlas = build_atlas(faces, 100.0, 1)
    return RollingShutter(faces, atlas, CAMERA, 0.002), Renderer(faces, atlas, CAMERA)


def test_each_row_shows_the_pose_of_its_time(
    rendering: tuple[RollingShutter, Renderer],
) -> None:
    rolling, still = rendering
    image = rolling.image(turning, 0.3, np.eye(4))
    for row in (2, 30, 60, 90, 117):
        delay = CAMERA.readout_s * (row / (CAMERA.height - 1) - 0.5)
        right = still.image(turning(np.array([0.3 + delay]))[0])[row]
        assert np.mean(np.abs(image[row] - right)) < 4.0
        if row != 60:
            wrong = still.image(turning(np.array([0.3]))[0])[row]
            assert np.mean(np.abs(image[row] - wrong)) > 8.0


def test_the_depth_rolls_with_the_image(rendering: tuple[RollingShutter, Renderer]) -> None:
    rolling, still = rendering
    depth = rolling.depth(turning, 0.3, np.eye(4))
    for row in (2, 60, 117):
        delay = CAMERA.readout_s * (row / (CAMERA.height - 1) - 0.5)
        right = still.depth(turning(np.array([0.3 + delay]))[0])[row]
        assert np.median(np.abs(depth[row] - right)) < 0.01
    assert depth.min() > 0


def test_a_longer_exposure_blurs_along_the_motion() -> None:
    spec = replace(world_spec("demo-turn"), width=96, height=72, texels_per_m=60.0, noise_sigma=0)
    energy = []
    for exposure in (0.001, 0.012):
        image = RenderedWorld(replace(spec, shutter_s=exposure), "mono")[43].image.astype(float)
        energy.append([np.mean(np.diff(image, axis=axis) ** 2) for axis in (0, 1)])
    (along_y, along_x), (blurred_y, blurred_x) = energy
    assert blurred_x < 0.7 * along_x
    assert blurred_x / along_x < 0.9 * blurred_y / along_y


def test_equal_specs_give_equal_bytes_in_any_order() -> None:
    spec = replace(world_spec("demo-turn@3"), width=96, height=72, texels_per_m=60.0)
    first, second = RenderedWorld(spec, "stereo"), RenderedWorld(spec, "stereo")
    second[9]
    frames = first[40], second[40]
    assert np.array_equal(frames[0].image, frames[1].image)
    assert frames[0].image_right is not None and frames[1].image_right is not None
    assert np.array_equal(frames[0].image_right, frames[1].image_right)


def test_the_hand_moves_first_and_then_turns_fast_on_the_spot() -> None:
    spec = world_spec("demo-turn")
    path = PATHS[spec.path](np.arange(spec.frames) / spec.fps)
    positions = path[:, :3, 3]
    turn = rotation_angle(np.swapaxes(path[:-1, :3, :3], 1, 2) @ path[1:, :3, :3]) * spec.fps
    assert np.linalg.norm(positions[30] - positions[0]) > 0.3
    assert np.degrees(turn[:25]).max() < 15
    assert 110 < np.degrees(turn.max()) < 140
    assert np.mean(np.degrees(turn) > 60) > 0.4
    assert np.ptp(positions[31:270], axis=0).max() < 0.1
    assert spec.layout != "street"
    assert LAYOUTS[spec.layout]().free(positions, margin=0.4).all()


def test_a_rolling_shutter_without_an_exposure_is_refused() -> None:
    with pytest.raises(DatasetError, match="exposure time"):
        replace(world_spec("demo-turn"), shutter_s=0.0)
