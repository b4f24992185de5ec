"""The crowd: boxes that walk through a built-in world."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from spslam.datasets.world.crowd import MOST_COVERED, CrowdWorld, Walker
from spslam.datasets.world.world import RenderedWorld, WorldSpec, open_world, world_spec
from spslam.frame import Sensor

SPEC = replace(world_spec("demo-crowd"), width=160, height=120, texels_per_m=64.0, noise_sigma=0.0)


@cache
def crowd(sensor: Sensor = "mono", seed: int = 2) -> CrowdWorld:
    return CrowdWorld(replace(SPEC, seed=seed), sensor)


def empty(sensor: Sensor = "mono") -> RenderedWorld:
    return RenderedWorld(replace(SPEC, seed=2, crowd=False), sensor)


def test_the_preset_is_the_demo_with_a_crowd() -> None:
    world = open_world("demo-crowd@3", "rgbd")
    assert isinstance(world, CrowdWorld) and world.name == "demo-crowd@3"
    without = replace(world.spec, name="demo@3", crowd=False)
    assert without == world_spec("demo@3")
    assert not isinstance(open_world("demo", "mono"), CrowdWorld)


def test_several_boxes_cover_a_part_of_the_images_that_changes() -> None:
    world = crowd()
    covered = np.array([world.box_mask(index).mean() for index in range(0, 300, 12)])
    assert 0.2 < covered.max() <= MOST_COVERED + 0.03
    assert covered.min() < 0.1
    walkers = world.crowd.walkers
    assert len(walkers) >= 6
    assert 0 < sum(walker.stop_s > 0 for walker in walkers) < len(walkers)


def test_images_and_depth_differ_from_the_empty_world_on_the_boxes_only() -> None:
    world, still = crowd("rgbd"), empty("rgbd")
    index = max(range(0, 300, 12), key=lambda i: world.box_mask(i).mean())
    seen, alone = world[index], still[index]
    box = world.box_mask(index)
    assert seen.depth is not None and alone.depth is not None
    assert (seen.depth[box] < alone.depth[box]).all()
    np.testing.assert_array_equal(seen.depth[~box], alone.depth[~box])
    changed = np.abs(seen.image.astype(int) - alone.image.astype(int)) > 2
    assert changed[box].mean() > 0.8
    # Pixels at the edge are mixed, though their centre is beside the box.
    assert changed[~box].mean() < 0.03
    np.testing.assert_array_equal(seen.image, CrowdWorld(world.spec, "rgbd")[index].image)


def test_the_right_camera_sees_the_boxes_at_their_disparity() -> None:
    world = crowd("stereo")
    index = max(range(0, 300, 12), key=lambda i: world.box_mask(i).mean())
    depth, right = world.depth(index), world.depth(index, right=True)
    rows, columns = np.nonzero(world.box_mask(index))
    shifted = np.rint(columns - world.camera.bf / depth[rows, columns]).astype(int)
    inside = shifted >= 0
    found = right[rows[inside], shifted[inside]] / depth[rows, columns][inside]
    assert np.median(np.abs(found - 1)) < 0.01
    frame = world[index]
    assert frame.image_right is not None
    left = frame.image[rows[inside], columns[inside]].astype(float)
    there = frame.image_right[rows[inside], shifted[inside]].astype(float)
    assert np.corrcoef(left, there)[0, 1] > 0.6


def test_another_seed_gives_another_crowd() -> None:
    one, other = (crowd("mono", seed).crowd.walkers for seed in (1, 2))
    assert one != other


@pytest.mark.parametrize("stop_s", [0.0, 4.0])
def test_a_walker_stops_on_its_way(stop_s: float) -> None:
    walker = Walker((0.5, 0.4, 1.7), (1.0, 2.0), 10.0, np.radians(30), 0.8, stop_s)
    times = np.array([5.0, 6.0, 9.5, 10.0, 10.5, 14.0, 15.0])
    poses = walker.poses(times)
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1) / np.diff(times)
    assert poses[3, [0, 2], 3] == pytest.approx([1.0, 2.0])
    assert steps[[0, -1]] == pytest.approx(0.8, abs=0.01)
    assert steps[2:4] == pytest.approx(0.8 if stop_s == 0 else 0.0, abs=0.03)
    direction = poses[-1, :3, 3] - poses[0, :3, 3]
    np.testing.assert_allclose(direction / np.linalg.norm(direction), poses[0, :3, 2], atol=1e-9)


def test_a_world_without_walkers_is_the_empty_world() -> None:
    spec = WorldSpec("short", "hall", "tour", 64, 48, 2, texels_per_m=64.0, crowd=True)
    world = CrowdWorld(spec, "mono")
    assert world.crowd.walkers == []
    np.testing.assert_array_equal(world[1].image, RenderedWorld(spec, "mono")[1].image)
    assert not world.box_mask(1).any()
