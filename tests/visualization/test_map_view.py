"""Contents and viewpoint of map pictures."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from room_scene import room, room_scene

from spslam.geometry import apply, make_transform
from spslam.visualization.map_view import (
    MapView,
    choose_viewpoint,
    frustum_lines,
    inlier_points,
    tube,
    typical_size,
    up_direction,
)


@pytest.mark.parametrize("poses", [0, 1, 2])
@pytest.mark.parametrize("points", [0, 1])
def test_there_is_a_viewpoint_for_nearly_empty_scenes(poses: int, points: int) -> None:
    few = room_scene(
        points=np.full((points, 3), 2.0),
        keyframes=np.zeros((0, 4, 4)),
        trajectory=np.tile(np.eye(4), (poses, 1, 1)),
        ground_truth=np.zeros((0, 4, 4)),
        covisible=np.zeros((0, 2), int),
        loops=np.zeros((0, 2), int),
    )
    viewpoint = choose_viewpoint(few, 4 / 3)
    assert np.isfinite(viewpoint.T_cam_world).all()
    assert viewpoint.distance > 0
    assert typical_size(few) > 0


def test_the_viewpoint_is_above_and_shows_the_whole_room() -> None:
    shown = room_scene()
    np.testing.assert_allclose(up_direction(shown), [0, -1, 0], atol=1e-9)
    viewpoint = choose_viewpoint(shown, 4 / 3)
    T = viewpoint.T_cam_world
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(T[:3, :3]) == pytest.approx(1.0)
    eye = -T[:3, :3].T @ T[:3, 3]
    assert eye[1] < -3
    # The longest side of the room (x) lies across the picture.
    assert abs(T[0, 0]) > 0.95
    seen = apply(T, shown.points[inlier_points(shown)])
    half = np.tan(0.5 * viewpoint.field_of_view)
    image = seen[:, :2] / seen[:, 2:] / half / [4 / 3, 1.0]
    assert (seen[:, 2] > 0).all()
    assert (np.abs(image) < 1.0).all(axis=1).mean() > 0.97
    assert np.abs(image).max() < 1.2
    assert np.percentile(np.abs(image), 99) > 0.8


def in_front_of_a_wall() -> MapView:
    """Cameras that sway 4 m in front of a wall 2 m wide and look at it."""
    rng = np.random.default_rng(1)
    angle = np.linspace(0, 2 * np.pi, 60)
    positions = np.stack([0.6 * np.sin(angle), 0 * angle, 0.2 * np.cos(angle)], axis=1)
    poses = make_transform(np.tile(np.eye(3), (60, 1, 1)), positions)
    return room_scene(
        points=rng.uniform([-1, -1, 4], [1, 1, 4.1], (800, 3)),
        keyframes=poses[::6],
        trajectory=poses,
        ground_truth=poses,
    )


def drive() -> MapView:
    """A long straight street with houses on both sides."""
    rng = np.random.default_rng(2)
    poses = np.tile(np.eye(4), (50, 1, 1))
    poses[:, 2, 3] = np.arange(50.0)
    houses = rng.uniform([-8, -4, 5], [8, 1, 80], (2000, 3))
    houses[:, 0] = np.where(houses[:, 0] > 0, 7, -7) + 0.1 * houses[:, 0]
    return room_scene(points=houses, keyframes=poses[::4], trajectory=poses, ground_truth=poses)


def test_a_wall_seen_by_the_cameras_is_not_shown_edge_on() -> None:
    shown = in_front_of_a_wall()
    T = choose_viewpoint(shown, 4 / 3).T_cam_world
    # Seen from behind the cameras; the wall's width (x), not its distance (z), is horizontal.
    assert T[2, 2] > 0.3
    assert abs(T[0, 0]) > abs(T[0, 2])


@pytest.mark.parametrize("make", [in_front_of_a_wall, drive])
def test_the_path_stays_clear_of_the_text(make: Callable[[], MapView]) -> None:
    shown = make()
    viewpoint = choose_viewpoint(shown, 4 / 3)
    seen = apply(viewpoint.T_cam_world, shown.path)
    image = seen[:, :2] / seen[:, 2:] / np.tan(0.5 * viewpoint.field_of_view) / [4 / 3, 1.0]
    assert not ((image[:, 0] < -0.65) & (image[:, 1] > 0.7)).any()


def test_a_street_fills_width_and_height_of_the_picture() -> None:
    shown = drive()
    viewpoint = choose_viewpoint(shown, 4 / 3)
    seen = apply(viewpoint.T_cam_world, shown.points)
    image = seen[:, :2] / seen[:, 2:] / np.tan(0.5 * viewpoint.field_of_view) / [4 / 3, 1.0]
    assert (np.ptp(np.percentile(image, [3, 97], axis=0), axis=0) > 1.2).all()


def test_stray_points_are_left_out_and_do_not_move_the_viewpoint() -> None:
    with_strays, without = room_scene(), room_scene(points=room(strays=0)[0])
    kept = inlier_points(with_strays)
    assert kept[:3000].all()
    assert kept[3000:].sum() <= 2
    ratio = choose_viewpoint(with_strays, 1.0).distance / choose_viewpoint(without, 1.0).distance
    assert ratio == pytest.approx(1.0, abs=0.1)


def test_frusta_open_in_the_viewing_direction_and_are_thinned_out() -> None:
    starts, ends = frustum_lines(np.eye(4)[None], 0.5)
    assert starts.shape == ends.shape == (8, 3)
    assert max(starts[:, 2].max(), ends[:, 2].max()) == pytest.approx(0.5)
    assert len(frustum_lines(np.tile(np.eye(4), (1000, 1, 1)), 0.5)[0]) == 8 * 120
    assert frustum_lines(np.zeros((0, 4, 4)), 0.5)[0].shape == (0, 3)
    assert 0.05 < typical_size(room_scene()) < 1.0


def test_tubes_have_their_radius_everywhere() -> None:
    starts, ends = (
        np.array([[0.0, 0, 0], [1, 1, 1], [2, 2, 2]]),
        np.array([[0.0, 0, 2], [1, 1, 1], [5, 3, 1]]),
    )
    vertices, triangles = tube(starts, ends, 0.1)
    # The edge without length is left out.
    assert vertices.shape == (24, 3)
    assert triangles.shape == (24, 3)
    assert triangles.max() == 23
    np.testing.assert_allclose(np.linalg.norm(vertices[:12, :2], axis=1), 0.1)
    assert set(vertices[:12, 2]) == {0.0, 2.0}
    tapered, same = tube(starts, ends, np.array([[0.1, 0.3], [1.0, 1.0], [0.2, 0.2]]))
    np.testing.assert_allclose(np.linalg.norm(tapered[:12, :2], axis=1), np.repeat([0.1, 0.3], 6))
    np.testing.assert_array_equal(same, triangles)


def test_a_scene_is_passed_unchanged_to_the_renderer(tmp_path: Path) -> None:
    original = room_scene()
    original.save(tmp_path / "scene.npz")
    back = MapView.load(tmp_path / "scene.npz")
    for name, value in vars(original).items():
        np.testing.assert_array_equal(getattr(back, name), value)
        assert isinstance(getattr(back, name), type(value))


def test_non_finite_points_are_dropped() -> None:
    points = np.array([[np.nan, 0, 0], [1, 2, 3]])
    kept = MapView(
        points, np.zeros((0, 4, 4)), np.zeros((0, 4, 4)), point_times=np.array([1.0, 2.0])
    )
    assert kept.points.tolist() == [[1.0, 2.0, 3.0]]
    assert kept.point_times.tolist() == kept.point_ages.tolist() == [2.0]


def test_a_scene_at_a_time_holds_what_existed_then() -> None:
    whole = room_scene()
    # Keyframes 0 to 3 and three edges exist; the loop ends at a later keyframe.
    early = whole.until(1.6)
    assert len(early.keyframes) == 4
    assert early.covisible.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert len(early.loops) == 0
    assert len(early.trajectory) == len(early.ground_truth) == 33
    assert 0 < len(early.points) < len(whole.points)
    assert (early.point_times <= 1.6).all()
    assert len(whole.until(4.6).loops) == 1


def test_edges_are_renumbered_with_keyframes_of_an_earlier_session() -> None:
    times = np.array([-np.inf, 5.0, -np.inf, *range(7)])
    early = room_scene(
        keyframe_times=times, covisible=np.array([[0, 2], [2, 3], [1, 2]]), loops=np.array([[2, 4]])
    )
    early = early.until(1.0)
    assert len(early.keyframes) == 4
    assert early.covisible.tolist() == [[0, 1], [1, 2]]
    assert early.loops.tolist() == [[1, 3]]
