"""Submaps keep their shape when they move, and maps stay consistent when they are joined."""

import numpy as np
import pytest
from small_map import SIZE, assert_consistent, map_of_three_views, observations, pose

from spslam import geometry
from spslam.map.map import NO_POINT, Map
from spslam.map.submaps import (
    append_map,
    begin_submap,
    first_keyframes,
    keyframes_of,
    move_submap,
    points_of,
    rescale_loops,
    rescale_submap,
    scene_of,
    submap_numbers,
    submap_of,
)


@pytest.fixture
def three_views() -> Map:
    return map_of_three_views()


@pytest.fixture
def two_submaps(three_views: Map) -> Map:
    """As `three_views`, with a submap of two more keyframes that share three points."""
    begin_submap(three_views)
    first = three_views.add_keyframe(observations(4, 3), pose(10.0), np.full(4, NO_POINT))
    rows = np.arange(3) + three_views.observation_rows(first).start
    three_views.add_points(first, np.array([[10.0, 0, 4], [11, 0, 4], [10, 1, 4]]), rows)
    three_views.add_keyframe(observations(4, 4), pose(10.5), np.array([4, 5, 6, NO_POINT]))
    three_views.loops.append(1, i=3, j=4, S_i_j=pose(0.5), information=np.eye(7), inliers=50)
    return three_views


def test_submaps_know_their_keyframes_and_points(two_submaps: Map) -> None:
    assert submap_numbers(two_submaps).tolist() == [0, 1]
    assert keyframes_of(two_submaps, 1).tolist() == [3, 4]
    assert points_of(two_submaps, 0).tolist() == [0, 1, 2, 3]
    assert points_of(two_submaps, 1).tolist() == [4, 5, 6]
    assert first_keyframes(two_submaps).tolist() == [0, 3]
    assert (submap_of(two_submaps, 2), submap_of(two_submaps, 3)) == (0, 1)
    points, poses = scene_of(two_submaps, 1)
    assert points[:, 2].tolist() == [4, 4, 4]
    assert poses[:, 0, 3].tolist() == [10.0, 10.5]


def test_a_moved_submap_keeps_its_shape_and_takes_the_scale(two_submaps: Map) -> None:
    two_submaps.refresh_normals(two_submaps.points["id"])
    normals, distances = two_submaps.points["normal"].copy(), two_submaps.points["distance"].copy()
    before = scene_of(two_submaps, 0)
    R = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    S = np.eye(4)
    S[:3, :3], S[:3, 3] = 2.0 * R, [1.0, 2.0, 3.0]
    points, poses = scene_of(two_submaps, 1)
    move_submap(two_submaps, 1, S, 0)
    assert submap_numbers(two_submaps).tolist() == [0]
    assert two_submaps.submap == 0, "later keyframes are in the joint submap"
    assert two_submaps.positions[4:] == pytest.approx(points @ S[:3, :3].T + S[:3, 3])
    assert two_submaps.T_world_keyframe[3:, :3, :3] == pytest.approx(np.array([R, R]))
    assert two_submaps.T_world_keyframe[3:, :3, 3] == pytest.approx(
        poses[:, :3, 3] @ S[:3, :3].T + S[:3, 3]
    )
    assert two_submaps.points["normal"][4:] == pytest.approx(normals[4:] @ R.T)
    assert two_submaps.points["distance"] == pytest.approx(
        distances * np.array([1, 1, 1, 1, 2, 2, 2])
    )
    assert two_submaps.loops["S_i_j"][0, :3, 3] == pytest.approx([1.0, 0.0, 0.0])
    assert np.array_equal(two_submaps.positions[:4], before[0])
    two_submaps.refresh_normals(two_submaps.points["id"])
    assert two_submaps.points["normal"][4:] == pytest.approx(normals[4:] @ R.T)


def test_a_rescaled_submap_leaves_the_other_alone(two_submaps: Map) -> None:
    points, poses = scene_of(two_submaps, 1)
    before = scene_of(two_submaps, 0)
    rescale_submap(two_submaps, 1, 2.5)
    found = scene_of(two_submaps, 1)
    assert found[0] == pytest.approx(2.5 * points)
    assert found[1][:, :3, 3] == pytest.approx(2.5 * poses[:, :3, 3])
    assert found[1][:, :3, :3] == pytest.approx(poses[:, :3, :3])
    assert two_submaps.loops["S_i_j"][0, :3, 3] == pytest.approx([1.25, 0.0, 0.0])
    assert all(np.array_equal(a, b) for a, b in zip(scene_of(two_submaps, 0), before, strict=True))
    assert submap_numbers(two_submaps).tolist() == [0, 1]


def test_loop_edges_stay_right_when_lengths_change(two_submaps: Map) -> None:
    """As after a drift of scale: lengths around `i` are doubled, those around `j` tripled."""
    S_i_j, information = (
        two_submaps.loops["S_i_j"][0].copy(),
        two_submaps.loops["information"][0].copy(),
    )
    rescale_loops(two_submaps, np.array([1, 3, 4]), np.array([7.0, 2.0, 3.0]))
    in_j = np.array([0.3, -0.2, 4.0])
    in_i = geometry.apply(S_i_j, in_j)
    assert geometry.apply(two_submaps.loops["S_i_j"][0], 3 * in_j) == pytest.approx(2 * in_i)
    # A residual of lengths around j is three times as long, and as likely.
    residual, lengths = (
        np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        np.array([3.0] * 3 + [1.0] * 4),
    )
    scaled = lengths * residual
    assert scaled @ two_submaps.loops["information"][0] @ scaled == pytest.approx(
        residual @ information @ residual
    )


def test_all_of_another_map_is_appended(two_submaps: Map, three_views: Map) -> None:
    mine = Map(SIZE)
    mine.add_keyframe(observations(2, 9), pose(0.0), np.full(2, NO_POINT))
    mine.add_points(0, np.ones((2, 3)), np.arange(2))
    ids = append_map(mine, two_submaps)
    assert_consistent(mine)
    assert ids.tolist() == [1, 2, 3, 4, 5]
    assert submap_numbers(mine).tolist() == [0, 1, 2]
    assert mine.keyframes["session"].tolist() == [0, 1, 1, 1, 1, 1]
    assert points_of(mine, 2).tolist() == [6, 7, 8]
    assert mine.observation_counts()[2:].tolist() == two_submaps.observation_counts().tolist()
    assert (mine.loops["i"].tolist(), mine.loops["j"].tolist()) == ([4], [5])
    assert np.array_equal(mine.positions[2:], two_submaps.positions)
    new = mine.add_keyframe(observations(0, 10), pose(1.0), np.zeros(0, np.int64))
    assert new == 6, "ids are never used twice"
