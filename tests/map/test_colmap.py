"""COLMAP models: COLMAP's own reader finds what the map holds, in text and in binary."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from spslam import geometry
from spslam.errors import MapError, OutputError
from spslam.map.colmap import COLMAP_FILES, MARK_FILE, right_name, write_colmap
from spslam.map.colors import point_colors
from spslam.map.export import extract_submap
from spslam.map.map import Map, Origin
from spslam.map.submaps import points_of

FORMATS = ["text", "binary", "both"]
TEXT_FILES = [f"{name}.txt" for name in COLMAP_FILES]
BINARY_FILES = [f"{name}.bin" for name in COLMAP_FILES]


def colmap() -> ModuleType:
    """COLMAP's own code; tests that use it are skipped if it is missing."""
    module: ModuleType = pytest.importorskip("pycolmap")
    return module


def read(folder: Path) -> Any:
    """The model as COLMAP's own reader returns it."""
    model = colmap().Reconstruction()
    model.read(str(folder))
    return model


def matrix(rigid: Any) -> np.ndarray:
    T = np.eye(4)
    T[:3] = rigid.matrix()
    return T


def check_image(one: Map, keyframe_id: int, image: Any, right: bool) -> None:
    """Compare the pose, keypoints and links of an image with those of its keyframe."""
    T_cam_world = geometry.inverse(one.pose(keyframe_id))
    rows = np.arange(len(one.observations))[one.observation_rows(keyframe_id)]
    if right:
        T_cam_world[0, 3] -= 0.12
        rows = rows[np.isfinite(one.observations["u_right"][rows])]
    assert np.allclose(matrix(image.cam_from_world()), T_cam_world, atol=1e-12)
    expected = one.observations["pixel"][rows] + 0.5
    if right:
        expected[:, 0] = one.observations["u_right"][rows] + 0.5
    assert np.array_equal(np.array([found.xy for found in image.points2D]), expected)
    linked = one.observations["point"][rows]
    seen = [found.point3D_id if found.has_point3D() else -1 for found in image.points2D]
    assert seen == np.where(linked >= 0, linked + 1, -1).tolist()


@pytest.mark.parametrize("formats", FORMATS)
@pytest.mark.parametrize("submap", [0, 1])
def test_colmap_reads_poses_points_and_tracks(
    slam_map: Map, tmp_path: Path, submap: int, formats: str
) -> None:
    summary = write_colmap(tmp_path / "new/model", slam_map, submap, formats)
    expected = TEXT_FILES if formats == "text" else [*BINARY_FILES, MARK_FILE]
    expected = [*expected, *TEXT_FILES] if formats == "both" else expected
    assert sorted(path.name for path in (tmp_path / "new/model").iterdir()) == sorted(expected)
    model = read(tmp_path / "new/model")
    one = extract_submap(slam_map, submap)
    ids, offset = one.keyframes["id"], one.next_ids[1]
    assert sorted(model.images) == [*(ids + 1).tolist(), *(ids + 1 + offset).tolist()]
    # Every point of this map is seen by a stereo pair, so none is left out.
    assert sorted(model.points3D) == (one.points["id"] + 1).tolist()
    for keyframe_id in ids.tolist():
        left, right = model.images[keyframe_id + 1], model.images[keyframe_id + 1 + offset]
        assert right.name == right_name(left.name)
        check_image(one, keyframe_id, left, right=False)
        check_image(one, keyframe_id, right, right=True)
    colors = point_colors(one, one.points["id"])
    assert (colors is not None) == summary.colored == (submap == 0)
    for row, point_id in enumerate(one.points["id"].tolist()):
        point = model.points3D[point_id + 1]
        assert np.array_equal(point.xyz, one.positions[row])
        expected_color = [128] * 3 if colors is None else colors[row].tolist()
        assert point.color.tolist() == expected_color
        seen_in = one.rows_of_points(np.array([point_id]))
        assert point.track.length() == 2 * len(seen_in)
        for element in point.track.elements:
            seen = model.images[element.image_id].points2D[element.point2D_idx]
            assert seen.point3D_id == point_id + 1
    assert (summary.images, summary.points) == (model.num_images(), model.num_points3D())
    assert summary.observations == model.compute_num_observations()


@pytest.mark.parametrize("formats", ["text", "binary"])
def test_stereo_pairs_are_frames_of_a_rig(slam_map: Map, tmp_path: Path, formats: str) -> None:
    write_colmap(tmp_path, slam_map, 0, formats)
    model = read(tmp_path)
    assert (model.num_rigs(), model.num_cameras(), model.num_frames()) == (1, 2, 6)
    rig = model.rigs[1]
    assert rig.num_sensors() == 2 and rig.ref_sensor_id.id == 1
    (sensor,) = rig.non_ref_sensors
    expected = np.eye(4)
    expected[0, 3] = -0.12
    assert sensor.id == 2
    assert np.array_equal(matrix(rig.sensor_from_rig(sensor)), expected)
    for keyframe_id in range(6):
        frame = model.frames[keyframe_id + 1]
        T = geometry.inverse(slam_map.pose(keyframe_id))
        assert np.allclose(matrix(frame.rig_from_world), T, atol=1e-12)
        assert sorted(data.id for data in frame.data_ids) == [keyframe_id + 1, keyframe_id + 10]


@pytest.mark.parametrize("formats", ["text", "binary"])
def test_a_single_camera_is_a_rig_of_its_own(mono_map: Map, tmp_path: Path, formats: str) -> None:
    write_colmap(tmp_path, mono_map, 0, formats)
    model = read(tmp_path)
    assert (model.num_rigs(), model.num_cameras(), model.num_frames()) == (1, 1, 5)
    assert model.rigs[1].num_sensors() == 1
    assert [image.name for _, image in sorted(model.images.items())] == [
        f"frame_{frame:06d}.png" for frame in range(5)
    ]


@pytest.mark.parametrize("formats", ["text", "binary"])
def test_points_that_one_image_sees_are_left_out(
    mono_map: Map, tmp_path: Path, formats: str
) -> None:
    counts = mono_map.observation_counts()
    assert 0 < np.count_nonzero(counts < 2) < len(counts)
    write_colmap(tmp_path, mono_map, 0, formats)
    assert sorted(read(tmp_path).points3D) == (mono_map.points["id"][counts >= 2] + 1).tolist()


@pytest.mark.parametrize("formats", ["text", "binary"])
def test_colmap_writes_the_same_files(slam_map: Map, tmp_path: Path, formats: str) -> None:
    """COLMAP writes what it read: no field is missing, none is ignored."""
    for folder in ("ours", "theirs", "again"):
        (tmp_path / folder).mkdir()
    write_colmap(tmp_path / "ours", slam_map, 0, formats)
    model = read(tmp_path / "ours")
    if formats == "binary":
        model.write_binary(str(tmp_path / "theirs"))
        for name in ("cameras.bin", "rigs.bin", "frames.bin"):
            written = (tmp_path / "ours" / name).read_bytes()
            assert written == (tmp_path / "theirs" / name).read_bytes(), name
        sizes = [
            sum((tmp_path / folder / name).stat().st_size for name in BINARY_FILES)
            for folder in ("ours", "theirs")
        ]
        assert sizes[0] == sizes[1]
        return
    model.write_text(str(tmp_path / "theirs"))
    for name in ("cameras.txt", "rigs.txt", "frames.txt"):
        ours, theirs = (
            [
                [float(cell) if cell[-1].isdigit() else cell for cell in line.split()]
                for line in (tmp_path / folder / name).read_text().splitlines()
                if not line.startswith("#")
            ]
            for folder in ("ours", "theirs")
        )
        assert ours == theirs, name


@pytest.mark.parametrize("formats", ["text", "binary"])
def test_colmap_finds_the_same_reprojection_errors(
    slam_map: Map, noise_px: float, tmp_path: Path, formats: str
) -> None:
    summary = write_colmap(tmp_path, slam_map, 0, formats)
    model = read(tmp_path)
    stored = {point_id: point.error for point_id, point in model.points3D.items()}
    assert summary.mean_error_px == pytest.approx(model.compute_mean_reprojection_error(), abs=1e-9)
    # Left: the mean length of two-dimensional noise is sqrt(pi / 2) of its standard deviation.
    # Right: x has the noise of the keypoint and of the disparity, sqrt(2) as much.
    assert 1.2 * noise_px < summary.mean_error_px < 1.7 * noise_px
    # COLMAP's own error, from its camera, poses and pixels: a shift of half a pixel would show.
    model.update_point_3d_errors()
    assert {point_id: point.error for point_id, point in model.points3D.items()} == pytest.approx(
        stored, abs=1e-9
    )


def test_colmap_refines_the_model(slam_map: Map, tmp_path: Path) -> None:
    write_colmap(tmp_path, slam_map, 0)
    model = read(tmp_path)
    before = model.compute_mean_reprojection_error()
    options = colmap().BundleAdjustmentOptions()
    options.refine_focal_length = options.refine_extra_params = False
    colmap().bundle_adjustment(model, options)
    model.update_point_3d_errors()
    # True poses and points change to those that fit the noise.
    assert 0.5 * before < model.compute_mean_reprojection_error() < before


def test_colmap_camera_counts_pixels_from_the_corner(slam_map: Map, tmp_path: Path) -> None:
    write_colmap(tmp_path, slam_map, 0)
    for camera in read(tmp_path).cameras.values():
        pinhole = colmap().CameraModelId.PINHOLE
        assert (camera.model, camera.width, camera.height) == (pinhole, 640, 480)
        # The centre of 640 × 480 pixels, in either convention.
        assert camera.params.tolist() == [400.0, 400.0, 320.0, 240.0]


def test_image_names_of_several_sessions(slam_map: Map, tmp_path: Path) -> None:
    write_colmap(tmp_path, slam_map, 1)
    assert [image.name for _, image in sorted(read(tmp_path).images.items())] == [
        *(f"session_1/frame_{frame:06d}.png" for frame in range(3)),
        *(f"right/session_1/frame_{frame:06d}.png" for frame in range(3)),
    ]


@pytest.mark.parametrize("formats", ["text", "binary"])
def test_empty_keyframes_and_points_behind_the_camera(
    slam_map: Map, tmp_path: Path, formats: str
) -> None:
    slam_map.unlink(slam_map.rows_of_keyframes(np.array([2])))
    point_id = int(points_of(slam_map, 0)[3])
    slam_map.positions[slam_map.point_rows(np.array([point_id]))] = (0.0, 0.0, -50.0)
    summary = write_colmap(tmp_path, slam_map, 0, formats)
    model = read(tmp_path)
    assert model.points3D[point_id + 1].error == -1
    assert model.images[3].num_points3D == 0
    assert np.isfinite(summary.mean_error_px)


@pytest.mark.parametrize("formats", ["text", "binary"])
def test_a_model_without_keypoints(landmarks, tmp_path: Path, formats: str) -> None:
    scene = landmarks.box()
    empty = scene.map_of([scene.pose(z=50.0)])
    empty.origin = Origin("stereo", scene.camera, "orb", "baseline")
    assert np.isnan(write_colmap(tmp_path, empty, 0, formats).mean_error_px)
    assert read(tmp_path).num_images() == 2


def test_an_earlier_model_is_replaced_in_any_format(slam_map: Map, tmp_path: Path) -> None:
    write_colmap(tmp_path, slam_map, 0, "both")
    # A binary file that stays would be read instead of the new text files.
    write_colmap(tmp_path, slam_map, 1, "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(TEXT_FILES)
    assert read(tmp_path).num_frames() == 3
    write_colmap(tmp_path, slam_map, 0, "binary")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*BINARY_FILES, MARK_FILE])
    assert read(tmp_path).num_frames() == 6


def test_a_folder_with_other_files_is_left_alone(slam_map: Map, tmp_path: Path) -> None:
    write_colmap(tmp_path, slam_map, 0)
    (tmp_path / "project.ini").write_text("mine")
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputError, match=r"found project\.ini") as error:
        write_colmap(tmp_path, slam_map, 0)
    assert "\n" not in str(error.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == after
    with pytest.raises(OutputError, match="cannot write a COLMAP model"):
        write_colmap(tmp_path / "project.ini", slam_map, 0)


def test_a_map_without_a_camera_is_not_exported(landmarks, tmp_path: Path) -> None:
    scene = landmarks.box()
    with pytest.raises(MapError, match="which camera"):
        write_colmap(tmp_path / "model", scene.map_of([scene.pose()]), 0)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", [*TEXT_FILES, *BINARY_FILES, MARK_FILE])
def test_a_model_of_another_program_is_left_alone(name: str, slam_map: Map, tmp_path: Path) -> None:
    theirs = (
        "# Camera list with one line of data per camera:\n"
        "#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n"
    )
    (tmp_path / name).write_text(theirs)
    with pytest.raises(OutputError, match=rf"found {name}.*; name another folder"):
        write_colmap(tmp_path, slam_map, 0)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: theirs}


@pytest.mark.parametrize("formats", ["text", "binary"])
def test_a_model_that_colmap_changed_is_left_alone(
    slam_map: Map, tmp_path: Path, formats: str
) -> None:
    """COLMAP drops the mark of spslam when it rewrites the model, e.g. after bundle adjustment."""
    write_colmap(tmp_path, slam_map, 0, formats)
    model = read(tmp_path)
    model.points3D[int(points_of(slam_map, 0)[3]) + 1].xyz = np.zeros(3)
    if formats == "text":
        model.write_text(str(tmp_path))
    else:
        model.write_binary(str(tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputError, match="left alone"):
        write_colmap(tmp_path, slam_map, 0)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["cameras.txt", "cameras.bin"])
def test_a_folder_of_links_is_left_alone(slam_map: Map, tmp_path: Path, name: str) -> None:
    write_colmap(tmp_path / "theirs", slam_map, 0, "both")
    before = (tmp_path / "theirs" / name).read_bytes()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / name).symlink_to(f"../theirs/{name}")
    with pytest.raises(OutputError, match=rf"found {name}"):
        write_colmap(tmp_path / "model", slam_map, 1)
    assert (tmp_path / "theirs" / name).read_bytes() == before
