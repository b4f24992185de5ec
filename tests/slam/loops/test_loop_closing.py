"""Loop closure in a ring of keyframes whose odometry has a known drift."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from spslam import geometry
from spslam.backend.bundle import SchurBundleAdjuster
from spslam.backend.place_recognition import PlaceIndex
from spslam.backend.pose import PnPSolver
from spslam.backend.pose_graph import G2oPoseGraph
from spslam.backend.two_view import EpipolarSolver
from spslam.backend_interfaces import PoseGraphEdges
from spslam.config import Config, LoopConfig
from spslam.frontend.matching.matching import DescriptorMatcher
from spslam.map.covisibility import covisibility_matrix, essential_graph
from spslam.map.map import NO_POINT, Map
from spslam.slam.loops.loop_closing import LoopCloser
from spslam.slam.loops.loop_detection import LoopCandidates
from spslam.slam.loops.loop_verification import LoopEdge, LoopVerifier
from spslam.slam.loops.pose_graph import edge_costs, spread_gap
from spslam.slam.mapping import Mapper, RemovedKeyframe
from spslam.slam.tracking import Tracker

NOISE_PX = 0.3
LAP = 30
RADIUS = 2.0
MIN_INTERVAL = 10


def loop_config(**changes: Any) -> LoopConfig:
    return LoopConfig(**({"min_interval": MIN_INTERVAL, "max_distance_ratio": 0.1} | changes))


def candidates(places: PlaceIndex | None = None, **loop: Any) -> LoopCandidates:
    return LoopCandidates(loop_config(**loop), places or PlaceIndex())


def closer(places: PlaceIndex | None = None, **loop: Any) -> LoopCloser:
    config, matcher = Config(loop=loop_config(**loop)), DescriptorMatcher()
    mapper = Mapper(config, matcher, EpipolarSolver(NOISE_PX), SchurBundleAdjuster(NOISE_PX), 0.7)
    index = places or PlaceIndex()
    return LoopCloser(config, verifier(config, index), G2oPoseGraph(), mapper, index)


def verifier(config: Config, places: PlaceIndex) -> LoopVerifier:
    matcher, solver = DescriptorMatcher(), PnPSolver(NOISE_PX)
    tracker = Tracker(config, matcher, solver, 0.7)
    return LoopVerifier(config, matcher, solver, tracker, places, 0.7)


def indexed(slam_map: Map) -> PlaceIndex:
    """An index of all keyframes of a map."""
    index = PlaceIndex()
    for keyframe_id in slam_map.keyframes["id"].tolist():
        index.add(keyframe_id, slam_map.observations_of(keyframe_id).descriptors)
    return index


class DriftedRing:
    """A camera walks once around a ring, looking outwards; the map has no loop edge yet.

    Each step of the odometry is off by `step` (6,) and scaled by `scale`. `corrections[k]` is the
    similarity from true coordinates to those of the drifted map around keyframe k.
    """

    def __init__(
        self, landmarks, *, step=(0.0,) * 6, scale: float = 1.0, depth: bool = True, lap: int = LAP
    ) -> None:
        self.lap = lap
        self.scene = landmarks.ring()
        self.depth = depth
        self.camera = self.scene.camera if depth else self.scene.mono
        angles = 2 * np.pi * np.arange(lap + 1) / lap
        poses = np.array(
            [self.scene.pose(RADIUS * np.sin(a), 0.0, RADIUS * np.cos(a), a) for a in angles]
        )
        first = geometry.inverse(poses[0])
        self.truth = first @ poses
        self.scene.points = geometry.apply(first, self.scene.points)
        self.scales = scale ** np.arange(lap + 1)
        drifted = [np.eye(4)]
        for k in range(lap):
            relative = (
                geometry.inverse(self.truth[k])
                @ self.truth[k + 1]
                @ geometry.se3_exp(np.array(step))
            )
            relative[:3, 3] *= self.scales[k + 1]
            drifted.append(drifted[-1] @ relative)
        self.drifted = np.array(drifted)
        self.map = self._build()

    def _build(self) -> Map:
        """Build the drifted map; a landmark unseen for five keyframes becomes a new point."""
        slam_map = Map(32)
        ids = np.full(len(self.scene.points), NO_POINT)
        last_seen = np.full(len(self.scene.points), -100)
        local_scale = geometry.make_transform(
            self.scales[:, None, None] * np.eye(3), np.zeros((self.lap + 1, 3))
        )
        self.corrections = self.drifted @ local_scale @ geometry.inverse(self.truth)
        self.landmark: list[int] = []
        for k in range(self.lap + 1):
            observations = self.scene.observe(self.truth[k], k, depth=self.depth, noise_px=NOISE_PX)
            labels = self.scene.labels[k]
            ids[labels[k - last_seen[labels] > 5]] = NO_POINT
            last_seen[labels] = k
            keyframe_id = slam_map.add_keyframe(observations, self.drifted[k], ids[labels])
            fresh = np.flatnonzero(ids[labels] == NO_POINT)
            positions = geometry.apply(self.corrections[k], self.scene.points[labels[fresh]])
            rows = fresh + slam_map.observation_rows(keyframe_id).start
            ids[labels[fresh]] = slam_map.add_points(keyframe_id, positions, rows)
            self.landmark += labels[fresh].tolist()
            slam_map.describe_from(keyframe_id)
        slam_map.refresh_normals(slam_map.points["id"])
        return slam_map

    def position_errors(self) -> np.ndarray:
        return np.linalg.norm(self.map.T_world_keyframe[:, :3, 3] - self.truth[:, :3, 3], axis=1)

    def point_errors(self) -> np.ndarray:
        truth = self.scene.points[np.array(self.landmark)[self.map.points["id"]]]
        return np.linalg.norm(self.map.positions - truth, axis=1)


def snapshot(slam_map: Map) -> bytes:
    return b"".join(
        table[name].tobytes() for table in slam_map.tables().values() for name in table.names
    )


def loop_edges(slam_map: Map) -> list[tuple[int, int, np.ndarray]]:
    loops = slam_map.loops
    return list(zip(loops["i"].tolist(), loops["j"].tolist(), loops["S_i_j"], strict=True))


STEP = (0.008, 0.004, 0.004, 0.001, 0.003, -0.001)


@pytest.fixture
def ring(landmarks) -> DriftedRing:
    return DriftedRing(landmarks, step=STEP)


@pytest.fixture
def mono_ring(landmarks) -> DriftedRing:
    return DriftedRing(landmarks, scale=1.01, depth=False)


def assert_closed(ring: DriftedRing, before: np.ndarray, points_before: float) -> None:
    after = ring.position_errors()
    assert before[-1] > 0.2, "without drift the test shows nothing"
    assert after[-1] < 0.05 * before[-1], "the gap is closed"
    assert after.max() < 0.4 * before.max()
    assert np.sqrt(np.mean(after**2)) < 0.5 * np.sqrt(np.mean(before**2))
    assert np.median(ring.point_errors()) < 0.5 * points_before
    assert np.array_equal(ring.map.pose(0), np.eye(4))
    determinants = np.linalg.det(ring.map.T_world_keyframe[:, :3, :3])
    assert determinants == pytest.approx(np.ones(LAP + 1)), "poses are rigid again"


def test_a_loop_corrects_stereo_drift(ring: DriftedRing) -> None:
    before, points_before = ring.position_errors(), float(np.median(ring.point_errors()))
    loops = closer()
    assert loops.close(ring.map, ring.camera, LAP)
    assert_closed(ring, before, points_before)
    ((i, j, S_i_j),) = loop_edges(ring.map)
    assert j == LAP
    assert i <= 3
    assert S_i_j == pytest.approx(geometry.inverse(ring.truth[i]) @ ring.truth[j], abs=0.02)


def test_information_of_a_loop_follows_sigma_inflation(landmarks) -> None:
    information = []
    for inflation in (2.0, 4.0):
        ring = DriftedRing(landmarks, step=STEP)
        assert closer(sigma_inflation=inflation).close(ring.map, ring.camera, LAP)
        information.append(ring.map.loops["information"][0])
    assert information[0][:6, :6] == pytest.approx(4 * information[1][:6, :6])
    assert information[0][6, 6] == pytest.approx(information[1][6, 6])


def test_a_loop_corrects_scale_drift(mono_ring: DriftedRing) -> None:
    before, points_before = mono_ring.position_errors(), float(np.median(mono_ring.point_errors()))
    loops = closer()
    assert loops.close(mono_ring.map, mono_ring.camera, LAP)
    assert_closed(mono_ring, before, points_before)
    # Points seen by the last keyframe have the scale of the start again.
    points = mono_ring.map.points_seen_by(np.array([LAP]))
    positions = mono_ring.map.positions[mono_ring.map.point_rows(points)]
    depth = geometry.apply(geometry.inverse(mono_ring.map.pose(LAP)), positions)[:, 2]
    truth = mono_ring.scene.points[np.array(mono_ring.landmark)[points]]
    true_depth = geometry.apply(geometry.inverse(mono_ring.truth[LAP]), truth)[:, 2]
    assert np.median(depth / true_depth) == pytest.approx(1.0, abs=0.04)
    ((_, _, S_i_j),) = loop_edges(mono_ring.map)
    assert geometry.similarity_scale(S_i_j) == pytest.approx(1.0, abs=1e-3), (
        "both ends have the same scale now"
    )


def wrong_loop_edge(ring: DriftedRing, error: float, sigma: float) -> LoopEdge:
    """Join first and last keyframe, `error` metres off along one axis with deviation `sigma`."""
    S_i_j = geometry.inverse(ring.truth[0]) @ ring.truth[LAP]
    S_i_j[:3, 3] += error * S_i_j[:3, 0]
    return LoopEdge(0, LAP, S_i_j, np.diag(np.array([sigma] + 6 * [1e-3]) ** -2), 50)


def graph_with(ring: DriftedRing, edge: LoopEdge) -> tuple[PoseGraphEdges, np.ndarray]:
    """Add a loop edge to the map; return its essential graph and which keyframes are fixed."""
    ring.map.loops.append(
        1,
        i=edge.i,
        j=edge.j,
        S_i_j=edge.S_i_j,
        information=edge.information,
        inliers=edge.inliers,
    )
    return essential_graph(ring.map, False, 30), np.arange(LAP + 1) == 0


@pytest.mark.parametrize(("sigma", "least", "most"), [(0.1, 0.0, 0.01), (1e-4, 0.05, 0.07)])
def test_a_loop_edge_is_weighted_by_its_information(
    landmarks, sigma: float, least: float, most: float
) -> None:
    """The poses are true and the edge is 6 cm off: only an edge with a small σ moves them."""
    ring = DriftedRing(landmarks)
    graph, fixed = graph_with(ring, wrong_loop_edge(ring, 0.06, sigma))
    corrected = spread_gap(G2oPoseGraph(), ring.drifted, graph, fixed, False)
    errors = np.linalg.norm(corrected[:, :3, 3] - ring.truth[:, :3, 3], axis=1)
    assert least <= errors.max() < most


def test_a_gap_larger_than_the_expected_drift_is_closed(ring: DriftedRing) -> None:
    graph, fixed = graph_with(ring, wrong_loop_edge(ring, 0.0, 2e-3))
    stiff = G2oPoseGraph().optimize(ring.drifted, graph, fixed, False)
    spread = spread_gap(G2oPoseGraph(), ring.drifted, graph, fixed, False)
    gaps = [
        float(np.linalg.norm(nodes[-1, :3, 3] - ring.truth[-1, :3, 3]))
        for nodes in (ring.drifted, stiff, spread)
    ]
    assert gaps[1] > 0.1 * gaps[0], "otherwise the test shows nothing"
    assert gaps[2] < 0.03 * gaps[0]


def test_the_measured_scale_is_that_of_the_old_keyframe_over_the_new(
    mono_ring: DriftedRing,
) -> None:
    """`S_i_j` maps coordinates of the newer keyframe, in its units, to those of the older one."""
    edge = verifier(Config(loop=loop_config()), PlaceIndex()).verify(
        mono_ring.map, mono_ring.camera, LAP, 0
    )
    assert edge is not None
    assert geometry.similarity_scale(edge.S_i_j) == pytest.approx(
        1.0 / mono_ring.scales[LAP], rel=0.03
    )
    in_new = np.array([0.3, -0.2, 4.0]) * mono_ring.scales[LAP]
    in_old = geometry.apply(
        geometry.inverse(mono_ring.truth[0]) @ mono_ring.truth[LAP], np.array([0.3, -0.2, 4.0])
    )
    assert geometry.apply(edge.S_i_j, in_new) == pytest.approx(in_old, abs=0.1)


def test_distances_at_which_points_were_described_are_rescaled(mono_ring: DriftedRing) -> None:
    """The distance limits for matching a point must be in the units of the corrected map."""
    slam_map = mono_ring.map
    assert closer().close(slam_map, mono_ring.camera, LAP)
    newest = np.zeros(len(slam_map.points), np.int64)
    linked = slam_map.observations["point"] >= 0
    newest[slam_map.point_rows(slam_map.observations["point"][linked])] = slam_map.observations[
        "keyframe"
    ][linked]
    # Points of the start that the loop fused with new ones were described at the start.
    middle = (newest > 8) & (newest < LAP - 8)
    centres = slam_map.T_world_keyframe[newest, :3, 3]
    ratio = slam_map.points["distance"] / np.linalg.norm(slam_map.positions - centres, axis=1)
    assert np.median(ratio[middle]) == pytest.approx(1.0, abs=0.03)
    fused = (slam_map.points["id"] < 400) & (newest == LAP)
    assert np.count_nonzero(fused) > 20
    truth = mono_ring.scene.points[np.array(mono_ring.landmark)[slam_map.points["id"]]]
    described = [np.linalg.norm(truth - mono_ring.truth[k, :3, 3], axis=1) for k in range(4)]
    error = np.min([np.abs(slam_map.points["distance"] / d - 1.0) for d in described], axis=0)
    assert np.median(error[fused]) < 0.03


def test_both_sides_of_the_seam_are_fused(ring: DriftedRing) -> None:
    seen = ring.map.points_seen_by(np.arange(4))
    assert len(np.intersect1d(seen, ring.map.points_seen_by(np.array([LAP])))) == 0
    assert closer().close(ring.map, ring.camera, LAP)
    assert len(np.intersect1d(seen, ring.map.points_seen_by(np.array([LAP])))) > 50
    pairs = {
        (int(k), int(p))
        for k, p in zip(
            ring.map.observations["keyframe"], ring.map.observations["point"], strict=True
        )
        if p >= 0
    }
    assert len(pairs) == np.count_nonzero(ring.map.observations["point"] >= 0)


def test_a_closed_loop_is_not_closed_again(ring: DriftedRing) -> None:
    loops = closer(cooldown=0)
    assert loops.close(ring.map, ring.camera, LAP)
    after = snapshot(ring.map)
    assert not loops.close(ring.map, ring.camera, LAP), "both ends already share points"
    assert snapshot(ring.map) == after


def test_the_same_loop_gives_the_same_bytes(landmarks) -> None:
    maps = []
    for _ in range(2):
        ring = DriftedRing(landmarks, scale=1.01, depth=False)
        assert closer().close(ring.map, ring.camera, LAP)
        maps.append(snapshot(ring.map))
    assert maps[0] == maps[1]


@pytest.mark.parametrize("depth", [True, False])
def test_a_place_that_only_looks_similar_is_refused(landmarks, depth: bool) -> None:
    """Descriptors of the last keyframe match those of the first, but their pixels are permuted."""
    ring = DriftedRing(landmarks, step=STEP, depth=depth)
    rows = ring.map.observation_rows(LAP)
    rng = np.random.default_rng(0)
    order = rows.start + rng.permutation(rows.stop - rows.start)
    for name in ("pixel", "u_right", "depth"):
        ring.map.observations[name][rows] = ring.map.observations[name][order]
    before = snapshot(ring.map)
    assert len(candidates().find(ring.map, LAP)) > 0
    assert not closer().close(ring.map, ring.camera, LAP)
    assert len(ring.map.loops) == 0
    assert snapshot(ring.map) == before


def test_a_place_that_looks_different_is_refused(ring: DriftedRing) -> None:
    rows = ring.map.observation_rows(LAP)
    rng = np.random.default_rng(0)
    other = rng.normal(size=(rows.stop - rows.start, 32))
    ring.map.observations["descriptor"][rows] = other / np.linalg.norm(other, axis=1, keepdims=True)
    before = snapshot(ring.map)
    assert not closer().close(ring.map, ring.camera, LAP)
    assert snapshot(ring.map) == before


def test_a_single_camera_needs_common_points_for_the_scale(mono_ring: DriftedRing) -> None:
    rows = mono_ring.map.observation_rows(LAP)
    linked = np.flatnonzero(mono_ring.map.observations["point"][rows] >= 0) + rows.start
    mono_ring.map.unlink(linked[10:])
    assert not closer(min_radius_depths=0.5).close(mono_ring.map, mono_ring.camera, LAP)


# -- candidates ------------------------------------------------------------------------------------


def test_candidates_are_old_near_and_look_the_same_way(ring: DriftedRing) -> None:
    near = candidates()
    found = near.find(ring.map, LAP)
    assert 0 < len(found) <= 3
    assert (found < LAP - MIN_INTERVAL).all()
    assert len(candidates(min_interval=LAP).find(ring.map, LAP)) == 0, (
        "at least `min_interval` keyframes must lie between"
    )
    assert candidates(min_interval=LAP - 1).find(ring.map, LAP).tolist() == [0]
    assert len(candidates(**FAR).find(ring.map, LAP)) == 0
    ring.map.T_world_keyframe[:10] = ring.map.T_world_keyframe[:10] @ ring.scene.pose(yaw=np.pi)
    assert len(near.find(ring.map, LAP)) == 0


# No keyframe is near enough: loops are found by similarity alone.
FAR: dict[str, Any] = {"max_distance_ratio": 0.0, "min_radius_depths": 0.0}


def test_a_similar_place_is_found_at_any_distance(ring: DriftedRing) -> None:
    places = indexed(ring.map)
    straightened = candidates(places, **FAR, confirmations=1).find(ring.map, LAP)
    assert len(straightened) > 0 and straightened[0] in (0, 1, 29, 30)
    assert (straightened < LAP - MIN_INTERVAL).all()
    similar = candidates(places, **FAR, confirmations=2)
    assert len(similar.find(ring.map, LAP - 1)) == 0, "a single match may be chance"
    again = similar.find(ring.map, LAP)
    assert len(again) > 0 and again[0] == straightened[0]
    equal = candidates(places, **FAR, confirmations=1, min_similarity=1.0)
    assert len(equal.find(ring.map, 20)) == 0


def test_a_loop_is_closed_by_similarity_alone(ring: DriftedRing) -> None:
    before, points_before = ring.position_errors(), float(np.median(ring.point_errors()))
    loops = closer(indexed(ring.map), **FAR, confirmations=1)
    assert loops.close(ring.map, ring.camera, LAP)
    assert_closed(ring, before, points_before)


def test_a_gap_that_is_too_large_for_drift_is_refused(
    ring: DriftedRing, caplog: pytest.LogCaptureFixture
) -> None:
    """The images match but the poses are too far apart: it may be another, similar room."""
    before = snapshot(ring.map)
    gap = ring.position_errors()[-1]
    length = 2 * np.pi * RADIUS
    with caplog.at_level(logging.INFO):
        refusing = closer(
            indexed(ring.map), **FAR, confirmations=1, max_drift_ratio=0.5 * gap / length
        )
        assert not refusing.close(ring.map, ring.camera, LAP)
    assert "too much drift" in caplog.text
    assert snapshot(ring.map) == before
    assert closer(
        indexed(ring.map), **FAR, confirmations=1, max_drift_ratio=2 * gap / length
    ).close(ring.map, ring.camera, LAP)


def test_inliers_in_one_corner_of_the_image_are_refused(
    ring: DriftedRing, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert not closer(min_inlier_coverage=0.95).close(ring.map, ring.camera, LAP)
    assert "% of the image" in caplog.text


def test_no_candidates_while_enough_old_points_are_tracked(ring: DriftedRing) -> None:
    """A keyframe with enough points in common with an old one closes no gap."""
    old_places = candidates(min_covisibility=30)
    old = ring.map.points_seen_by(np.array([0]))
    rows = ring.map.observation_rows(LAP)
    for count, blocked in ((14, False), (15, True)):
        ring.map.observations["point"][rows.start : rows.start + count] = old[:count]
        assert (len(old_places.find(ring.map, LAP)) == 0) == blocked


def test_small_maps_have_no_loops(landmarks) -> None:
    scene = landmarks.box()
    slam_map = scene.map_of([scene.pose()])
    assert not closer().close(slam_map, scene.camera, 0)
    slam_map = scene.map_of([scene.pose(0.01 * i) for i in range(5)])
    assert not closer().close(slam_map, scene.camera, 4)


def test_no_loop_is_closed_when_disabled_or_during_the_cooldown(
    landmarks, ring: DriftedRing
) -> None:
    before = snapshot(ring.map)
    assert not closer(enabled=False).close(ring.map, ring.camera, LAP)
    for keyframes_between, closes in ((4, False), (5, True)):
        loops = closer(cooldown=5)
        earlier = DriftedRing(landmarks, step=STEP, lap=LAP - keyframes_between)
        assert loops.close(earlier.map, earlier.camera, earlier.lap)
        assert (loops.close(ring.map, ring.camera, LAP) is not None) == closes
        assert (snapshot(ring.map) == before) != closes


# -- graph -----------------------------------------------------------------------------------------


def test_the_essential_graph_is_connected(ring: DriftedRing) -> None:
    ring.map.loops.append(1, i=0, j=LAP, S_i_j=np.eye(4), information=np.eye(7), inliers=50)
    ring.map.remove_keyframe(7)
    edges = essential_graph(ring.map, False, 100)
    pairs = set(zip(edges.i.tolist(), edges.j.tolist(), strict=True))
    nodes = len(ring.map.keyframes)
    assert {(k, k + 1) for k in range(nodes - 1)} <= pairs
    assert (edges.i < edges.j).all()
    assert edges.robust.tolist() == [False] * (len(edges.i) - 1) + [True]
    assert (edges.i[-1], edges.j[-1]) == (0, nodes - 1), "rows, not ids"
    ids = ring.map.keyframes["id"]
    for i, j in pairs - {(0, nodes - 1)}:
        seen = [ring.map.points_seen_by(ids[[k]]) for k in (i, j)]
        shared = np.intersect1d(seen[0], seen[1])
        assert j == i + 1 or len(shared) >= 100
    relative = (
        geometry.inverse(ring.map.T_world_keyframe[edges.i[:-1]])
        @ ring.map.T_world_keyframe[edges.j[:-1]]
    )
    assert edges.S_i_j[:-1] == pytest.approx(relative)
    assert edges.information.shape == (len(edges.i), 6, 6)
    assert essential_graph(ring.map, True, 100).information.shape == (len(edges.i), 7, 7)


def cost_of_loop_edges(slam_map: Map, poses: np.ndarray) -> float:
    """The cost of the loop edges with keyframes at poses (K, 4, 4), by their ids."""
    column = slam_map.loops
    robust = np.ones(len(column), dtype=bool)
    edges = PoseGraphEdges(column["i"], column["j"], column["S_i_j"], column["information"], robust)
    return float(edge_costs(poses, edges).sum())


@pytest.mark.parametrize(("removed", "parent"), [(0, 1), (LAP, LAP - 1)])
def test_the_information_of_a_loop_edge_moves_to_the_parent_keyframe(
    ring: DriftedRing, removed: int, parent: int
) -> None:
    """If parent and removed keyframe move as one, the cost of the edge is unchanged."""
    rng = np.random.default_rng(0)
    root = rng.normal(0, 100, (7, 7))
    root[6, :6] = root[:6, 6] = 0
    edge = wrong_loop_edge(ring, 0.01, 1.0)
    ring.map.loops.append(1, i=0, j=LAP, S_i_j=edge.S_i_j, information=root @ root.T, inliers=50)
    T_parent_removed = geometry.inverse(ring.truth[parent]) @ ring.truth[removed]
    poses = ring.truth @ geometry.se3_exp(rng.normal(0, 1e-3, (LAP + 1, 6)))
    poses[removed] = poses[parent] @ T_parent_removed
    before = cost_of_loop_edges(ring.map, poses)
    LoopCloser.keyframe_removed(ring.map, RemovedKeyframe(removed, parent, T_parent_removed))
    assert cost_of_loop_edges(ring.map, poses) == pytest.approx(before, rel=1e-3)


@pytest.mark.parametrize(("removed", "parent"), [(0, 1), (LAP, LAP - 1)])
def test_the_parent_of_a_culled_keyframe_takes_over_its_loop_edges(
    ring: DriftedRing, removed: int, parent: int
) -> None:
    truth = ring.truth
    S_first_last = geometry.inverse(truth[0]) @ truth[LAP]
    ring.map.loops.append(
        2,
        i=[0, 3],
        j=[LAP, 9],
        S_i_j=np.array([S_first_last, np.eye(4)]),
        information=np.eye(7),
        inliers=50,
    )
    LoopCloser.keyframe_removed(
        ring.map, RemovedKeyframe(removed, parent, geometry.inverse(truth[parent]) @ truth[removed])
    )
    (i, j, S_i_j), other = loop_edges(ring.map)
    assert {i, j} == ({0, LAP} - {removed}) | {parent}
    assert S_i_j == pytest.approx(geometry.inverse(truth[i]) @ truth[j])
    assert other[:2] == (3, 9)
    LoopCloser.keyframe_removed(ring.map, RemovedKeyframe(9, 3, np.eye(4)))
    assert len(ring.map.loops) == 1, "no loop edge joins a keyframe with itself"


def test_the_scale_correction_of_each_neighbourhood_is_returned(
    mono_ring: DriftedRing, ring: DriftedRing
) -> None:
    before = mono_ring.drifted[:, :3, 3]
    scale_correction = closer().close(mono_ring.map, mono_ring.camera, LAP)
    assert scale_correction is not None
    steps = [
        np.linalg.norm(np.diff(x, axis=0), axis=1)
        for x in (before, mono_ring.map.T_world_keyframe[:, :3, 3])
    ]
    middle = slice(8, LAP - 8)
    assert scale_correction.of(np.arange(LAP))[middle] == pytest.approx(
        (steps[1] / steps[0])[middle], rel=0.05
    )
    rigid = closer().close(ring.map, ring.camera, LAP)
    assert rigid is not None
    assert rigid.of(np.arange(LAP + 1)) == pytest.approx(np.ones(LAP + 1))


def test_covisibility_counts_common_points() -> None:
    keyframes = np.array([0, 0, 0, 1, 1, 2])
    points = np.array([0, 1, 2, 1, 2, 2])
    expected = [[3, 2, 1, 0], [2, 2, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    assert covisibility_matrix(keyframes, points, 4).toarray().tolist() == expected
    assert covisibility_matrix(keyframes[:0], points[:0], 2).toarray().tolist() == [[0, 0], [0, 0]]


def test_observations_of_a_keyframe_are_restored(landmarks) -> None:
    scene = landmarks.box()
    slam_map = scene.map_of([scene.pose(), scene.pose(0.2)])
    found, expected = slam_map.observations_of(1), scene.observe(scene.pose(0.2), 1)
    assert found.index == 1 and found.timestamp == pytest.approx(0.1)
    for name in ("pixels", "u_right", "depth"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))
    assert found.descriptors == pytest.approx(expected.descriptors, abs=1e-3)
    found.pixels[:] = 0
    assert slam_map.observations["pixel"].any(), "the result is a copy"
