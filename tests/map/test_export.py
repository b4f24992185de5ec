"""Exports of maps: other programs read what the map holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import g2opy as g2o
import numpy as np
import pytest
from map_files import place_arrays

from spslam import geometry
from spslam.backend.pose_graph import (
    G2oPoseGraph,
    information_to_g2o,
    read_g2o,
    write_g2o,
)
from spslam.errors import MapError
from spslam.map.export import (
    choose_submap,
    describe_map,
    extent,
    extract_submap,
    submap_graph,
)
from spslam.map.io import SavedMap, load_map, save_map
from spslam.map.map import Map, Origin
from spslam.map.submaps import append_map, keyframes_of, move_submap, points_of, scene_of

NOISE_PX = 0.5


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


def test_a_map_without_a_camera_has_no_graph(landmarks) -> None:
    scene = landmarks.box()
    found = scene.map_of([scene.pose()])
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


def numbers_of(T: Any) -> np.ndarray:
    """Rotation, translation and scale of a g2o transform."""
    scale = [T.scale()] if hasattr(T, "scale") else []
    return np.concatenate([T.rotation().matrix().ravel(), T.translation(), scale])


@pytest.mark.parametrize("which", ["slam_map", "mono_map"])
def test_g2o_itself_reads_the_graph_with_all_digits(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Also a node without an edge and fixed nodes, which g2o's own `save` drops or forgets."""
    nodes, edges, fixed = submap_graph(request.getfixturevalue(which), 0, 30)
    # g2o's `save` keeps six digits only: seven-digit coordinates would lose their metres.
    nodes = np.concatenate([nodes, nodes[:1]])
    nodes[:, :3, 3] += (1234567.0, -7654321.0, 1 / 3)
    fixed = np.append(fixed, True)
    write_g2o(tmp_path / "graph.g2o", nodes, edges, fixed)
    optimizer = g2o.SparseOptimizer()
    assert optimizer.load(str(tmp_path / "graph.g2o"))
    assert len(optimizer.vertices()) == len(nodes)
    assert len(optimizer.edges()) == len(edges.i)
    assert [optimizer.vertex(row).fixed() for row in range(len(nodes))] == fixed.tolist()
    mono = which == "mono_map"
    for row, node in enumerate(geometry.inverse(nodes) if mono else nodes):
        found = numbers_of(optimizer.vertex(row).estimate())
        expected = [*node[:3, :3].ravel(), *node[:3, 3], *[1.0] * mono]
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    # A loop can join two nodes that another edge joins.
    measured: dict[tuple[int, ...], list[np.ndarray]] = {}
    for edge in optimizer.edges():
        ends = tuple(vertex.id() for vertex in edge.vertices())
        found = np.concatenate([numbers_of(edge.measurement()), edge.information().ravel()])
        measured.setdefault(ends, []).append(found)
    for row, ends in enumerate(zip(edges.i.tolist(), edges.j.tolist(), strict=True)):
        S = geometry.inverse(edges.S_i_j[row]) if mono else edges.S_i_j[row]
        scale = geometry.similarity_scale(S)
        information = information_to_g2o(edges.information[row])
        # Rounding errors of an entry near 0 are relative to the largest entry.
        tolerance = 1e-12 * np.abs(information).max()
        transform = np.array([*(S[:3, :3] / scale).ravel(), *S[:3, 3], *[scale] * mono])
        assert any(
            np.allclose(found[: len(transform)], transform, rtol=1e-12, atol=1e-12)
            and np.allclose(found[len(transform) :], information.ravel(), 1e-12, tolerance)
            for found in measured[ends]
        )
