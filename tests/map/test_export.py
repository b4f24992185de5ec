"""Exports of maps: other programs read what the map holds."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import g2opy as g2o
import numpy as np
import pytest
from map_files import place_arrays

from spslam import geometry
from spslam.backend.pose_graph import G2oPoseGraph, read_g2o, write_g2o
from spslam.errors import MapError, OutputError
from spslam.map.export import (
    COLMAP_FILES,
    choose_submap,
    describe_map,
    extent,
    extract_submap,
    reprojection_errors,
    submap_graph,
    write_colmap,
)
from spslam.map.io import SavedMap, load_map, save_map
from spslam.map.map import Map, Origin
from spslam.map.submaps import append_map, keyframes_of, move_submap, points_of, scene_of

NOISE_PX = 0.5


@pytest.fixture
def slam_map(landmarks) -> Map:
    """Submap 0: six rotated keyframes with noise, a loop and removed points; submap 1: three more.

    Submap 1 is from another session.
    """
    scene = landmarks.box()
    found = scene.map_of(
        [scene.pose(0.1 * i, 0.03 * i, 0.05 * i, 0.04 * i) for i in range(6)], noise_px=NOISE_PX
    )
    found.origin = Origin("stereo", scene.camera, "superpoint 0123456789ab", "baseline")
    found.remove_points(np.array([0, 7]))
    found.loops.append(
        1,
        i=0,
        j=5,
        S_i_j=geometry.inverse(found.pose(0)) @ found.pose(5),
        information=np.eye(7),
        inliers=77,
    )
    other = scene.map_of([scene.pose(0.2 * i, z=-0.5) for i in range(3)], noise_px=NOISE_PX)
    append_map(found, other)
    return found


@pytest.fixture
def mono_map(landmarks) -> Map:
    scene = landmarks.box()
    found = scene.map_of([scene.pose(0.1 * i, yaw=0.02 * i) for i in range(5)], depth=False)
    found.origin = Origin("mono", scene.mono, "orb", "arbitrary")
    S_i_j = geometry.inverse(found.pose(0)) @ found.pose(4)
    S_i_j[:3, :3] *= 1.25
    found.loops.append(1, i=0, j=4, S_i_j=S_i_j, information=1e8 * np.eye(7), inliers=50)
    return found


# -- submaps ---------------------------------------------------------------------------------------


def test_the_main_submap_has_the_most_keyframes(slam_map: Map) -> None:
    assert choose_submap(slam_map) == 0
    assert choose_submap(slam_map, 1) == 1
    slam_map.keyframes["submap"][2:6] = 1
    assert choose_submap(slam_map) == 1
    with pytest.raises(MapError, match="no submap 5: found 0, 1"):
        choose_submap(slam_map, 5)
    with pytest.raises(MapError, match="empty"):
        choose_submap(Map(8))


@pytest.mark.parametrize("submap", [0, 1])
def test_an_extracted_submap_has_its_own_data_only(slam_map: Map, submap: int) -> None:
    one = extract_submap(slam_map, submap)
    assert one.keyframes["id"].tolist() == keyframes_of(slam_map, submap).tolist()
    assert one.points["id"].tolist() == points_of(slam_map, submap).tolist()
    points, poses = scene_of(slam_map, submap)
    assert np.array_equal(one.positions, points) and np.array_equal(one.T_world_keyframe, poses)
    assert len(one.loops) == (1 if submap == 0 else 0)
    assert len(one.observations) == len(slam_map.rows_of_keyframes(keyframes_of(slam_map, submap)))
    assert one.points["descriptor"].shape == (len(points), 0)
    assert slam_map.points["descriptor"].shape == (len(slam_map.points), 32), "the map is unchanged"


def test_extent_ignores_a_few_far_points() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (2000, 3)) * (3, 2, 1)
    points[:5] = 1000.0
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[1, 2, 3] = 10.0
    assert extent(points, poses) == pytest.approx([6, 4, 11], rel=0.05)
    assert extent(np.zeros((0, 3)), poses) == pytest.approx([0, 0, 10])


# -- statistics ------------------------------------------------------------------------------------


def test_statistics_of_a_map(slam_map: Map, tmp_path: Path) -> None:
    save_map(tmp_path / "map.npz", slam_map, place_arrays(slam_map, [0, 1, 2]))
    info = describe_map(tmp_path / "map.npz", load_map(tmp_path / "map.npz"))
    linked = np.count_nonzero(slam_map.observations["point"] >= 0)
    assert info["path"] == str(tmp_path / "map.npz")
    assert info["format_version"] == int(np.load(tmp_path / "map.npz")["format_version"])
    assert info["size_mb"] == pytest.approx((tmp_path / "map.npz").stat().st_size / 1e6, abs=1e-3)
    assert info["camera"] == {
        "width": 640, "height": 480, "fx": 400.0, "fy": 400.0, "cx": 319.5, "cy": 239.5,
        "baseline_m": 0.12,
    }  # fmt: skip
    assert (info["sensor"], info["scale"], info["unit"]) == ("stereo", "baseline", "m")
    assert info["extractor"] == "superpoint 0123456789ab"
    assert (info["keyframes"], info["points"], info["loops"]) == (
        9,
        len(slam_map.points),
        1,
    )
    assert (info["observations"], info["linked_observations"]) == (
        len(slam_map.observations),
        linked,
    )
    assert 0 < linked < len(slam_map.observations)
    assert info["points_per_keyframe"] == pytest.approx(linked / 9, abs=0.05)
    assert (info["sessions"], info["places"]) == (2, True)
    assert [(p["submap"], p["keyframes"], p["points"]) for p in info["submaps"]] == [
        (submap, count, len(points_of(slam_map, submap))) for submap, count in ((0, 6), (1, 3))
    ]
    # The box is 6 × 4 × 3 m, 3 m in front of the first camera; the second submap begins 0.5 m
    # behind that camera.
    assert info["submaps"][0]["extent"] == pytest.approx([6, 4, 6], abs=0.6)
    assert info["submaps"][1]["extent"][2] == pytest.approx(6.5, abs=0.3)


def test_statistics_of_an_empty_map_and_a_mono_map(mono_map: Map, tmp_path: Path) -> None:
    path = tmp_path / "map.npz"
    save_map(path, Map(8))
    info = describe_map(path, SavedMap(Map(8), {}))
    assert [
        info[key] for key in ("sensor", "camera", "extractor", "scale", "points_per_keyframe")
    ] == [None] * 5
    assert (info["keyframes"], info["submaps"], info["sessions"], info["places"]) == (
        0,
        [],
        0,
        False,
    )
    info = describe_map(path, SavedMap(mono_map, {}))
    assert (info["unit"], info["camera"]["baseline_m"]) == ("map units", None)


# -- COLMAP ----------------------------------------------------------------------------------------


def colmap() -> ModuleType:
    """COLMAP's own code; tests that use it are skipped if it is missing."""
    module: ModuleType = pytest.importorskip("pycolmap")
    return module


def read(folder: Path) -> Any:
    """The model as COLMAP's own reader returns it."""
    model = colmap().Reconstruction()
    model.read_text(str(folder))
    return model


@pytest.mark.parametrize("submap", [0, 1])
def test_colmap_reads_poses_points_and_tracks(slam_map: Map, tmp_path: Path, submap: int) -> None:
    summary = write_colmap(tmp_path / "new/model", slam_map, submap)
    assert sorted(path.name for path in (tmp_path / "new/model").iterdir()) == sorted(COLMAP_FILES)
    model = read(tmp_path / "new/model")
    one = extract_submap(slam_map, submap)
    single = one.points["id"][one.observation_counts() < 2]
    assert 0 < len(single) < len(one.points)
    one.remove_points(single)
    assert sorted(model.images) == (one.keyframes["id"] + 1).tolist()
    assert sorted(model.points3D) == (one.points["id"] + 1).tolist()
    for keyframe_id in one.keyframes["id"].tolist():
        image = model.images[keyframe_id + 1]
        T_cam_world = np.eye(4)
        T_cam_world[:3] = image.cam_from_world().matrix()
        assert np.allclose(T_cam_world, geometry.inverse(one.pose(keyframe_id)), atol=1e-12)
        rows = one.observation_rows(keyframe_id)
        pixels = np.array([point2d.xy for point2d in image.points2D])
        assert np.allclose(pixels, one.observations["pixel"][rows] + 0.5, atol=1e-6)
        seen = [point2d.point3D_id if point2d.has_point3D() else -1 for point2d in image.points2D]
        linked = one.observations["point"][rows]
        assert seen == np.where(linked >= 0, linked + 1, -1).tolist()
    for point_id, position in zip(one.points["id"].tolist(), one.positions, strict=True):
        point = model.points3D[point_id + 1]
        assert np.array_equal(point.xyz, position)
        assert point.color.tolist() == [128, 128, 128]
        seen_in = one.rows_of_points(np.array([point_id]))
        track = {(e.image_id, e.point2D_idx) for e in point.track.elements}
        keyframes = one.observations["keyframe"][seen_in]
        assert track == {
            (k + 1, row - one.observation_rows(k).start)
            for k, row in zip(keyframes.tolist(), seen_in.tolist(), strict=True)
        }
    assert (summary.images, summary.points) == (model.num_images(), model.num_points3D())
    assert summary.observations == model.compute_num_observations()


def test_colmap_finds_the_same_reprojection_errors(slam_map: Map, tmp_path: Path) -> None:
    summary = write_colmap(tmp_path, slam_map, 0)
    model = read(tmp_path)
    stored = {point_id: point.error for point_id, point in model.points3D.items()}
    assert summary.mean_error_px == pytest.approx(model.compute_mean_reprojection_error(), abs=1e-9)
    # The mean length of two-dimensional noise is sqrt(pi / 2) times its standard deviation.
    assert summary.mean_error_px == pytest.approx(np.sqrt(np.pi / 2) * NOISE_PX, rel=0.05)
    # COLMAP's own error, from its camera, poses and pixels: a shift of half a pixel would show
    # here.
    model.update_point_3d_errors()
    assert {point_id: point.error for point_id, point in model.points3D.items()} == pytest.approx(
        stored, abs=1e-5
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
    camera = read(tmp_path).cameras[1]
    assert (camera.model, camera.width, camera.height) == (colmap().CameraModelId.PINHOLE, 640, 480)
    # The centre of 640 × 480 pixels, in either convention.
    assert camera.params.tolist() == [400.0, 400.0, 320.0, 240.0]


def test_colmap_image_names(slam_map: Map, mono_map: Map, tmp_path: Path) -> None:
    write_colmap(tmp_path / "a", slam_map, 1)
    assert [i.name for _, i in sorted(read(tmp_path / "a").images.items())] == [
        f"session_1/frame_{frame:06d}.png" for frame in range(3)
    ]
    write_colmap(tmp_path / "b", mono_map, 0)
    assert [i.name for _, i in sorted(read(tmp_path / "b").images.items())] == [
        f"frame_{frame:06d}.png" for frame in range(5)
    ]


def test_colmap_model_with_empty_keyframes_and_points_behind_the_camera(
    slam_map: Map, tmp_path: Path
) -> None:
    slam_map.unlink(slam_map.rows_of_keyframes(np.array([2])))
    point_id = int(points_of(slam_map, 0)[3])
    slam_map.positions[slam_map.point_rows(np.array([point_id]))] = (0.0, 0.0, -50.0)
    assert slam_map.origin is not None
    errors = reprojection_errors(slam_map, slam_map.origin.camera)
    assert (
        np.flatnonzero(np.isnan(errors)).tolist()
        == slam_map.point_rows(np.array([point_id])).tolist()
    )
    summary = write_colmap(tmp_path, slam_map, 0)
    model = read(tmp_path)
    assert model.points3D[point_id + 1].error == -1
    assert model.images[3].num_points3D == 0
    assert summary.mean_error_px == pytest.approx(np.sqrt(np.pi / 2) * NOISE_PX, rel=0.05)


def test_colmap_model_without_keypoints(landmarks, tmp_path: Path) -> None:
    scene = landmarks.box()
    empty = scene.map_of([scene.pose(z=50.0)])
    empty.origin = Origin("stereo", scene.camera, "orb", "baseline")
    assert np.isnan(write_colmap(tmp_path, empty, 0).mean_error_px)
    assert read(tmp_path).num_images() == 1


def test_a_colmap_folder_with_other_files_is_left_alone(slam_map: Map, tmp_path: Path) -> None:
    write_colmap(tmp_path, slam_map, 0)
    before = (tmp_path / "images.txt").read_bytes()
    write_colmap(tmp_path, slam_map, 1)
    assert (tmp_path / "images.txt").read_bytes() != before, "an earlier model is replaced"
    (tmp_path / "rigs.txt").write_text("mine")
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputError, match=r"found rigs\.txt") as error:
        write_colmap(tmp_path, slam_map, 0)
    assert "\n" not in str(error.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == after
    with pytest.raises(OutputError, match="cannot write a COLMAP model"):
        write_colmap(tmp_path / "rigs.txt", slam_map, 0)


def test_a_map_without_a_camera_is_not_exported(landmarks, tmp_path: Path) -> None:
    scene = landmarks.box()
    found = scene.map_of([scene.pose()])
    with pytest.raises(MapError, match="which camera"):
        write_colmap(tmp_path / "model", found, 0)
    assert not (tmp_path / "model").exists()
    with pytest.raises(MapError, match="which camera"):
        submap_graph(found, 0, 30)


# -- pose graph ------------------------------------------------------------------------------------


@pytest.mark.parametrize("submap", [0, 1])
def test_the_graph_of_a_submap_is_read_back(slam_map: Map, tmp_path: Path, submap: int) -> None:
    nodes, edges, fixed = submap_graph(slam_map, submap, 30)
    assert np.array_equal(nodes, slam_map.T_world_keyframe[slam_map.keyframes["submap"] == submap])
    assert fixed.tolist() == [True] + [False] * (len(nodes) - 1)
    assert edges.robust.sum() == (1 if submap == 0 else 0)
    assert np.allclose(nodes[edges.i] @ edges.S_i_j, nodes[edges.j]), (
        "rows of the submap, not of the map"
    )
    write_g2o(tmp_path / "graph.g2o", nodes, edges, fixed)
    found = read_g2o(tmp_path / "graph.g2o")
    assert not found.with_scale
    assert np.allclose(found.S_world_node, nodes, atol=1e-12)
    assert np.array_equal(found.fixed, fixed)
    assert np.array_equal(found.edges.i, edges.i) and np.array_equal(found.edges.j, edges.j)
    assert np.allclose(found.edges.S_i_j, edges.S_i_j, atol=1e-12)
    assert np.allclose(found.edges.information, edges.information)


def test_edges_follow_from_shared_points(slam_map: Map) -> None:
    assert len(submap_graph(slam_map, 0, min_covisibility=10**6)[1].i) == 5 + 1, (
        "the chain and the loop edge"
    )
    assert len(submap_graph(slam_map, 0, 30)[1].i) == 6 * 5 / 2 + 1


def test_the_weights_of_a_submap_follow_from_its_own_depths(landmarks) -> None:
    scene = landmarks.box()
    near, far = (scene.map_of([scene.pose(0.1 * i) for i in range(2)]) for _ in range(2))
    near.origin = Origin("stereo", scene.camera, "orb", "baseline")
    alone = submap_graph(near, 0, 30)[1].information
    move_submap(far, 0, np.diag([30.0, 30.0, 30.0, 1.0]), 0)
    append_map(near, far)
    assert np.allclose(submap_graph(near, 0, 30)[1].information, alone), (
        "regardless of other submaps"
    )


def test_the_graph_of_a_mono_map_has_scales(mono_map: Map, tmp_path: Path) -> None:
    nodes, edges, fixed = submap_graph(mono_map, 0, 30)
    assert edges.information.shape[1:] == (7, 7)
    write_g2o(tmp_path / "graph.g2o", nodes, edges, fixed)
    found = read_g2o(tmp_path / "graph.g2o")
    assert found.with_scale
    assert np.allclose(found.S_world_node, nodes, atol=1e-12)
    assert np.allclose(found.edges.S_i_j, edges.S_i_j, atol=1e-12)
    assert geometry.similarity_scale(found.edges.S_i_j[-1]) == pytest.approx(1.25)
    moved = G2oPoseGraph().optimize(found.S_world_node, found.edges, found.fixed, with_scale=True)
    assert np.array_equal(moved[0], nodes[0])
    assert geometry.similarity_scale(moved[-1]) > 1.05, "the loop edge changes the scale"


@pytest.mark.parametrize("which", ["slam_map", "mono_map"])
def test_g2o_itself_reads_the_graph(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    nodes, edges, fixed = submap_graph(request.getfixturevalue(which), 0, 30)
    write_g2o(tmp_path / "graph.g2o", nodes, edges, fixed)
    optimizer = g2o.SparseOptimizer()
    assert optimizer.load(str(tmp_path / "graph.g2o"))
    assert len(optimizer.vertices()) == len(nodes)
    assert len(optimizer.edges()) == len(edges.i)
    assert [optimizer.vertex(row).fixed() for row in range(len(nodes))] == fixed.tolist()


@pytest.mark.parametrize("name", ["cameras.txt", "images.txt", "points3D.txt"])
def test_a_colmap_model_of_another_program_is_left_alone(
    name: str, slam_map: Map, tmp_path: Path
) -> None:
    theirs = (
        "# Camera list with one line of data per camera:\n"
        "#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n"
    )
    (tmp_path / name).write_text(theirs)
    with pytest.raises(OutputError, match=rf"found {name} of another program; name another folder"):
        write_colmap(tmp_path, slam_map, 0)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: theirs}
    # COLMAP drops the mark of spslam when it rewrites the model, e.g. after bundle adjustment.
    (tmp_path / name).unlink()
    write_colmap(tmp_path, slam_map, 0)
    read(tmp_path).write_text(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputError, match="left alone"):
        write_colmap(tmp_path, slam_map, 0)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_colmap_folder_of_links_is_left_alone(slam_map: Map, tmp_path: Path) -> None:
    write_colmap(tmp_path / "theirs", slam_map, 0)
    before = (tmp_path / "theirs" / "cameras.txt").read_bytes()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "cameras.txt").symlink_to("../theirs/cameras.txt")
    with pytest.raises(OutputError, match=r"found cameras\.txt"):
        write_colmap(tmp_path / "model", slam_map, 1)
    assert (tmp_path / "theirs" / "cameras.txt").read_bytes() == before
