"""The three tables of a map stay consistent through every change."""

import numpy as np
import pytest

from spslam import geometry
from spslam.camera import Camera
from spslam.frame import Observations
from spslam.map.io import load_map, save_map
from spslam.map.map import NO_POINT, Map, Origin
from spslam.map.table import Table

SIZE = 8


def observations(count: int, index: int = 0) -> Observations:
    rng = np.random.default_rng(index)
    descriptors = rng.normal(size=(count, SIZE)).astype(np.float32)
    return Observations(
        index=index,
        timestamp=0.1 * index,
        pixels=rng.uniform(0, 100, (count, 2)),
        descriptors=descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True),
        scores=np.ones(count, np.float32),
        u_right=np.full(count, np.nan),
        depth=np.full(count, np.nan),
        delays=np.zeros(count),
    )


def pose(x: float) -> np.ndarray:
    T = np.eye(4)
    T[0, 3] = x
    return T


@pytest.fixture
def three_views() -> Map:
    """Three keyframes of four keypoints; the first has points 0..3, the others see some of them."""
    slam_map = Map(SIZE)
    first = slam_map.add_keyframe(observations(4, 0), pose(0.0), np.full(4, NO_POINT))
    slam_map.add_points(
        first, np.array([[0, 0, 5.0], [1, 0, 5], [0, 1, 5], [1, 1, 5]]), np.arange(4)
    )
    slam_map.add_keyframe(observations(4, 1), pose(1.0), np.array([0, 1, 2, NO_POINT]))
    slam_map.add_keyframe(observations(4, 2), pose(2.0), np.array([NO_POINT, 1, NO_POINT, 0]))
    return slam_map


def assert_consistent(slam_map: Map) -> None:
    linked = slam_map.observations["point"]
    linked = linked[linked >= 0]
    rows = slam_map.point_rows(linked)
    assert (rows >= 0).all(), "an observation refers to a removed point"
    assert np.array_equal(slam_map.points["id"][rows], linked)
    assert np.array_equal(
        slam_map.observation_counts(), np.bincount(rows, minlength=len(slam_map.points))
    )
    keyframes = slam_map.observations["keyframe"]
    assert (np.diff(keyframes) >= 0).all()
    assert np.isin(keyframes, slam_map.keyframes["id"]).all()
    pairs = np.stack([keyframes, slam_map.observations["point"]], axis=1)[
        slam_map.observations["point"] >= 0
    ]
    assert len(np.unique(pairs, axis=0)) == len(pairs), "a keyframe sees a point twice"


def test_points_and_keyframes_that_see_each_other(three_views: Map) -> None:
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
    assert new.tolist() == [4], "ids are never reused"
    assert_consistent(three_views)


def test_points_of_a_removed_keyframe_alone_are_removed(three_views: Map) -> None:
    three_views.remove_keyframe(0)
    assert_consistent(three_views)
    assert three_views.keyframes["id"].tolist() == [1, 2]
    assert three_views.points["id"].tolist() == [0, 1, 2]
    assert not three_views.has_keyframe(0)
    assert three_views.has_keyframe(2)


def test_a_merged_point_has_one_observation_per_keyframe(three_views: Map) -> None:
    found = three_views.points["found"].copy()
    three_views.merge_points(np.array([2]), np.array([0]))
    assert_consistent(three_views)
    # Keyframes 0 and 1 saw both points: one observation of each is kept.
    assert three_views.observation_counts().tolist() == [3, 3, 1]
    assert three_views.points["found"][0] == found[0] + found[2]


def test_unlinking_the_last_view_removes_the_point(three_views: Map) -> None:
    row = np.flatnonzero(three_views.observations["point"] == 3)
    three_views.unlink(row)
    assert_consistent(three_views)
    assert 3 not in three_views.points["id"]


def test_descriptors_come_from_the_newest_view(three_views: Map) -> None:
    three_views.describe_from(2)
    row = three_views.point_rows(np.array([1]))[0]
    expected = three_views.observations["descriptor"][three_views.observation_rows(2)][1]
    assert np.array_equal(three_views.points["descriptor"][row], expected.astype(np.float32))
    assert three_views.points["distance"][row] == pytest.approx(np.linalg.norm([1 - 2, 0, 5]))


@pytest.fixture
def two_submaps(three_views: Map) -> Map:
    """As `three_views`, with a submap of two more keyframes that both see three points."""
    three_views.begin_submap()
    first = three_views.add_keyframe(observations(4, 3), pose(10.0), np.full(4, NO_POINT))
    rows = np.arange(3) + three_views.observation_rows(first).start
    three_views.add_points(first, np.array([[10.0, 0, 4], [11, 0, 4], [10, 1, 4]]), rows)
    three_views.add_keyframe(observations(4, 4), pose(10.5), np.array([4, 5, 6, NO_POINT]))
    three_views.loops.append(1, i=3, j=4, S_i_j=pose(0.5), information=np.eye(7), inliers=50)
    return three_views


def test_submaps_know_their_keyframes_and_points(two_submaps: Map) -> None:
    assert two_submaps.submaps.tolist() == [0, 1]
    assert two_submaps.keyframes_of(1).tolist() == [3, 4]
    assert two_submaps.points_of(0).tolist() == [0, 1, 2, 3]
    assert two_submaps.points_of(1).tolist() == [4, 5, 6]
    assert two_submaps.first_keyframes().tolist() == [0, 3]
    assert (two_submaps.submap_of(2), two_submaps.submap_of(3)) == (0, 1)
    points, poses = two_submaps.scene_of(1)
    assert points[:, 2].tolist() == [4, 4, 4]
    assert poses[:, 0, 3].tolist() == [10.0, 10.5]


def test_a_moved_submap_keeps_its_shape_and_is_scaled(two_submaps: Map) -> None:
    two_submaps.refresh_normals(two_submaps.points["id"])
    normals, distances = two_submaps.points["normal"].copy(), two_submaps.points["distance"].copy()
    before = two_submaps.scene_of(0)
    R = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    S = np.eye(4)
    S[:3, :3], S[:3, 3] = 2.0 * R, [1.0, 2.0, 3.0]
    points, poses = two_submaps.scene_of(1)
    two_submaps.move_submap(1, S, 0)
    assert two_submaps.submaps.tolist() == [0]
    assert two_submaps.submap == 0, "new keyframes belong to the merged submap"
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


def test_loop_edges_stay_correct_when_keyframes_are_rescaled(two_submaps: Map) -> None:
    """Lengths around keyframe 3 are doubled and around keyframe 4 tripled, as after scale drift."""
    S_i_j, information = (
        two_submaps.loops["S_i_j"][0].copy(),
        two_submaps.loops["information"][0].copy(),
    )
    two_submaps.rescale_loops(np.array([1, 3, 4]), np.array([7.0, 2.0, 3.0]))
    in_j = np.array([0.3, -0.2, 4.0])
    in_i = geometry.apply(S_i_j, in_j)
    assert geometry.apply(two_submaps.loops["S_i_j"][0], 3 * in_j) == pytest.approx(2 * in_i)
    # A translation residual around j is three times as long and has the same likelihood.
    residual, lengths = (
        np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        np.array([3.0] * 3 + [1.0] * 4),
    )
    scaled = lengths * residual
    assert scaled @ two_submaps.loops["information"][0] @ scaled == pytest.approx(
        residual @ information @ residual
    )


def test_another_map_is_appended_completely(two_submaps: Map, three_views: Map) -> None:
    mine = Map(SIZE)
    mine.add_keyframe(observations(2, 9), pose(0.0), np.full(2, NO_POINT))
    mine.add_points(0, np.ones((2, 3)), np.arange(2))
    ids = mine.append_map(two_submaps)
    assert_consistent(mine)
    assert ids.tolist() == [1, 2, 3, 4, 5]
    assert mine.submaps.tolist() == [0, 1, 2]
    assert mine.keyframes["session"].tolist() == [0, 1, 1, 1, 1, 1]
    assert mine.points_of(2).tolist() == [6, 7, 8]
    assert mine.observation_counts()[2:].tolist() == two_submaps.observation_counts().tolist()
    assert (mine.loops["i"].tolist(), mine.loops["j"].tolist()) == ([4], [5])
    assert np.array_equal(mine.positions[2:], two_submaps.positions)
    new = mine.add_keyframe(observations(0, 10), pose(1.0), np.zeros(0, np.int64))
    assert new == 6, "ids are never reused"


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
    """A random change of a kind that the system makes."""
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
        assert (slam_map.observation_counts() >= 1).all(), (
            f"after {kind}, a point has no observation"
        )
        assert (np.diff(slam_map.points["id"]) > 0).all()
        assert (np.diff(slam_map.keyframes["id"]) > 0).all()
        now = set(slam_map.points["id"].tolist())
        assert not (now - last) & seen_ids, "an id was reused"
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
