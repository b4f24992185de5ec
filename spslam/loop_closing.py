"""Loop closing: places that the camera comes back to, and the pose graph that takes up the drift.

Candidates (see `loop_candidates`) are verified before anything is changed: descriptor matching, RANSAC, more matches by
projection with the pose that comes out, a refined pose; enough inliers, spread over the image, and a gap that the path
in between may have drifted. A wrong loop is worse than none.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import ConvexHull

from spslam import geometry
from spslam.camera import Camera
from spslam.config import Config
from spslam.frame import Observations
from spslam.loop_candidates import LoopCandidates, median_depth, travelled
from spslam.map import Ids, Map
from spslam.mapping import Mapper, RemovedKeyframe
from spslam.ports import Matcher, PlaceRecognizer, PoseGraphEdges, PoseGraphSolver, PoseSolver
from spslam.tracking import Tracked, Tracker

logger = logging.getLogger(__name__)
Array = NDArray[np.float64]
# Covisibility edges tell one motion many times over, which makes the chain of them stiffer than it is sure of itself:
# at the weight of one of them, a revisit would leave most of the gap open and nothing to fuse.
_LOOP_WEIGHT = 1e4


@dataclass(frozen=True, eq=False)
class LoopEdge:
    """A verified revisit: the similarity that maps coordinates of key frame `j` to those of key frame `i`."""

    i: int
    j: int
    S_i_j: Array
    inliers: int


@dataclass(frozen=True, eq=False)
class Rescaling:
    """How a closed loop changed the sizes around each key frame: new over old; 1 unless the camera is a single one.

    Attributes:
        keyframe_ids: (K,) int64, ascending, all of the map.
        scales: (K,) float64.
    """

    keyframe_ids: Ids
    scales: Array

    def of(self, keyframe_ids: Ids) -> Array:
        """Scales (N,) around key frames (N,) by id. All must exist."""
        scales: Array = self.scales[np.searchsorted(self.keyframe_ids, keyframe_ids)]
        return scales


class LoopCloser:
    """Finds revisits of a new key frame and corrects the map.

    Attributes:
        edges: revisits confirmed so far, between key frames of the map (see `reanchor`).
    """

    def __init__(
        self,
        config: Config,
        matcher: Matcher,
        pose_solver: PoseSolver,
        pose_graph: PoseGraphSolver,
        mapper: Mapper,
        tracker: Tracker,
        places: PlaceRecognizer,
        max_distance: float,
    ) -> None:
        self._config = config.loop
        self._ratio = config.tracking.ratio
        self._candidates = LoopCandidates(config.loop, places)
        self._tracker = tracker
        self._matcher = matcher
        self._pose_solver = pose_solver
        self._pose_graph = pose_graph
        self._mapper = mapper
        self._max_distance = max_distance
        self._last_closed = -(10**9)
        self.edges: list[LoopEdge] = []

    def close(self, slam_map: Map, camera: Camera, keyframe_id: int) -> Rescaling | None:
        """Look for a revisit by key frame `keyframe_id` and close the loop; None if the map was not corrected.

        Lengths kept outside the map, relative to its key frames, change with the scale that is returned.
        """
        if not self._config.enabled or keyframe_id - self._last_closed < self._config.cooldown:
            return None
        for candidate in self._candidates.find(slam_map, keyframe_id):
            edge = self._verify(slam_map, camera, keyframe_id, int(candidate))
            if edge is not None:
                self._last_closed = keyframe_id
                self.edges.append(edge)
                return self._correct(slam_map, camera, edge)
        return None

    def reanchor(self, removed: RemovedKeyframe) -> None:
        """Pass the revisits of a culled key frame on to its heir; between the heir and itself there is none."""
        passed = [_passed_on(edge, removed) for edge in self.edges]
        self.edges = [edge for edge in passed if edge.i != edge.j]

    # -- verification ----------------------------------------------------------------------------------------

    def _verify(self, slam_map: Map, camera: Camera, keyframe_id: int, candidate: int) -> LoopEdge | None:
        """The revisit of a candidate by a key frame, from the points that the candidate and its companions see."""
        found = self._recognize(slam_map, camera, keyframe_id, candidate)
        if not isinstance(found, str):
            found = self._objection(slam_map, camera, keyframe_id, candidate, found) or found
        if isinstance(found, str):
            logger.info("revisit %d -> %d refused: %s", keyframe_id, candidate, found)
            return None
        scale = self._relative_scale(slam_map, keyframe_id, found) if camera.baseline_m is None else 1.0
        if not np.isfinite(scale):
            logger.info("revisit %d -> %d refused: too few common points to tell the scale", keyframe_id, candidate)
            return None
        S_i_j = geometry.inverse(slam_map.pose(candidate)) @ found.T_world_cam
        S_i_j[:3, :3] *= scale
        logger.info(
            "revisit: key frame %d sees the place of %d with %d inliers of %d matches, %.0f %% of the image, gap %.3f, "
            "scale %.3f",
            keyframe_id, candidate, found.inliers, found.matches, 100 * _coverage(found, camera),
            _gap(slam_map, keyframe_id, found), scale,
        )  # fmt: skip
        return LoopEdge(candidate, keyframe_id, S_i_j, found.inliers)

    def _recognize(self, slam_map: Map, camera: Camera, keyframe_id: int, candidate: int) -> Tracked | str:
        """The key frame as the old part of the map sees it, or why it does not."""
        companions, _ = slam_map.covisible(candidate, least=self._config.min_covisibility)
        # Points that tracking carried here already would vouch for today's pose instead of testing it.
        carried = slam_map.points_seen_by(np.array([keyframe_id]))
        old_points = np.setdiff1d(slam_map.points_seen_by(np.append(companions[:5], candidate)), carried)
        rows = slam_map.point_rows(old_points)
        observations = keyframe_observations(slam_map, keyframe_id)
        if camera.baseline_m is None:
            # For a single camera the old part of the map may have another scale: its pose comes from pixels alone.
            observations = replace(observations, u_right=np.full(len(observations), np.nan))
        matches0 = self._matcher.match(
            observations.descriptors, slam_map.points["descriptor"][rows], self._max_distance, self._ratio
        )
        hit = np.flatnonzero(matches0 >= 0)
        if len(hit) < self._config.min_matches:
            return f"{len(hit)} matches"
        estimate = self._pose_solver.ransac(
            slam_map.positions[rows[matches0[hit]]], observations.pixels[hit], observations.u_right[hit], camera
        )
        if estimate is None:
            return f"no pose agrees with {len(hit)} matches"
        wider = slam_map.points_seen_by(np.append(companions[:10], candidate))
        tracked = self._tracker.track(
            observations, slam_map, camera, estimate.T_cam_world, np.setdiff1d(wider, carried)
        )
        return f"{np.count_nonzero(estimate.inliers)} inliers, none by projection" if tracked is None else tracked

    def _objection(self, slam_map: Map, camera: Camera, keyframe_id: int, candidate: int, found: Tracked) -> str:
        """What speaks against a revisit; empty if nothing does."""
        if found.inliers < self._config.min_inliers:
            return f"{found.inliers} inliers of {found.matches} matches"
        coverage = _coverage(found, camera)
        if coverage < self._config.min_coverage:
            return f"inliers cover {100 * coverage:.0f} % of the image"
        row = int(slam_map.keyframe_rows(np.asarray(keyframe_id)))
        path = float(travelled(slam_map, row)[slam_map.keyframe_rows(np.asarray(candidate))])
        gap = _gap(slam_map, keyframe_id, found)
        least = self._config.min_radius_depths * median_depth(slam_map, keyframe_id)
        if gap > max(self._config.max_drift_ratio * path, least):
            return f"a gap of {gap:.3f} is too much drift for a path of {path:.3f}: the places look the same"
        return ""

    @staticmethod
    def _relative_scale(slam_map: Map, keyframe_id: int, found: Tracked) -> float:
        """Old depth over new depth of the key points that see a point in both parts of the map; NaN if too few do."""
        new_ids = slam_map.observations["point"][slam_map.observation_rows(keyframe_id)]
        both = (new_ids >= 0) & (found.point_ids >= 0)
        if np.count_nonzero(both) < 15:
            return float("nan")
        T_new = geometry.inverse(slam_map.pose(keyframe_id))
        new_depth = geometry.apply(T_new, slam_map.positions[slam_map.point_rows(new_ids[both])])[:, 2]
        old_points = slam_map.positions[slam_map.point_rows(found.point_ids[both])]
        old_depth = geometry.apply(found.estimate.T_cam_world, old_points)[:, 2]
        return float(np.median(old_depth / new_depth))

    # -- correction ------------------------------------------------------------------------------------------

    def _correct(self, slam_map: Map, camera: Camera, edge: LoopEdge) -> Rescaling:
        """Spread the gap over the pose graph, carry the points along, fuse both sides and refine the seam."""
        with_scale = camera.baseline_m is None
        ids = slam_map.keyframes["id"]
        fixed = ids == ids[0]
        before = slam_map.T_world_keyframe.copy()
        after = self._pose_graph.optimize(before, self.graph_edges(slam_map, with_scale), fixed, with_scale)
        self._move_points(slam_map, before, after)
        # Before points are fused: afterwards those of the old side would be seen by key frames of another scale.
        slam_map.points["distance"][:] *= _scale_of_points(slam_map, after)
        rescaling = Rescaling(ids.copy(), geometry.similarity_scale(after))
        self.edges = [_rescaled(e, rescaling) for e in self.edges]
        rigid = after.copy()
        rigid[:, :3, :3] /= rescaling.scales[:, None, None]
        slam_map.T_world_keyframe[:] = geometry.orthonormalize(rigid)
        companions, _ = slam_map.covisible(edge.i, least=self._config.min_covisibility)
        old_points = slam_map.points_seen_by(np.append(companions[:8], edge.i))
        neighbors, _ = slam_map.covisible(edge.j, least=self._config.min_covisibility)
        for keyframe_id in np.append(neighbors[:5], edge.j):
            self._mapper.fuse_into(slam_map, camera, int(keyframe_id), old_points)
        slam_map.refresh_normals(slam_map.points["id"])
        self._mapper.refine(slam_map, camera, edge.j)
        return rescaling

    def graph_edges(self, slam_map: Map, with_scale: bool) -> PoseGraphEdges:
        """The essential graph: consecutive key frames, strong covisibility and all revisits."""
        ids = slam_map.keyframes["id"]
        poses = slam_map.T_world_keyframe
        pairs = self._covisible_pairs(slam_map)
        relative = geometry.inverse(poses[pairs[:, 0]]) @ poses[pairs[:, 1]]
        loop_pairs = np.array([np.searchsorted(ids, (e.i, e.j)) for e in self.edges], dtype=np.int64).reshape(-1, 2)
        measured = np.array([e.S_i_j for e in self.edges]).reshape(-1, 4, 4)
        size = 7 if with_scale else 6
        all_pairs = np.concatenate([pairs, loop_pairs])
        is_loop = np.arange(len(all_pairs)) >= len(pairs)
        # Depths of the scene, not metres, make translation and rotation comparable: the unit of a map is arbitrary.
        depth = max(median_depth(slam_map, int(ids[-1])), 1e-6)
        information = np.diag([1.0 / depth**2] * 3 + [1.0] * (size - 3)) * 1e4
        return PoseGraphEdges(
            i=all_pairs[:, 0],
            j=all_pairs[:, 1],
            S_i_j=np.concatenate([relative, measured]),
            information=information * np.where(is_loop, _LOOP_WEIGHT, 1.0)[:, None, None],
            robust=is_loop,
        )

    def _covisible_pairs(self, slam_map: Map) -> Ids:
        """(E, 2) rows of key frames that follow each other or share enough points, i < j."""
        linked = np.flatnonzero(slam_map.observations["point"] >= 0)
        keyframe_rows = slam_map.keyframe_rows(slam_map.observations["keyframe"][linked])
        shared = covisibility_matrix(
            keyframe_rows, slam_map.point_rows(slam_map.observations["point"][linked]), len(slam_map.keyframes)
        )
        consecutive = np.arange(len(slam_map.keyframes) - 1)
        shared[consecutive, consecutive + 1] = self._config.min_covisibility
        i, j = np.nonzero(np.triu(shared, 1) >= self._config.min_covisibility)
        return np.stack([i, j], axis=1)

    @staticmethod
    def _move_points(slam_map: Map, before: Array, after: Array) -> None:
        """Carry each point along with the first key frame that sees it."""
        linked = np.flatnonzero(slam_map.observations["point"] >= 0)
        points, first = np.unique(slam_map.observations["point"][linked], return_index=True)
        anchors = slam_map.keyframe_rows(slam_map.observations["keyframe"][linked[first]])
        rows = slam_map.point_rows(points)
        correction = after[anchors] @ geometry.inverse(before[anchors])
        slam_map.positions[rows] = geometry.apply(correction, slam_map.positions[rows])


def _coverage(found: Tracked, camera: Camera) -> float:
    """Share of the image inside the convex hull of the inliers."""
    pixels = found.observations.pixels[found.point_ids >= 0]
    if len(pixels) < 3 or np.linalg.matrix_rank(pixels - pixels.mean(axis=0)) < 2:
        return 0.0
    return float(ConvexHull(pixels).volume / (camera.width * camera.height))


def _gap(slam_map: Map, keyframe_id: int, found: Tracked) -> float:
    """Distance, map units, between where a key frame is in the map and where the old part of the map sees it."""
    return float(np.linalg.norm(found.T_world_cam[:3, 3] - slam_map.pose(keyframe_id)[:3, 3]))


def _rescaled(edge: LoopEdge, rescaling: Rescaling) -> LoopEdge:
    """A measured revisit once a correction has taken up its scale: both ends are in one scale from now on."""
    S_i_j = edge.S_i_j.copy()
    S_i_j[:3, :3] /= geometry.similarity_scale(S_i_j)
    S_i_j[:3, 3] *= rescaling.of(np.array([edge.i]))
    return LoopEdge(edge.i, edge.j, S_i_j, edge.inliers)


def _passed_on(edge: LoopEdge, removed: RemovedKeyframe) -> LoopEdge:
    i, j, S_i_j = edge.i, edge.j, edge.S_i_j
    if i == removed.keyframe_id:
        i, S_i_j = removed.heir_id, removed.T_heir_removed @ S_i_j
    if j == removed.keyframe_id:
        j, S_i_j = removed.heir_id, S_i_j @ geometry.inverse(removed.T_heir_removed)
    return LoopEdge(i, j, S_i_j, edge.inliers)


def _scale_of_points(slam_map: Map, after: Array) -> Array:
    """(P,) change of scale of each point's neighbourhood, from the newest key frame that sees it."""
    scale = np.ones(len(slam_map.points))
    linked = np.flatnonzero(slam_map.observations["point"] >= 0)
    rows = slam_map.point_rows(slam_map.observations["point"][linked])
    keyframe_rows = slam_map.keyframe_rows(slam_map.observations["keyframe"][linked])
    scale[rows] = geometry.similarity_scale(after)[keyframe_rows]
    return scale


def covisibility_matrix(keyframe_rows: Ids, point_rows: Ids, count: int) -> NDArray[np.int64]:
    """(K, K) int64: how many points each two of `count` key frames share, from the rows of all links (N,)."""
    if len(keyframe_rows) == 0:
        return np.zeros((count, count), dtype=np.int64)
    ones = np.ones(len(keyframe_rows), dtype=np.int64)
    sees = csr_matrix((ones, (keyframe_rows, point_rows)), shape=(count, int(point_rows.max()) + 1))
    shared: NDArray[np.int64] = (sees @ sees.T).toarray()
    return shared


def keyframe_observations(slam_map: Map, keyframe_id: int) -> Observations:
    """The observations that a key frame was made from (descriptors in the map's half precision)."""
    rows = slam_map.observation_rows(keyframe_id)
    row = int(slam_map.keyframe_rows(np.asarray(keyframe_id)))
    column = slam_map.observations
    return Observations(
        index=int(slam_map.keyframes["frame"][row]),
        timestamp=float(slam_map.keyframes["timestamp"][row]),
        pixels=column["pixel"][rows].copy(),
        descriptors=column["descriptor"][rows].astype(np.float32),
        scores=np.ones(rows.stop - rows.start, dtype=np.float32),
        u_right=column["u_right"][rows].copy(),
        depth=column["depth"][rows].copy(),
    )
