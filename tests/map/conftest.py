"""Maps of tests of exports."""

from __future__ import annotations

import numpy as np
import pytest

from spslam import geometry
from spslam.map.map import Map, Origin
from spslam.map.submaps import append_map

# Noise of the keypoints of `slam_map`, pixels.
NOISE_PX = 0.5


@pytest.fixture
def noise_px() -> float:
    return NOISE_PX


@pytest.fixture
def slam_map(landmarks) -> Map:
    """Submap 0: six rotated keyframes with noise, a loop and removed points; submap 1: three more.

    Submap 1 is from another session.
    """
    scene = landmarks.box()
    found = scene.map_of(
        [scene.pose(0.1 * i, 0.03 * i, 0.05 * i, 0.04 * i) for i in range(6)], noise_px=NOISE_PX
    )
    found.origin = Origin("stereo", scene.camera, "superpoint 0123456789ab", "baseline")
    found.remove_points(np.array([0, 7]))
    colors = np.random.default_rng(5).integers(0, 256, (len(found.observations), 3))
    found.observations["color"][:] = colors
    found.keyframes["channels"][:] = 3
    found.loops.append(
        1,
        i=0,
        j=5,
        S_i_j=geometry.inverse(found.pose(0)) @ found.pose(5),
        information=np.eye(7),
        inliers=77,
    )
    other = scene.map_of([scene.pose(0.2 * i, z=-0.5) for i in range(3)], noise_px=NOISE_PX)
    append_map(found, other)
    return found


@pytest.fixture
def mono_map(landmarks) -> Map:
    scene = landmarks.box()
    found = scene.map_of([scene.pose(0.1 * i, yaw=0.02 * i) for i in range(5)], depth=False)
    found.origin = Origin("mono", scene.mono, "orb", "arbitrary")
    S_i_j = geometry.inverse(found.pose(0)) @ found.pose(4)
    S_i_j[:3, :3] *= 1.25
    found.loops.append(1, i=0, j=4, S_i_j=S_i_j, information=1e8 * np.eye(7), inliers=50)
    return found
