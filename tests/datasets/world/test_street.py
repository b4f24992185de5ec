"""The street is exact far below a pixel, drivable, and different with another seed."""

from dataclasses import replace
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest

from spslam.config.loading import config_for
from spslam.datasets.world import render
from spslam.datasets.world.render import Renderer, build_atlas
from spslam.datasets.world.scene import Face
from spslam.datasets.world.street.drive import drive_duration, street_drive
from spslam.datasets.world.street.layout import StreetLayout
from spslam.datasets.world.world import RenderedWorld, open_world, world_faces, world_spec
from spslam.geometry import apply, inverse, rotation_angle
from spslam.typing import FloatArray

# A quarter of the size of KITTI's images, and coarse textures: they are drawn in a second.
SMALL = replace(
    world_spec("demo-street"),
    width=310,
    height=94,
    texels_per_m=8.0,
    noise_sigma=0.0,
    exposure_change=0.0,
)


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPSLAM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@cache
def world(sensor: str = "stereo", **changes: float) -> RenderedWorld:
    return RenderedWorld(replace(SMALL, **changes), sensor)  # type: ignore[arg-type]


def true_poses(street: RenderedWorld) -> FloatArray:
    assert street.ground_truth is not None
    return street.ground_truth.T_world_cam


# --- the sequence ---


def test_it_is_recorded_with_the_cameras_of_kitti() -> None:
    street = open_world("demo-street")
    camera = street.camera
    assert (camera.width, camera.height, camera.fps, camera.baseline_m) == (1241, 376, 10.0, 0.54)
    np.testing.assert_allclose(
        [camera.fx, camera.fy, camera.cx, camera.cy], [718.856, 718.856, 607.193, 185.216]
    )
    assert config_for(street.dataset, "stereo") == "kitti_stereo"
    assert config_for(street.dataset, "mono") == "kitti_mono"
    assert 480 <= len(street) <= 620


def test_the_drive_keeps_to_the_road_at_the_speed_of_a_town() -> None:
    times = np.arange(0.0, drive_duration(), 0.1)
    poses = street_drive(times)
    way = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    turn = rotation_angle(np.swapaxes(poses[:-1, :3, :3], 1, 2) @ poses[1:, :3, :3]) * 10
    assert 8.0 < way.min() * 10 < 9.0 < 13.0 < way.max() * 10 < 14.0
    assert 500 < way.sum() < 620
    assert 25 < np.degrees(turn.max()) < 45
    crossing = np.abs(poses[:, None, [0, 2], 3] - [[0, 140], [-100, 140], [-100, 0], [0, 0]]).max(2)
    on_streets = crossing.min(axis=1) > 15
    assert StreetLayout().free(poses[on_streets, :3, 3], margin=1.5).all()


def test_it_returns_on_its_first_street_for_tens_of_metres() -> None:
    poses = street_drive(np.arange(0.0, drive_duration(), 0.1))
    begin, end = poses[:120], poses[-120:]
    apart = np.linalg.norm(begin[:, None, :3, 3] - end[None, :, :3, 3], axis=2)
    nearest = apart.argmin(axis=0)
    again = apart.min(axis=0) < 1.0
    stretch = end[again, :3, 3]
    assert np.linalg.norm(stretch[-1] - stretch[0]) > 50
    R = np.swapaxes(begin[nearest[again], :3, :3], 1, 2) @ end[again, :3, :3]
    assert np.degrees(rotation_angle(R).max()) < 5


def test_no_parked_car_stands_in_the_way() -> None:
    poses = street_drive(np.arange(0.0, drive_duration(), 0.1))
    for seed in (1, 2, 3):
        parked = [
            face.corners for face in StreetLayout(seed).faces()
            if face.style in ("car_side", "car_end") and not any(face.velocity)
        ]  # fmt: skip
        corners = np.concatenate(parked)
        apart = np.linalg.norm(corners[None, :, [0, 2]] - poses[:, None, [0, 2], 3], axis=2)
        assert len(parked) > 100
        assert apart.min() > 0.7


def test_no_moving_car_meets_the_camera() -> None:
    times = np.arange(0.0, drive_duration(), 0.1)
    poses = street_drive(times)
    for seed in (1, 2, 3, 4, 5):
        moving = [face for face in StreetLayout(seed).faces() if any(face.velocity)]
        assert len({face.velocity for face in moving}) >= 4
        for face in moving:
            at = face.corners[None] + times[:, None, None] * np.array(face.velocity)
            apart = np.linalg.norm(at[..., [0, 2]] - poses[:, None, [0, 2], 3], axis=2)
            assert apart.min() > 0.7


# --- accuracy ---


def spots(monkeypatch: pytest.MonkeyPatch) -> tuple[RenderedWorld, Renderer, list[Face]]:
    """The street in black, where every front has a white square in its middle."""

    def spotted(face: Face, shape: tuple[int, int], texels_per_m: float, _: object) -> np.ndarray:
        image = np.full(shape, 20, dtype=np.uint8)
        if face.style == "front":
            x, y = (np.array(face.size) / 2 * texels_per_m - 2).round().astype(int)
            image[y : y + 4, x : x + 4] = 220
        return image

    monkeypatch.setattr(render, "street_texture", spotted)
    street = RenderedWorld(replace(SMALL, width=1241, height=376))
    faces = world_faces(SMALL)
    atlas = build_atlas(faces, SMALL.texels_per_m, SMALL.seed, SMALL.levels)
    return street, Renderer(faces, atlas, street.camera, background=20), faces


def centroid(image: np.ndarray, near: FloatArray) -> FloatArray | None:
    """Centre of what is bright within some pixels of a position, or None if it is cut off."""
    x, y = np.rint(near).astype(int)
    reach = 16
    if not (reach < x < image.shape[1] - reach and reach < y < image.shape[0] - reach):
        return None
    weight = image[y - reach : y + reach + 1, x - reach : x + reach + 1].astype(float) - 20.0
    edge = np.concatenate([weight[0], weight[-1], weight[:, 0], weight[:, -1]])
    if np.abs(edge).max() > 8 or weight.max() < 60:
        return None
    offset = np.arange(-reach, reach + 1)
    across, down = weight.sum(axis=0), weight.sum(axis=1)
    return np.array([x, y]) + np.array([offset @ across, offset @ down]) / weight.sum()


def free(depth: np.ndarray, at: FloatArray, seen: FloatArray) -> bool:
    """Return whether nothing stands before a square (N, 3), by the depth around its middle."""
    x, y = np.rint(at).astype(int)
    around = depth[y - 15 : y + 16 : 2, x - 15 : x + 16 : 2]
    z = seen[:, 2].mean()
    return bool((around > 0.8 * z).all()) and abs(depth[y, x] - z) < 0.03 * z


@pytest.mark.slow
def test_points_and_disparities_are_where_the_truth_projects_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    street, renderer, faces = spots(monkeypatch)
    camera, errors, disparities = street.camera, [], []
    for index in range(0, 500, 50):
        T_left = true_poses(street)[index]
        T_right = T_left @ street._T_left_right
        left, right = (renderer.image(pose) for pose in (T_left, T_right))
        depths = renderer.depth(T_left), renderer.depth(T_right)
        for face in faces:
            if face.style != "front":
                continue
            texels = SMALL.texels_per_m * face.density
            first = (np.array(face.size) / 2 * texels - 2).round() / texels
            # The centre of the projection of a small square is the mean over its area.
            grid = (np.arange(16) + 0.5) / 16 * 4 / texels
            s, t = np.meshgrid(first[0] + grid, first[1] + grid)
            points = face.origin + s[..., None] * face.axis_s + t[..., None] * face.axis_t
            seen = apply(inverse(T_left), points.reshape(-1, 3))
            if seen[:, 2].min() < 3 or (face.normal @ (points[0, 0] - T_left[:3, 3])) > 0:
                continue
            # The area of a piece of the square in the image falls with the cube of its depth.
            weight = seen[:, 2] ** -3.0
            expected = [
                weight @ camera.project(seen - shift) / weight.sum()
                for shift in (np.zeros(3), np.array([0.54, 0, 0]))
            ]
            found = [centroid(i, at) for i, at in zip((left, right), expected, strict=True)]
            if (
                found[0] is not None
                and found[1] is not None
                and all(free(d, at, seen) for d, at in zip(depths, expected, strict=True))
            ):
                errors.append(found[0] - expected[0])
                disparities.append(found[0][0] - found[1][0] - expected[0][0] + expected[1][0])
    assert len(errors) >= 12
    assert np.abs(np.median(errors, axis=0)).max() < 0.01
    assert np.percentile(np.abs(errors), 90) < 0.05
    assert abs(np.median(disparities)) < 0.01
    assert np.percentile(np.abs(disparities), 90) < 0.05


@pytest.mark.slow
def test_far_fronts_do_not_alias() -> None:
    """Far parts equal the mean over 4 × 4 times as many pixels, and are not displaced."""
    street, n = world(), 4
    fine = world(width=310 * n, height=94 * n)
    pose = true_poses(street)[30]
    image = street._get_renderer().image(pose)
    dense = fine._get_renderer().image(pose)
    expected = dense.reshape(94, n, 310, n).mean(axis=(1, 3))
    depth = street.depth(30)
    for near, far in ((5, 20), (20, 50), (50, 200)):
        where = (depth > near) & (depth < far)
        assert where.sum() > 200
        gy, gx = np.gradient(expected.astype(np.float64))
        gradient = np.stack([gx, gy], axis=-1)[where]
        shift = np.linalg.lstsq(gradient, (image - expected)[where], rcond=None)[0]
        assert np.abs(shift).max() < 0.03
        assert np.sqrt(np.mean((image - expected)[where] ** 2)) < 9.0


def test_disparity_is_bf_over_z() -> None:
    street = world()
    camera, frame, depth = street.camera, street[33], street.depth(33)
    assert frame.image_right is not None
    grid = np.stack(np.meshgrid(np.arange(310), np.arange(94)), axis=-1).astype(np.float32)
    with np.errstate(divide="ignore"):
        x = grid[..., 0] - np.float32(camera.bf) / depth
    again = cv2.remap(frame.image_right, x, grid[..., 1], cv2.INTER_CUBIC).astype(float)
    difference = frame.image.astype(float) - again
    seen = (x > 2) & (depth > 0) & (np.abs(difference) < 30)
    assert seen.mean() > 0.5
    gx = np.gradient((frame.image + again) / 2)[1][seen]
    assert abs(gx @ difference[seen] / (gx @ gx)) < 0.02


# --- what is seen ---


def test_the_sky_has_neither_texture_nor_depth() -> None:
    street = world()
    for index in (0, 150, 400):
        image, depth = street[index].image, street.depth(index)
        sky = cv2.erode((depth == 0).astype(np.uint8), np.ones((5, 5))) > 0
        assert 0.02 < sky.mean() < 0.5
        assert (np.abs(image[sky].astype(int) - SMALL.background) <= 1).mean() > 0.99
        assert np.median(image[sky]) == SMALL.background
        assert depth.max() > 100


def test_every_view_has_corners_near_and_far() -> None:
    street = world()
    for index in range(0, len(street), 100):
        image, depth = street[index].image, street.depth(index)
        corners = cv2.goodFeaturesToTrack(image, 2000, 0.02, 3).reshape(-1, 2).astype(int)
        z = depth[corners[:, 1], corners[:, 0]]
        assert (z > 0).sum() > 100
        assert ((z > 0) & (z < 21.6)).sum() > 20
        assert (z > 40).sum() > 4


def test_cars_move_and_houses_stand() -> None:
    renderer, pose = world()._get_renderer(), true_poses(world())[0]
    now, then = renderer.depth(pose, 0.0), renderer.depth(pose, 1.0)
    moved = np.abs(now - then) > 0.01
    assert 0.001 < moved.mean() < 0.2


def test_the_exposure_changes() -> None:
    changing = world(exposure_change=0.15)
    means = [changing[i].image.mean() / world()[i].image.mean() for i in (0, 10, 30)]
    assert means[0] == pytest.approx(1.0, abs=0.01)
    assert means[1] > 1.08
    assert means[2] < 0.9


def test_another_seed_has_other_houses_and_cars() -> None:
    first, second = world_faces(SMALL), world_faces(replace(SMALL, seed=2))
    corners = [{face.corners.tobytes() for face in faces} for faces in (first, second)]
    assert len(corners[0] & corners[1]) < 0.5 * len(corners[0])
    same = {face.corners.tobytes() for face in world_faces(SMALL)}
    assert same == corners[0]


def test_equal_specs_give_equal_bytes_in_any_order() -> None:
    first, second = (RenderedWorld(replace(SMALL, noise_sigma=2.0)) for _ in range(2))
    late = second[7]
    for index, frame in ((3, second[3]), (7, late)):
        np.testing.assert_array_equal(first[index].image, frame.image)
        np.testing.assert_array_equal(first[index].image_right, frame.image_right)
