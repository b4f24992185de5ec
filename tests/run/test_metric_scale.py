"""Metric scale of a single camera: ground planes among clutter, distances, and refusals."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from spslam import geometry
from spslam.errors import ConfigError, ScaleError
from spslam.map.map import Map
from spslam.run.ground_plane import find_ground, ground_heights
from spslam.run.metric_scale import (
    CameraHeight,
    KnownDistance,
    TagSize,
    TrueDistance,
    check_scale,
    estimate_scale,
    parse_scale,
)
from spslam.trajectory import Trajectory

TILT, STEP = np.radians(20.0), np.radians(4.0)
DOWN = np.array([0.0, 1.0, 0.0])


def ground_points(
    rng: np.random.Generator, normal: np.ndarray, height: float, count: int, reach: float
) -> np.ndarray:
    """Points (count, 3) on a plane below a camera at the origin, with noise of 1 % of `height`."""
    axes = np.linalg.svd(normal[None])[2][1:]
    along = rng.uniform(-reach, reach, (count, 2)) @ axes
    return along + normal * (height * (1.0 + 0.01 * rng.normal(size=(count, 1))))


def walls(rng: np.random.Generator, bottom: float, count: int) -> np.ndarray:
    """Points (count, 3) on two walls beside a road along z, from `bottom` (y down) upwards."""
    x = rng.choice([-4.0, 4.0], count) + 0.05 * rng.normal(size=count)
    return np.stack(
        [x, rng.uniform(bottom - 5.0, bottom, count), rng.uniform(-15, 15, count)], axis=1
    )


def tilted(degrees: float, axis: tuple[float, float, float]) -> np.ndarray:
    return geometry.so3_exp(np.radians(degrees) * np.array(axis)) @ DOWN


@pytest.mark.parametrize("scale", [0.05, 1.0, 30.0])
@pytest.mark.parametrize(
    ("degrees", "axis"), [(0, (1, 0, 0)), (7, (1, 0, 0)), (12, (0, 0, 1)), (-15, (0.6, 0.0, 0.8))]
)
def test_finds_a_tilted_ground_plane_among_clutter(
    degrees: float, axis: tuple[float, float, float], scale: float
) -> None:
    rng = np.random.default_rng(1)
    normal = tilted(degrees, axis)
    outliers = rng.uniform((-8, -4, -15), (8, 1.2, 15), (200, 3))
    points = np.concatenate(
        [ground_points(rng, normal, 1.6, 90, 6.0), walls(rng, 1.0, 400), outliers]
    )
    plane = find_ground(points * scale, DOWN, TILT, STEP)
    assert plane is not None
    assert plane.height == pytest.approx(1.6 * scale, rel=0.01)
    assert np.degrees(np.arccos(plane.down @ normal)) < 0.5


def test_a_plane_that_is_tilted_too_much_is_not_the_ground_plane() -> None:
    rng = np.random.default_rng(2)
    assert (
        find_ground(ground_points(rng, tilted(40, (1, 0, 0)), 1.6, 200, 6.0), DOWN, TILT, STEP)
        is None
    )


def test_no_ground_plane_is_found_without_points_on_it() -> None:
    rng = np.random.default_rng(3)
    assert find_ground(walls(rng, 2.0, 600), DOWN, TILT, STEP) is None
    assert find_ground(walls(rng, -0.5, 600), DOWN, TILT, STEP) is None, "nothing below the camera"
    assert find_ground(np.zeros((0, 3)), DOWN, TILT, STEP) is None
    assert find_ground(np.zeros((100, 3)), DOWN, TILT, STEP) is None


def test_a_line_of_points_does_not_fix_a_plane() -> None:
    rng = np.random.default_rng(4)
    z = rng.uniform(-6, 6, 200)
    kerb = np.stack([np.full(200, 3.0), np.full(200, 1.6), z], axis=1) + 0.01 * rng.normal(
        size=(200, 3)
    )
    assert find_ground(kerb, DOWN, TILT, STEP) is None


def road(landmarks, height: float, with_ground: bool = True, slope: float = 0.0) -> Map:
    """Keyframes along a street; a camera `height` map units over a road that rises by `slope`."""
    rng = np.random.default_rng(5)
    z = rng.uniform(-5, 40, 1500)
    surface = np.stack([rng.uniform(-3, 3, 1500), np.full(1500, 1.0), z], axis=1)
    sides = walls(rng, 0.6, 800) + np.array([0.0, 0.0, 15.0])
    points = np.concatenate([surface, sides] if with_ground else [sides])
    points[:, 1] += 0.005 * rng.normal(size=len(points)) - slope * points[:, 2]
    poses = [landmarks.pose(0.0, -slope * z, z) for z in np.arange(0.0, 20.0, 0.8)]
    for pose in poses:
        pose[:3, 3] *= height
    return landmarks(points * height).map_of(poses, depth=False)


@pytest.mark.parametrize("slope", [0.0, 0.08])
def test_camera_heights_over_a_street(landmarks, slope: float) -> None:
    slam_map = road(landmarks, 0.07, slope=slope)
    found = ground_heights(slam_map, 0)
    assert found.looked_at == 25
    assert len(found.heights) >= 20
    assert found.median == pytest.approx(0.07 * np.cos(np.arctan(slope)), rel=0.01)
    assert found.spread < 0.02
    scale = estimate_scale(
        CameraHeight(1.65), slam_map, 0, Trajectory(np.zeros(0), np.zeros((0, 4, 4))), {}
    )
    assert scale.factor == pytest.approx(1.65 / found.median)
    assert scale.description == (
        f"camera height 1.65 m above the ground plane of {len(found.heights)} of 25 keyframes"
    )


def test_a_height_is_refused_without_a_ground_plane(landmarks) -> None:
    slam_map = road(landmarks, 1.0, with_ground=False)
    nothing = Trajectory(np.zeros(0), np.zeros((0, 4, 4)))
    with pytest.raises(ScaleError, match="of 25 keyframes show the ground"):
        estimate_scale(CameraHeight(1.65), slam_map, 0, nothing, {})
    with pytest.raises(ScaleError, match="0 of 0 keyframes"):
        estimate_scale(CameraHeight(1.65), Map(4), 0, nothing, {})


def straight(count: int, step: float, skipped: tuple[int, ...] = ()) -> Trajectory:
    """A camera that moves `step` per frame along z, at ten frames a second from 100 s on."""
    kept = np.array([i for i in range(count) if i not in skipped])
    poses = np.tile(np.eye(4), (len(kept), 1, 1))
    poses[:, 2, 3] = step * kept
    return Trajectory(100.0 + 0.1 * kept, poses)


STAMPS = {i: 100.0 + 0.1 * i for i in range(20)}


def test_a_known_distance_sets_the_scale() -> None:
    found = estimate_scale(KnownDistance(12, 2, 5.0), Map(4), 0, straight(20, 0.1), STAMPS)
    assert found.factor == pytest.approx(5.0)
    assert found.description == "5 m from frame 12 to 2"


def test_a_distance_from_the_ground_truth_is_described_as_such() -> None:
    truth = straight(25, 0.7)
    found = estimate_scale(TrueDistance(2, 12), Map(4), 0, straight(20, 0.1), STAMPS, truth)
    assert found.factor == pytest.approx(7.0)
    assert found.description == "ground truth, 7 m from frame 2 to 12"


def test_frames_without_a_pose_or_a_truth_are_named() -> None:
    trajectory = straight(20, 0.1, skipped=(12,))
    with pytest.raises(ScaleError, match="frame 12 has no pose in the main submap"):
        estimate_scale(KnownDistance(2, 12, 5.0), Map(4), 0, trajectory, STAMPS)
    with pytest.raises(ScaleError, match="frame 30 was not read"):
        estimate_scale(KnownDistance(2, 30, 5.0), Map(4), 0, trajectory, STAMPS)
    with pytest.raises(ScaleError, match="frame 13 has no ground truth"):
        estimate_scale(TrueDistance(2, 13), Map(4), 0, trajectory, STAMPS, straight(5, 0.7))
    with pytest.raises(ScaleError, match="no ground truth"):
        estimate_scale(TrueDistance(2, 13), Map(4), 0, trajectory, STAMPS)


def test_two_frames_in_one_place_are_refused() -> None:
    trajectory = straight(20, 0.1)
    trajectory.T_world_cam[12, 2, 3] = trajectory.T_world_cam[2, 2, 3]
    with pytest.raises(ScaleError, match="one place"):
        estimate_scale(KnownDistance(2, 12, 5.0), Map(4), 0, trajectory, STAMPS)


def test_scale_options_are_parsed() -> None:
    assert parse_scale("height=1.65") == CameraHeight(1.65)
    assert parse_scale("distance=3:40:2.5") == KnownDistance(3, 40, 2.5)
    assert parse_scale("ground-truth=0:99") == TrueDistance(0, 99)
    assert parse_scale("tag=0.16") == TagSize(0.16)
    assert parse_scale("tag=0.16:DICT_5X5_100") == TagSize(0.16, "DICT_5X5_100")
    assert parse_scale("tag=0.16:APRILTAG_36h11") == TagSize(0.16, "DICT_APRILTAG_36h11")


@pytest.mark.parametrize(
    "text",
    ["", "1.65", "height", "height=", "height=tall", "height=0", "height=-1", "height=inf",
     "height=nan", "height=1:2", "distance=1:2", "distance=1:1:3", "distance=-1:2:3",
     "distance=a:2:3", "distance=1:2:0",
     "ground-truth=1", "ground-truth=1:1", "ground-truth=1.5:2", "width=2",
     "tag=", "tag=0", "tag=0.16:9X9", "tag=1:2:3"],
)  # fmt: skip
def test_invalid_scale_options_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--scale.*expected .*height=METRES") as caught:
        parse_scale(text)
    assert "\n" not in str(caught.value)


def test_impossible_scale_options_are_refused_before_the_run() -> None:
    mono = SimpleNamespace(sensor="mono", ground_truth=None, name="walk")
    check_scale(CameraHeight(1.0), mono, range(100))
    check_scale(KnownDistance(10, 30, 1.0), mono, range(10, 40, 5))
    with pytest.raises(ConfigError, match="found stereo"):
        check_scale(CameraHeight(1.0), SimpleNamespace(sensor="stereo"), range(100))
    with pytest.raises(
        ConfigError, match="frame 12 is not read; expected two of 10 to 35, every 5th"
    ):
        check_scale(KnownDistance(10, 12, 1.0), mono, range(10, 40, 5))
    with pytest.raises(ConfigError, match="walk has none"):
        check_scale(TrueDistance(1, 2), mono, range(100))
