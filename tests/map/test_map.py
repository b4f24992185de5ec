"""The map keeps its three tables consistent through every change."""

import numpy as np
import pytest
from small_map import SIZE, assert_consistent, map_of_three_views, observations, pose

from spslam.camera import Camera
from spslam.map.io import load_map, save_map
from spslam.map.map import NO_POINT, Map, Origin
from spslam.map.table import Table


@pytest.fixture
def three_views() -> Map:
    return map_of_three_views()


def test_who_sees_what(three_views: Map) -> None:
    assert_consistent(three_views)
    assert three_views.observation_counts().tolist() == [3, 3, 2, 1]
    ids, counts = three_views.covisible(0)
    assert ids.tolist() == [1, 2]
    assert counts.tolist() == [3, 2]
    assert three_views.points_seen_by(np.array([1, 2])).tolist() == [0, 1, 2]
    assert three_views.covisible(2, least=3)[0].tolist() == []


def test_normals_are_mean_directions_to_the_cameras(three_views: Map) -> None:
    three_views.refresh_normals(three_views.points["id"])
    row = three_views.point_rows(np.array([1]))[0]
    centres = three_views.T_world_keyframe[:, :3, 3]
    rays = centres - three_views.positions[row]
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    expected = rays.mean(axis=0) / np.linalg.norm(rays.mean(axis=0))
    assert np.allclose(three_views.points["normal"][row], expected)


def test_removed_points_are_unlinked_and_ids_stay(three_views: Map) -> None:
    three_views.remove_points(np.array([0, 3]))
    assert_consistent(three_views)
    assert three_views.points["id"].tolist() == [1, 2]
    assert three_views.point_rows(np.array([0, 1, 2, 3, NO_POINT])).tolist() == [-1, 0, 1, -1, -1]
    rows = three_views.observation_rows(0)
    new = three_views.add_points(0, np.zeros((1, 3)), np.array([rows.start]))
    assert new.tolist() == [4], "ids are never used twice"
    assert_consistent(three_views)


def test_removed_keyframe_takes_its_own_points_along(three_views: Map) -> None:
    three_views.remove_keyframe(0)
    assert_consistent(three_views)
    assert three_views.keyframes["id"].tolist() == [1, 2]
    assert three_views.points["id"].tolist() == [0, 1, 2]
    assert not three_views.has_keyframe(0)
    assert three_views.has_keyframe(2)


def test_merged_points_share_their_views_once(three_views: Map) -> None:
    found = three_views.points["found"].copy()
    three_views.merge_points(np.array([2]), np.array([0]))
    assert_consistent(three_views)
    # Keyframes 0 and 1 saw both: one observation of each is kept.
    assert three_views.observation_counts().tolist() == [3, 3, 1]
    assert three_views.points["found"][0] == found[0] + found[2]


def test_unlinking_the_last_view_removes_the_point(three_views: Map) -> None:
    row = np.flatnonzero(three_views.observations["point"] == 3)
    three_views.unlink(row)
    assert_consistent(three_views)
    assert 3 not in three_views.points["id"]


def test_newest_view_describes(three_views: Map) -> None:
    three_views.describe_from(2)
    row = three_views.point_rows(np.array([1]))[0]
    expected = three_views.observations["descriptor"][three_views.observation_rows(2)][1]
    assert np.array_equal(three_views.points["descriptor"][row], expected.astype(np.float32))
    assert three_views.points["distance"][row] == pytest.approx(np.linalg.norm([1 - 2, 0, 5]))


def test_table_grows_and_compacts() -> None:
    table = Table(a=(np.int64, ()), b=(np.float64, (2,)))
    for i in range(1000):
        table.append(1, a=i, b=[i, -i])
    assert len(table) == 1000
    table.keep(table["a"] % 2 == 1)
    assert table["a"].tolist() == list(range(1, 1000, 2))
    assert np.array_equal(table["b"][:, 0], table["a"])
    with pytest.raises(ValueError, match="columns"):
        table.append(1, a=1)


def _change(slam_map: Map, rng: np.random.Generator, step: int) -> str:
    """One random change of the kind that the system makes."""
    ids, keyframes = slam_map.points["id"].copy(), slam_map.keyframes["id"].copy()
    kind = str(
        rng.choice(["keyframe", "points", "remove points", "remove keyframe", "unlink", "merge"])
    )
    if kind == "keyframe" or len(keyframes) == 0:
        count = int(rng.integers(0, 12))
        seen = np.full(count, NO_POINT)
        known = rng.permutation(ids)[: rng.integers(0, count + 1)]
        seen[: len(known)] = known
        slam_map.add_keyframe(observations(count, step), pose(float(step)), rng.permutation(seen))
    elif kind == "points":
        keyframe_id = int(rng.choice(keyframes))
        rows = slam_map.observation_rows(keyframe_id)
        free = np.flatnonzero(slam_map.observations["point"][rows] == NO_POINT) + rows.start
        new = slam_map.add_points(keyframe_id, rng.normal((0, 0, 5), 1, (len(free), 3)), free)
        assert not np.isin(new, ids).any()
    elif kind == "remove points":
        slam_map.remove_points(rng.permutation(np.append(ids, [0, NO_POINT]))[:3])
    elif kind == "remove keyframe":
        slam_map.remove_keyframe(int(rng.choice(keyframes)))
    elif kind == "unlink" and len(slam_map.observations):
        slam_map.unlink(rng.integers(0, len(slam_map.observations), 4))
    elif kind == "merge":
        dropped, kept = np.split(rng.permutation(ids)[: len(ids) // 2 * 2], 2)
        slam_map.merge_points(dropped[:3], kept[:3])
    slam_map.refresh_normals(slam_map.points["id"])
    return kind


@pytest.mark.parametrize("seed", range(12))
def test_any_sequence_of_changes_keeps_the_tables_consistent(seed: int, tmp_path) -> None:
    rng = np.random.default_rng(seed)
    slam_map = Map(SIZE)
    seen_ids: set[int] = set()
    for step in range(60):
        last = set(slam_map.points["id"].tolist())
        kind = _change(slam_map, rng, step)
        assert_consistent(slam_map)
        assert (slam_map.observation_counts() >= 1).all(), f"after {kind}, nobody sees some point"
        assert (np.diff(slam_map.points["id"]) > 0).all()
        assert (np.diff(slam_map.keyframes["id"]) > 0).all()
        now = set(slam_map.points["id"].tolist())
        assert not (now - last) & seen_ids, "an id was used twice"
        seen_ids |= now
        if now:
            assert np.linalg.norm(slam_map.points["normal"], axis=1) == pytest.approx(
                np.ones(len(now))
            )
            assert (slam_map.points["distance"] > 0).all()
        for keyframe_id in slam_map.keyframes["id"]:
            mine = slam_map.points_seen_by(np.array([keyframe_id]))
            others, counts = slam_map.covisible(int(keyframe_id))
            shared = [
                len(np.intersect1d(mine, slam_map.points_seen_by(np.array([k])))) for k in others
            ]
            assert counts.tolist() == shared
            assert all(n > 0 for n in shared)
    slam_map.origin = Origin(
        "mono", Camera(640, 480, 400.0, 400.0, 319.5, 239.5), "orb", "arbitrary"
    )
    save_map(tmp_path / "map.npz", slam_map)
    loaded = load_map(tmp_path / "map.npz").map
    assert_consistent(loaded)
    assert np.array_equal(loaded.observation_counts(), slam_map.observation_counts())
