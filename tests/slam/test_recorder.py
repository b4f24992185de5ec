"""The recorded trajectory follows corrections and culling of the keyframes."""

from __future__ import annotations

import numpy as np
import pytest

from spslam import geometry
from spslam.frame import Observations
from spslam.map.map import Map
from spslam.slam.loops.loop_closing import ScaleCorrection
from spslam.slam.mapping import RemovedKeyframe
from spslam.slam.recorder import Recorder, Statistics


def pose(*xi: float) -> np.ndarray:
    return geometry.se3_exp(np.array(xi))


NOTHING = Observations(
    0,
    0.0,
    np.zeros((0, 2)),
    np.zeros((0, 8), np.float32),
    np.zeros(0, np.float32),
    np.ones(0, np.float32),
    *np.zeros((3, 0)),
)
KEYFRAMES = [
    pose(0, 0, 0, 0, 0, 0),
    pose(1, 0, 0, 0, 0.3, 0),
    pose(2, 0, 1, 0.1, 0.6, 0),
    pose(3, 1, 1, 0, 1, 0),
]
FRAMES = [pose(0.2 * i, 0.1, 0, 0, 0.05 * i, 0.02) for i in range(8)]


@pytest.fixture
def slam_map() -> Map:
    slam_map = Map(8)
    for T_world_cam in KEYFRAMES:
        slam_map.add_keyframe(NOTHING, T_world_cam, np.zeros(0, np.int64))
    return slam_map


@pytest.fixture
def recorder(slam_map: Map) -> Recorder:
    recorder = Recorder()
    for i, T_world_cam in enumerate(FRAMES):
        recorder.add(0.1 * i, T_world_cam, i // 2, slam_map)
    return recorder


def test_a_lap_has_the_stage_times_since_the_previous_lap() -> None:
    statistics = Statistics()
    with statistics.stage("frame"):
        for name in ("tracking", "mapping", "tracking"):
            with statistics.stage(name):
                pass
    lap = statistics.lap()
    assert lap.keys() == {"frame", "tracking", "mapping"}
    assert lap["tracking"] == pytest.approx(sum(statistics.stage_ms["tracking"]))
    assert lap["tracking"] + lap["mapping"] <= lap["frame"]
    with statistics.stage("mapping"):
        pass
    assert statistics.lap() == {"mapping": statistics.stage_ms["mapping"][-1]}
    assert statistics.lap() == {}


def removed(slam_map: Map, keyframe_id: int, parent_id: int) -> RemovedKeyframe:
    T_parent_removed = geometry.inverse(slam_map.pose(parent_id)) @ slam_map.pose(keyframe_id)
    slam_map.remove_keyframe(keyframe_id)
    return RemovedKeyframe(keyframe_id, parent_id, T_parent_removed)


def test_an_empty_recorder_has_an_empty_trajectory(slam_map: Map) -> None:
    assert len(Recorder().trajectory(slam_map, 0)) == 0
    assert len(Recorder().trajectory(Map(8), 0)) == 0


def test_poses_are_returned_as_recorded(slam_map: Map, recorder: Recorder) -> None:
    trajectory = recorder.trajectory(slam_map, 0)
    assert trajectory.timestamps == pytest.approx(0.1 * np.arange(8))
    assert trajectory.T_world_cam == pytest.approx(np.array(FRAMES))


def test_frames_follow_their_keyframe(slam_map: Map, recorder: Recorder) -> None:
    correction = pose(0.3, -0.2, 0.1, 0.1, 0.2, -0.3)
    slam_map.T_world_keyframe[2] = correction @ slam_map.T_world_keyframe[2]
    found = recorder.trajectory(slam_map, 0).T_world_cam
    assert found[4:6] == pytest.approx(correction @ np.array(FRAMES[4:6]))
    assert found[[0, 1, 2, 3, 6, 7]] == pytest.approx(
        np.array([FRAMES[i] for i in (0, 1, 2, 3, 6, 7)])
    )


def test_frames_follow_the_parent_of_a_culled_keyframe(slam_map: Map, recorder: Recorder) -> None:
    """The parent of a culled keyframe may be culled next."""
    recorder.keyframe_removed(slam_map, removed(slam_map, 1, 2))
    assert recorder.trajectory(slam_map, 0).T_world_cam == pytest.approx(np.array(FRAMES))
    recorder.keyframe_removed(slam_map, removed(slam_map, 2, 3))
    assert recorder.trajectory(slam_map, 0).T_world_cam == pytest.approx(np.array(FRAMES))
    correction = pose(0, 0.5, 0, 0, 0, 0.2)
    slam_map.T_world_keyframe[slam_map.keyframe_rows(np.array(3))] = correction @ KEYFRAMES[3]
    found = recorder.trajectory(slam_map, 0).T_world_cam
    assert found[2:] == pytest.approx(correction @ np.array(FRAMES[2:]))
    assert found[:2] == pytest.approx(np.array(FRAMES[:2]))


def test_offsets_of_frames_change_with_the_scale_of_their_keyframe(
    slam_map: Map, recorder: Recorder
) -> None:
    """A loop of a single camera scales the surroundings of each keyframe by another factor."""
    scales = np.array([1.0, 0.9, 0.8, 0.7])
    recorder.keyframes_rescaled(ScaleCorrection(np.arange(4), scales))
    found = recorder.trajectory(slam_map, 0).T_world_cam
    for i, (keyframe, frame) in enumerate(
        zip(np.repeat(KEYFRAMES, 2, axis=0), FRAMES, strict=True)
    ):
        offset = frame[:3, 3] - keyframe[:3, 3]
        assert found[i, :3, 3] - keyframe[:3, 3] == pytest.approx(scales[i // 2] * offset)
        assert found[i, :3, :3] == pytest.approx(frame[:3, :3])


def test_an_empty_recorder_can_be_rescaled(slam_map: Map) -> None:
    recorder = Recorder()
    recorder.keyframes_rescaled(ScaleCorrection(np.arange(4), np.ones(4)))
    assert len(recorder.trajectory(slam_map, 0)) == 0


def test_the_last_frame_becomes_a_keyframe(slam_map: Map, recorder: Recorder) -> None:
    recorder.move_last(3)
    assert recorder.trajectory(slam_map, 0).T_world_cam[-1] == pytest.approx(KEYFRAMES[3])


def test_the_trajectory_is_sorted_by_time(slam_map: Map) -> None:
    """A single camera gets its first poses after the first map, in reverse order."""
    recorder = Recorder()
    for i in (4, 5, 3, 2, 0, 1):
        recorder.add(0.1 * i, FRAMES[i], 0, slam_map)
    trajectory = recorder.trajectory(slam_map, 0)
    assert trajectory.timestamps == pytest.approx(0.1 * np.arange(6))
    assert trajectory.T_world_cam == pytest.approx(np.array(FRAMES[:6]))


def test_stages_are_timed_even_when_they_fail() -> None:
    statistics = Statistics()
    with statistics.stage("tracking"):
        pass
    with pytest.raises(RuntimeError), statistics.stage("tracking"):
        raise RuntimeError
    assert len(statistics.stage_ms["tracking"]) == 2
    assert all(ms >= 0 for ms in statistics.stage_ms["tracking"])


def test_poses_of_all_submaps_with_the_scale_since_tracking(
    slam_map: Map, recorder: Recorder
) -> None:
    slam_map.keyframes["submap"][2:] = 1
    factors = np.array([1.0, 2.0, 1.0, 0.5])
    recorder.keyframes_rescaled(ScaleCorrection(np.arange(4), factors))
    recorder.keyframes_rescaled(ScaleCorrection(np.arange(4), np.full(4, 3.0)))
    poses = recorder.poses(slam_map)
    assert poses.timestamps.tolist() == pytest.approx([0.1 * i for i in range(8)])
    assert poses.submaps.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert poses.scales.tolist() == pytest.approx([3, 3, 6, 6, 3, 3, 1.5, 1.5])
    for submap in (0, 1):
        trajectory = recorder.trajectory(slam_map, submap)
        chosen = poses.submaps == submap
        assert np.array_equal(trajectory.T_world_cam, poses.T_world_cam[chosen])
    recorder.clear()
    assert len(recorder.poses(slam_map).timestamps) == 0
