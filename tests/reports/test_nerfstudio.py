"""The folder for Gaussian splatting, read as a renderer of nerfstudio reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from world_images import ColoredWorld

from spslam import geometry
from spslam.camera import Camera
from spslam.errors import DatasetError, FrameError, MapError, OutputError
from spslam.frame import Frame, Observations, Sensor, colors_at
from spslam.map.map import Map, Origin
from spslam.map.submaps import append_map, points_of
from spslam.reports.nerfstudio import DEPTH_UNIT_M, write_nerfstudio

# Keyframes of the maps below, indices of their frames.
FRAMES = (0, 20, 40)


def map_of(sequence: ColoredWorld, sensor: Sensor) -> Map:
    """The true map of keyframes: points on the surfaces, observed where they project."""
    camera = sequence.camera.without_distortion()
    if sensor == "rgbd":
        camera = replace(camera, baseline_m=0.08)
    found, points, ids = Map(4), np.zeros((0, 3)), np.zeros(0, np.int64)
    rng = np.random.default_rng(0)
    for index in FRAMES:
        frame, depth = sequence[index], sequence.true_depth(index)
        assert sequence.ground_truth is not None
        T = sequence.ground_truth.T_world_cam[index]
        near = geometry.apply(geometry.inverse(T), points)
        old = np.flatnonzero(camera.in_image(camera.project(near), 12.0) & (near[:, 2] > 0.2))
        # New points at whole pixels, whose depth is exact.
        pixels = np.stack(
            [rng.integers(20, camera.width - 20, 60), rng.integers(20, camera.height - 20, 60)], 1
        ).astype(float)
        z = depth[pixels[:, 1].astype(int), pixels[:, 0].astype(int)].astype(float)
        fresh = geometry.apply(T, camera.unproject(pixels, z))
        all_pixels = np.concatenate([camera.project(near[old]), pixels])
        depths = np.concatenate([near[old, 2], z])
        raw = sequence.camera.distort(all_pixels)
        seen = Observations(
            index=index,
            timestamp=frame.timestamp,
            pixels=all_pixels,
            descriptors=np.eye(4, dtype=np.float32)[np.arange(len(raw)) % 4],
            scores=np.ones(len(raw), np.float32),
            relative_sigma=np.ones(len(raw), np.float32),
            u_right=all_pixels[:, 0] - camera.bf / depths if camera.has_depth else depths * np.nan,
            depth=depths if camera.has_depth else depths * np.nan,
            delays=np.zeros(len(raw)),
            colors=colors_at(frame, raw),
        )
        none = np.full(len(pixels), -1)
        keyframe = found.add_keyframe(seen, T, np.concatenate([ids[old], none]))
        rows = np.arange(len(pixels)) + found.observation_rows(keyframe).start + len(old)
        ids = np.concatenate([ids, found.add_points(keyframe, fresh, rows)])
        points = np.concatenate([points, fresh])
    found.origin = Origin(sensor, camera, "orb", "baseline")
    return found


class Renderer:
    """Projects points as nerfstudio and 3-D Gaussian splatting do; knows nothing of spslam."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scene = json.loads((folder / "transforms.json").read_text())
        assert self.scene["camera_model"] == "OPENCV"
        assert [self.scene[name] for name in ("k1", "k2", "p1", "p2")] == [0.0] * 4
        header, _, body = (
            (folder / self.scene["ply_file_path"]).read_bytes().partition(b"end_header\n")
        )
        count = int(header.split(b"element vertex ")[1].split()[0])
        fields: Any = [(name, "<f4") for name in "xyz"]
        if b"property uchar red" in header:
            fields += [(name, "u1") for name in ("red", "green", "blue")]
        self.vertices = np.frombuffer(body, dtype=fields)
        assert len(self.vertices) == count
        self.points = np.stack([self.vertices[name] for name in "xyz"], axis=1).astype(float)

    def frames(self) -> Iterator[dict[str, Any]]:
        yield from self.scene["frames"]

    def project(self, frame: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (N, 2), first pixel at 0.5, and depths (N,) of the points of the PLY file."""
        camera_to_world = np.array(frame["transform_matrix"])
        seen = (self.points - camera_to_world[:3, 3]) @ camera_to_world[:3, :3]
        depth = -seen[:, 2]
        x = self.scene["fl_x"] * seen[:, 0] / depth + self.scene["cx"]
        y = self.scene["cy"] - self.scene["fl_y"] * seen[:, 1] / depth
        return np.stack([x, y], axis=1), depth

    def image(self, frame: dict[str, Any], key: str = "file_path") -> np.ndarray:
        found = cv2.imread(str(self.folder / frame[key]), cv2.IMREAD_UNCHANGED)
        assert found is not None and found.shape[:2] == (self.scene["h"], self.scene["w"])
        return np.asarray(found)


def exported(tmp_path: Path, sensor: Sensor, sequence: ColoredWorld) -> tuple[Map, Renderer]:
    slam_map = map_of(sequence, sensor)
    summary = write_nerfstudio(tmp_path / "scene", slam_map, 0, sequence)
    renderer = Renderer(tmp_path / "scene")
    assert summary.images == len(renderer.scene["frames"])
    assert summary.points == len(renderer.points) == len(slam_map.points)
    return slam_map, renderer


@pytest.mark.parametrize("sensor", ["mono", "stereo", "rgbd"])
def test_points_project_to_their_observations_in_every_image(
    tmp_path: Path, sensor: Sensor
) -> None:
    slam_map, renderer = exported(tmp_path, sensor, ColoredWorld(sensor))
    frames = {frame["file_path"]: frame for frame in renderer.frames()}
    sides = ["", "right/"] if sensor == "stereo" else [""]
    assert list(frames) == [
        f"images/{side}frame_{index:06d}.png" for index in FRAMES for side in sides
    ]
    rows = slam_map.point_rows(slam_map.observations["point"])
    for keyframe, index in enumerate(FRAMES):
        at = slam_map.observation_rows(keyframe)
        pixels = slam_map.observations["pixel"][at]
        for side in sides:
            found, depth = renderer.project(frames[f"images/{side}frame_{index:06d}.png"])
            if side:
                pixels = np.stack([slam_map.observations["u_right"][at], pixels[:, 1]], axis=1)
            assert np.abs(found[rows[at]] - (pixels + 0.5)).max() < 1e-3, "pixels"
            assert (depth[rows[at]] > 0).all()


@pytest.mark.parametrize("sensor", ["mono", "stereo"])
def test_points_have_the_colour_of_the_images_where_they_project(
    tmp_path: Path, sensor: Sensor
) -> None:
    _, renderer = exported(tmp_path, sensor, ColoredWorld(sensor))
    colors = np.stack([renderer.vertices[name] for name in ("blue", "green", "red")], axis=1)
    assert np.ptp(colors.astype(int), axis=1).max() > 40, "the images are in colour"
    checked = 0
    for frame in renderer.frames():
        pixels, depth = renderer.project(frame)
        image = renderer.image(frame)
        assert image.ndim == 3
        # The pixel that holds the point.
        column, row = np.floor(pixels).astype(int).T
        inside = (column >= 0) & (row >= 0) & (column < 320) & (row < 240) & (depth > 0)
        shown = image[row[inside], column[inside]].astype(int)
        off = np.abs(shown - colors[inside]).max(axis=1)
        # Points can be hidden, and textures have edges; noise is 1.5 grey levels.
        assert np.median(off) < 8
        checked += len(off)
    assert checked > 200


def test_a_grey_recording_gives_grey_images_and_points(tmp_path: Path) -> None:
    sequence = ColoredWorld("mono", colored=False)
    _, renderer = exported(tmp_path, "mono", sequence)
    frame = next(renderer.frames())
    assert np.array_equal(renderer.image(frame), sequence[0].image)
    colors = np.stack([renderer.vertices[name] for name in ("blue", "green", "red")], axis=1)
    assert (colors == colors[:, :1]).all() and np.ptp(colors) > 40


def test_depth_images_are_in_millimetres(tmp_path: Path) -> None:
    sequence = ColoredWorld("rgbd")
    slam_map, renderer = exported(tmp_path, "rgbd", sequence)
    assert renderer.scene["depth_unit_scale_factor"] == DEPTH_UNIT_M == 0.001
    for keyframe, frame in enumerate(renderer.frames()):
        depth = renderer.image(frame, "depth_file_path")
        assert depth.dtype == np.uint16
        at = slam_map.observation_rows(keyframe)
        # The last 60 keypoints of a keyframe are at whole pixels.
        pixels = slam_map.observations["pixel"][at][-60:].astype(int)
        found = depth[pixels[:, 1], pixels[:, 0]] * DEPTH_UNIT_M
        assert np.abs(found - slam_map.observations["depth"][at][-60:]).max() <= 0.0005 + 1e-6


def test_depths_that_do_not_fit_are_unknown_and_counted(tmp_path: Path) -> None:
    sequence = ColoredWorld("rgbd", depth_factor=40.0)
    slam_map = map_of(sequence, "rgbd")
    summary = write_nerfstudio(tmp_path / "scene", slam_map, 0, sequence)
    renderer = Renderer(tmp_path / "scene")
    found = [renderer.image(frame, "depth_file_path") for frame in renderer.frames()]
    assert summary.too_far == sum(int((depth == 0).sum()) for depth in found) > 0


def test_the_world_is_upright_and_the_applied_transform_says_how(tmp_path: Path) -> None:
    slam_map, renderer = exported(tmp_path, "mono", ColoredWorld("mono"))
    applied = np.array(renderer.scene["applied_transform"])
    moved = slam_map.positions @ applied[:, :3].T + applied[:, 3]
    np.testing.assert_allclose(moved, renderer.points, rtol=1e-6, atol=1e-6)
    assert np.linalg.det(applied[:, :3]) == 1
    for keyframe, frame in enumerate(renderer.frames()):
        transform = np.array(frame["transform_matrix"])
        np.testing.assert_allclose(transform[:3, :3].T @ transform[:3, :3], np.eye(3), atol=1e-12)
        down = slam_map.T_world_keyframe[keyframe, :3, 1] @ applied[:, :3].T
        np.testing.assert_allclose(transform[:3, 1], -down, atol=1e-12)
        assert transform[2, 1] > 0.7, "the camera's up is the world's z, roughly"


@pytest.mark.parametrize(
    ("model", "distortion"),
    [("radtan", (0.25, -0.1, 0.002, -0.001)), ("equidistant", (0.02, -0.01, 0.0, 0.0))],
)
def test_images_are_undistorted_and_their_border_is_masked(
    tmp_path: Path, model: str, distortion: tuple[float, ...]
) -> None:
    sequence = ColoredWorld("rgbd", distortion_model=model, distortion=distortion)
    ideal = ColoredWorld("rgbd")
    _, renderer = exported(tmp_path, "rgbd", sequence)
    for frame, index in zip(renderer.frames(), FRAMES, strict=True):
        image, mask = renderer.image(frame), np.ones((240, 320), dtype=bool)
        # The ideal camera sees less than the equidistant lens, and more than the other one.
        assert ("mask_path" in frame) == (model == "radtan")
        if model == "radtan":
            mask = renderer.image(frame, "mask_path") > 0
            assert 0.5 < mask.mean() < 1.0
        color = ideal[index].color
        assert color is not None
        expected = cv2.cvtColor(color.image(), cv2.COLOR_RGB2BGR)
        off = np.abs(image.astype(int) - expected)[mask]
        # The lens interpolates once, undistortion once more: edges are softer, not elsewhere.
        assert np.median(off) <= 3
        moved = np.abs(np.roll(image, 2, axis=1).astype(int) - expected)[mask]
        assert off.mean() < 0.5 * moved.mean(), "two pixels beside, the images differ"
        depth = renderer.image(frame, "depth_file_path") * DEPTH_UNIT_M
        assert np.median(np.abs(depth - ideal.true_depth(index))[mask]) < 0.01


# -- refusals and notices --------------------------------------------------------------------------


def test_an_earlier_export_is_replaced_as_a_whole_but_its_models_stay(tmp_path: Path) -> None:
    sequence = ColoredWorld("mono")
    slam_map = map_of(sequence, "mono")
    write_nerfstudio(tmp_path / "scene", slam_map, 0, sequence)
    (tmp_path / "scene/sparse").mkdir()
    (tmp_path / "scene/sparse/mine").write_text("kept")
    slam_map.remove_keyframe(1)
    write_nerfstudio(tmp_path / "scene", slam_map, 0, sequence)
    assert sorted(path.name for path in (tmp_path / "scene/images").iterdir()) == [
        "frame_000000.png",
        "frame_000040.png",
    ]
    assert (tmp_path / "scene/sparse/mine").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["scene"], "no hidden folder is left"


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    sequence = ColoredWorld("mono")
    slam_map = map_of(sequence, "mono")
    for name, text in (("notes", ""), ("transforms.json", "{}"), ("points.ply", "")):
        theirs = tmp_path / name.replace(".", "-")
        theirs.mkdir()
        (theirs / name).write_text(text)
        with pytest.raises(OutputError, match=f"found {name}"):
            write_nerfstudio(theirs, slam_map, 0, sequence)
        assert [path.name for path in theirs.iterdir()] == [name]
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="must be a folder"):
        write_nerfstudio(tmp_path / "file", slam_map, 0, sequence)
    with pytest.raises(OutputError, match="cannot write"):
        write_nerfstudio(tmp_path / "file/scene", slam_map, 0, sequence)


def test_another_recording_or_camera_is_refused(tmp_path: Path) -> None:
    sequence = ColoredWorld("mono")
    slam_map = map_of(sequence, "mono")
    slam_map.keyframes["timestamp"][1] += 0.01
    with pytest.raises(DatasetError, match=r"frame 20 .* is of 1\.0+ s, that of the map of 1\.01"):
        write_nerfstudio(tmp_path / "scene", slam_map, 0, sequence)
    slam_map = map_of(sequence, "mono")
    slam_map.keyframes["frame"][2] = 4000
    with pytest.raises(DatasetError, match="has no frame 4000"):
        write_nerfstudio(tmp_path / "scene", slam_map, 0, sequence)
    slam_map = map_of(sequence, "mono")
    assert slam_map.origin is not None
    other = Camera(320, 240, 200.0, 200.0, 160.0, 120.0)
    slam_map.origin = replace(slam_map.origin, camera=other)
    with pytest.raises(DatasetError, match="is not that of the map"):
        write_nerfstudio(tmp_path / "scene", slam_map, 0, sequence)
    assert list(tmp_path.iterdir()) == []


def test_unreadable_images_and_other_sessions_are_left_out_and_counted(tmp_path: Path) -> None:
    sequence = ColoredWorld("mono", unreadable=(20,))
    slam_map = map_of(ColoredWorld("mono"), "mono")
    other = map_of(ColoredWorld("mono"), "mono")
    append_map(slam_map, other)
    slam_map.keyframes["submap"][:] = 0
    summary = write_nerfstudio(tmp_path / "scene", slam_map, 0, sequence)
    assert (summary.images, summary.left_out, summary.unreadable) == (2, 3, [20])
    assert summary.points == len(points_of(slam_map, 0))
    assert (tmp_path / "scene/images/session_1/frame_000000.png").is_file()
    with pytest.raises(MapError, match="no keyframes of session 7: found 0, 1"):
        write_nerfstudio(tmp_path / "scene", slam_map, 0, sequence, session=7)
    blind = ColoredWorld("mono", unreadable=FRAMES)
    with pytest.raises(DatasetError, match="no image of the map's 3 keyframes"):
        write_nerfstudio(tmp_path / "other", slam_map, 0, blind, session=0)
    with pytest.raises(FrameError):
        blind[FRAMES[0]]
    frame: Frame = sequence[0]
    assert frame.index == 0
