"""Which frames become keyframes, what these add to the map, and what is culled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spslam import geometry
from spslam.backend.bundle import SchurBundleAdjuster
from spslam.backend.two_view import EpipolarSolver
from spslam.backend_interfaces import PoseEstimate
from spslam.config import BundleConfig, Config, KeyframeConfig, MappingConfig
from spslam.frame import Observations
from spslam.frontend.matching.matching import DescriptorMatcher
from spslam.map.map import NO_POINT, Map
from spslam.slam.mapping import KeyframeRule, Mapper, close_distance, fundamental_matrix
from spslam.slam.track_results import TrackedFrame

NOISE_PX = 0.3


def mapper(mapping: dict | None = None, **bundle) -> Mapper:
    config = Config(mapping=MappingConfig(**(mapping or {})), bundle=BundleConfig(**bundle))
    return Mapper(
        config, DescriptorMatcher(), EpipolarSolver(NOISE_PX), SchurBundleAdjuster(NOISE_PX), 0.7
    )


@pytest.fixture
def scene(landmarks):
    return landmarks.box()


def empty(observations: Observations) -> Observations:
    names = ("pixels", "descriptors", "scores", "relative_sigma", "u_right", "depth")
    return replace(observations, **{name: getattr(observations, name)[:0] for name in names})


def assert_consistent(slam_map: Map) -> None:
    linked = slam_map.observations["point"] >= 0
    points, keyframes = (
        slam_map.observations["point"][linked],
        slam_map.observations["keyframe"][linked],
    )
    assert (slam_map.point_rows(points) >= 0).all()
    assert np.isin(slam_map.points["id"], points).all(), "every point must have an observation"
    assert len(np.unique(np.stack([keyframes, points]), axis=1).T) == len(points)


def insert(
    scene, slam_map: Map, T_world_cam: np.ndarray, index: int, *, depth: bool, known: bool = True
) -> int:
    """Insert a frame whose keypoints are tracked (`known`) or not."""
    observations = scene.observe(T_world_cam, index, depth=depth, noise_px=NOISE_PX)
    tracked = scene.ids[scene.labels[index]] if known else np.full(len(observations), NO_POINT)
    tracked = np.where(slam_map.point_rows(tracked) >= 0, tracked, NO_POINT)
    camera = scene.camera if depth else scene.mono
    return mapper().insert(slam_map, camera, observations, T_world_cam, tracked)


def landmarks_of(scene, slam_map: Map) -> list[set[int]]:
    """The landmarks of the observations of each point."""
    seen: dict[int, set[int]] = {int(point): set() for point in slam_map.points["id"]}
    for keyframe_id, frame in zip(
        slam_map.keyframes["id"], slam_map.keyframes["frame"], strict=True
    ):
        points = slam_map.observations["point"][slam_map.observation_rows(int(keyframe_id))]
        for point, landmark in zip(points.tolist(), scene.labels[int(frame)].tolist(), strict=True):
            if point >= 0:
                seen[point].add(landmark)
    return list(seen.values())


# -- when a frame becomes a keyframe ---------------------------------------------------------------


def rule_and_map(scene, depth: bool = True, **keyframes) -> tuple[KeyframeRule, Map]:
    """A rule in which only the given settings can trigger."""
    quiet = {
        "max_interval": 1000,
        "min_tracked_fraction": 0.01,
        "many_points": 100_000,
        "min_close_points": 0,
        "max_flow_fraction": 0.99,
    }
    config = Config(keyframes=KeyframeConfig(**(quiet | keyframes)))
    camera = scene.camera if depth else scene.mono
    return KeyframeRule(config, camera), scene.map_of([scene.pose(), scene.pose(0.1)], depth=depth)


def tracked(
    scene, T_world_cam: np.ndarray, *, depth: bool = True, fraction: float = 1.0
) -> TrackedFrame:
    """A frame that tracks a fraction of the map points it sees."""
    observations = scene.observe(T_world_cam, 9, depth=depth)
    point_ids = scene.ids[scene.labels[9]].copy()
    point_ids[int(fraction * len(point_ids)) :] = NO_POINT
    estimate = PoseEstimate(geometry.inverse(T_world_cam), point_ids >= 0, np.eye(6), 0.5, 1.0)
    return TrackedFrame(
        observations, estimate, point_ids, np.full(len(point_ids), NO_POINT), "motion"
    )


def test_a_frame_like_the_last_does_not_become_a_keyframe(scene) -> None:
    rule, slam_map = rule_and_map(scene)
    assert [rule.wants(tracked(scene, scene.pose(0.1)), slam_map, 1) for _ in range(30)] == [
        ""
    ] * 30


def test_the_longest_interval_is_counted_from_the_last_keyframe(scene) -> None:
    rule, slam_map = rule_and_map(scene, max_interval=4)
    frame = tracked(scene, scene.pose(0.1))
    assert [rule.wants(frame, slam_map, 1) for _ in range(5)] == [
        "",
        "",
        "",
        "interval",
        "interval",
    ]
    rule.reset()
    assert [rule.wants(frame, slam_map, 1) for _ in range(4)] == ["", "", "", "interval"]


def test_no_keyframe_before_the_least_interval(scene) -> None:
    rule, slam_map = rule_and_map(scene, min_interval=3, min_tracked_fraction=0.9)
    frame = tracked(scene, scene.pose(0.1), fraction=0.5)
    assert [rule.wants(frame, slam_map, 1) for _ in range(3)] == ["", "", "few tracked points"]


def test_a_keyframe_is_added_when_few_reference_points_are_tracked(scene) -> None:
    rule, slam_map = rule_and_map(scene, min_tracked_fraction=0.5)
    assert rule.wants(tracked(scene, scene.pose(0.1), fraction=0.7), slam_map, 1) == ""
    assert (
        rule.wants(tracked(scene, scene.pose(0.1), fraction=0.4), slam_map, 1)
        == "few tracked points"
    )


def test_many_tracked_points_are_enough_though_a_smaller_fraction(scene) -> None:
    """The pose of a single camera is sure, so that the next keyframe can wait."""
    _, slam_map = rule_and_map(scene, depth=False)
    reference = len(slam_map.points_seen_by(np.array([1])))

    def why(fraction: float, points: int, depth: bool = False) -> str:
        rule, _ = rule_and_map(
            scene, depth, min_tracked_fraction=0.5, many_points=points, min_fraction_of_many=0.3
        )
        frame = tracked(scene, scene.pose(0.1), depth=depth)
        seen = np.flatnonzero(frame.point_ids >= 0)
        frame.point_ids[seen[int(fraction * reference) :]] = NO_POINT
        return rule.wants(frame, slam_map, 1)

    assert why(0.4, points=int(0.35 * reference)) == ""
    assert why(0.4, points=int(0.45 * reference)) == "few tracked points"
    assert why(0.25, points=int(0.2 * reference)) == "few tracked points"
    assert why(0.4, points=int(0.35 * reference), depth=True) == "few tracked points"


def test_points_that_only_one_keyframe_sees_do_not_count(scene) -> None:
    """Many points that only the reference keyframe sees do not trigger the next keyframe."""
    rule, slam_map = rule_and_map(scene, min_tracked_fraction=0.5)
    second = slam_map.observation_rows(1)
    shared = np.flatnonzero(slam_map.observations["point"][second] >= 0)[20:] + second.start
    slam_map.unlink(shared)
    assert rule.wants(tracked(scene, scene.pose(0.1), fraction=0.4), slam_map, 0) == ""


def test_a_keyframe_is_added_when_close_points_run_short_and_there_are_new_ones(scene) -> None:
    rule, slam_map = rule_and_map(scene, min_close_points=100, min_tracked_fraction=0.01)
    total = len(tracked(scene, scene.pose(0.1)).point_ids)
    assert total > 200, "all of them are closer than forty baselines"
    assert rule.wants(tracked(scene, scene.pose(0.1), fraction=0.9), slam_map, 1) == ""
    assert (
        rule.wants(tracked(scene, scene.pose(0.1), fraction=80 / total), slam_map, 1)
        == "close points"
    )
    few = tracked(scene, scene.pose(0.1), fraction=80 / total)
    few.observations.depth[few.point_ids < 0] = np.nan
    assert rule.wants(few, slam_map, 1) == "", "without new close points a keyframe would not help"


def test_a_single_camera_has_no_close_points(scene) -> None:
    rule, slam_map = rule_and_map(scene, depth=False, min_close_points=100)
    frame = tracked(scene, scene.pose(0.1), depth=False, fraction=0.3)
    assert rule.wants(frame, slam_map, 1) == ""
    assert close_distance(Config(), scene.mono) == 0.0
    assert close_distance(Config(), scene.camera) == pytest.approx(40 * 0.12)


def test_a_keyframe_is_added_when_points_moved_far_in_the_image(scene) -> None:
    rule, slam_map = rule_and_map(scene, max_flow_fraction=0.1)
    # At about 4.5 m, 0.4 m sideways give about 36 px and 1 m gives 89 px; the limit is 64 px.
    assert rule.wants(tracked(scene, scene.pose(0.5)), slam_map, 1) == ""
    assert rule.wants(tracked(scene, scene.pose(1.1)), slam_map, 1) == "flow"


def test_a_reference_without_common_points_triggers_nothing(scene) -> None:
    rule, slam_map = rule_and_map(scene)
    slam_map.unlink(
        np.arange(slam_map.observation_rows(1).start, slam_map.observation_rows(1).stop)
    )
    assert rule.wants(tracked(scene, scene.pose(0.1)), slam_map, 1) == "", (
        "the flow is unknown, which is not an error"
    )


# -- new points ------------------------------------------------------------------------------------


def test_keypoints_with_depth_and_no_map_point_become_points(scene) -> None:
    slam_map = scene.map_of([scene.pose(-0.8)])
    before = len(slam_map.points)
    keyframe_id = insert(scene, slam_map, scene.pose(0.8), 1, depth=True)
    assert len(slam_map.points) > before
    assert_consistent(slam_map)
    assert all(len(group) == 1 for group in landmarks_of(scene, slam_map))
    new = slam_map.points["born"] == keyframe_id
    assert new.any()
    rows = slam_map.observation_rows(keyframe_id)
    assert (slam_map.observations["point"][rows] >= 0).all()
    positions = slam_map.positions[slam_map.point_rows(slam_map.observations["point"][rows])]
    error = np.linalg.norm(positions - scene.points[scene.labels[1]], axis=1)
    assert np.median(error) < 0.1


def unlinked_pair(scene, baseline: float) -> Map:
    """Two mono keyframes with 30 common points; no other keypoint sees a point yet."""
    slam_map = scene.map_of([scene.pose(), scene.pose(baseline)], depth=False)
    shared = np.flatnonzero(slam_map.observation_counts() == 2)
    slam_map.remove_points(np.delete(slam_map.points["id"].copy(), shared[:30]))
    return slam_map


def test_triangulated_points_are_accurate(scene) -> None:
    slam_map = unlinked_pair(scene, 0.2)
    keyframe_id = insert(scene, slam_map, scene.pose(0.6), 2, depth=False)
    assert_consistent(slam_map)
    assert len(slam_map.points) > 150
    groups = landmarks_of(scene, slam_map)
    assert np.mean([len(group) == 1 for group in groups]) > 0.98, (
        "matches on an epipolar line are of the same landmark"
    )
    truth = scene.points[[min(group) for group in groups]]
    error = np.linalg.norm(slam_map.positions - truth, axis=1) / truth[:, 2]
    assert np.median(error) < 0.01
    assert (slam_map.observation_counts() >= 2).all()
    new = slam_map.points["born"] == keyframe_id
    assert np.linalg.norm(slam_map.points["normal"][new], axis=1) == pytest.approx(
        np.ones(new.sum())
    )
    assert (slam_map.points["distance"][new] > 0).all()


def test_triangulation_needs_a_baseline(scene) -> None:
    slam_map = scene.map_of([scene.pose()], depth=False)
    slam_map.remove_points(slam_map.points["id"][50:].copy())
    insert(scene, slam_map, scene.pose(0.01), 1, depth=False)
    assert len(slam_map.points) == 50
    insert(scene, slam_map, scene.pose(0.0, yaw=0.05), 2, depth=False)
    assert len(slam_map.points) == 50, "a rotation is no baseline"


def test_epipolar_geometry_of_two_poses(scene) -> None:
    T_cam0_world, T_cam1_world = (
        geometry.inverse(scene.pose(0.1)),
        geometry.inverse(scene.pose(0.8, 0.2, -0.3, 0.2)),
    )
    F_10 = fundamental_matrix(T_cam0_world, T_cam1_world, scene.mono)
    pixels = [
        scene.mono.project(geometry.apply(T, scene.points)) for T in (T_cam0_world, T_cam1_world)
    ]
    x0, x1 = (np.column_stack([p, np.ones(len(p))]) for p in pixels)
    lines = x0 @ F_10.T
    assert np.abs(np.sum(x1 * lines, axis=1) / np.linalg.norm(lines[:, :2], axis=1)).max() < 1e-9


def test_a_frame_without_keypoints_can_be_inserted(scene) -> None:
    slam_map = scene.map_of([scene.pose(), scene.pose(0.2)])
    before = slam_map.points["id"][slam_map.observation_counts() == 2].copy()
    nothing = empty(scene.observe(scene.pose(0.3), 2))
    keyframe_id = mapper().insert(
        slam_map, scene.camera, nothing, scene.pose(0.3), np.zeros(0, np.int64)
    )
    mapper().refine(slam_map, scene.camera, keyframe_id)
    assert mapper().cull_keyframes(slam_map, keyframe_id) == []
    assert np.isin(before, slam_map.points["id"]).all()
    assert slam_map.pose(keyframe_id) == pytest.approx(scene.pose(0.3))


@pytest.mark.parametrize("depth", [True, False])
def test_refining_keyframes_that_see_no_point_does_nothing(scene, depth: bool) -> None:
    slam_map = scene.map_of([scene.pose(), scene.pose(0.2)], depth=depth)
    slam_map.remove_points(slam_map.points["id"].copy())
    mapper().refine(slam_map, scene.camera if depth else scene.mono, 1)
    assert slam_map.pose(1) == pytest.approx(scene.pose(0.2))


# -- fusion ----------------------------------------------------------------------------------------


def doubled(scene, depth: bool = True) -> tuple[Map, np.ndarray]:
    """Keyframes 0 and 1 see one copy of each landmark, keyframe 2 another; plus the landmarks."""
    slam_map = scene.map_of([scene.pose(), scene.pose(0.1), scene.pose(0.2)], depth=depth)
    rows = np.arange(slam_map.observation_rows(2).start, slam_map.observation_rows(2).stop)
    slam_map.unlink(rows)
    slam_map.add_points(2, scene.points[scene.labels[2]] + 0.002, rows)
    first = np.concatenate([scene.labels[0], scene.labels[1]])
    return slam_map, np.intersect1d(first, scene.labels[2])


@pytest.mark.parametrize("into", [2, 1])
def test_two_copies_of_a_point_become_one(scene, into: int) -> None:
    slam_map, both = doubled(scene)
    theirs = (
        slam_map.points_seen_by(np.array([0, 1]))
        if into == 2
        else slam_map.points_seen_by(np.array([2]))
    )
    assert mapper().fuse_into(slam_map, scene.camera, into, theirs) > 0.9 * len(both)
    assert_consistent(slam_map)
    groups = landmarks_of(scene, slam_map)
    assert all(len(group) == 1 for group in groups), "copies of different landmarks are not fused"
    times = np.bincount([min(group) for group in groups], minlength=len(scene.points))
    reachable = np.intersect1d(both, scene.labels[into])
    assert np.mean(times[reachable] == 1) > 0.95
    counts = slam_map.observation_counts()
    assert counts.max() == 3
    if into == 2:
        survivors = slam_map.points["id"][counts == 3]
        assert (survivors <= scene.ids.max()).all(), "the copy with more observations stays"


def test_fusing_again_changes_nothing(scene) -> None:
    slam_map, _ = doubled(scene)
    theirs = slam_map.points_seen_by(np.array([0, 1]))
    mapper().fuse_into(slam_map, scene.camera, 2, theirs)
    before = slam_map.observations["point"].copy()
    assert mapper().fuse_into(slam_map, scene.camera, 2, theirs) <= 2
    assert np.mean(slam_map.observations["point"] == before) > 0.99


def test_a_keypoint_without_a_point_is_linked(scene) -> None:
    slam_map = scene.map_of([scene.pose(), scene.pose(0.2)])
    rows = np.arange(slam_map.observation_rows(1).start, slam_map.observation_rows(1).stop)
    was = slam_map.observations["point"][rows].copy()
    points = slam_map.points_seen_by(np.array([0]))
    slam_map.unlink(rows)
    assert mapper().fuse_into(slam_map, scene.camera, 1, points) > 100
    now = slam_map.observations["point"][rows]
    assert np.array_equal(now[now >= 0], was[now >= 0])
    assert_consistent(slam_map)


def test_points_do_not_fuse_where_the_measured_depth_disagrees(scene) -> None:
    """A copy on the same ray at half the distance has the same pixel in one image."""
    slam_map = scene.map_of([scene.pose(), scene.pose(1e-9)])
    rows = np.arange(slam_map.observation_rows(1).start, slam_map.observation_rows(1).stop)
    slam_map.unlink(rows)
    slam_map.positions[:] *= 0.5
    slam_map.refresh_normals(slam_map.points["id"])
    points = slam_map.points["id"].copy()
    assert mapper().fuse_into(slam_map, scene.camera, 1, points) == 0
    slam_map.observations["u_right"][:] = np.nan
    assert mapper().fuse_into(slam_map, scene.camera, 1, points) > 100


def test_unseen_and_removed_points_are_not_fused(scene) -> None:
    slam_map = scene.map_of([scene.pose(), scene.pose(yaw=np.pi)])
    assert mapper().fuse_into(slam_map, scene.camera, 0, np.zeros(0, np.int64)) == 0
    assert mapper().fuse_into(slam_map, scene.camera, 1, slam_map.points["id"]) == 0
    gone = slam_map.points["id"][:5].copy()
    slam_map.remove_points(gone)
    assert mapper().fuse_into(slam_map, scene.camera, 0, gone) == 0


# -- culling ---------------------------------------------------------------------------------------


def test_points_rarely_found_are_culled(scene) -> None:
    slam_map = scene.map_of([scene.pose(), scene.pose(0.1)])
    bad = slam_map.points["id"][:10].copy()
    slam_map.points["visible"][:] = 9
    slam_map.points["found"][:] = 5
    slam_map.points["found"][:10] = 2
    tracked_ids = np.setdiff1d(scene.ids, bad)
    scene.ids[~np.isin(scene.ids, tracked_ids)] = NO_POINT
    insert(scene, slam_map, scene.pose(0.15), 2, depth=True)
    assert (slam_map.point_rows(bad) == -1).all()
    assert len(slam_map.points) > 100


def test_old_points_that_many_frames_missed_are_culled(scene) -> None:
    slam_map = scene.map_of([scene.pose(), scene.pose(0.1)])
    slam_map.points["born"][:] = -50
    missed, unproven, seldom = (slam_map.points["id"][i : i + 10].copy() for i in (0, 10, 20))
    slam_map.points["visible"][:] = 30
    slam_map.points["visible"][10:20] = 29
    slam_map.points["found"][:20] = 9
    slam_map.points["found"][20:] = 10
    insert(scene, slam_map, scene.pose(0.15), 2, depth=True)
    assert (slam_map.point_rows(missed) == -1).all()
    assert (slam_map.point_rows(np.concatenate([unproven, seldom])) >= 0).all()


def test_points_that_fail_their_probation_are_culled(scene) -> None:
    """A point needs three views by the third keyframe after its creation, and none later on."""
    slam_map = scene.map_of([scene.pose(0.05 * i) for i in range(3)], depth=False)
    once = slam_map.points["id"][slam_map.observation_counts() == 3][:20].copy()
    rows = slam_map.rows_of_points(once)
    slam_map.unlink(rows[slam_map.observations["keyframe"][rows] == 2])
    scene.ids[np.isin(scene.ids, once)] = NO_POINT
    old = slam_map.points["id"][-20:].copy()
    slam_map.points["born"][-20:] = -5
    slam_map.points["found"][-20:] = 0
    insert(scene, slam_map, scene.pose(0.15), 3, depth=False)
    assert (slam_map.point_rows(once) == -1).all()
    assert (slam_map.point_rows(old) >= 0).all()


def test_redundant_keyframes_are_culled_except_the_first_and_the_newest(scene) -> None:
    poses = [scene.pose(0.002 * i) for i in range(8)]
    slam_map = scene.map_of(poses)
    removed = mapper().cull_keyframes(slam_map, 7)
    kept = slam_map.keyframes["id"].tolist()
    assert kept[0] == 0
    assert kept[-1] == 7
    assert 3 <= len(kept) < 8, "three other keyframes must see the same points"
    assert sorted(kept + [r.keyframe_id for r in removed]) == list(range(8))
    assert_consistent(slam_map)
    # Chained parents give each culled keyframe its old pose.
    poses_by_id = {k: slam_map.pose(k) for k in kept}
    for r in reversed(removed):
        poses_by_id[r.keyframe_id] = poses_by_id[r.parent_id] @ r.T_parent_removed
    for k, pose in enumerate(poses):
        assert poses_by_id[k] == pytest.approx(pose)


@pytest.mark.parametrize("views", [1, 2, 5])
def test_redundant_views_is_the_number_of_others_that_must_see_the_points(
    scene, views: int
) -> None:
    slam_map = scene.map_of([scene.pose(0.002 * i) for i in range(8)])
    mapper({"redundant_views": views}).cull_keyframes(slam_map, 7)
    assert len(slam_map.keyframes) == max(views, 2), "the first and the newest always stay"


def test_points_left_with_a_single_view_are_removed_with_a_culled_keyframe(scene) -> None:
    slam_map = scene.map_of([scene.pose(0.002 * i) for i in range(8)])
    # Points that only keyframes 3 and 7 see, and others that only 0 and 7 see.
    rows = slam_map.observations["keyframe"]
    points = slam_map.points["id"][slam_map.observation_counts() == 8]
    passing, staying = points[:10].copy(), points[10:20].copy()
    for ids, seen_by in ((passing, (3, 7)), (staying, (0, 7))):
        linked = slam_map.rows_of_points(ids)
        slam_map.unlink(linked[~np.isin(rows[linked], seen_by)])
    removed = [r.keyframe_id for r in mapper().cull_keyframes(slam_map, 7)]
    assert 3 in removed
    assert (slam_map.point_rows(passing) == -1).all()
    assert (slam_map.point_rows(staying) >= 0).all()
    assert_consistent(slam_map)


def test_keyframes_with_points_of_their_own_stay(scene, landmarks) -> None:
    slam_map = landmarks.ring().map_of([scene.pose(yaw=0.5 * i) for i in range(6)])
    assert mapper().cull_keyframes(slam_map, 5) == []
    lonely = scene.map_of([scene.pose()])
    assert mapper().cull_keyframes(lonely, 0) == []


# -- local bundle adjustment -----------------------------------------------------------------------


@pytest.mark.parametrize("depth", [True, False])
def test_a_perturbed_keyframe_moves_back_and_the_border_stays_fixed(scene, depth: bool) -> None:
    poses = [scene.pose(0.3 * i) for i in range(6)]
    slam_map = scene.map_of(poses, depth=depth, noise_px=0.1)
    if not depth:
        slam_map.remove_points(slam_map.points["id"][slam_map.observation_counts() < 2].copy())
    slam_map.T_world_keyframe[4] = slam_map.T_world_keyframe[4] @ geometry.se3_exp(
        np.array([0.05, -0.03, 0.04, 0.01, -0.02, 0.01])
    )
    moved_before = slam_map.pose(4)
    mapper(window=3).refine(slam_map, scene.camera if depth else scene.mono, 5)
    found = np.array([slam_map.pose(i) for i in range(6)])
    still = [i for i in range(6) if np.array_equal(found[i], poses[i])]
    assert {0, 1, 2} <= set(still), "three keyframes move, those around them are fixed"
    assert not np.array_equal(found[4], moved_before)
    assert found[:, :3, 3] == pytest.approx(np.array(poses)[:, :3, 3], abs=0.01)
    assert (
        geometry.rotation_angle(
            found[:, :3, :3] @ np.array(poses)[:, :3, :3].transpose(0, 2, 1)
        ).max()
        < 0.002
    )
    assert_consistent(slam_map)


@pytest.mark.parametrize("depth", [True, False])
def test_refinement_beside_tracking_gives_the_same_map(scene, depth: bool) -> None:
    maps = [
        scene.map_of([scene.pose(0.3 * i) for i in range(4)], depth=depth, noise_px=NOISE_PX)
        for _ in range(2)
    ]
    camera = scene.camera if depth else scene.mono
    for slam_map in maps:
        slam_map.T_world_keyframe[3, :3, 3] += 0.05
    straightened, beside = maps
    mapper().refine(straightened, camera, 3)
    end = mapper().refine_beside(beside, camera, 3)
    assert beside.pose(3)[0, 3] == pytest.approx(0.95), "the result is applied by `end` only"
    end()
    assert beside.pose(3)[0, 3] == pytest.approx(0.9, abs=0.02)
    for name, table in straightened.tables().items():
        for column in table.names:
            assert np.array_equal(
                table[column], beside.tables()[name][column], equal_nan=column != "id"
            ), column


def test_the_first_keyframe_never_moves(scene) -> None:
    slam_map = scene.map_of([scene.pose(), scene.pose(0.3)])
    slam_map.T_world_keyframe[1, :3, 3] += 0.03
    mapper().refine(slam_map, scene.camera, 1)
    assert np.array_equal(slam_map.pose(0), np.eye(4))
    assert slam_map.pose(1)[:3, 3] == pytest.approx([0.3, 0.0, 0.0], abs=1e-3)


def test_outliers_are_unlinked(scene) -> None:
    slam_map = scene.map_of([scene.pose(0.2 * i) for i in range(4)], noise_px=0.1)
    last = slam_map.observation_rows(3)
    wrong = np.arange(last.start, last.start + 10)
    slam_map.observations["pixel"][wrong] += 30.0
    slam_map.observations["u_right"][wrong] = np.nan
    linked = np.count_nonzero(slam_map.observations["point"] >= 0)
    mapper().refine(slam_map, scene.camera, 3)
    assert (slam_map.observations["point"][wrong] == NO_POINT).all()
    assert np.count_nonzero(slam_map.observations["point"] >= 0) > 0.9 * linked
    assert slam_map.pose(3)[:3, 3] == pytest.approx([0.6, 0.0, 0.0], abs=2e-3)
    assert_consistent(slam_map)


def test_a_single_camera_keeps_no_point_of_a_single_view(scene) -> None:
    slam_map = scene.map_of([scene.pose(0.2 * i) for i in range(3)], depth=False)
    slam_map.remove_points(slam_map.points["id"][slam_map.observation_counts() < 2].copy())
    in_two = slam_map.points["id"][slam_map.observation_counts() == 2][:5].copy()
    rows = slam_map.rows_of_points(in_two)
    _, first = np.unique(slam_map.observations["point"][rows], return_index=True)
    slam_map.observations["pixel"][rows[first]] += 40.0
    mapper().refine(slam_map, scene.mono, 2)
    assert (slam_map.observation_counts() >= 2).all()


def test_refinement_can_be_disabled_and_needs_two_keyframes(scene) -> None:
    slam_map = scene.map_of([scene.pose(), scene.pose(0.3)])
    slam_map.T_world_keyframe[1, :3, 3] += 0.03
    before = slam_map.T_world_keyframe.copy()
    mapper(enabled=False).refine(slam_map, scene.camera, 1)
    assert np.array_equal(slam_map.T_world_keyframe, before)
    single = scene.map_of([scene.pose()])
    mapper().refine(single, scene.camera, 0)
    mapper().refine_beside(single, scene.camera, 0)()
    assert np.array_equal(single.pose(0), np.eye(4))
