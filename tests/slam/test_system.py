"""The system without images: projected landmarks with descriptors, so every value is known."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from threading import Event, current_thread
from typing import Any

import numpy as np
import pytest
from point_room import (
    CAMERA,
    LONG,
    NOISE_PX,
    PointRoom,
    ate,
    build,
    circle,
    components_of,
    corridor,
    drive,
    look,
    sway,
    truth,
)

from spslam import geometry
from spslam.backend.bundle import SchurBundleAdjuster
from spslam.backend.pose import PnPSolver
from spslam.backend_interfaces import BundleProblem, BundleResult, PoseEstimate
from spslam.camera import Camera
from spslam.config import Config, load_config
from spslam.errors import CalibrationError, DatasetError, MapError
from spslam.evaluation.ate import Alignment, evaluate
from spslam.frame import Frame, Observations
from spslam.map.io import SavedMap, load_map
from spslam.map.map import Map
from spslam.map.submaps import keyframes_of, scene_of, submap_numbers
from spslam.run.metric_scale import TrueDistance, apply_scale
from spslam.slam.relocalization import Relocalizer
from spslam.slam.system import Slam
from spslam.slam.track_results import TrackedFrame, TrackResult, TrackState
from spslam.slam.tracking import Tracker
from spslam.trajectory import Trajectory


@pytest.mark.parametrize(
    ("sensor", "align", "bound"), [("stereo", "se3", 0.01), ("mono", "sim3", 0.015)]
)
def test_every_frame_of_a_sideways_motion_is_tracked(
    sensor: str, align: Alignment, bound: float
) -> None:
    poses = sway(60)
    slam, results = drive(PointRoom(), poses, sensor)
    assert len(slam.trajectory()) == 60, "frames before the first map get their poses afterwards"
    assert results[-1].state is TrackState.TRACKING
    assert ate(slam, poses, align) < bound
    assert np.isfinite(results[-1].covariance).all()


def test_map_lies_on_the_walls() -> None:
    room = PointRoom()
    poses = sway(60)
    slam, _ = drive(room, poses, "stereo")
    in_world = geometry.apply(poses[0], slam.map.positions)
    distance = np.min(np.abs(np.abs(in_world) - np.array([4.0, 2.0, 4.0])), axis=1)
    assert len(in_world) > 300
    assert np.median(distance) < 0.03


@pytest.mark.parametrize(
    ("sensor", "align", "bound"), [("stereo", "se3", 0.01), ("mono", "sim3", 0.015)]
)
def test_points_fixed_to_the_camera_do_not_disturb_the_map(
    sensor: str, align: Alignment, bound: float, caplog: pytest.LogCaptureFixture
) -> None:
    """A strip of the image shows the vehicle."""
    room, poses = PointRoom(), sway(60)
    room.body = np.random.default_rng(8).uniform((50, 380), (630, 475), (150, 2))
    slam, _ = drive(room, poses, sensor)
    assert len(slam.trajectory()) == 60
    assert ate(slam, poses, align) < bound
    fractions = slam.statistics.left_out
    assert set(fractions) >= set(range(20, 60))
    assert 0.15 < np.mean(list(fractions.values())) < 0.4, "about a quarter of the keypoints"
    (notice,) = [
        record
        for record in caplog.records
        if getattr(record, "notice_topic", "") == "body_fixed_points"
    ]
    assert "stayed in place in the image while the rest moved" in notice.getMessage()


def test_a_body_that_appears_later_is_removed_from_the_map() -> None:
    room, poses = PointRoom(), sway(90)
    slam = build(room, load_config("default"))
    for i, pose in enumerate(poses):
        if i == 40:
            room.body = np.random.default_rng(8).uniform((450, 200), (630, 475), (60, 2))
        slam.track(room.frame(pose, 0.05 * (i + 1), "stereo"))
    slam.finish()
    assert len(slam.trajectory()) == 90
    assert set(slam.statistics.left_out) >= set(range(60, 90))
    in_world = geometry.apply(poses[0], slam.map.positions)
    distance = np.min(np.abs(np.abs(in_world) - np.array([4.0, 2.0, 4.0])), axis=1)
    assert np.mean(distance > 0.5) < 0.02, "hardly any point is off the walls"


@pytest.mark.parametrize("bad", [range(2, 60, 3), range(1, 60, 2), [0, 1, 3, 4, 5]])
def test_bad_frames_do_not_keep_a_single_camera_from_starting(bad: range | list[int]) -> None:
    room, poses = PointRoom(), sway(60)
    room.blind = set(bad)
    slam, results = drive(room, poses, "mono")
    assert len(slam.trajectory()) == 60 - len(bad)
    assert ate(slam, poses, "sim3") < 0.015
    assert all(results[i].T_world_cam is None for i in bad)


def test_mono_that_stands_still_reports_it() -> None:
    slam, _ = drive(PointRoom(), [look(0, 0, 0, 0)] * 20, "mono")
    assert re.match(
        r"(8|9)\d % of the matched points did not move in 20 frames", slam.statistics.no_pose
    )
    assert drive(PointRoom(), sway(20), "mono")[0].statistics.no_pose == ""


def test_mono_waits_for_parallax() -> None:
    poses = [look(0, 0, 0, 0.02 * i) for i in range(20)]
    slam, results = drive(PointRoom(), poses, "mono")
    assert all(
        r.state is TrackState.INITIALIZING and r.T_world_cam is None and r.reason for r in results
    )
    assert len(slam.trajectory()) == 0


def test_a_single_camera_that_turns_away_from_a_saved_map_lacks_parallax(tmp_path: Path) -> None:
    """A map that may not grow has no keyframes whose directions would be seen."""
    room, poses = PointRoom(), sway(30)
    before = saved(drive(room, poses, "mono")[0], tmp_path)
    again = Slam(load_config("default"), components_of(room), before, localization_only=True)
    poses += [poses[-1] @ look(0, 0, 0, 0.08 * i) for i in range(1, 25)]
    results = [again.track(room.frame(pose, 0.05 * i, "mono")) for i, pose in enumerate(poses)]
    again.finish()
    (loss,) = again.statistics.losses
    assert loss.cause == "too little parallax", loss.reason
    lost = [result.index for result in results].index(loss.frame)
    assert results[lost].reason == loss.reason
    assert loss.frames == len(poses) - lost, "until the end"


def test_a_loss_is_reported_without_a_pose_and_recovered() -> None:
    room = PointRoom()
    room.blind = {20, 21, 22}
    poses = sway(40)
    slam, results = drive(room, poses, "stereo")
    assert [r.state for r in results[20:23]] == [TrackState.LOST] * 3
    assert all(r.T_world_cam is None and r.reason for r in results[20:23])
    assert [(loss.frame, loss.cause, loss.frames) for loss in slam.statistics.losses] == [
        (20, "too few features", 3)
    ]
    assert results[23].state is TrackState.TRACKING
    assert slam.statistics.relocalisations == 1
    assert len(slam.trajectory()) == 37
    assert ate(slam, poses, "se3") < 0.01


def test_a_jump_to_a_recent_place_is_recovered() -> None:
    poses = sway(30)
    poses += poses[5:12]
    slam, results = drive(PointRoom(), poses, "stereo")
    assert results[-1].state is TrackState.TRACKING
    assert ate(slam, poses, "se3") < 0.01


def test_a_pose_from_one_corner_of_the_image_is_searched_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room, poses = PointRoom(), sway(20)
    slam = build(room, load_config("default"))
    results = [
        slam.track(room.frame(pose, 0.05 * (i + 1), "stereo")) for i, pose in enumerate(poses[:19])
    ]
    track = Tracker.track
    calls: list[TrackedFrame | None] = []

    def corner_first(
        self: Tracker, observations: Observations, *where: Any, **how: Any
    ) -> TrackedFrame | None:
        found = track(self, observations, *where, **how)
        calls.append(found)
        if found is None or len(calls) > 1:
            return found
        outside = (observations.pixels > (160, 120)).any(axis=1)
        # The inliers are few and, in addition, agree with a wrong pose.
        aside = replace(
            found.estimate,
            T_cam_world=geometry.inverse(look(0.3, 0, 0, 0)) @ found.estimate.T_cam_world,
        )
        return replace(found, estimate=aside, point_ids=np.where(outside, -1, found.point_ids))

    monkeypatch.setattr(Tracker, "track", corner_first)
    last = slam.track(room.frame(poses[19], 1.0, "stereo"))
    assert len(calls) > 1 and last.inlier_coverage > 0.3
    assert last.inliers > 0.7 * results[-1].inliers
    assert ate(slam, poses, "se3") < 0.01


def test_a_lost_camera_is_found_anywhere_in_the_map() -> None:
    """Moved in the dark to an old place, far from all recent keyframes."""
    poses = circle(160, 0.6)
    dark = [poses[-1]] * 5
    back = [pose @ look(0.05, 0.02, 0.03, 0.05) for pose in poses[20:35]]
    room = PointRoom()
    room.blind = set(range(160, 165))
    slam, results = drive(room, [*poses, *dark, *back], "stereo")
    states = [result.state for result in results]
    assert set(states[:160]) == {TrackState.TRACKING}
    assert set(states[160:165]) == {TrackState.LOST}
    assert set(states[165:167]) == {TrackState.LOST}, (
        "a distant place must be confirmed in three frames"
    )
    assert set(states[167:]) == {TrackState.TRACKING}
    assert slam.statistics.relocalisations == 1
    assert len(slam.trajectory()) == 175, "the frames that waited get their poses afterwards"
    assert ate(slam, [*poses, *dark, *back], "se3") < 0.02
    for result, pose in zip(results[167:], back[2:], strict=True):
        assert result.T_world_cam is not None
        expected = geometry.inverse(poses[0]) @ pose
        assert np.linalg.norm(result.T_world_cam[:3, 3] - expected[:3, 3]) < 0.03


def test_a_place_never_seen_is_not_recognised() -> None:
    poses = [look(0.02 * i, 0.0, -1.0, 0.0) for i in range(60)]
    elsewhere = [look(0.02 * i, 0.0, 1.0, np.pi) for i in range(10)]
    slam, results = drive(PointRoom(), [*poses, *elsewhere, *poses[30:35]], "stereo")
    assert {result.state for result in results[60:70]} == {TrackState.LOST}
    assert [(loss.frame, loss.cause, loss.frames) for loss in slam.statistics.losses] == [
        (60, "jump", 10)
    ]
    assert {result.state for result in results[70:]} == {TrackState.TRACKING}
    assert slam.statistics.relocalisations == 1


# A camera that stays lost for a few frames starts a new submap.
SOON = ["tracking.new_submap_after_s=0.2", "tracking.new_submap_frames=3"]


@pytest.mark.slow
@pytest.mark.parametrize("sensor", ["stereo", "mono"])
def test_a_camera_that_stays_lost_starts_a_submap_and_a_loop_merges_it(sensor: str) -> None:
    """Moved in the dark to an unknown place, it walks back to the old one."""
    first = corridor(-9.0, 60)
    dark = [first[-1]] * 5
    back = corridor(-1.0, 150, -0.04)
    room = PointRoom(4000, size=LONG)
    room.blind = set(range(60, 65))
    slam, results = drive(room, [*first, *dark, *back], sensor, SOON)
    assert {r.submap for r in results[:60]} == {0}
    began = next(r for r in results[65:] if r.state is TrackState.TRACKING)
    assert began.index < 85
    assert began.submap == 1 and "submap 1" in began.reason
    assert results[-1].state is TrackState.TRACKING
    assert slam.statistics.merges == 1
    assert submap_numbers(slam.map).tolist() == [0]
    assert results[-1].submap == 0
    assert len(slam.trajectory()) > 195
    poses = [*first, *dark, *back]
    assert ate(slam, poses, "se3" if sensor == "stereo" else "sim3") < 0.05
    assert slam.statistics.frames_elsewhere == 0


def test_submaps_without_a_loop_stay_separate() -> None:
    first, dark, other = corridor(-9.0, 60), [corridor(-9.0, 60)[-1]] * 5, corridor(3.0, 40)
    room = PointRoom(4000, size=LONG)
    room.blind = set(range(60, 65))
    slam, results = drive(room, [*first, *dark, *other], "stereo", SOON)
    assert submap_numbers(slam.map).tolist() == [0, 1]
    assert slam.main_submap == 0
    assert len(slam.trajectory()) == 60, "frames of the other submap are left out"
    assert 35 < slam.statistics.frames_elsewhere <= 40
    assert slam.statistics.merges == 0
    assert results[-1].submap == 1
    assert len(slam.trajectory(keyframes_only=True)) == len(keyframes_of(slam.map, 0))


def test_dark_frames_do_not_count_towards_a_submap() -> None:
    """After ten black frames, a single frame of another place starts none."""
    walk, elsewhere = corridor(-9.0, 80), corridor(3.0, 1)
    room = PointRoom(4000, size=LONG)
    room.blind = set(range(60, 70))
    poses = [*walk[:60], *[walk[59]] * 10, *elsewhere, *walk[60:]]
    slam, results = drive(room, poses, "stereo", SOON)
    assert {result.state for result in results[60:71]} == {TrackState.LOST}
    assert {result.state for result in results[71:]} == {TrackState.TRACKING}
    assert submap_numbers(slam.map).tolist() == [0]


@pytest.mark.parametrize("sensor", ["stereo", "mono"])
def test_submaps_that_overlap_are_joined_at_once(
    sensor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera that is not relocalized starts a submap where the keyframes before the loss look."""
    monkeypatch.setattr(Relocalizer, "find", lambda *arguments: None)
    room, poses = PointRoom(), sway(60)
    room.blind = {30, 31}
    slam, results = drive(room, poses, sensor, SOON)
    began = next(r for r in results[30:] if r.state is TrackState.TRACKING)
    assert "submap 1 starts" in began.reason and began.submap == 0
    assert submap_numbers(slam.map).tolist() == [0] and slam.statistics.merges == 1
    assert {result.submap for result in results[began.index :]} == {0}
    assert len(slam.trajectory()) == 58, "the lost frames have their poses from the new submap"
    assert ate(slam, poses, "se3" if sensor == "stereo" else "sim3") < 0.015
    # The frame that began it has its pose in the joined submap, at the scale of before the loss.
    assert stretch(results, poses, began.index, 59) == pytest.approx(
        stretch(results, poses, 12, 28), rel=0.05
    )


def stretch(results: list[TrackResult], poses: list[np.ndarray], first: int, last: int) -> float:
    """Length of the way between two frames as it was tracked, over the true length."""
    there, here = results[first].T_world_cam, results[last].T_world_cam
    assert there is not None and here is not None
    way = np.linalg.norm(here[:3, 3] - there[:3, 3])
    return float(way / np.linalg.norm(poses[last][:3, 3] - poses[first][:3, 3]))


def test_tracking_returns_to_the_old_submap_at_its_place() -> None:
    first, dark, other = corridor(-9.0, 60), [corridor(-9.0, 60)[-1]] * 5, corridor(3.0, 40)
    room = PointRoom(4000, size=LONG)
    room.blind = set(range(60, 65))
    poses = [*first, *dark, *other, *first[30:50]]
    slam, results = drive(room, poses, "stereo", SOON)
    assert results[-1].submap == 0
    assert len(slam.trajectory()) == 80
    assert ate(slam, poses, "se3") < 0.02


def saved(slam: Slam, tmp_path: Path) -> SavedMap:
    slam.save_map(tmp_path / "map.npz")
    return load_map(tmp_path / "map.npz")


@pytest.mark.parametrize("sensor", ["stereo", "mono"])
def test_localization_does_not_change_a_saved_map(sensor: str, tmp_path: Path) -> None:
    room = PointRoom()
    walked = sway(60)
    slam, _ = drive(room, walked, sensor)
    before = saved(slam, tmp_path)
    kept = {
        name: {c: table[c].copy() for c in table.names}
        for name, table in before.map.tables().items()
    }
    other = [pose @ look(0.03, 0.02, 0.05, 0.02) for pose in sway(60)[5:55:2]]
    again = Slam(load_config("default"), components_of(room), before, localization_only=True)
    results = [again.track(room.frame(pose, 0.05 * i, "mono")) for i, pose in enumerate(other)]
    again.finish()
    assert all(r.state is TrackState.TRACKING for r in results)
    trajectory = again.trajectory()
    stamps = 0.05 * np.arange(len(other), dtype=np.float64)
    found = evaluate(trajectory, Trajectory(stamps, np.array(other)), "sim3")
    assert found.absolute.statistics.rmse < 0.015
    for name, table in again.map.tables().items():
        for column, values in kept[name].items():
            assert np.array_equal(table[column], values, equal_nan=values.dtype.kind == "f"), (
                name,
                column,
            )
    assert len(again.trajectory(keyframes_only=True)) == 0


def test_a_saved_map_is_extended(tmp_path: Path) -> None:
    room = PointRoom(4000, size=LONG)
    slam, _ = drive(room, corridor(-9.0, 60), "stereo")
    before = saved(slam, tmp_path)
    reached = float(before.map.T_world_keyframe[:, 0, 3].max())
    again = Slam(load_config("default"), components_of(room), before)
    poses = corridor(-7.5, 80)
    results = [again.track(room.frame(pose, 0.05 * i, "stereo")) for i, pose in enumerate(poses)]
    again.finish()
    assert {r.state for r in results} == {TrackState.TRACKING}
    assert again.map.T_world_keyframe[:, 0, 3].max() > reached + 1.0
    assert submap_numbers(again.map).tolist() == [0]
    expected = geometry.inverse(corridor(-9.0, 1)[0]) @ np.array(poses)
    found = again.trajectory().T_world_cam
    assert np.linalg.norm(found[:, :3, 3] - expected[:, :3, 3], axis=1).max() < 0.03, (
        "in the world of the saved map"
    )
    mine = again.map.keyframes["session"] == 1
    assert len(again.trajectory(keyframes_only=True)) == np.count_nonzero(mine) > 0


def test_a_map_without_a_place_index_is_searched_all_the_same(tmp_path: Path) -> None:
    room = PointRoom(4000, size=LONG)
    slam, _ = drive(room, corridor(-9.0, 300), "stereo")
    before = saved(slam, tmp_path)
    # Far from the newest keyframe, which is tried without an index.
    frame = room.frame(corridor(-9.0, 1)[0], 0.0, "mono")
    bare = SavedMap(before.map, {})
    config = load_config("default", ["tracking.recovery_keyframes=1"])
    again = Slam(config, components_of(room), bare, localization_only=True)
    assert again.track(frame).state is TrackState.TRACKING


def test_a_map_of_another_extractor_or_camera_is_refused(tmp_path: Path) -> None:
    room = PointRoom()
    slam, _ = drive(room, sway(20), "stereo")
    before = saved(slam, tmp_path)
    room.identity = "other weights"
    with pytest.raises(MapError, match="other weights"):
        Slam(Config(), components_of(room), before, localization_only=True)
    del room.identity
    again = Slam(Config(), components_of(room), before)
    with pytest.raises(MapError, match="--localize"):
        again.track(room.frame(sway(1)[0], 0.0, "mono"))
    other = load_map(tmp_path / "map.npz")
    other.map.descriptor_size = 32
    narrow = Slam(Config(), components_of(room), SavedMap(other.map, {}), localization_only=True)
    with pytest.raises(MapError, match="32 numbers, those of points have 64"):
        narrow.track(room.frame(sway(1)[0], 0.0, "stereo"))
    empty = load_map(tmp_path / "map.npz")
    with pytest.raises(MapError, match="no keyframes"):
        Slam(Config(), components_of(room), SavedMap(Map(64), empty.places), localization_only=True)
    with pytest.raises(MapError, match="needs a saved map"):
        Slam(Config(), components_of(room), localization_only=True)


def test_a_scale_is_applied_to_the_whole_map_of_a_single_camera() -> None:
    poses = sway(60)
    slam, _ = drive(PointRoom(), poses, "mono")
    keyframes, before = slam.map.keyframes, slam.trajectory()
    first, last = keyframes["id"][[0, -1]]
    S_i_j = geometry.inverse(slam.map.pose(first)) @ slam.map.pose(last)
    slam.map.loops.append(1, i=first, j=last, S_i_j=S_i_j, information=np.eye(7), inliers=50)
    stamps = {i: 0.05 * (i + 1) for i in range(60)}
    scaling = apply_scale(TrueDistance(3, 55), slam, stamps, truth(poses))
    assert scaling.refusal is None and scaling.factor is not None
    assert slam.map.origin is not None
    assert slam.map.origin.scale == scaling.source == "ground truth, 2.146 m from frame 3 to 55"
    after = slam.trajectory()
    assert after.positions == pytest.approx(scaling.factor * before.positions)
    assert after.T_world_cam[:, :3, :3] == pytest.approx(before.T_world_cam[:, :3, :3])
    assert np.linalg.norm(after.positions[55] - after.positions[3]) == pytest.approx(
        np.linalg.norm(poses[55][:3, 3] - poses[3][:3, 3])
    )
    assert ate(slam, poses, "se3") < 0.02, "metric without alignment of the scale"
    rows = np.searchsorted(after.timestamps, keyframes["timestamp"] - 1e-9)
    assert keyframes["T_world_cam"] == pytest.approx(after.T_world_cam[rows], abs=1e-6)
    assert slam.map.loops["S_i_j"][0] == pytest.approx(
        geometry.inverse(slam.map.pose(first)) @ slam.map.pose(last), abs=1e-9
    )
    in_world = geometry.apply(poses[0] @ geometry.inverse(after.T_world_cam[0]), slam.map.positions)
    distance = np.min(np.abs(np.abs(in_world) - np.array([4.0, 2.0, 4.0])), axis=1)
    assert np.median(distance) < 0.05, "the points are on the walls"


def test_a_scale_is_applied_to_the_main_submap_only() -> None:
    first, dark, other = corridor(-9.0, 60), [corridor(-9.0, 60)[-1]] * 5, corridor(3.0, 40)
    room = PointRoom(4000, size=LONG)
    room.blind = set(range(60, 65))
    slam, _ = drive(room, [*first, *dark, *other], "mono", SOON)
    before = [scene_of(slam.map, submap) for submap in (0, 1)]
    slam.rescale(3.0, "a test")
    for submap, factor in ((0, 3.0), (1, 1.0)):
        points, T_world_keyframe = scene_of(slam.map, submap)
        assert points == pytest.approx(factor * before[submap][0])
        assert T_world_keyframe[:, :3, 3] == pytest.approx(factor * before[submap][1][:, :3, 3])


def test_two_runs_give_the_same_bytes() -> None:
    first, second = (drive(PointRoom(), sway(40), "mono")[0] for _ in range(2))
    assert first.trajectory().T_world_cam.tobytes() == second.trajectory().T_world_cam.tobytes()
    assert first.map.positions.tobytes() == second.map.positions.tobytes()


class WatchedBundle(SchurBundleAdjuster):
    """Waits until `begin` is set, and records the threads that it runs in."""

    def __init__(self) -> None:
        super().__init__(NOISE_PX)
        self.begin = Event()
        self.threads: list[str] = []

    def adjust(self, problem: BundleProblem, camera: Camera) -> BundleResult:
        assert self.begin.wait(30.0), "the next frame waits for the refinement"
        self.threads.append(current_thread().name)
        return super().adjust(problem, camera)


@pytest.mark.parametrize("then", ["next frame", "lost", "end"])
def test_a_keyframe_is_refined_while_the_next_frame_is_tracked(then: str) -> None:
    poses, overrides = sway(40), ["keyframes.max_interval=4"]
    _, results = drive(PointRoom(), poses, "stereo", overrides)
    last = next(i for i, result in enumerate(results) if result.is_keyframe and i > 20)
    room, bundle = PointRoom(), WatchedBundle()

    class WatchedSolver(PnPSolver):
        def refine(self, *arguments, **options) -> PoseEstimate:
            if len(room.poses) != last + 1:
                bundle.begin.set()
            return super().refine(*arguments, **options)

    submaps = replace(components_of(room), bundle=bundle, pose_solver=WatchedSolver(NOISE_PX))
    slam = Slam(load_config("default", overrides), submaps)
    bundle.begin.set()
    for i, pose in enumerate(poses[: last + 1]):
        if i == last:
            refined = len(bundle.threads)
            bundle.begin.clear()
        slam.track(room.frame(pose, 0.05 * (i + 1), "stereo"))
    before = newest_pose(slam)
    if then == "next frame":
        slam.track(room.frame(poses[last + 1], 0.05 * (last + 2), "stereo"))
    elif then == "lost":
        bundle.begin.set()
        room.blind.add(len(room.poses))
        slam.track(room.frame(poses[last + 1], 0.05 * (last + 2), "stereo"))
    else:
        bundle.begin.set()
        slam.finish()
    assert len(bundle.threads) == refined + 1
    assert bundle.threads[-1].startswith("local bundle")
    assert not np.array_equal(newest_pose(slam), before)
    assert slam.state is (TrackState.LOST if then == "lost" else TrackState.TRACKING)


def newest_pose(slam: Slam) -> np.ndarray:
    """`T_world_cam` of the newest keyframe."""
    return slam.map.pose(int(slam.map.keyframes["id"][-1]))


def test_a_frame_that_comes_late_is_tracked_in_the_refined_map() -> None:
    room = PointRoom()
    seen: list[np.ndarray] = []

    class WatchedSolver(PnPSolver):
        """Notes the pose of the newest keyframe when a frame is tracked."""

        def refine(self, *arguments: Any, **options: Any) -> PoseEstimate:
            seen.append(newest_pose(slam))
            return super().refine(*arguments, **options)

    components = replace(components_of(room), pose_solver=WatchedSolver(NOISE_PX))
    slam = Slam(load_config("default"), components)
    stamp, is_keyframe = 0.0, False
    refined: dict[bool, list[bool]] = {True: [], False: []}
    for i, pose in enumerate(sway(60)):
        late, was_keyframe = i % 2 == 0, is_keyframe
        before = newest_pose(slam) if was_keyframe else None
        seen.clear()
        stamp += 0.3 if late else 0.05
        is_keyframe = slam.track(room.frame(pose, stamp, "stereo")).is_keyframe
        if before is not None and i > 1:
            refined[late].append(not np.array_equal(seen[0], before))
    assert refined[True] and all(refined[True])
    assert refined[False] and not any(refined[False])


class Shifting(SchurBundleAdjuster):
    """Moves everything that it refines by `SHIFT`, in one of its calls only."""

    SHIFT = np.array([0.3, -0.2, 0.1])

    def __init__(self, shifting_call: int | None = None) -> None:
        super().__init__(NOISE_PX)
        self.calls, self._shifting_call = 0, shifting_call

    def adjust(self, problem: BundleProblem, camera: Camera) -> BundleResult:
        result = super().adjust(problem, camera)
        self.calls += 1
        if self.calls != self._shifting_call:
            return result
        T_world_cam = geometry.inverse(result.T_cam_world)
        T_world_cam[:, :3, 3] += self.SHIFT
        return replace(
            result, T_cam_world=geometry.inverse(T_world_cam), points=result.points + self.SHIFT
        )


def test_a_pose_found_during_a_refinement_moves_with_the_map() -> None:
    """A refinement that moves the whole map also moves the frame that was tracked meanwhile."""

    def play(poses: list[np.ndarray], bundle: Shifting) -> tuple[Slam, list[TrackResult]]:
        room = PointRoom()
        slam = Slam(
            load_config("default", ["bundle.window=30"]),
            replace(components_of(room), bundle=bundle),
        )
        return slam, [
            slam.track(room.frame(pose, 0.05 * (i + 1), "stereo")) for i, pose in enumerate(poses)
        ]

    poses = sway(40)
    expected = geometry.inverse(poses[0]) @ np.array(poses)
    _, results = play(poses, Shifting())
    last = next(i for i, result in enumerate(results) if result.is_keyframe and i > 20)
    counting = Shifting()
    slam, _ = play(poses[: last + 1], counting)
    slam.finish()

    slam, results = play(poses[: last + 2], Shifting(shifting_call=counting.calls))
    assert results[last].is_keyframe and not results[last + 1].is_keyframe
    moved = expected[:, :3, 3] + Shifting.SHIFT
    assert newest_pose(slam)[:3, 3] == pytest.approx(moved[last], abs=0.02)
    T_world_cam = results[last + 1].T_world_cam
    assert T_world_cam is not None
    assert T_world_cam[:3, 3] == pytest.approx(moved[last + 1], abs=0.02)
    assert slam.trajectory().T_world_cam[last + 1, :3, 3] == pytest.approx(
        moved[last + 1], abs=0.02
    )


def test_the_error_of_a_refinement_is_raised_once() -> None:
    class Failing(SchurBundleAdjuster):
        fails = False

        def adjust(self, problem: BundleProblem, camera: Camera) -> BundleResult:
            if self.fails:
                raise FloatingPointError("no such bundle")
            return super().adjust(problem, camera)

    room, bundle = PointRoom(), Failing(NOISE_PX)
    slam = Slam(
        load_config("default", ["keyframes.max_interval=4"]),
        replace(components_of(room), bundle=bundle),
    )
    poses = sway(40)
    with pytest.raises(FloatingPointError, match="no such bundle"):
        for i, pose in enumerate(poses):
            result = slam.track(room.frame(pose, 0.05 * (i + 1), "stereo"))
            bundle.fails = bundle.fails or (result.is_keyframe and i > 10)
    slam.finish()
    assert len(slam.trajectory()) > 10


def test_trajectory_follows_culled_keyframes() -> None:
    """Standing still makes keyframes redundant; the frames attached to them keep their poses."""
    poses = sway(20) + [sway(20)[-1]] * 60
    slam, _ = drive(PointRoom(), poses, "stereo", ["keyframes.max_interval=3"])
    assert len(slam.map.keyframes) < 20
    assert len(slam.trajectory()) == len(poses)
    assert ate(slam, poses, "se3") < 0.01


@pytest.mark.slow
def test_loop_closure_corrects_the_drift() -> None:
    """A wrong focal length makes odometry drift around the circle; the loop corrects it."""
    lap = 80
    poses = circle(lap, 1.0) + circle(lap, 1.0)[:14]
    wrong = replace(CAMERA, fx=CAMERA.fx * 1.02, fy=CAMERA.fy * 1.02)
    gaps = {}
    for enabled in (False, True):
        room = PointRoom(1500, size=(9.0, 4.0, 9.0))
        room.believed_camera = wrong
        overrides = [f"loop.enabled={enabled}", "loop.min_interval=15", "tracking.max_keyframes=6"]
        slam, results = drive(room, poses, "stereo", overrides)
        assert results[-1].state is TrackState.TRACKING
        assert (slam.statistics.loops > 0) == enabled
        estimate = slam.trajectory().T_world_cam
        # Frames `lap + i` and `i` have the same true position.
        gaps[enabled] = float(np.linalg.norm(estimate[lap + 10, :3, 3] - estimate[10, :3, 3]))
    assert gaps[False] > 0.05, "without drift the test shows nothing"
    assert gaps[True] < 0.3 * gaps[False]


def test_stamps_must_increase() -> None:
    room = PointRoom()
    slam = build(room, Config())
    slam.track(room.frame(look(0, 0, 0, 0), 1.0, "stereo"))
    with pytest.raises(DatasetError, match="increase"):
        slam.track(room.frame(look(0, 0, 0, 0), 1.0, "stereo"))


def test_sensor_may_not_change() -> None:
    room = PointRoom()
    slam = build(room, Config())
    slam.track(room.frame(look(0, 0, 0, 0), 1.0, "stereo"))
    with pytest.raises(DatasetError, match="changed"):
        slam.track(room.frame(look(0, 0, 0, 0), 1.1, "mono"))


def test_images_must_fit_the_camera() -> None:
    slam = build(PointRoom(), Config())
    with pytest.raises(DatasetError, match="640x480"):
        slam.track(Frame(0, 0.0, CAMERA, np.zeros((10, 20), np.uint8)))
    without_baseline = Camera(640, 480, 400.0, 400.0, 319.5, 239.5)
    image = np.zeros((480, 640), np.uint8)
    with pytest.raises(CalibrationError, match="baseline"):
        slam.track(Frame(0, 1.0, without_baseline, image, image_right=image))


def test_a_single_frame_with_depth_makes_a_map() -> None:
    slam, results = drive(PointRoom(), sway(1), "stereo")
    assert results[0].state is TrackState.TRACKING
    assert len(slam.map.positions) > 100
    assert slam.statistics.points == len(slam.map.positions)
