"""Verify loops: does a keyframe see the place of an older one?

The steps are descriptor matching, RANSAC, more matches by projection, and a refined pose. A loop
needs enough inliers that cover enough of the image, and a gap that the path in between can have
drifted. A wrong loop is worse than a missed one.

The relative pose of two submaps is unknown before. A loop between them therefore needs more: no
other place may fit about as well, and the camera must have been able to move that far while it was
lost.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from spslam import geometry
from spslam.backend_interfaces import PlaceRecognizer, PoseSolver
from spslam.camera import Camera
from spslam.config import Config
from spslam.errors import Refusal
from spslam.frame import Observations
from spslam.interfaces import Matcher, WideStage
from spslam.map.covisibility import median_depth
from spslam.map.map import Map
from spslam.map.submaps import keyframes_of, submap_of
from spslam.notices import counted
from spslam.slam.loops.loop_detection import travelled
from spslam.slam.loops.similar_places import Departure, Place, groups_by_similarity
from spslam.slam.track_results import TrackedFrame
from spslam.slam.tracking import Tracker
from spslam.slam.views import frame_view, matched_points, points_view
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


class LoopVerifier:
    """Verifies loops of a keyframe; the map does not change.

    Attributes:
        doubted: keyframes with a loop to another submap that was rejected as a similar place.
    """

    def __init__(
        self,
        config: Config,
        matcher: Matcher,
        pose_solver: PoseSolver,
        tracker: Tracker,
        places: PlaceRecognizer,
        max_descriptor_distance: float,
    ) -> None:
        self._settings = config
        self._config = config.loop
        self._ratio = config.tracking.ratio
        self._tracker = tracker
        self._matcher = matcher
        self._pose_solver = pose_solver
        self._max_descriptor_distance = max_descriptor_distance
        self._place_recognition = places
        self._departures: dict[int, Departure] = {}
        self.doubted: set[int] = set()

    def submap_began(self, submap: int, departure: Departure | None) -> None:
        """Note where the camera was lost before a submap: this limits where the submap can be."""
        if departure is not None:
            self._departures[submap] = departure

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
        return self.edge_of(slam_map, camera, keyframe_id, candidate, found)

    def edge_of(
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
        observations = slam_map.observations_of(keyframe_id)
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
            relative_sigma=observations.relative_sigma[hit],
        )
        if estimate is None:
            return Refusal(f"no pose agrees with {counted(len(hit), 'match', 'matches')}")
        tracked = self._tracker.track(
            observations, slam_map, camera, estimate.T_cam_world, local_points
        )
        if wide:
            matched = matched_points(matches0, slam_map.points["id"][rows])
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
        possible = self.can_be(slam_map, keyframe_id, place, scale)
        if possible is False:
            return Refusal(
                "the camera cannot have moved that far while it was lost: the places look the same"
            )
        elsewhere = self._elsewhere(slam_map, camera, keyframe_id, place)
        for rival in place.rivals(elsewhere, slam_map, self._settings):
            if possible and not self.can_be(slam_map, keyframe_id, rival, scale):
                continue
            return Refusal(
                f"{counted(place.inliers, 'inlier')} at the place of {place.keyframe_id}, "
                f"{rival.inliers} at the place of {rival.keyframe_id}: the places look the same"
            )
        return None

    def can_be(self, slam_map: Map, keyframe_id: int, place: Place, scale: float) -> bool | None:
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


def _information(found: TrackedFrame, scale: _RelativeScale, inflation: float) -> FloatArray:
    """Inverse covariance (7, 7) of a loop's residual, in lengths around the new keyframe.

    The covariance of the pose is in lengths of the old place.
    """
    units = np.array([scale.ratio] * 3 + [1.0] * 3) / inflation
    information = np.zeros((7, 7))
    information[:6, :6] = np.linalg.inv(found.estimate.covariance) * np.outer(units, units)
    information[6, 6] = 1 / scale.sigma**2
    return 0.5 * (information + information.T)
