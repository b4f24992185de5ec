"""Relocalization in a corridor whose two halves look exactly the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from point_room import PointRoom, corridor, drive, look

from spslam import geometry
from spslam.backend_interfaces import PoseEstimate
from spslam.config import Config, RelocalizationConfig
from spslam.datasets.world.world import RenderedWorld, world_spec
from spslam.frame import Frame
from spslam.map.map import NO_POINT
from spslam.slam.loops.similar_places import Departure, Place, Reach, groups_by_similarity
from spslam.slam.system import Slam
from spslam.slam.track_results import TrackedFrame, TrackResult, TrackState

LIMITS = RelocalizationConfig()
HALF = 12.0
STEP = 0.08


def twin_halves() -> PointRoom:
    """Points on the walls of a corridor of 12 m along x, followed by a copy of it."""
    room = PointRoom(1500, size=(HALF, 4.0, 8.0))
    shift = np.array([HALF, 0.0, 0.0])
    room.points = np.concatenate([room.points, room.points + shift])
    room.descriptors = np.concatenate([room.descriptors] * 2)
    return room


def walk_on(
    dark: int, after: list[np.ndarray], count: int
) -> tuple[Slam, list[TrackResult], list[np.ndarray]]:
    """Walk from one half into the other, then `dark` black frames, then the poses `after`.

    Returns the system, and the results and expected poses of `after`.
    """
    room, poses = twin_halves(), corridor(-4.0, count, STEP)
    poses = [*poses, *[poses[-1]] * dark, *after]
    room.blind = set(range(count, count + dark))
    slam, results = drive(room, poses, "stereo")
    return slam, results[count + dark :], [geometry.inverse(poses[0]) @ pose for pose in after]


@pytest.mark.slow
def test_after_dark_frames_a_camera_is_relocalized_where_it_was() -> None:
    """In the second half: after one black frame, and after six, during which it moves on."""
    room, poses = twin_halves(), corridor(-4.0, 198, STEP)
    dark = {175, *range(184, 190)}
    room.blind = dark
    _, results = drive(room, poses, "stereo")
    for index in range(175, 198):
        found = results[index].T_world_cam
        assert (found is None) == (index in dark), index
        if found is not None:
            expected = geometry.inverse(poses[0]) @ poses[index]
            assert np.linalg.norm(found[:3, 3] - expected[:3, 3]) < 0.05


@pytest.mark.slow
def test_a_camera_stays_lost_where_two_places_look_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, results, _ = walk_on(1, corridor(-3.6, 4, STEP), 200)
    assert {result.state for result in results} == {TrackState.LOST}
    (notice,) = [
        record
        for record in caplog.records
        if getattr(record, "notice_topic", "") == "similar_places"
    ]
    assert notice.getMessage().startswith("4 frames of a lost camera fit two places")


def test_reach_grows_with_time_speed_and_depth() -> None:
    T = look(1.0, 0.0, 0.0, 0.0)
    still, moving = (Reach.after(LIMITS, 2.0, 0, T, 4.0, (speed, 0.0)) for speed in (0.0, 1.0))
    assert still.distance == pytest.approx(3.0), "0.25 depths, and 0.25 more each second"
    assert moving.distance == pytest.approx(6.0), "plus 1.5 × the distance at the last speed"
    assert still.holds(0, look(3.9, 0.0, 0.0, 0.0)) and not still.holds(0, look(4.1, 0.0, 0.0, 0.0))
    assert not still.holds(1, T), "another submap has a world of its own"
    assert Reach.after(LIMITS, 0.0, 0, T, 4.0, (1.0, 1.0)).holds(0, look(1.0, 0.0, 0.0, 0.4))
    assert not Reach.after(LIMITS, 0.0, 0, T, 4.0, (1.0, 1.0)).holds(0, look(1.0, 0.0, 0.0, 0.6))


def test_reach_follows_the_configuration() -> None:
    config = RelocalizationConfig(
        speed_factor=2.0,
        reach_depths=0.5,
        reach_depths_per_s=1.0,
        reach_turn_rad=0.1,
        reach_turn_rad_per_s=0.2,
    )
    reach = Reach.after(config, 3.0, 0, np.eye(4), 4.0, (1.0, 0.5))
    assert reach.distance == pytest.approx(2.0 * 1.0 * 3.0 + 4.0 * (0.5 + 1.0 * 3.0))
    assert reach.turn == pytest.approx(2.0 * 0.5 * 3.0 + 0.1 + 0.2 * 3.0)


def test_rivals_follow_the_configuration(landmarks) -> None:
    scene = landmarks.box()
    slam_map = scene.map_of([scene.pose()])

    def place(x: float, inliers: int) -> Place:
        pose = PoseEstimate(
            geometry.inverse(look(x, 0.0, 0.0, 0.0)), np.ones(inliers, bool), np.eye(6), 0.5, 1.0
        )
        ids = np.zeros(inliers, dtype=np.int64)
        tracked = TrackedFrame(
            scene.observe(scene.pose(), 0), pose, ids, np.full(inliers, NO_POINT), "motion"
        )
        return Place(tracked, 0, 0, depth=4.0)

    def rivals(**limits: float) -> list[Place]:
        return best.rivals([far], slam_map, Config(relocalization=RelocalizationConfig(**limits)))

    best, far = place(0.0, 100), place(1.5, 60)
    assert rivals() == [far]
    assert rivals(rival_inlier_fraction=0.7) == []
    assert rivals(same_place_depths=0.4) == []


def test_a_departure_follows_its_keyframe(landmarks) -> None:
    scene = landmarks.box()
    slam_map = scene.map_of([scene.pose(), scene.pose(0.2)])
    forward = np.array([0.0, 0.0, -0.5, 0.0, 0.0, 0.0])
    departure = Departure(1, np.eye(4), 3.0, forward, (0.5, 0.0))
    reach = departure.reach(4.0, slam_map, LIMITS)
    assert reach is not None and reach.seconds == 1.0
    assert reach.T_world_cam == pytest.approx(slam_map.pose(1))
    moved = geometry.inverse(departure.expected(reach))[:3, 3] - slam_map.pose(1)[:3, 3]
    assert moved == pytest.approx(0.5 * slam_map.pose(1)[:3, 2])
    assert replace(departure, keyframe_id=7).reach(4.0, slam_map, LIMITS) is None


def test_the_most_similar_keyframe_of_each_group_is_chosen(landmarks) -> None:
    scene = landmarks.box()
    slam_map = scene.map_of([scene.pose(), scene.pose(0.1), scene.pose(0.2)])
    ids, similarity = np.arange(3), np.array([0.1, 0.9, 0.5], dtype=np.float32)
    assert groups_by_similarity(ids, similarity, slam_map, 5, 3) == [1], "all see the same points"
    assert groups_by_similarity(ids, similarity, slam_map, 10**6, 2) == [1, 2]
    assert groups_by_similarity(ids, similarity, slam_map, 10**6, 3, taken=[1]) == [2, 0]


@pytest.mark.slow
def test_dark_frames_in_the_twin_world_do_not_cause_a_jump_to_the_other_half() -> None:
    """In `demo-twins`, where both halves are in the map by then."""
    # A quarter of the pixels takes a quarter of the time.
    spec = replace(world_spec("demo-twins"), width=320, height=240, texels_per_m=200.0)
    sequence = RenderedWorld(spec, "stereo")
    slam = Slam.from_config("demo_stereo", ["features.extractor=orb"])
    frames = [*range(0, 400, 4), *range(400, 460)]
    assert sequence.ground_truth is not None
    truth = sequence.ground_truth.T_world_cam
    dark = {i for i in range(400, 460) if 5 <= i % 30 < 5 + (3 if i < 430 else 12)}
    for i in frames:
        result = slam.track(darkened(sequence[i]) if i in dark else sequence[i])
        assert (result.T_world_cam is None) == (i in dark), i
        if result.T_world_cam is not None:
            expected = geometry.inverse(truth[0]) @ truth[i]
            assert np.linalg.norm(result.T_world_cam[:3, 3] - expected[:3, 3]) < 0.3, i


def darkened(frame: Frame) -> Frame:
    black = np.zeros_like(frame.image)
    return replace(frame, image=black, image_right=black)
