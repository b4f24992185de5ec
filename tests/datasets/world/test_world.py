"""Rendered worlds agree with their depth, poses and calibration far below a pixel."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from spslam.camera import Camera
from spslam.datasets.world import cache as world_cache
from spslam.datasets.world.path import PATHS
from spslam.datasets.world.render import Renderer, build_atlas
from spslam.datasets.world.scene import LAYOUTS, Box, Layout
from spslam.datasets.world.texture import face_texture
from spslam.datasets.world.world import (
    WORLD_PRESETS,
    RenderedWorld,
    WorldSpec,
    open_world,
    world_faces,
    world_spec,
)
from spslam.errors import DatasetError
from spslam.geometry import apply, inverse, rotation_angle
from spslam.interfaces import Sequence
from spslam.io.files import cache_folder
from spslam.typing import FloatArray

# The worlds of a walking camera; the others have tests of their own.
WALKS = tuple(name for name in WORLD_PRESETS if name not in ("demo-street", "demo-turn"))


@pytest.fixture(scope="module", autouse=True)
def rendered_once() -> None:
    """Here each frame is rendered again: these tests are about rendering."""


@pytest.fixture(scope="session")
def world_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, world_cache_folder: Path) -> None:
    monkeypatch.setenv("SPSLAM_CACHE", str(world_cache_folder))


def small(**changes: object) -> WorldSpec:
    """demo-small without noise."""
    return replace(world_spec("demo-small"), **{"noise_sigma": 0.0, **changes})  # type: ignore[arg-type]


def residual_shift(first: np.ndarray, second: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Shift (dx, dy) of `second` in pixels, by one least-squares step (Lucas & Kanade)."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    gy, gx = np.gradient((a + b) / 2)
    gradient = np.stack([gx, gy], axis=-1)[where]
    return np.linalg.lstsq(gradient, (a - b)[where], rcond=None)[0]


def pixel_grid(camera: Camera) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(camera.width), np.arange(camera.height)), axis=-1).astype(
        np.float64
    )


def true_poses(world: RenderedWorld) -> FloatArray:
    """`T_world_cam` (N, 4, 4) of all frames."""
    assert world.ground_truth is not None
    return world.ground_truth.T_world_cam


def warped(world: RenderedWorld, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
    """Frame j seen from frame i through depth and ground truth, and a mask without occlusions."""
    camera, depth = world.camera, world.depth(i).astype(np.float64)
    T_world_cam = true_poses(world)
    points = apply(
        inverse(T_world_cam[j]) @ T_world_cam[i], camera.unproject(pixel_grid(camera), depth)
    )
    pixels = camera.project(points)
    x, y = pixels[..., 0].astype(np.float32), pixels[..., 1].astype(np.float32)
    image = cv2.remap(world[j].image, x, y, cv2.INTER_CUBIC)
    depth_there = cv2.remap(world.depth(j), x, y, cv2.INTER_NEAREST)
    seen = camera.in_image(pixels, 2.0) & (np.abs(depth_there - points[..., 2]) < 0.03)
    return image, cv2.erode(seen.astype(np.uint8), np.ones((3, 3))) > 0


# --- the sequences ---


@pytest.mark.parametrize("preset", WALKS)
def test_presets_are_sequences(preset: str) -> None:
    world = open_world(preset)
    assert isinstance(world, Sequence)
    assert world.name == preset
    assert world.sensor == "stereo"
    assert world.camera.fps == (30 if preset == "demo-turn" else 20)
    assert world.camera.baseline_m == pytest.approx(0.11)
    assert world.skipped == []
    assert world.ground_truth is not None
    assert world.ground_truth.frame == "left camera"
    assert len(world.ground_truth) == len(world)
    assert np.all(np.diff(world.ground_truth.timestamps) > 0)


def test_preset_sizes() -> None:
    demo = open_world("demo")
    assert (demo.camera.width, demo.camera.height, len(demo)) == (640, 480, 300)
    assert len(open_world("demo-small")) <= 80
    assert len(open_world("demo-loop")) >= 900


@pytest.mark.parametrize("sensor", ["mono", "stereo", "rgbd"])
def test_frames_hold_the_images_of_the_sensor(sensor: str) -> None:
    world = open_world("demo-small", sensor)
    frame = world[3]
    assert frame.sensor == world.sensor == sensor
    assert frame.index == 3
    assert world.ground_truth is not None
    assert frame.timestamp == world.ground_truth.timestamps[3]
    assert frame.camera is world.camera
    assert frame.image.shape == (world.camera.height, world.camera.width)
    assert frame.image.dtype == np.uint8
    assert (world.camera.baseline_m is None) == (sensor == "mono")
    if sensor == "rgbd":
        assert frame.depth is not None
        assert frame.depth.dtype == np.float32
        np.testing.assert_array_equal(frame.depth, world.depth(3))
    if sensor == "stereo":
        assert frame.image_right is not None
        assert frame.image_right.shape == frame.image.shape


def test_left_image_does_not_depend_on_the_sensor() -> None:
    mono, stereo, rgbd = (
        open_world("demo-small", sensor)[5].image for sensor in ("mono", "stereo", "rgbd")
    )
    np.testing.assert_array_equal(mono, stereo)
    np.testing.assert_array_equal(mono, rgbd)


def test_wrong_names_are_refused() -> None:
    with pytest.raises(DatasetError, match="demo-small"):
        open_world("demo-huge")
    with pytest.raises(DatasetError, match="lidar"):
        open_world("demo", "lidar")


def test_an_index_past_the_end_is_refused() -> None:
    world = open_world("demo-small")
    with pytest.raises(IndexError):
        world[len(world)]
    assert world[-1].index == len(world) - 1


@pytest.mark.parametrize(
    "change", [{"frames": 0}, {"width": 3}, {"fps": 0.0}, {"noise_sigma": -1.0}]
)
def test_impossible_specs_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(DatasetError, match="demo-small"):
        small(**change)


# --- accuracy ---


@pytest.mark.parametrize(("i", "j"), [(0, 1), (20, 24), (40, 52)])
def test_motion_agrees_with_depth_and_ground_truth(i: int, j: int) -> None:
    world = RenderedWorld(small(), "mono")
    image = world[i].image
    moved, seen = warped(world, i, j)
    assert seen.mean() > 0.5
    assert np.abs(residual_shift(image, moved, seen)).max() < 0.02
    difference = np.abs(image.astype(float) - moved)[seen]
    assert np.median(difference) <= 2
    # Interpolating an interpolated image only blurs corners.
    assert np.percentile(difference, 95) < 15


def test_the_photometric_check_detects_a_quarter_pixel() -> None:
    world = RenderedWorld(small(), "mono")
    image = world[0].image
    moved, seen = warped(world, 0, 1)
    shift = cv2.warpAffine(
        moved, np.array([[1, 0, 0.25], [0, 1, 0]]), moved.shape[::-1], flags=cv2.INTER_CUBIC
    )
    assert 0.15 < residual_shift(image, shift, seen)[0] < 0.45


def test_disparity_is_bf_over_z() -> None:
    world = RenderedWorld(small(), "stereo")
    camera, frame, depth = world.camera, world[33], world.depth(33)
    assert frame.image_right is not None
    grid = pixel_grid(camera).astype(np.float32)
    x = grid[..., 0] - np.float32(camera.bf) / depth
    left_again = cv2.remap(frame.image_right, x, grid[..., 1], cv2.INTER_CUBIC)
    difference = np.abs(frame.image.astype(float) - left_again)
    seen = (x > 2) & (difference < 30)
    assert seen.mean() > 0.85
    assert np.abs(residual_shift(frame.image, left_again, seen)).max() < 0.02
    assert np.median(difference[seen]) <= 2


def test_agrees_with_tracing_rays_through_the_finest_texture() -> None:
    # A slanted wall with a box in front, 9 × 9 rays a pixel in float64, no mip maps, no z-buffer.
    layout = Layout(
        (-3, 3, -3, 3), 3.0, ("plaster",) * 4, (Box(0.2, 1.2, 0.9, 0.5, 0.0, 1.7, 0.4),)
    )
    faces = layout.faces()
    texels_per_m, n = 64.0, 9
    camera = Camera(width=96, height=72, fx=70.0, fy=69.0, cx=48.3, cy=34.6)
    T_world_cam = PATHS["sway"](np.array([0.4]))[0]
    renderer = Renderer(faces, build_atlas(faces, texels_per_m, seed=5), camera)

    fine = (
        np.arange(n * camera.width) / n - 0.5 + 0.5 / n,
        np.arange(n * camera.height) / n - 0.5 + 0.5 / n,
    )
    pixels = np.stack(np.meshgrid(*fine), axis=-1)
    rays = camera.unproject(pixels, np.ones(pixels.shape[:2])) @ T_world_cam[:3, :3].T
    nearest, traced = np.full(rays.shape[:2], np.inf), np.zeros(rays.shape[:2])
    for i, face in enumerate(faces):
        towards = rays @ face.normal
        with np.errstate(divide="ignore"):
            z = ((face.origin - T_world_cam[:3, 3]) @ face.normal) / towards
        on_face = T_world_cam[:3, 3] + z[..., None] * rays - face.origin
        s, t = on_face @ face.axis_s, on_face @ face.axis_t
        hit = (towards < 0) & (z > 0) & (z < nearest)
        hit &= (s >= 0) & (s < face.size[0]) & (t >= 0) & (t < face.size[1])
        width, height = (int(np.ceil(m * texels_per_m / 32)) * 32 for m in face.size)
        texture = face_texture(face, (height, width), texels_per_m, np.random.default_rng([5, i]))
        sampled = cv2.remap(
            texture.astype(np.float32),
            (s * texels_per_m - 0.5).astype(np.float32),
            (t * texels_per_m - 0.5).astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        nearest[hit], traced[hit] = z[hit], sampled[hit]
    assert np.isfinite(nearest).all()
    expected = traced.reshape(camera.height, n, camera.width, n).mean(axis=(1, 3))

    image = renderer.image(T_world_cam)
    assert np.abs(residual_shift(expected, image, np.ones(image.shape, bool))).max() < 0.02
    assert np.abs(image - expected).mean() < 3.0
    assert abs((image - expected).mean()) < 0.3
    np.testing.assert_allclose(
        renderer.depth(T_world_cam), nearest[n // 2 :: n, n // 2 :: n], rtol=1e-5
    )


def test_tracked_corners_move_according_to_the_ground_truth() -> None:
    world = open_world("demo-small", "mono")
    camera = world.camera
    corners = cv2.goodFeaturesToTrack(world[8].image, 500, 0.02, 5)
    tracked, status, _ = cv2.calcOpticalFlowPyrLK(
        world[8].image, world[9].image, corners, np.empty_like(corners), winSize=(15, 15)
    )
    start = corners.reshape(-1, 2).astype(np.float64)
    at = np.rint(start).astype(int)
    depth = world.depth(8)[at[:, 1], at[:, 0]].astype(np.float64)
    T_world_cam = true_poses(world)
    expected = camera.project(
        apply(inverse(T_world_cam[9]) @ T_world_cam[8], camera.unproject(start, depth)),
    )
    kept = (status.ravel() > 0) & camera.in_image(expected, 10)
    error = np.linalg.norm(tracked.reshape(-1, 2) - expected, axis=1)[kept]
    assert np.median(error) < 0.15
    assert (error < 1.0).mean() > 0.95


# --- fitness for SLAM ---


@pytest.mark.parametrize("preset", WALKS)
def test_paths_are_smooth_collision_free_and_closed_except_the_stroll(preset: str) -> None:
    spec = world_spec(preset)
    path = PATHS[spec.path](np.arange(spec.frames + 1) / spec.fps)
    speed = np.linalg.norm(np.diff(path[:, :3, 3], axis=0), axis=1) * spec.fps
    turn = rotation_angle(np.swapaxes(path[:-1, :3, :3], 1, 2) @ path[1:, :3, :3]) * spec.fps
    assert speed.min() > 0.35
    assert speed.max() < 1.3
    assert np.degrees(turn.max()) < 42
    if spec.path != "stroll":
        np.testing.assert_allclose(path[-1], path[0], atol=1e-6)
    assert spec.layout != "street"
    assert LAYOUTS[spec.layout]().free(path[:, :3, 3], margin=0.6).all()


def test_another_walk_follows_the_same_route_with_other_poses() -> None:
    spec = world_spec("demo")
    walks = [true_poses(RenderedWorld(replace(spec, walk=walk))) for walk in (0, 1, 2)]
    assert np.array_equal(walks[0], true_poses(RenderedWorld(spec)))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        apart = np.linalg.norm(walks[first][:, :3, 3] - walks[second][:, :3, 3], axis=1)
        turned = rotation_angle(
            np.swapaxes(walks[first][:, :3, :3], 1, 2) @ walks[second][:, :3, :3]
        )
        assert 0.05 < np.median(apart) < apart.max() < 0.5
        assert 1.0 < np.degrees(np.median(turned)) < np.degrees(turned.max()) < 15
    assert LAYOUTS["hall"]().free(walks[1][:, :3, 3], margin=0.3).all()
    assert np.array_equal(
        RenderedWorld(replace(spec, walk=1))[7].image, RenderedWorld(replace(spec, walk=1))[7].image
    )


def test_loop_passes_every_place_twice() -> None:
    world = open_world("demo-loop")
    T_world_cam = true_poses(world)
    half = len(world) // 2
    apart = np.linalg.norm(T_world_cam[:half, :3, 3] - T_world_cam[half:, :3, 3], axis=1)
    turned = rotation_angle(
        np.swapaxes(T_world_cam[:half, :3, :3], 1, 2) @ T_world_cam[half:, :3, :3]
    )
    assert apart.max() < 0.6
    assert apart.max() > 0.1
    assert np.degrees(turned.max()) < 25


def test_the_twin_corridors_look_the_same_twelve_metres_apart() -> None:
    spec = replace(world_spec("demo-twins"), width=320, height=240, texels_per_m=128.0)
    faces = world_faces(spec)
    atlas = world_cache.cached_atlas(spec.layout, faces, spec.texels_per_m, spec.seed)
    renderer = Renderer(faces, atlas, RenderedWorld(spec).camera)
    # Look to the side, where neither end wall is visible.
    here = PATHS["stroll"](np.array([6.0]))[0]
    here[:3, :3] = np.eye(3)
    there = here.copy()
    there[0, 3] += 12.0
    # Only at the margin, where the two meet, are corners of other textures visible.
    same = np.abs(renderer.image(here) - renderer.image(there)) < 1.0
    assert same.mean() > 0.995
    elsewhere = here.copy()
    elsewhere[0, 3] += 3.0
    assert (np.abs(renderer.image(here) - renderer.image(elsewhere)) < 1.0).mean() < 0.2


@pytest.mark.parametrize("preset", WALKS)
def test_every_view_is_filled_textured_and_not_too_near(preset: str) -> None:
    spec = replace(world_spec(preset), width=320, height=240, texels_per_m=128.0)
    world = RenderedWorld(spec, "rgbd")
    for index in np.linspace(0, len(world) - 1, 14).astype(int):
        frame = world[index]
        assert frame.depth is not None
        assert frame.depth.min() > 0.6
        corners = cv2.goodFeaturesToTrack(frame.image, 2000, 0.02, 4).reshape(-1, 2)
        assert len(corners) >= 300
        cells, _, _ = np.histogram2d(
            corners[:, 1], corners[:, 0], bins=(3, 4), range=((0, 240), (0, 320))
        )
        assert cells.min() >= 5


# --- options ---


def test_noise_has_the_given_strength_and_differs_between_images() -> None:
    clean, noisy = RenderedWorld(small(), "stereo"), RenderedWorld(small(noise_sigma=4.0), "stereo")
    noise = [noisy[i].image.astype(float) - clean[i].image for i in (0, 1)]
    right = noisy[0].image_right.astype(float) - clean[0].image_right  # type: ignore[union-attr, operator]
    assert noise[0].std() == pytest.approx(4.0, rel=0.05)
    for other in (noise[1], right):
        assert abs(np.corrcoef(noise[0].ravel(), other.ravel())[0, 1]) < 0.02


def test_blur_softens_without_a_shift() -> None:
    sharp = RenderedWorld(small(), "mono")[20].image
    blurred = RenderedWorld(small(shutter_s=0.04), "mono")[20].image
    assert (
        np.abs(np.diff(blurred.astype(float))).mean()
        < 0.9 * np.abs(np.diff(sharp.astype(float))).mean()
    )
    assert np.abs(residual_shift(sharp, blurred, np.ones(sharp.shape, bool))).max() < 0.1


def test_exposure_changes_over_time() -> None:
    steady, changing = (
        RenderedWorld(small(), "mono"),
        RenderedWorld(small(exposure_change=0.2), "mono"),
    )
    assert changing[0].image.mean() == pytest.approx(steady[0].image.mean(), rel=0.01)
    assert changing[20].image.mean() == pytest.approx(1.2 * steady[20].image.mean(), rel=0.02)


def test_another_seed_is_another_world() -> None:
    spec = small(texels_per_m=64.0)
    first, second = (
        RenderedWorld(spec, "mono")[0].image,
        RenderedWorld(replace(spec, seed=2), "mono")[0].image,
    )
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.4


# --- reproducibility ---


def test_order_of_access_does_not_matter() -> None:
    spec = small(noise_sigma=1.5, frames=6)
    forward = list(RenderedWorld(spec))
    world = RenderedWorld(spec)
    for i in (4, 0, 5, 4):
        np.testing.assert_array_equal(world[i].image, forward[i].image)
        np.testing.assert_array_equal(world[i].image_right, forward[i].image_right)


def test_fewer_frames_are_the_first_frames() -> None:
    short, full = RenderedWorld(small(frames=3)), RenderedWorld(small())
    np.testing.assert_array_equal(short[2].image, full[2].image)
    np.testing.assert_array_equal(true_poses(short), true_poses(full)[:3])


# --- the cache ---

COARSE = small(texels_per_m=48.0, width=160, height=120, frames=2)


def test_cached_textures_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPSLAM_CACHE", str(tmp_path))
    first = RenderedWorld(COARSE)[0].image
    stored = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.suffix for path in stored] == [".textures"]

    def refuse(*_: object) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(world_cache, "build_atlas", refuse)
    np.testing.assert_array_equal(RenderedWorld(COARSE)[0].image, first)
    with pytest.raises(AssertionError, match="drawn again"):
        RenderedWorld(replace(COARSE, seed=3))[0]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "shape", "empty", "foreign"])
def test_damaged_cache_is_drawn_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: str
) -> None:
    monkeypatch.setenv("SPSLAM_CACHE", str(tmp_path))
    first = RenderedWorld(COARSE)[0].image
    (stored,) = tmp_path.rglob("*.textures")
    good = stored.read_bytes()
    middle = len(good) // 2
    stored.write_bytes(
        {
            "truncated": good[:middle],
            "flipped": good[:middle]
            + bytes(255 - byte for byte in good[middle : middle + 64])
            + good[middle + 64 :],
            # The archive's own checksum is checked only when the whole member is read.
            "shape": good.replace(b"'shape': (", b"'shape': (1,", 1),
            "empty": b"",
            "foreign": b"not an archive",
        }[damage]
    )
    np.testing.assert_array_equal(RenderedWorld(COARSE)[0].image, first)
    assert stored.read_bytes() == good


def test_a_cache_folder_that_cannot_be_written_is_skipped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SPSLAM_CACHE", str(tmp_path / "file"))
    blocked = RenderedWorld(COARSE)[1].image
    monkeypatch.setenv("SPSLAM_CACHE", str(tmp_path / "folder"))
    np.testing.assert_array_equal(RenderedWorld(COARSE)[1].image, blocked)


def test_cache_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cache_folder() != tmp_path / "spslam"
    monkeypatch.delenv("SPSLAM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "spslam"


def test_threads_may_share_a_world() -> None:
    world = RenderedWorld(COARSE)
    expected = [world[i % 2].image for i in range(24)]
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda i: world[i % 2].image, range(24)))
    for image, alone in zip(images, expected, strict=True):
        np.testing.assert_array_equal(image, alone)
