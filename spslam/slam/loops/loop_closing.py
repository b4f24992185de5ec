"""Loop closing: detect places that the camera comes back to, and correct the drift.

Candidates (see `LoopCandidates`) are verified before the map changes. The steps are descriptor
matching, RANSAC, more matches by projection, and a refined pose. A loop needs enough inliers that
cover enough of the image, and a gap that the path in between can have drifted. A wrong loop is
worse than a missed one.

A loop to another submap joins the two. Their relative pose is unknown before. Therefore a second
keyframe must confirm it, no other place may fit about as well, and the camera must have been able
to move that far while it was lost.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from spslam import geometry
from spslam.camera import Camera
from spslam.config import Config
from spslam.errors import Refusal
from spslam.frame import Observations
from spslam.interfaces import (
    Matcher,
    PlaceRecognizer,
    PoseGraphSolver,
    PoseSolver,
    WideStage,
)
from spslam.map.covisibility import essential_graph, median_depth
from spslam.map.map import NO_POINT, Map
from spslam.map.submaps import first_keyframes, keyframes_of, move_submap, rescale_loops, submap_of
from spslam.notices import counted, notice
from spslam.slam.loops.loop_detection import LoopCandidates, travelled
from spslam.slam.loops.pose_graph import spread_gap
from spslam.slam.loops.similar_places import Departure, Place, groups_by_similarity
from spslam.slam.mapping import Mapper, RemovedKeyframe
from spslam.slam.tracking import TrackedFrame, Tracker
from spslam.slam.views import frame_view, points_view
from spslam.typing import FloatArray, IntArray

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LoopEdge:
    """A verified loop.

    Attributes:
        i, j: ids of the older and the newer keyframe.
        S_i_j: (4, 4) similarity that maps coordinates of keyframe `j` to those of keyframe `i`.
        information: (7, 7) inverse covariance of its residual (see `PoseGraphEdges`).
        inliers: number of points that agree with the pose.
    """

    i: int
    j: int
    S_i_j: FloatArray
    information: FloatArray
    inliers: int


@dataclass(frozen=True)
class _RelativeScale:
    """The scale of an old place relative to a new one.

    Attributes:
        ratio: length around the old place over the same length around the new one.
        sigma: standard deviation of the logarithm of the ratio.
    """

    ratio: float
    sigma: float


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
    """Finds loops of a new keyframe and corrects the map, which keeps them in `Map.loops`.

    Attributes:
        doubted: keyframes with a loop to another submap that was rejected as a similar place.
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
        max_descriptor_distance: float,
    ) -> None:
        self._settings = config
        self._config = config.loop
        self._ratio = config.tracking.ratio
        self._candidates = LoopCandidates(config.loop, places)
        self._tracker = tracker
        self._matcher = matcher
        self._pose_solver = pose_solver
        self._pose_graph = pose_graph
        self._mapper = mapper
        self._max_descriptor_distance = max_descriptor_distance
        self._last_closed = -(10**9)
        # The submaps of the latest verified loop between two submaps, and their relative
        # similarity.
        self._joint: tuple[int, int, FloatArray] | None = None
        self._place_recognition = places
        self._departures: dict[int, Departure] = {}
        self.doubted: set[int] = set()

    def submap_began(self, submap: int, departure: Departure | None) -> None:
        """Note where the camera was lost before a submap: this limits where the submap can be."""
        if departure is not None:
            self._departures[submap] = departure

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
            edge = self.verify(slam_map, camera, keyframe_id, int(candidate))
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
            edge = self._edge(slam_map, camera, keyframe_id, place.keyframe_id, tracked)
            if edge is None:
                continue
            scale = float(geometry.similarity_scale(edge.S_i_j))
            possible = self._can_be(slam_map, keyframe_id, place, scale)
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

    # -- verification ------------------------------------------------------------------------------

    def verify(
        self, slam_map: Map, camera: Camera, keyframe_id: int, candidate: int
    ) -> LoopEdge | None:
        """Verify a candidate; return its loop edge, or None if it is rejected.

        The map does not change.

        Args:
            slam_map: holds both keyframes.
            camera: of the map.
            keyframe_id: id of the newer keyframe.
            candidate: id of the older keyframe.
        """
        found = self._recognize(slam_map, camera, keyframe_id, candidate)
        return self._edge(slam_map, camera, keyframe_id, candidate, found)

    def _edge(
        self,
        slam_map: Map,
        camera: Camera,
        keyframe_id: int,
        candidate: int,
        found: TrackedFrame | Refusal,
    ) -> LoopEdge | None:
        """Return the loop edge of a keyframe tracked at another place, or None if it is rejected.

        Args:
            slam_map: holds both keyframes.
            camera: of the map.
            keyframe_id: id of the keyframe.
            candidate: id of a keyframe at the other place.
            found: the keyframe, tracked at the other place.
        """
        scale = _RelativeScale(1.0, self._config.min_scale_sigma)
        if not isinstance(found, Refusal) and not camera.has_depth:
            scale = self._relative_scale(slam_map, keyframe_id, found)
        if not isinstance(found, Refusal):
            found = (
                self._objection(slam_map, camera, keyframe_id, candidate, found, scale.ratio)
                or found
            )
        if isinstance(found, Refusal):
            logger.info("loop %d -> %d rejected: %s", keyframe_id, candidate, found)
            return None
        S_i_j = geometry.inverse(slam_map.pose(candidate)) @ found.T_world_cam
        S_i_j[:3, :3] *= scale.ratio
        logger.info(
            "loop: keyframe %d sees the place of %d with %d inliers of %d matches, "
            "%.0f %% of the image, gap %.3f, scale %.3f",
            keyframe_id, candidate, found.inliers, found.matches,
            100 * found.inlier_coverage(camera), _gap(slam_map, keyframe_id, found), scale.ratio,
            )  # fmt: skip
        return LoopEdge(
            candidate,
            keyframe_id,
            S_i_j,
            _information(found, scale, self._config.sigma_inflation),
            found.inliers,
        )

    def _recognize(
        self, slam_map: Map, camera: Camera, keyframe_id: int, candidate: int
    ) -> TrackedFrame | Refusal:
        """Track the keyframe by the points around an old one; return the best attempt."""
        companions, _ = slam_map.covisible(candidate, least=self._config.min_covisibility)
        # Exclude the points that tracking matched already: they would confirm the current pose
        # instead of testing it.
        carried = slam_map.points_seen_by(np.array([keyframe_id]))
        old_points = np.setdiff1d(
            slam_map.points_seen_by(np.append(companions[:5], candidate)), carried
        )
        rows = slam_map.point_rows(old_points)
        observations = keyframe_observations(slam_map, keyframe_id)
        if not camera.has_depth:
            # The old place may have another scale with a single camera: the pose comes from pixels
            # alone.
            observations = replace(observations, u_right=np.full(len(observations), np.nan))
        wider = np.setdiff1d(
            slam_map.points_seen_by(np.append(companions[:10], candidate)), carried
        )
        same = submap_of(slam_map, candidate) == submap_of(slam_map, keyframe_id)
        stage = WideStage.LOOPS if same else WideStage.SUBMAPS
        best: TrackedFrame | Refusal | None = None
        for attempt in self._matcher.attempts(stage):
            matches0 = self._matcher.match_views(
                frame_view(observations, camera),
                points_view(slam_map, camera, candidate, rows),
                self._max_descriptor_distance,
                self._ratio,
                stage=attempt,
            ).matches0
            found = self._track_from(
                observations, slam_map, camera, rows, matches0, wider, wide=attempt is not None
            )
            best = _better(best, found)
            if not isinstance(best, Refusal) and best.inliers >= self._config.min_inliers:
                break
        assert best is not None
        return best

    def _track_from(
        self,
        observations: Observations,
        slam_map: Map,
        camera: Camera,
        rows: IntArray,
        matches0: IntArray,
        local_points: IntArray,
        *,
        wide: bool,
    ) -> TrackedFrame | Refusal:
        """Track a keyframe from its matches (N,) with old points, by their rows."""
        hit = np.flatnonzero(matches0 >= 0)
        if len(hit) < self._config.min_matches:
            return Refusal(counted(len(hit), "match", "matches"))
        estimate = self._pose_solver.ransac(
            slam_map.positions[rows[matches0[hit]]],
            observations.pixels[hit],
            observations.u_right[hit],
            camera,
        )
        if estimate is None:
            return Refusal(f"no pose agrees with {counted(len(hit), 'match', 'matches')}")
        tracked = self._tracker.track(
            observations, slam_map, camera, estimate.T_cam_world, local_points
        )
        if wide:
            matched = np.full(len(observations), NO_POINT, dtype=np.int64)
            matched[hit] = slam_map.points["id"][rows[matches0[hit]]]
            tracked = self._tracker.with_matches(
                tracked, observations, slam_map, camera, estimate.T_cam_world, matched
            )
        if tracked is None:
            return Refusal(
                f"{counted(np.count_nonzero(estimate.inliers), 'inlier')}, none by projection"
            )
        return tracked

    def _objection(
        self,
        slam_map: Map,
        camera: Camera,
        keyframe_id: int,
        candidate: int,
        found: TrackedFrame,
        scale: float,
    ) -> Refusal | None:
        """Return the reason to reject a loop, or None.

        Args:
            slam_map: holds both keyframes.
            camera: of the map.
            keyframe_id: id of the new keyframe.
            candidate: id of the old keyframe.
            found: the new keyframe, tracked at the old place.
            scale: length around the old place over the same length around the new keyframe.
        """
        if found.inliers < self._config.min_inliers:
            return Refusal(
                f"{counted(found.inliers, 'inlier')} of "
                f"{counted(found.matches, 'match', 'matches')}"
            )
        inlier_coverage = found.inlier_coverage(camera)
        if inlier_coverage < self._config.min_inlier_coverage:
            return Refusal(f"inliers cover {100 * inlier_coverage:.0f} % of the image")
        if not np.isfinite(scale):
            return Refusal("too few common points to determine the scale")
        if not np.isfinite(found.estimate.covariance).all():
            return Refusal("its inliers do not determine the pose")
        if submap_of(slam_map, candidate) != submap_of(slam_map, keyframe_id):
            objection = self._objection_to_joint(slam_map, camera, keyframe_id, found, scale)
            if objection is not None:
                self.doubted.add(keyframe_id)
            return objection
        row = int(slam_map.keyframe_rows(np.asarray(keyframe_id)))
        # The gap is in units of the old place. If those units are larger, scale the path to them.
        path = float(travelled(slam_map, row)[slam_map.keyframe_rows(np.asarray(candidate))]) * max(
            1.0, scale
        )
        gap = _gap(slam_map, keyframe_id, found)
        least = self._config.min_radius_depths * median_depth(slam_map, keyframe_id)
        if gap > max(self._config.max_drift_ratio * path, least):
            return Refusal(
                f"a gap of {gap:.3f} is too much drift for a path of {path:.3f}: "
                "the places look the same"
            )
        return None

    def _objection_to_joint(
        self, slam_map: Map, camera: Camera, keyframe_id: int, found: TrackedFrame, scale: float
    ) -> Refusal | None:
        """Return the reason to reject a loop to another submap, or None."""
        place = Place.of(found, slam_map)
        possible = self._can_be(slam_map, keyframe_id, place, scale)
        if possible is False:
            return Refusal(
                "the camera cannot have moved that far while it was lost: the places look the same"
            )
        elsewhere = self._elsewhere(slam_map, camera, keyframe_id, place)
        for rival in place.rivals(elsewhere, slam_map, self._settings):
            if possible and not self._can_be(slam_map, keyframe_id, rival, scale):
                continue
            return Refusal(
                f"{counted(place.inliers, 'inlier')} at the place of {place.keyframe_id}, "
                f"{rival.inliers} at the place of {rival.keyframe_id}: the places look the same"
            )
        return None

    def _can_be(self, slam_map: Map, keyframe_id: int, place: Place, scale: float) -> bool | None:
        """Whether the camera can have moved from one submap to the other while it was lost.

        Returns:
            None if that is unknown, or if the camera was carried away.
        """
        here = submap_of(slam_map, keyframe_id)
        older, younger = sorted((here, place.submap))
        departure = self._departures.get(younger)
        if departure is None:
            return None
        first_id = int(keyframes_of(slam_map, younger)[0])
        first = slam_map.pose(first_id)
        timestamp = float(
            slam_map.keyframes["timestamp"][slam_map.keyframe_rows(np.asarray(first_id))]
        )
        reach = departure.reach(timestamp, slam_map, self._settings.relocalization)
        if reach is None or reach.submap != older:
            return None
        S_place_here = place.tracked.T_world_cam.copy()
        S_place_here[:3, :3] *= scale
        S_place_here = S_place_here @ geometry.inverse(slam_map.pose(keyframe_id))
        S_older_first = (
            S_place_here if here == younger else geometry.inverse(S_place_here)
        ) @ first
        S_older_first[:3, :3] /= geometry.similarity_scale(S_older_first)
        return reach.holds(older, S_older_first) or (None if departure.carried_away else False)

    def _elsewhere(
        self, slam_map: Map, camera: Camera, keyframe_id: int, place: Place
    ) -> list[Place]:
        """Find other places in other submaps that a keyframe fits, by similarity."""
        known, similarity = self._place_recognition.similarities(keyframe_id)
        other = slam_map.keyframes["id"][
            slam_map.keyframes["submap"] != submap_of(slam_map, keyframe_id)
        ]
        wanted = np.isin(known, other)
        least = self._config.min_covisibility
        beside = [
            place.keyframe_id,
            *slam_map.covisible(place.keyframe_id, least=least)[0].tolist(),
        ]
        candidates = groups_by_similarity(
            known[wanted], similarity[wanted], slam_map, least, self._config.max_rivals, beside
        )
        found = [
            self._recognize(slam_map, camera, keyframe_id, candidate) for candidate in candidates
        ]
        return [
            Place.of(tracked, slam_map) for tracked in found if not isinstance(tracked, Refusal)
        ]

    def _relative_scale(
        self, slam_map: Map, keyframe_id: int, found: TrackedFrame
    ) -> _RelativeScale:
        """Old depth over new depth of keypoints with a point in both submaps; NaN if too few."""
        new_ids = slam_map.observations["point"][slam_map.observation_rows(keyframe_id)]
        both = (new_ids >= 0) & (found.point_ids >= 0)
        if np.count_nonzero(both) < self._config.min_scale_points:
            return _RelativeScale(float("nan"), float("nan"))
        T_new = geometry.inverse(slam_map.pose(keyframe_id))
        new_depth = geometry.apply(T_new, slam_map.positions[slam_map.point_rows(new_ids[both])])[
            :, 2
        ]
        old_points = slam_map.positions[slam_map.point_rows(found.point_ids[both])]
        old_depth = geometry.apply(found.estimate.T_cam_world, old_points)[:, 2]
        ratios = old_depth / new_depth
        ratio = float(np.median(ratios))
        # Standard error of a median, from the median absolute deviation of normally distributed
        # numbers.
        sigma = 1.25 * 1.48 * float(np.median(np.abs(ratios / ratio - 1))) / np.sqrt(len(ratios))
        return _RelativeScale(ratio, max(sigma, self._config.min_scale_sigma))

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


def _better(
    before: TrackedFrame | Refusal | None, found: TrackedFrame | Refusal
) -> TrackedFrame | Refusal:
    """Return the attempt with more inliers; of two refusals the first."""
    if before is None:
        return found
    if isinstance(found, Refusal):
        return before
    if isinstance(before, Refusal) or found.inliers > before.inliers:
        return found
    return before


def _gap(slam_map: Map, keyframe_id: int, found: TrackedFrame) -> float:
    """Distance between a keyframe in the map and its pose by the old place, map units."""
    return float(np.linalg.norm(found.T_world_cam[:3, 3] - slam_map.pose(keyframe_id)[:3, 3]))


def _append(slam_map: Map, edge: LoopEdge) -> None:
    slam_map.loops.append(
        1, i=edge.i, j=edge.j, S_i_j=edge.S_i_j, information=edge.information, inliers=edge.inliers
    )


def _information(found: TrackedFrame, scale: _RelativeScale, inflation: float) -> FloatArray:
    """Inverse covariance (7, 7) of a loop's residual, in lengths around the new keyframe.

    The covariance of the pose is in lengths of the old place.
    """
    units = np.array([scale.ratio] * 3 + [1.0] * 3) / inflation
    information = np.zeros((7, 7))
    information[:6, :6] = np.linalg.inv(found.estimate.covariance) * np.outer(units, units)
    information[6, 6] = 1 / scale.sigma**2
    return 0.5 * (information + information.T)


def _scale_of_points(slam_map: Map, after: FloatArray) -> FloatArray:
    """(P,) change of scale around each point, from the newest keyframe that sees it."""
    scale = np.ones(len(slam_map.points))
    linked = np.flatnonzero(slam_map.observations["point"] >= 0)
    rows = slam_map.point_rows(slam_map.observations["point"][linked])
    keyframe_rows = slam_map.keyframe_rows(slam_map.observations["keyframe"][linked])
    scale[rows] = geometry.similarity_scale(after)[keyframe_rows]
    return scale


def keyframe_observations(slam_map: Map, keyframe_id: int) -> Observations:
    """Return the observations of a keyframe (descriptors in the map's half precision)."""
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
        delays=np.zeros(rows.stop - rows.start),
    )
