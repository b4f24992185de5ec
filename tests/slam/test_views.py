"""Views of the map, and the stages that match them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from point_room import PointRoom, ate, circle, components_of, look

from spslam import geometry
from spslam.config import load_config
from spslam.frame import KeypointView
from spslam.frontend.matching.matching import DescriptorMatcher
from spslam.interfaces import ViewMatches, WideStage
from spslam.map.io import load_map
from spslam.slam.system import Slam
from spslam.slam.views import frame_view, keyframe_view, points_view


class StageMatcher(DescriptorMatcher):
    """Stands in for a learned matcher: it finds matches only where a stage asks for wide views."""

    def __init__(self, blind: bool = True) -> None:
        super().__init__()
        self.blind = blind
        self.sides: list[tuple[WideStage, KeypointView, KeypointView]] = []

    @property
    def learned_pairs(self) -> dict[WideStage, int]:
        stages = [stage for stage, _, _ in self.sides]
        return {stage: stages.count(stage) for stage in stages}

    def attempts(self, stage: WideStage) -> tuple[WideStage | None, ...]:
        return (None, stage)

    def match_views(
        self,
        view0: KeypointView,
        view1: KeypointView,
        max_descriptor_distance: float,
        ratio: float | None = None,
        *,
        among: np.ndarray | None = None,
        stage: WideStage | None = None,
    ) -> ViewMatches:
        found = super().match_views(view0, view1, max_descriptor_distance, ratio, among=among)
        if stage is None:
            return ViewMatches(np.full_like(found.matches0, -1)) if self.blind else found
        self.sides.append((stage, view0, view1))
        return found


def drive_with(
    matcher: StageMatcher, room: PointRoom, poses: list[np.ndarray], sensor: str
) -> tuple[Slam, list[bool]]:
    components = replace(components_of(room), matcher=matcher)
    slam = Slam(load_config("default"), components)
    found = [
        slam.track(room.frame(pose, 0.05 * (index + 1), sensor)).T_world_cam is not None
        for index, pose in enumerate(poses)
    ]
    slam.finish()
    return slam, found


def sideways(count: int) -> list[np.ndarray]:
    return [look(0.03 * index, 0.0, -1.0, 0.0) for index in range(count)]


def test_points_are_seen_where_a_keyframe_projects_them(landmarks) -> None:
    scene = landmarks.box()
    slam_map = scene.map_of([scene.pose(0.3 * index) for index in range(4)])
    camera = scene.camera
    rows = np.arange(len(slam_map.points))
    seen = points_view(slam_map, camera, 0, rows)
    T_cam_world = geometry.inverse(slam_map.pose(0))
    points_cam = geometry.apply(T_cam_world, slam_map.positions)
    inside = (points_cam[:, 2] > 0) & camera.in_image(camera.project(points_cam))
    assert 0 < inside.sum() < len(rows)
    assert np.array_equal(np.isfinite(seen.pixels).all(axis=1), inside)
    assert np.allclose(seen.pixels[inside], camera.project(points_cam[inside]))
    assert seen.size == (camera.width, camera.height)


def test_a_saved_map_keeps_positions_and_image_sizes(tmp_path: Path) -> None:
    """A camera of another size is localised in it: each side has its own size."""
    room = PointRoom()
    slam, _ = drive_with(StageMatcher(), room, sideways(12), "stereo")
    slam.save_map(tmp_path / "map.npz")
    saved = load_map(tmp_path / "map.npz").map
    camera = room.believed_camera
    other = replace(camera, width=camera.width // 2, height=camera.height // 2)
    for keyframe_id in saved.keyframes["id"].tolist():
        before = keyframe_view(slam.map, camera, keyframe_id)
        after = keyframe_view(saved, other, keyframe_id)
        assert np.array_equal(after.pixels, before.pixels) and len(after) > 50
        assert after.size == (camera.width, camera.height)
        assert np.abs(after.descriptors - before.descriptors).max() < 0.01


def test_frame_to_frame_tracking_matches_no_wide_views() -> None:
    matcher = StageMatcher()
    slam, found = drive_with(matcher, PointRoom(), sideways(20), "stereo")
    assert all(found) and matcher.sides == []
    assert slam.statistics.learned_pairs == {}


def test_a_single_camera_starts_by_wide_views() -> None:
    matcher = StageMatcher()
    slam, found = drive_with(matcher, PointRoom(), sideways(20), "mono")
    assert found[-1]
    assert slam.statistics.learned_pairs is not None
    assert set(slam.statistics.learned_pairs) == {WideStage.START}


@pytest.mark.parametrize("blind", [True, False])
def test_a_lost_camera_is_found_by_wide_views_if_nearest_neighbours_fail(blind: bool) -> None:
    room, poses = PointRoom(), sideways(24)
    room.blind = set(range(12, 15))
    matcher = StageMatcher(blind)
    slam, found = drive_with(matcher, room, poses, "stereo")
    assert found == [index not in room.blind for index in range(24)]
    assert slam.statistics.relocalisations == 1
    assert [stage for stage, _, _ in matcher.sides].count(WideStage.RELOCALIZATION) >= blind
    assert not (matcher.sides and not blind)
    if blind:
        _, frame, keyframe = matcher.sides[0]
        camera = room.believed_camera
        assert frame.size == keyframe.size == (camera.width, camera.height)


@pytest.mark.slow
def test_loops_are_verified_by_wide_views_if_nearest_neighbours_fail() -> None:
    matcher, poses = StageMatcher(), circle(160, 1.3)
    slam, _ = drive_with(matcher, PointRoom(900), poses, "stereo")
    assert slam.statistics.loops > 0
    assert slam.statistics.learned_pairs is not None
    assert set(slam.statistics.learned_pairs) == {WideStage.LOOPS}
    assert ate(slam, poses, "se3") < 0.05


def test_frames_are_seen_as_they_are(landmarks) -> None:
    scene = landmarks.box()
    observations = scene.observe(scene.pose(), 0)
    seen = frame_view(observations, scene.camera)
    assert seen.pixels is observations.pixels and seen.descriptors is observations.descriptors
