"""Loop closing: detect places that the camera comes back to, and correct the drift.

Candidates (see `LoopCandidates`) are verified (see `LoopVerifier`) before the map changes. A loop
to another submap joins the two. Their relative pose is unknown before, so a second keyframe must
confirm it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from spslam import geometry
from spslam.backend_interfaces import PlaceRecognizer, PoseGraphSolver
from spslam.camera import Camera
from spslam.config import Config
from spslam.interfaces import Components
from spslam.map.covisibility import essential_graph, median_depth
from spslam.map.map import Map
from spslam.map.submaps import first_keyframes, move_submap, rescale_loops, submap_of
from spslam.notices import counted, notice
from spslam.slam.loops.loop_detection import LoopCandidates
from spslam.slam.loops.loop_verification import LoopEdge, LoopVerifier
from spslam.slam.loops.pose_graph import spread_gap
from spslam.slam.loops.similar_places import Departure, Place
from spslam.slam.mapping import Mapper, RemovedKeyframe
from spslam.slam.track_results import TrackedFrame
from spslam.slam.tracking import Tracker
from spslam.typing import FloatArray, IntArray

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ScaleCorrection:
    """The change of scale around each keyframe by a correction; 1 for stereo and RGB-D.

    Attributes:
        keyframe_ids: (K,) int64, ascending, all of the map.
        scales: (K,) float64, new length over old length.
    """

    keyframe_ids: IntArray
    scales: FloatArray

    def of(self, keyframe_ids: IntArray) -> FloatArray:
        """Scales (N,) around existing keyframes (N,) by id."""
        scales: FloatArray = self.scales[np.searchsorted(self.keyframe_ids, keyframe_ids)]
        return scales


class LoopCloser:
    """Finds loops of a new keyframe and corrects the map, which keeps them in `Map.loops`."""

    def __init__(
        self,
        config: Config,
        verifier: LoopVerifier,
        pose_graph: PoseGraphSolver,
        mapper: Mapper,
        places: PlaceRecognizer,
    ) -> None:
        self._config = config.loop
        self._candidates = LoopCandidates(config.loop, places)
        self._verifier = verifier
        self._pose_graph = pose_graph
        self._mapper = mapper
        self._last_closed = -(10**9)
        # The submaps of the latest verified loop between two submaps, and their relative
        # similarity.
        self._joint: tuple[int, int, FloatArray] | None = None

    @classmethod
    def of(
        cls, config: Config, components: Components, mapper: Mapper, tracker: Tracker
    ) -> LoopCloser:
        """Make one of these components."""
        verifier = LoopVerifier(
            config,
            components.matcher,
            components.pose_solver,
            tracker,
            components.place_recognition,
            components.extractor.max_descriptor_distance,
        )
        places = components.place_recognition
        return cls(config, verifier, components.pose_graph, mapper, places)

    @property
    def doubted(self) -> set[int]:
        """Keyframes with a loop to another submap that was rejected as a similar place."""
        return self._verifier.doubted

    def submap_began(self, submap: int, departure: Departure | None) -> None:
        """Note where the camera was lost before a submap: this limits where the submap can be."""
        self._verifier.submap_began(submap, departure)

    def tell(self) -> None:
        """Notify the user how often a loop between submaps was rejected."""
        if self.doubted:
            text = (
                "%s saw a place of another submap that may only look the same (another "
                "fits about as well, or the camera cannot have moved that far): the submaps "
                "were not joined there"
            )
            what = counted(len(self.doubted), "keyframe")
            notice(logger, "similar_submaps", text, what, count=len(self.doubted))

    def close(self, slam_map: Map, camera: Camera, keyframe_id: int) -> ScaleCorrection | None:
        """Find a loop of a keyframe and close it; None if the map was not corrected.

        A loop to another submap joins the two: the younger is moved into the world of the older.
        Lengths kept outside the map, relative to its keyframes, must follow the returned scales.

        Args:
            slam_map: to correct.
            camera: of the map.
            keyframe_id: id of the newest keyframe.
        """
        if not self._config.enabled or keyframe_id - self._last_closed < self._config.cooldown:
            return None
        for candidate in self._candidates.find(slam_map, keyframe_id):
            edge = self._verifier.verify(slam_map, camera, keyframe_id, int(candidate))
            if edge is None:
                continue
            if submap_of(slam_map, edge.i) == submap_of(slam_map, edge.j):
                self._last_closed = keyframe_id
                return self._correct(slam_map, camera, edge)
            if self._seen_before(slam_map, edge):
                return self._join(slam_map, camera, edge)
        return None

    def join_overlap(
        self, slam_map: Map, camera: Camera, found: Iterable[tuple[int, TrackedFrame]]
    ) -> ScaleCorrection | None:
        """Join a new submap to the one before by keyframes of both; None if they do not agree.

        Two keyframes must give the same relative pose of the submaps, and the camera must have been
        able to move that far between them.

        Args:
            slam_map: to correct.
            camera: of the map.
            found: ids of keyframes of the older submap, each tracked in the younger one.
        """
        if not self._config.enabled:
            return None
        self._joint = None
        for keyframe_id, tracked in found:
            place = Place.of(tracked, slam_map)
            edge = self._verifier.edge_of(slam_map, camera, keyframe_id, place.keyframe_id, tracked)
            if edge is None:
                continue
            scale = float(geometry.similarity_scale(edge.S_i_j))
            possible = self._verifier.can_be(slam_map, keyframe_id, place, scale)
            if possible and self._seen_before(slam_map, edge):
                return self._join(slam_map, camera, edge)
        return None

    def keyframes_rescaled(self, scale_correction: ScaleCorrection) -> None:
        """Do nothing: the loop edges are corrected with the map itself."""

    @staticmethod
    def keyframe_removed(slam_map: Map, removed: RemovedKeyframe) -> None:
        """Transfer the loop edges of a culled keyframe to its parent; drop those to the parent."""
        loops = slam_map.loops
        at_i, at_j = loops["i"] == removed.keyframe_id, loops["j"] == removed.keyframe_id
        loops["S_i_j"][at_i] = removed.T_parent_removed @ loops["S_i_j"][at_i]
        loops["S_i_j"][at_j] = loops["S_i_j"][at_j] @ geometry.inverse(removed.T_parent_removed)
        # The scale does not change, and its measurement is independent.
        adjoint = np.eye(7)
        adjoint[:6, :6] = geometry.se3_adjoint(geometry.inverse(removed.T_parent_removed))
        loops["information"][at_j] = adjoint.T @ loops["information"][at_j] @ adjoint
        loops["i"][at_i] = loops["j"][at_j] = removed.parent_id
        loops.keep(loops["i"] != loops["j"])

    # -- correction --------------------------------------------------------------------------------

    def _correct(self, slam_map: Map, camera: Camera, edge: LoopEdge) -> ScaleCorrection:
        """Optimize the pose graph, move the points with it, fuse both sides and refine the seam."""
        with_scale = not camera.has_depth
        _append(slam_map, edge)
        ids = slam_map.keyframes["id"]
        fixed = np.isin(ids, first_keyframes(slam_map))
        before = slam_map.T_world_keyframe.copy()
        edges = essential_graph(slam_map, with_scale, self._config.min_covisibility)
        after = spread_gap(self._pose_graph, before, edges, fixed, with_scale)
        self._move_points(slam_map, before, after)
        # Scale before fusion: after it, keyframes of another scale see the points of the old side.
        slam_map.points["distance"][:] *= _scale_of_points(slam_map, after)
        scale_correction = ScaleCorrection(ids.copy(), geometry.similarity_scale(after))
        rescale_loops(slam_map, scale_correction.keyframe_ids, scale_correction.scales)
        rigid = after.copy()
        rigid[:, :3, :3] /= scale_correction.scales[:, None, None]
        slam_map.T_world_keyframe[:] = geometry.orthonormalize(rigid)
        self._fuse_seam(slam_map, camera, edge)
        return scale_correction

    def _seen_before(self, slam_map: Map, edge: LoopEdge) -> bool:
        """Whether an earlier keyframe found the same relative pose of the two submaps."""
        submaps = submap_of(slam_map, edge.i), submap_of(slam_map, edge.j)
        S_old_new = slam_map.pose(edge.i) @ edge.S_i_j @ geometry.inverse(slam_map.pose(edge.j))
        before, self._joint = self._joint, (*submaps, S_old_new)
        if before is None or before[:2] != submaps:
            return False
        here = slam_map.pose(edge.j)
        S_first_second = geometry.inverse(before[2] @ here) @ S_old_new @ here
        scale = float(geometry.similarity_scale(S_first_second))
        turn = float(geometry.rotation_angle(S_first_second[:3, :3] / scale))
        shift = float(np.linalg.norm(S_first_second[:3, 3]))
        same = (
            max(scale, 1.0 / scale) < self._config.merge_scale_ratio
            and turn < self._config.merge_turn_rad
            and shift < self._config.merge_shift_depths * median_depth(slam_map, edge.j)
        )
        if not same:
            logger.info(
                "submaps %d and %d: keyframe %d finds another relative pose than the one before",
                *submaps,
                edge.j,
            )
        return same

    def _join(self, slam_map: Map, camera: Camera, edge: LoopEdge) -> ScaleCorrection:
        """Move the younger submap into the world of the older, fuse both and refine the seam."""
        old, new = submap_of(slam_map, edge.i), submap_of(slam_map, edge.j)
        S_old_new = slam_map.pose(edge.i) @ edge.S_i_j @ geometry.inverse(slam_map.pose(edge.j))
        into, moving = min(old, new), max(old, new)
        S = S_old_new if moving == new else geometry.inverse(S_old_new)
        moved = slam_map.keyframes["submap"] == moving
        _append(slam_map, edge)
        move_submap(slam_map, moving, S, into)
        scale_correction = ScaleCorrection(
            slam_map.keyframes["id"].copy(),
            np.where(moved, float(geometry.similarity_scale(S)), 1.0),
        )
        self._joint, self._last_closed = None, edge.j
        logger.info(
            "submap %d joined to submap %d, scale %.3f",
            moving,
            into,
            geometry.similarity_scale(S),
        )
        self._fuse_seam(slam_map, camera, edge)
        return scale_correction

    def _fuse_seam(self, slam_map: Map, camera: Camera, edge: LoopEdge) -> None:
        """Fuse the points of both sides of a loop, and refine around it."""
        companions, _ = slam_map.covisible(edge.i, least=self._config.min_covisibility)
        old_points = slam_map.points_seen_by(np.append(companions[:8], edge.i))
        neighbors, _ = slam_map.covisible(edge.j, least=self._config.min_covisibility)
        for keyframe_id in np.append(neighbors[:5], edge.j):
            self._mapper.fuse_into(slam_map, camera, int(keyframe_id), old_points)
        slam_map.refresh_normals(slam_map.points["id"])
        self._mapper.refine(slam_map, camera, edge.j)

    @staticmethod
    def _move_points(slam_map: Map, before: FloatArray, after: FloatArray) -> None:
        """Move each point with the first keyframe that sees it."""
        linked = np.flatnonzero(slam_map.observations["point"] >= 0)
        points, first = np.unique(slam_map.observations["point"][linked], return_index=True)
        anchors = slam_map.keyframe_rows(slam_map.observations["keyframe"][linked[first]])
        rows = slam_map.point_rows(points)
        correction = after[anchors] @ geometry.inverse(before[anchors])
        slam_map.positions[rows] = geometry.apply(correction, slam_map.positions[rows])


def _append(slam_map: Map, edge: LoopEdge) -> None:
    slam_map.loops.append(
        1, i=edge.i, j=edge.j, S_i_j=edge.S_i_j, information=edge.information, inliers=edge.inliers
    )


def _scale_of_points(slam_map: Map, after: FloatArray) -> FloatArray:
    """(P,) change of scale around each point, from the newest keyframe that sees it."""
    scale = np.ones(len(slam_map.points))
    linked = np.flatnonzero(slam_map.observations["point"] >= 0)
    rows = slam_map.point_rows(slam_map.observations["point"][linked])
    keyframe_rows = slam_map.keyframe_rows(slam_map.observations["keyframe"][linked])
    scale[rows] = geometry.similarity_scale(after)[keyframe_rows]
    return scale
