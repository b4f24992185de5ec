"""Loop closing: places that the camera comes back to, and the pose graph that takes up the drift.

Candidates (see `loop_candidates`) are verified before anything is changed: descriptor matching, RANSAC, more matches by
projection with the pose that comes out, a refined pose; enough inliers, spread over the image, and a gap that the path
in between may have drifted. A wrong loop is worse than none.

A revisit of another part of the map joins the two: nothing says where they are to each other, so that a second key
frame must find the same, no other place may fit about as well, and the camera must have been able to come so far while
it was lost.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spslam import geometry
from spslam.camera import Camera
from spslam.config import Config
from spslam.frame import Observations
from spslam.interfaces import Matcher, PlaceRecognizer, PoseGraphSolver, PoseSolver
from spslam.map.covisibility import essential_graph, median_depth
from spslam.map.map import Ids, Map
from spslam.notices import notice
from spslam.slam.loops.look_alikes import Departure, Place, groups_by_likeness
from spslam.slam.loops.loop_detection import LoopCandidates, travelled
from spslam.slam.loops.pose_graph import spread_gap
from spslam.slam.mapping import Mapper, RemovedKeyframe
from spslam.slam.tracking import Tracked, Tracker

logger = logging.getLogger(__name__)
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LoopEdge:
    """A verified revisit: the similarity that maps coordinates of key frame `j` to those of key frame `i`, and the
    inverse covariance (7, 7) of its residual (see `PoseGraphEdges`).
    """

    i: int
    j: int
    S_i_j: Array
    information: Array
    inliers: int


@dataclass(frozen=True)
class _RelativeScale:
    """Lengths around an old place over those around a new one, and the standard deviation of its logarithm."""

    ratio: float
    sigma: float


@dataclass(frozen=True, eq=False)
class Rescaling:
    """How a correction changed the sizes around each key frame: new over old; 1 unless the camera is a single one.

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
    """Finds revisits of a new key frame and corrects the map, which keeps them (`Map.loops`, see `keyframe_removed`).

    Attributes:
        doubted: key frames that saw a place of another part which may only look the same.
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
        self._settings = config
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
        # Parts, and how the second lies to the first, that a key frame saw to be the same place.
        self._joint: tuple[int, int, Array] | None = None
        self._places = places
        self._departures: dict[int, Departure] = {}
        self.doubted: set[int] = set()

    def part_began(self, part: int, departure: Departure | None) -> None:
        """A part of the map begins with a camera that was lost before: it cannot be anywhere to where that was."""
        if departure is not None:
            self._departures[part] = departure

    def tell(self) -> None:
        """Say how often parts of the map were not joined, for the places may only look the same."""
        if self.doubted:
            text = (
                "%d key frames saw a place of another part of the map that may only look the same (another fits about "
                "as well, or the camera cannot have come so far): the parts were not joined there"
            )
            notice(logger, "parts_look_alike", text, len(self.doubted), count=len(self.doubted))

    def close(self, slam_map: Map, camera: Camera, keyframe_id: int) -> Rescaling | None:
        """Look for a revisit by key frame `keyframe_id` and close the loop; None if the map was not corrected.

        A revisit of another part joins the two: the younger is carried over into the world of the older. Lengths kept
        outside the map, relative to its key frames, change with the scale that is returned.
        """
        if not self._config.enabled or keyframe_id - self._last_closed < self._config.cooldown:
            return None
        for candidate in self._candidates.find(slam_map, keyframe_id):
            edge = self._verify(slam_map, camera, keyframe_id, int(candidate))
            if edge is None:
                continue
            if slam_map.part_of(edge.i) == slam_map.part_of(edge.j):
                self._last_closed = keyframe_id
                return self._correct(slam_map, camera, edge)
            if self._seen_before(slam_map, edge):
                return self._join(slam_map, camera, edge)
        return None

    def keyframes_rescaled(self, rescaling: Rescaling) -> None:
        """Loop edges are corrected with the map itself."""

    @staticmethod
    def keyframe_removed(slam_map: Map, removed: RemovedKeyframe) -> None:
        """Pass the loop edges of a culled keyframe on to its heir; there is no edge from that to itself."""
        loops = slam_map.loops
        at_i, at_j = loops["i"] == removed.keyframe_id, loops["j"] == removed.keyframe_id
        loops["S_i_j"][at_i] = removed.T_heir_removed @ loops["S_i_j"][at_i]
        loops["S_i_j"][at_j] = loops["S_i_j"][at_j] @ geometry.inverse(removed.T_heir_removed)
        # Scales stay, and are measured independently.
        adjoint = np.eye(7)
        adjoint[:6, :6] = geometry.se3_adjoint(geometry.inverse(removed.T_heir_removed))
        loops["information"][at_j] = adjoint.T @ loops["information"][at_j] @ adjoint
        loops["i"][at_i] = loops["j"][at_j] = removed.heir_id
        loops.keep(loops["i"] != loops["j"])

    # -- verification ----------------------------------------------------------------------------------------

    def _verify(
        self, slam_map: Map, camera: Camera, keyframe_id: int, candidate: int
    ) -> LoopEdge | None:
        """The revisit of a candidate by a key frame, from the points that the candidate and its companions see."""
        found = self._recognize(slam_map, camera, keyframe_id, candidate)
        scale = _RelativeScale(1.0, self._config.min_scale_sigma)
        if not isinstance(found, str) and not camera.has_depth:
            scale = self._relative_scale(slam_map, keyframe_id, found)
        if not isinstance(found, str):
            found = (
                self._objection(slam_map, camera, keyframe_id, candidate, found, scale.ratio)
                or found
            )
        if isinstance(found, str):
            logger.info("revisit %d -> %d refused: %s", keyframe_id, candidate, found)
            return None
        S_i_j = geometry.inverse(slam_map.pose(candidate)) @ found.T_world_cam
        S_i_j[:3, :3] *= scale.ratio
        logger.info(
            "revisit: key frame %d sees the place of %d with %d inliers of %d matches, %.0f %% of the image, gap %.3f, "
            "scale %.3f",
            keyframe_id, candidate, found.inliers, found.matches, 100 * found.coverage(camera),
            _gap(slam_map, keyframe_id, found), scale.ratio,
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
    ) -> Tracked | str:
        """The key frame as the old part of the map sees it, or why it does not."""
        companions, _ = slam_map.covisible(candidate, least=self._config.min_covisibility)
        # Points that tracking carried here already would vouch for today's pose instead of testing it.
        carried = slam_map.points_seen_by(np.array([keyframe_id]))
        old_points = np.setdiff1d(
            slam_map.points_seen_by(np.append(companions[:5], candidate)), carried
        )
        rows = slam_map.point_rows(old_points)
        observations = keyframe_observations(slam_map, keyframe_id)
        if not camera.has_depth:
            # For a single camera the old part of the map may have another scale: its pose comes from pixels alone.
            observations = replace(observations, u_right=np.full(len(observations), np.nan))
        matches0 = self._matcher.match(
            observations.descriptors,
            slam_map.points["descriptor"][rows],
            self._max_distance,
            self._ratio,
        )
        hit = np.flatnonzero(matches0 >= 0)
        if len(hit) < self._config.min_matches:
            return f"{len(hit)} matches"
        estimate = self._pose_solver.ransac(
            slam_map.positions[rows[matches0[hit]]],
            observations.pixels[hit],
            observations.u_right[hit],
            camera,
        )
        if estimate is None:
            return f"no pose agrees with {len(hit)} matches"
        wider = slam_map.points_seen_by(np.append(companions[:10], candidate))
        tracked = self._tracker.track(
            observations, slam_map, camera, estimate.T_cam_world, np.setdiff1d(wider, carried)
        )
        return (
            f"{np.count_nonzero(estimate.inliers)} inliers, none by projection"
            if tracked is None
            else tracked
        )

    def _objection(
        self,
        slam_map: Map,
        camera: Camera,
        keyframe_id: int,
        candidate: int,
        found: Tracked,
        scale: float,
    ) -> str:
        """What speaks against a revisit where lengths are `scale` times those around the key frame; empty if nothing
        does.
        """
        if found.inliers < self._config.min_inliers:
            return f"{found.inliers} inliers of {found.matches} matches"
        coverage = found.coverage(camera)
        if coverage < self._config.min_coverage:
            return f"inliers cover {100 * coverage:.0f} % of the image"
        if not np.isfinite(scale):
            return "too few common points to tell the scale"
        if not np.isfinite(found.estimate.covariance).all():
            return "its inliers do not determine the pose"
        if slam_map.part_of(candidate) != slam_map.part_of(keyframe_id):
            objection = self._objection_to_joint(slam_map, camera, keyframe_id, found, scale)
            if objection:
                self.doubted.add(keyframe_id)
            return objection
        row = int(slam_map.keyframe_rows(np.asarray(keyframe_id)))
        # The gap is in the units of the old place: a path in smaller ones is longer than it seems.
        path = float(travelled(slam_map, row)[slam_map.keyframe_rows(np.asarray(candidate))]) * max(
            1.0, scale
        )
        gap = _gap(slam_map, keyframe_id, found)
        least = self._config.min_radius_depths * median_depth(slam_map, keyframe_id)
        if gap > max(self._config.max_drift_ratio * path, least):
            return f"a gap of {gap:.3f} is too much drift for a path of {path:.3f}: the places look the same"
        return ""

    def _objection_to_joint(
        self, slam_map: Map, camera: Camera, keyframe_id: int, found: Tracked, scale: float
    ) -> str:
        """What speaks against a revisit of another part; empty if nothing does."""
        place = Place.of(found, slam_map)
        possible = self._can_be(slam_map, keyframe_id, place, scale)
        if possible is False:
            return "the camera cannot have come so far while it was lost: the places look the same"
        elsewhere = self._elsewhere(slam_map, camera, keyframe_id, place)
        for rival in place.rivals(elsewhere, slam_map, self._settings):
            if possible and not self._can_be(slam_map, keyframe_id, rival, scale):
                continue
            return (
                f"{place.inliers} inliers at the place of {place.keyframe_id}, {rival.inliers} at that of "
                f"{rival.keyframe_id}: the places look the same"
            )
        return ""

    def _can_be(self, slam_map: Map, keyframe_id: int, place: Place, scale: float) -> bool | None:
        """Whether the camera can have come from one part to the other as a place says, while it was lost; None if
        nothing is known of that, or it was carried away.
        """
        here = slam_map.part_of(keyframe_id)
        older, younger = sorted((here, place.part))
        departure = self._departures.get(younger)
        if departure is None:
            return None
        first_id = int(slam_map.keyframes_of(younger)[0])
        first = slam_map.pose(first_id)
        timestamp = float(
            slam_map.keyframes["timestamp"][slam_map.keyframe_rows(np.asarray(first_id))]
        )
        reach = departure.reach(timestamp, slam_map, self._settings.relocalization)
        if reach is None or reach.part != older:
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
        """Where else in other parts a key frame may be, by likeness."""
        known, likeness = self._places.similarities(keyframe_id)
        other = slam_map.keyframes["id"][
            slam_map.keyframes["part"] != slam_map.part_of(keyframe_id)
        ]
        wanted = np.isin(known, other)
        least = self._config.min_covisibility
        beside = [
            place.keyframe_id,
            *slam_map.covisible(place.keyframe_id, least=least)[0].tolist(),
        ]
        candidates = groups_by_likeness(
            known[wanted], likeness[wanted], slam_map, least, self._config.max_rivals, beside
        )
        found = [
            self._recognize(slam_map, camera, keyframe_id, candidate) for candidate in candidates
        ]
        return [Place.of(tracked, slam_map) for tracked in found if not isinstance(tracked, str)]

    def _relative_scale(self, slam_map: Map, keyframe_id: int, found: Tracked) -> _RelativeScale:
        """Old depth over new depth of the key points that see a point in both parts of the map; NaN if too few do."""
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
        # Of a median, from the median deviation, as of normally distributed numbers.
        sigma = 1.25 * 1.48 * float(np.median(np.abs(ratios / ratio - 1))) / np.sqrt(len(ratios))
        return _RelativeScale(ratio, max(sigma, self._config.min_scale_sigma))

    # -- correction ------------------------------------------------------------------------------------------

    def _correct(self, slam_map: Map, camera: Camera, edge: LoopEdge) -> Rescaling:
        """Spread the gap over the pose graph, carry the points along, fuse both sides and refine the seam."""
        with_scale = not camera.has_depth
        _append(slam_map, edge)
        ids = slam_map.keyframes["id"]
        fixed = np.isin(ids, slam_map.first_keyframes())
        before = slam_map.T_world_keyframe.copy()
        edges = essential_graph(slam_map, with_scale, self._config.min_covisibility)
        after = spread_gap(self._pose_graph, before, edges, fixed, with_scale)
        self._move_points(slam_map, before, after)
        # Before points are fused: afterwards those of the old side would be seen by key frames of another scale.
        slam_map.points["distance"][:] *= _scale_of_points(slam_map, after)
        rescaling = Rescaling(ids.copy(), geometry.similarity_scale(after))
        slam_map.rescale_loops(rescaling.keyframe_ids, rescaling.scales)
        rigid = after.copy()
        rigid[:, :3, :3] /= rescaling.scales[:, None, None]
        slam_map.T_world_keyframe[:] = geometry.orthonormalize(rigid)
        self._fuse_seam(slam_map, camera, edge)
        return rescaling

    def _seen_before(self, slam_map: Map, edge: LoopEdge) -> bool:
        """Whether another key frame found the same of the two parts that a revisit connects."""
        parts = slam_map.part_of(edge.i), slam_map.part_of(edge.j)
        S_old_new = slam_map.pose(edge.i) @ edge.S_i_j @ geometry.inverse(slam_map.pose(edge.j))
        before, self._joint = self._joint, (*parts, S_old_new)
        if before is None or before[:2] != parts:
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
            logger.info("parts %d and %d: key frame %d finds them elsewhere to each other than the one before", *parts,
                        edge.j)  # fmt: skip
        return same

    def _join(self, slam_map: Map, camera: Camera, edge: LoopEdge) -> Rescaling:
        """Carry the younger of two parts over into the world of the older, fuse what both see and refine the seam."""
        old, new = slam_map.part_of(edge.i), slam_map.part_of(edge.j)
        S_old_new = slam_map.pose(edge.i) @ edge.S_i_j @ geometry.inverse(slam_map.pose(edge.j))
        into, moving = min(old, new), max(old, new)
        S = S_old_new if moving == new else geometry.inverse(S_old_new)
        moved = slam_map.keyframes["part"] == moving
        _append(slam_map, edge)
        slam_map.move_part(moving, S, into)
        rescaling = Rescaling(
            slam_map.keyframes["id"].copy(),
            np.where(moved, float(geometry.similarity_scale(S)), 1.0),
        )
        self._joint, self._last_closed = None, edge.j
        logger.info(
            "part %d of the map joined to part %d, scale %.3f",
            moving,
            into,
            geometry.similarity_scale(S),
        )
        self._fuse_seam(slam_map, camera, edge)
        return rescaling

    def _fuse_seam(self, slam_map: Map, camera: Camera, edge: LoopEdge) -> None:
        """Let both sides of a revisit see each other's points, and refine around it."""
        companions, _ = slam_map.covisible(edge.i, least=self._config.min_covisibility)
        old_points = slam_map.points_seen_by(np.append(companions[:8], edge.i))
        neighbors, _ = slam_map.covisible(edge.j, least=self._config.min_covisibility)
        for keyframe_id in np.append(neighbors[:5], edge.j):
            self._mapper.fuse_into(slam_map, camera, int(keyframe_id), old_points)
        slam_map.refresh_normals(slam_map.points["id"])
        self._mapper.refine(slam_map, camera, edge.j)

    @staticmethod
    def _move_points(slam_map: Map, before: Array, after: Array) -> None:
        """Carry each point along with the first key frame that sees it."""
        linked = np.flatnonzero(slam_map.observations["point"] >= 0)
        points, first = np.unique(slam_map.observations["point"][linked], return_index=True)
        anchors = slam_map.keyframe_rows(slam_map.observations["keyframe"][linked[first]])
        rows = slam_map.point_rows(points)
        correction = after[anchors] @ geometry.inverse(before[anchors])
        slam_map.positions[rows] = geometry.apply(correction, slam_map.positions[rows])


def _gap(slam_map: Map, keyframe_id: int, found: Tracked) -> float:
    """Distance, map units, between where a key frame is in the map and where the old part of the map sees it."""
    return float(np.linalg.norm(found.T_world_cam[:3, 3] - slam_map.pose(keyframe_id)[:3, 3]))


def _append(slam_map: Map, edge: LoopEdge) -> None:
    slam_map.loops.append(
        1, i=edge.i, j=edge.j, S_i_j=edge.S_i_j, information=edge.information, inliers=edge.inliers
    )


def _information(found: Tracked, scale: _RelativeScale, inflation: float) -> Array:
    """Inverse covariance (7, 7) of a revisit's residual, in lengths around the new key frame, from that of its pose,
    which is in those of the old place.
    """
    units = np.array([scale.ratio] * 3 + [1.0] * 3) / inflation
    information = np.zeros((7, 7))
    information[:6, :6] = np.linalg.inv(found.estimate.covariance) * np.outer(units, units)
    information[6, 6] = 1 / scale.sigma**2
    return 0.5 * (information + information.T)


def _scale_of_points(slam_map: Map, after: Array) -> Array:
    """(P,) change of scale of each point's neighbourhood, from the newest key frame that sees it."""
    scale = np.ones(len(slam_map.points))
    linked = np.flatnonzero(slam_map.observations["point"] >= 0)
    rows = slam_map.point_rows(slam_map.observations["point"][linked])
    keyframe_rows = slam_map.keyframe_rows(slam_map.observations["keyframe"][linked])
    scale[rows] = geometry.similarity_scale(after)[keyframe_rows]
    return scale


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
        delays=np.zeros(rows.stop - rows.start),
    )
