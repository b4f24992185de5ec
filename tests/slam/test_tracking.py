"""Tracking against a map of known landmarks."""

from __future__ import annotations

import numpy as np
import pytest

from spslam import geometry
from spslam.backend.pose import PnPSolver
from spslam.config import Config, TrackingConfig
from spslam.frame import Observations
from spslam.frontend.matching.matching import DescriptorMatcher
from spslam.map.map import NO_POINT, Map
from spslam.slam.track_results import TrackedFrame
from spslam.slam.tracking import Tracker

NOISE_PX = 0.5


def tracker(**tracking) -> Tracker:
    config = Config(tracking=TrackingConfig(**tracking))
    return Tracker(config, DescriptorMatcher(), PnPSolver(NOISE_PX), max_descriptor_distance=0.7)


def assert_sees(tracked: TrackedFrame | None, scene, index: int, T_world_cam: np.ndarray) -> None:
    """Check the pose, and that each linked keypoint sees the landmark it came from."""
    assert tracked is not None
    error = geometry.se3_log(tracked.T_world_cam @ geometry.inverse(T_world_cam))
    assert np.linalg.norm(error[:3]) < 0.02
    assert np.linalg.norm(error[3:]) < 0.005
    sees = tracked.point_ids >= 0
    assert tracked.inliers == np.count_nonzero(sees) > 100
    assert np.array_equal(tracked.point_ids[sees], scene.ids[scene.labels[index][sees]])


def blind(observations: Observations) -> Observations:
    return Observations(
        observations.index, observations.timestamp, *(getattr(observations, n)[:0] for n in
        ("pixels", "descriptors", "scores", "relative_sigma", "u_right", "depth", "delays")),
    )  # fmt: skip


@pytest.fixture
def scene(landmarks):
    return landmarks.box()


@pytest.fixture
def slam_map(scene) -> Map:
    return scene.map_of([scene.pose(0.3 * i) for i in range(4)])


def all_points(slam_map: Map) -> np.ndarray:
    return slam_map.points["id"].copy()


# -- with a prediction -----------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [True, False])
def test_finds_a_pose_near_the_prediction(scene, slam_map, depth: bool) -> None:
    truth = scene.pose(0.5, 0.05, 0.1, 0.05)
    observations = scene.observe(truth, 9, depth=depth, noise_px=NOISE_PX)
    predicted = geometry.inverse(scene.pose(0.42, 0.05, 0.1, 0.03))
    camera = scene.camera if depth else scene.mono
    tracked = tracker().track(observations, slam_map, camera, predicted, all_points(slam_map))
    assert_sees(tracked, scene, 9, truth)
    assert tracked is not None and tracked.how == "motion"


def test_ids_are_not_used_as_rows(scene, slam_map) -> None:
    """With a gap in the ids, rows and ids differ."""
    gone = slam_map.points["id"][:50].copy()
    slam_map.remove_points(gone)
    scene.ids[np.isin(scene.ids, gone)] = NO_POINT
    truth = scene.pose(0.5)
    observations = scene.observe(truth, 9, noise_px=NOISE_PX)
    local = np.concatenate([gone, all_points(slam_map)])
    tracked = tracker().track(observations, slam_map, scene.camera, geometry.inverse(truth), local)
    assert_sees(tracked, scene, 9, truth)
    assert_sees(
        tracker().recover(observations, slam_map, scene.camera, np.array([1])), scene, 9, truth
    )


def test_a_wider_search_radius_is_used_if_the_first_is_too_small(scene, slam_map) -> None:
    truth = scene.pose(0.5)
    observations = scene.observe(truth, 9, noise_px=NOISE_PX)
    # About 40 px off everywhere: beyond the first radius of 24 px, within the second of 60 px.
    predicted = geometry.inverse(scene.pose(0.5, yaw=0.1))
    assert_sees(
        tracker().track(observations, slam_map, scene.camera, predicted, all_points(slam_map)),
        scene,
        9,
        truth,
    )
    narrow = tracker(search_radius_px=8.0, min_inlier_fraction=0.0)
    assert (
        narrow.track(observations, slam_map, scene.camera, predicted, all_points(slam_map)) is None
    )


class RadiusLog(DescriptorMatcher):
    """A matcher that notes its search radii."""

    def __init__(self) -> None:
        super().__init__()
        self.radii: list[float] = []

    def match_near(self, *arguments) -> np.ndarray:
        self.radii.append(float(arguments[4]))
        return super().match_near(*arguments)


def test_the_small_radius_is_enough_while_few_inliers_are_usual(scene, slam_map) -> None:
    matcher = RadiusLog()
    noisy = Tracker(Config(), matcher, PnPSolver(NOISE_PX), max_descriptor_distance=0.7)
    rng = np.random.default_rng(2)

    def radii(inlier_fraction: float, in_sequence: bool = True) -> list[float]:
        """Track a frame with displaced keypoints; return the radii of the searches."""
        observations = scene.observe(scene.pose(0.5), 9, noise_px=NOISE_PX)
        moved = np.flatnonzero(rng.random(len(observations)) > inlier_fraction)
        observations.pixels[moved] += rng.choice([-3.5, 3.5], (len(moved), 2))
        matcher.radii.clear()
        tracked = noisy.track(
            observations,
            slam_map,
            scene.camera,
            geometry.inverse(scene.pose(0.52)),
            all_points(slam_map),
            in_sequence=in_sequence,
        )
        assert tracked is not None and tracked.inliers < 0.6 * tracked.matches
        return sorted(set(matcher.radii))

    config = TrackingConfig()
    narrow, near = config.refine_radius_px, config.near_radius_ratio * config.search_radius_px
    # What is usual at an old place of a loop, or while the camera is lost, is not usual here.
    assert radii(0.5, in_sequence=False) == [narrow, near, config.search_radius_px]
    # The first such frame is searched with the normal radius, and so is one with still fewer.
    assert radii(0.5) == [narrow, near, config.search_radius_px]
    assert radii(0.5) == [narrow, near]
    assert radii(0.35) == [narrow, near, config.search_radius_px]
    # Both radii find the same inliers, so that the wide one is not tried.
    assert radii(0.2) == [narrow, near, config.search_radius_px]


def test_no_pose_without_prediction_points_or_features(scene, slam_map) -> None:
    observations = scene.observe(scene.pose(0.5), 9)
    predicted = geometry.inverse(scene.pose(0.5))
    points = all_points(slam_map)
    find = tracker().track
    assert find(observations, slam_map, scene.camera, None, points) is None
    assert find(observations, slam_map, scene.camera, predicted, points[:0]) is None
    assert find(blind(observations), slam_map, scene.camera, predicted, points) is None
    assert (
        find(observations, slam_map, scene.camera, geometry.inverse(scene.pose(yaw=np.pi)), points)
        is None
    )


def test_no_pose_with_too_few_points(scene, slam_map) -> None:
    truth = scene.pose(0.5)
    observations = scene.observe(truth, 9)
    seen = np.sort(scene.ids[scene.labels[9]])
    seen = seen[seen >= 0]
    for count, found in ((19, False), (30, True)):
        tracked = tracker(min_inliers=20).track(
            observations, slam_map, scene.camera, geometry.inverse(truth), seen[:count]
        )
        assert (tracked is not None) == found


def test_no_pose_from_matches_that_agree_with_none(scene, slam_map) -> None:
    observations = scene.observe(scene.pose(0.5), 9)
    scrambled = np.random.default_rng(0).permutation(observations.pixels)
    wrong = Observations(
        9, 0.9, scrambled, observations.descriptors, observations.scores,
        observations.relative_sigma,
        np.full(len(scrambled), np.nan), np.full(len(scrambled), np.nan), np.zeros(len(scrambled)),
    )  # fmt: skip
    predicted = geometry.inverse(scene.pose(0.5))
    assert tracker().track(wrong, slam_map, scene.camera, predicted, all_points(slam_map)) is None
    assert tracker().recover(wrong, slam_map, scene.camera, slam_map.keyframes["id"]) is None


# -- without one -----------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [True, False])
def test_recovers_without_a_prediction(scene, slam_map, depth: bool) -> None:
    truth = scene.pose(0.5, 0.2, 0.3, 0.3)
    observations = scene.observe(truth, 9, depth=depth, noise_px=NOISE_PX)
    camera = scene.camera if depth else scene.mono
    tracked = tracker().recover(observations, slam_map, camera, np.array([2, 0]))
    assert_sees(tracked, scene, 9, truth)
    assert tracked is not None and tracked.how == "recovery"


def test_recovery_tries_the_next_keyframe(scene) -> None:
    """A keyframe that looks elsewhere has no common points; the next one has."""
    slam_map = scene.map_of([scene.pose(0.0), scene.pose(0.3), scene.pose(yaw=np.pi)])
    truth = scene.pose(0.2)
    observations = scene.observe(truth, 9, noise_px=NOISE_PX)
    assert len(scene.labels[2]) == 0
    assert_sees(
        tracker().recover(observations, slam_map, scene.camera, np.array([2, 1])), scene, 9, truth
    )
    assert tracker().recover(observations, slam_map, scene.camera, np.array([2])) is None


def test_recovers_from_the_points_of_several_keyframes(scene, slam_map) -> None:
    """Each keyframe sees a few of the points only."""
    for keyframe_id in range(4):
        rows = np.arange(
            *slam_map.observation_rows(keyframe_id).indices(len(slam_map.observations))
        )
        unknown = ~np.isin(slam_map.observations["point"][rows] % 5, (keyframe_id, keyframe_id + 1))
        slam_map.unlink(rows[unknown & (slam_map.observations["point"][rows] >= 0)])
    observations = scene.observe(scene.pose(0.5), 9, noise_px=NOISE_PX)
    some = np.flatnonzero(scene.ids[scene.labels[9]] >= 0)[:45]
    few = observations.select(some)
    find = tracker()
    assert find.recover(few, slam_map, scene.camera, np.arange(4)) is None
    tracked = find.recover_around(few, slam_map, scene.camera, 1)
    assert tracked is not None and tracked.how == "recovery" and tracked.inliers >= 30
    assert np.linalg.norm(tracked.T_world_cam[:3, 3] - scene.pose(0.5)[:3, 3]) < 0.03
    assert find.recover_around(few, slam_map, scene.camera, 77) is None, (
        "a keyframe that was culled"
    )
    assert find.recover_around(blind(few), slam_map, scene.camera, 1) is None


def test_no_recovery_without_keyframes_features_or_matches(scene, slam_map, landmarks) -> None:
    observations = scene.observe(scene.pose(0.5), 9)
    find = tracker().recover
    assert find(observations, slam_map, scene.camera, np.zeros(0, np.int64)) is None
    assert find(blind(observations), slam_map, scene.camera, np.array([0, 1])) is None
    elsewhere = landmarks.box(seed=5).observe(scene.pose(0.5), 9)
    assert find(elsewhere, slam_map, scene.camera, slam_map.keyframes["id"]) is None


# -- local map -------------------------------------------------------------------------------------


def test_local_keyframes_are_sorted_by_common_points(scene, slam_map) -> None:
    points = slam_map.points_seen_by(np.array([1]))
    local = tracker().local_keyframes(slam_map, points)
    shared = [len(np.intersect1d(points, slam_map.points_seen_by(np.array([k])))) for k in local]
    assert local[0] == 1
    assert sorted(local.tolist()) == [0, 1, 2, 3]
    assert shared == sorted(shared, reverse=True)
    assert len(tracker(max_keyframes=2).local_keyframes(slam_map, points)) == 2
    nobody = tracker().local_keyframes(slam_map, np.zeros(0, np.int64))
    assert nobody.shape == (0,)
    assert nobody.dtype == np.int64


def test_covisible_keyframes_fill_the_local_map(scene) -> None:
    """Only keyframe 3 sees the tracked point; its covisible keyframes are local, too, each once."""
    slam_map = scene.map_of([scene.pose(0.5 * i - 1.5) for i in range(4)])
    only_last = np.setdiff1d(
        slam_map.points_seen_by(np.array([3])), slam_map.points_seen_by(np.array([0, 1, 2]))
    )
    local = tracker(max_keyframes=3).local_keyframes(slam_map, only_last[:1])
    companions, _ = slam_map.covisible(3)
    assert local.tolist() == [3, *companions[:2].tolist()]
