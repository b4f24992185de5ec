"""Tracking: estimate the camera pose of each frame from the local map."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam import geometry
from spslam.camera import Camera
from spslam.config import Config
from spslam.frame import Observations
from spslam.interfaces import Matcher, PoseEstimate, PoseSolver, WideStage
from spslam.map.map import NO_POINT, Map
from spslam.slam.views import frame_view, keyframe_view, points_view
from spslam.typing import FloatArray, IntArray

# The small search radius is enough with this ratio of the usual fraction of inliers.
_USUAL_RATIO = 0.8
# Two search radii lead to the same pose if the larger finds up to this many times the inliers.
_SAME_INLIERS = 1.1
_NAN_COVARIANCE = np.full((6, 6), np.nan)
_NO_KEYFRAMES = np.zeros(0, dtype=np.int64)


class TrackState(Enum):
    """The state of tracking."""

    INITIALIZING = "initializing"
    TRACKING = "tracking"
    LOST = "lost"


@dataclass(frozen=True, eq=False)
class TrackResult:
    """The result of tracking one frame.

    Attributes:
        index, timestamp: of the frame.
        state: after this frame.
        T_world_cam: (4, 4) float64, None unless tracked.
        inliers: number of matched points that agree with the pose.
        matches: number of matched points.
        submap: id of the submap, whose world the pose is in.
        is_keyframe: whether the frame became a keyframe.
        reason: why there is no pose, or how it was found; one line.
        covariance: (6, 6) of the pose (see `PoseEstimate`), NaN where unknown.
        median_error_px: median reprojection error of the inliers, pixels.
        inlier_coverage: fraction of the image inside the inliers' convex hull, 0 to 1.
    """

    index: int
    timestamp: float
    state: TrackState
    T_world_cam: FloatArray | None = None
    inliers: int = 0
    matches: int = 0
    submap: int = 0
    is_keyframe: bool = False
    reason: str = ""
    covariance: FloatArray = field(default_factory=_NAN_COVARIANCE.copy)
    median_error_px: float = float("nan")
    inlier_coverage: float = 0.0

    @classmethod
    def of(
        cls, tracked: TrackedFrame, submap: int, why_keyframe: str, camera: Camera
    ) -> TrackResult:
        """Make the result of a tracked frame.

        Args:
            tracked: the frame.
            submap: id of the submap.
            why_keyframe: why the frame became a keyframe; empty if it did not.
            camera: of the frame.
        """
        return cls(
            index=tracked.observations.index,
            timestamp=tracked.observations.timestamp,
            state=TrackState.TRACKING,
            T_world_cam=tracked.T_world_cam,
            inliers=tracked.inliers,
            matches=tracked.matches,
            submap=submap,
            is_keyframe=bool(why_keyframe),
            reason=f"keyframe: {why_keyframe}" if why_keyframe else tracked.how,
            covariance=tracked.estimate.covariance,
            median_error_px=tracked.estimate.median_error_px,
            inlier_coverage=tracked.inlier_coverage(camera),
        )

    @classmethod
    def of_first_keyframe(
        cls,
        observations: Observations,
        slam_map: Map,
        keyframe_id: int,
        seen: IntArray,
        camera: Camera,
    ) -> TrackResult:
        """Make the result of the frame that starts a submap.

        Args:
            observations: of the frame.
            slam_map: with the new submap.
            keyframe_id: of the frame.
            seen: ids of the points that the frame sees.
            camera: of the frame.
        """
        linked = slam_map.observations["point"][slam_map.observation_rows(keyframe_id)] >= 0
        return cls(
            observations.index,
            observations.timestamp,
            TrackState.TRACKING,
            T_world_cam=slam_map.pose(keyframe_id),
            inliers=len(seen),
            matches=len(seen),
            submap=slam_map.submap,
            is_keyframe=True,
            reason="first map" if slam_map.submap == 0 else f"submap {slam_map.submap} starts",
            inlier_coverage=hull_fraction(observations.pixels[linked], camera),
        )


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """A frame with its pose and the points it sees.

    Attributes:
        observations: of the frame.
        estimate: its pose; `estimate.inliers` refers to the matches that gave `point_ids`.
        point_ids: (N,) int64, the point of each keypoint, or NO_POINT; inliers only.
        rejected: (N,) int64, the matched point of each keypoint that is an outlier, or NO_POINT.
        how: `motion`, `recovery` or `directions`.
        anchors: ids of the keyframes whose directions agree with the pose, best first; empty for a
            frame that was tracked by points (see `spslam.slam.directions`).
        by_direction: (N,) bool, which keypoints agree with a direction; None: no keypoint.
    """

    observations: Observations
    estimate: PoseEstimate
    point_ids: IntArray
    rejected: IntArray
    how: str
    anchors: IntArray = field(default_factory=_NO_KEYFRAMES.copy)
    by_direction: NDArray[np.bool_] | None = None

    @property
    def matches(self) -> int:
        """Number of matches, including outliers."""
        return self.inliers + int(np.count_nonzero(self.rejected >= 0))

    @property
    def inliers(self) -> int:
        """Number of points seen."""
        return int(np.count_nonzero(self.point_ids >= 0))

    @property
    def seen(self) -> IntArray:
        """IntArray of the points seen."""
        return self.point_ids[self.point_ids >= 0]

    @property
    def T_world_cam(self) -> FloatArray:
        """(4, 4) float64 pose."""
        return geometry.inverse(self.estimate.T_cam_world)

    def moved(self, T_cam_world: FloatArray, slam_map: Map) -> TrackedFrame:
        """Return the frame at another pose, with only those points that are still in the map."""
        there = slam_map.point_rows(self.point_ids) >= 0
        return replace(
            self,
            estimate=replace(self.estimate, T_cam_world=T_cam_world),
            point_ids=np.where(there, self.point_ids, NO_POINT),
            rejected=np.where(slam_map.point_rows(self.rejected) >= 0, self.rejected, NO_POINT),
        )

    def select(self, kept: NDArray[np.bool_]) -> TrackedFrame:
        """Return the frame with a subset of its keypoints, given by a mask (N,)."""
        return replace(
            self,
            observations=self.observations.select(kept),
            point_ids=self.point_ids[kept],
            rejected=self.rejected[kept],
            by_direction=None if self.by_direction is None else self.by_direction[kept],
        )

    def inlier_coverage(self, camera: Camera) -> float:
        """Fraction of the image inside the convex hull of what agrees with the pose, 0 to 1."""
        return hull_fraction(self.observations.pixels[self.agreeing], camera)

    @property
    def agreeing(self) -> NDArray[np.bool_]:
        """(N,) which keypoints agree with the pose, by a point or a direction."""
        by_point: NDArray[np.bool_] = self.point_ids >= 0
        return by_point if self.by_direction is None else by_point | self.by_direction


def hull_fraction(pixels: FloatArray, camera: Camera) -> float:
    """Fraction of the image inside the convex hull of pixels (N, 2), 0 to 1; 0 if collinear."""
    if len(pixels) < 3:
        return 0.0
    hull = cv2.convexHull(pixels.astype(np.float32))
    return float(cv2.contourArea(hull) / (camera.width * camera.height))


@dataclass(frozen=True, eq=False)
class _Matches:
    """Matches between keypoints of a frame and points of the map.

    Attributes:
        observations: of the frame.
        keypoints: (M,) indices of the keypoints.
        point_ids: (M,) their points.
        positions: (M, 3) of the points.
    """

    observations: Observations
    keypoints: IntArray
    point_ids: IntArray
    positions: FloatArray


class Tracker:
    """Finds the pose of each frame: near a prediction in the local map, or by RANSAC on keyframes.

    Args:
        config: of all stages.
        matcher: matches keypoints and points.
        pose_solver: estimates poses.
        max_descriptor_distance: largest L2 distance of matching unit descriptors.
    """

    def __init__(
        self,
        config: Config,
        matcher: Matcher,
        pose_solver: PoseSolver,
        max_descriptor_distance: float,
    ) -> None:
        self._config = config.tracking
        self._matcher = matcher
        self._pose_solver = pose_solver
        self._max_descriptor_distance = max_descriptor_distance
        # Fraction of inliers of the latest search with a normal radius, or more since then; of
        # frames in sequence only.
        self._usual = 1.0

    def track(
        self,
        observations: Observations,
        slam_map: Map,
        camera: Camera,
        T_cam_world: FloatArray | None,
        local_points: IntArray,
        *,
        in_sequence: bool = False,
    ) -> TrackedFrame | None:
        """Find the pose of a frame near a predicted one; None if tracking fails.

        Search radii are tried in turn: a small one, which is enough for most frames, then a normal
        one, then a wide one if the normal one fails or has few inliers among its matches (it may
        have excluded the true matches). Each is followed by a narrow search around the refined
        pose.

        Args:
            observations: of the frame.
            slam_map: to track in.
            camera: of the frame.
            T_cam_world: (4, 4) predicted pose; None without a prediction.
            local_points: ids of the points to search.
            in_sequence: whether the frame follows the last tracked one; its fraction of inliers
                then counts as usual.
        """
        if T_cam_world is None or len(local_points) == 0:
            return None

        def search(widening: float, most: int = len(local_points)) -> TrackedFrame | None:
            radius = self._config.search_radius_px * widening
            return self._search(
                observations, slam_map, camera, T_cam_world, local_points, radius, most
            )

        near = search(self._config.near_radius_ratio, self._config.near_points)
        if near is not None and near.inliers >= self._least_near_fraction() * near.matches:
            if in_sequence:
                self._usual = max(self._usual, near.inliers / near.matches)
            return near
        best = search(1.0)
        if best is None or not self._is_enough(best, near):
            wide = search(self._config.wide_radius_ratio)
            if wide is not None and (best is None or wide.inliers > best.inliers):
                best = wide
        if in_sequence:
            self._usual = 1.0 if best is None else best.inliers / best.matches
        return best

    def _is_enough(self, found: TrackedFrame, near: TrackedFrame | None) -> bool:
        """Whether a wider radius than the normal one would find nothing else.

        It would not if enough matches agree, or if the small radius found as many inliers.
        """
        if found.inliers >= self._config.min_inlier_fraction * found.matches:
            return True
        return near is not None and found.inliers <= _SAME_INLIERS * near.inliers

    def _least_near_fraction(self) -> float:
        """Minimum fraction of inliers with which the small radius is enough.

        Rolling shutter and blur lower the fraction with any radius: then a larger one finds nothing
        else, and the fraction that is usual in the latest frames is enough.
        """
        usual = max(_USUAL_RATIO * self._usual, self._config.min_inlier_fraction)
        return min(self._config.near_min_inlier_fraction, usual)

    def _search(
        self,
        observations: Observations,
        slam_map: Map,
        camera: Camera,
        T_cam_world: FloatArray,
        local_points: IntArray,
        radius: float,
        most: int,
    ) -> TrackedFrame | None:
        """Find a pose by at most `most` of the points, then by all points in a narrow radius."""
        some = local_points[:: -(-len(local_points) // most)]

        matches = self._match(observations, slam_map, camera, T_cam_world, some, radius)
        # One coarse round may end too far off for enough inliers.
        first = self._refine(matches, T_cam_world, camera, coarse=True) or self._refine(
            matches, T_cam_world, camera
        )
        if first is None:
            return None
        refined, narrow = first.estimate.T_cam_world, self._config.refine_radius_px
        second = self._refine(
            self._match(observations, slam_map, camera, refined, local_points, narrow),
            refined,
            camera,
        )
        if second is not None and second.inliers >= first.inliers:
            return second
        return self._refine(matches, T_cam_world, camera)

    def recover(
        self,
        observations: Observations,
        slam_map: Map,
        camera: Camera,
        keyframe_ids: Iterable[int],
        least: int | None = None,
        stage: WideStage | None = None,
    ) -> TrackedFrame | None:
        """Find the pose of a frame without a prediction, by matches with one keyframe at a time.

        Args:
            observations: of the frame.
            slam_map: to find it in.
            camera: of the frame.
            keyframe_ids: keyframes to try in turn.
            least: least number of inliers; None: `tracking.recovery_inliers`.
            stage: if the keyframes may be far from the frame; see `Matcher.match_views`.
        """
        attempts = (None,) if stage is None else self._matcher.attempts(stage)
        for keyframe_id in keyframe_ids:
            for attempt in attempts:
                matched = self._match_keyframe(observations, slam_map, camera, keyframe_id, attempt)
                tracked = self._recover_from(
                    observations, slam_map, camera, matched, least, wide=attempt is not None
                )
                if tracked is not None:
                    return tracked
        return None

    def recover_around(
        self,
        observations: Observations,
        slam_map: Map,
        camera: Camera,
        keyframe_id: int,
        least: int | None = None,
        stage: WideStage | None = None,
    ) -> TrackedFrame | None:
        """Find the pose of a frame without a prediction, by all points around a keyframe.

        After a jump only a few points of each keyframe are found, but together they may be enough.
        No ratio test: neighbouring points look similar, and RANSAC removes the outliers.

        Args:
            observations: of the frame.
            slam_map: to find it in.
            camera: of the frame.
            keyframe_id: the keyframe.
            least: least number of inliers; None: `tracking.recovery_inliers`.
            stage: if the keyframe may be far from the frame; see `Matcher.match_views`.
        """
        if not slam_map.has_keyframe(keyframe_id):
            return None
        seen = slam_map.points_seen_by(np.array([keyframe_id]))
        point_ids = slam_map.points_seen_by(self.local_keyframes(slam_map, seen))
        around = points_view(slam_map, camera, keyframe_id, slam_map.point_rows(point_ids))
        for attempt in (None,) if stage is None else self._matcher.attempts(stage):
            matches0 = self._matcher.match_views(
                frame_view(observations, camera),
                around,
                self._max_descriptor_distance,
                stage=attempt,
            ).matches0
            matched = np.full(len(observations), NO_POINT, dtype=np.int64)
            hit = matches0 >= 0
            matched[hit] = point_ids[matches0[hit]]
            tracked = self._recover_from(
                observations, slam_map, camera, matched, least, wide=attempt is not None
            )
            if tracked is not None:
                return tracked
        return None

    def _recover_from(
        self,
        observations: Observations,
        slam_map: Map,
        camera: Camera,
        matched: IntArray,
        least: int | None,
        *,
        wide: bool,
    ) -> TrackedFrame | None:
        """Find the pose of a frame from matches (N,) with points, some of which are wrong."""
        seen = np.flatnonzero(matched >= 0)
        if len(seen) < self._config.min_inliers:
            return None
        points = slam_map.positions[slam_map.point_rows(matched[seen])]
        estimate = self._pose_solver.ransac(
            points, observations.pixels[seen], observations.u_right[seen], camera
        )
        if estimate is None or np.count_nonzero(estimate.inliers) < self._config.min_inliers:
            return None
        local_points = slam_map.points_seen_by(
            self.local_keyframes(slam_map, matched[seen][estimate.inliers])
        )
        tracked = self.track(observations, slam_map, camera, estimate.T_cam_world, local_points)
        if wide:
            tracked = self.with_matches(
                tracked, observations, slam_map, camera, estimate.T_cam_world, matched
            )
        least = self._config.recovery_inliers if least is None else least
        if tracked is None or tracked.inliers < least:
            return None
        return replace(tracked, how="recovery")

    def with_matches(
        self,
        tracked: TrackedFrame | None,
        observations: Observations,
        slam_map: Map,
        camera: Camera,
        T_cam_world: FloatArray,
        matched: IntArray,
    ) -> TrackedFrame | None:
        """Add the matches of wide views to a frame that was tracked from their pose.

        Seen from far aside, most points look too different to be matched again by projection.

        Args:
            tracked: the frame, tracked by projection; None if that failed.
            observations: of the frame.
            slam_map: holds the points.
            camera: of the frame.
            T_cam_world: (4, 4) the pose by the matches.
            matched: (N,) the point that each keypoint matches, or NO_POINT; a few are wrong.

        Returns:
            The frame with all of them, or `tracked` if fewer agree then.
        """
        seen = np.full(len(observations), NO_POINT, dtype=np.int64)
        if tracked is not None:
            seen, T_cam_world = tracked.point_ids, tracked.estimate.T_cam_world
        more = (seen < 0) & (matched >= 0) & ~np.isin(matched, seen)
        joined = np.where(more, matched, seen)
        keypoints = np.flatnonzero(joined >= 0)
        if len(keypoints) < self._config.min_inliers:
            return tracked
        estimate = self._pose_solver.refine(
            T_cam_world,
            slam_map.positions[slam_map.point_rows(joined[keypoints])],
            observations.pixels[keypoints],
            observations.u_right[keypoints],
            camera,
        )
        least = self._config.min_inliers if tracked is None else tracked.inliers
        if np.count_nonzero(estimate.inliers) < least:
            return tracked
        found = np.full((2, len(observations)), NO_POINT, dtype=np.int64)
        found[np.where(estimate.inliers, 0, 1), keypoints] = joined[keypoints]
        return TrackedFrame(observations, estimate, found[0], found[1], "motion")

    def local_keyframes(self, slam_map: Map, point_ids: IntArray) -> IntArray:
        """Return keyframes that see the points, best first, then covisible ones of the best."""
        ids, _ = slam_map.keyframes_seeing(point_ids)
        wanted = self._config.max_keyframes
        local = list(ids[:wanted])
        if local and len(local) < wanted:
            companions, _ = slam_map.covisible(int(local[0]))
            local += [k for k in companions if k not in local][: wanted - len(local)]
        return np.array(local, dtype=np.int64)

    def _match_keyframe(
        self,
        observations: Observations,
        slam_map: Map,
        camera: Camera,
        keyframe_id: int,
        stage: WideStage | None,
    ) -> IntArray:
        """(N,) int64 points of a keyframe that match each keypoint of the frame, or NO_POINT."""
        seen = slam_map.observations["point"][slam_map.observation_rows(keyframe_id)]
        matches0 = self._matcher.match_views(
            frame_view(observations, camera),
            keyframe_view(slam_map, camera, keyframe_id),
            self._max_descriptor_distance,
            self._config.ratio,
            among=np.flatnonzero(seen >= 0),
            stage=stage,
        ).matches0
        point_ids = np.full(len(observations), NO_POINT, dtype=np.int64)
        hit = matches0 >= 0
        point_ids[hit] = seen[matches0[hit]]
        return point_ids

    def _match(
        self,
        observations: Observations,
        slam_map: Map,
        camera: Camera,
        T_cam_world: FloatArray,
        local_points: IntArray,
        radius: float,
    ) -> _Matches | None:
        """Match points around their projections; None if too few match."""
        rows = slam_map.point_rows(local_points)
        rows = rows[rows >= 0]
        pixels, visible = self.project(slam_map, camera, T_cam_world, rows)
        rows, pixels = rows[visible], pixels[visible]
        if len(rows) < self._config.min_inliers:
            return None
        matches0 = self._matcher.match_near(
            pixels,
            slam_map.points["descriptor"][rows],
            observations.pixels,
            observations.descriptors,
            radius,
            self._max_descriptor_distance,
        )
        hit = np.flatnonzero(matches0 >= 0)
        if len(hit) < self._config.min_inliers:
            return None
        rows = rows[hit]
        return _Matches(
            observations, matches0[hit], slam_map.points["id"][rows], slam_map.positions[rows]
        )

    def _refine(
        self,
        matches: _Matches | None,
        T_cam_world: FloatArray,
        camera: Camera,
        *,
        coarse: bool = False,
    ) -> TrackedFrame | None:
        """Refine a pose by matches; None if too few agree with it."""
        if matches is None:
            return None
        observations, keypoints = matches.observations, matches.keypoints
        estimate = self._pose_solver.refine(
            T_cam_world,
            matches.positions,
            observations.pixels[keypoints],
            observations.u_right[keypoints],
            camera,
            coarse=coarse,
        )
        if np.count_nonzero(estimate.inliers) < self._config.min_inliers:
            return None
        matched = np.full((2, len(observations)), NO_POINT, dtype=np.int64)
        matched[np.where(estimate.inliers, 0, 1), keypoints] = matches.point_ids
        return TrackedFrame(observations, estimate, matched[0], matched[1], "motion")

    def project(
        self, slam_map: Map, camera: Camera, T_cam_world: FloatArray, rows: IntArray
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Project points (rows) to pixels (N, 2), and find which (N,) should be visible."""
        positions = slam_map.positions[rows]
        points_cam = geometry.apply(T_cam_world, positions)
        pixels = camera.project(points_cam)
        centre = geometry.inverse(T_cam_world)[:3, 3]
        rays = centre - positions
        distance = np.linalg.norm(rays, axis=1)
        cosine = np.sum(rays * slam_map.points["normal"][rows], axis=1) / np.maximum(
            distance, 1e-12
        )
        change = distance / np.maximum(slam_map.points["distance"][rows], 1e-12)
        limit = self._config.max_scale_change
        visible = (
            (points_cam[:, 2] > 0)
            & camera.in_image(pixels)
            & (cosine > np.cos(np.radians(self._config.max_view_angle_deg)))
            & (change < limit)
            & (change > 1.0 / limit)
        )
        return pixels, visible

    def count_visibility(
        self, slam_map: Map, camera: Camera, tracked: TrackedFrame, local_points: IntArray
    ) -> None:
        """Count which local points this frame should have seen, and which it saw."""
        rows = slam_map.point_rows(local_points)
        rows = rows[rows >= 0]
        _, visible = self.project(slam_map, camera, tracked.estimate.T_cam_world, rows)
        found = slam_map.point_rows(tracked.seen)
        # A point that was found counts as visible.
        counted = np.zeros(len(slam_map.points), dtype=bool)
        counted[rows[visible]] = counted[found] = True
        slam_map.points["visible"][counted] += 1
        slam_map.points["found"][found] += 1


class Motion:
    """Constant-velocity motion model of the camera.

    The last pose is kept relative to a keyframe, so that it follows a refinement of the map.
    """

    def __init__(self, config: Config) -> None:
        self._speed_memory_s = config.tracking.speed_memory_s
        self._T_cam_keyframe: FloatArray | None = None
        self._keyframe_id = -1
        self._velocity = np.zeros(6)
        self._fastest = np.zeros(2)
        self._timestamp = 0.0

    def update(
        self, timestamp: float, T_cam_world: FloatArray, keyframe_id: int, slam_map: Map
    ) -> None:
        """Update the velocity and the last pose with a tracked frame."""
        previous = self.last(slam_map)
        if previous is not None and timestamp > self._timestamp:
            step = geometry.se3_log(T_cam_world @ geometry.inverse(previous))
            elapsed = timestamp - self._timestamp
            self._velocity = step / elapsed
            speeds = np.linalg.norm(self._velocity.reshape(2, 3), axis=1)
            self._fastest = np.maximum(
                speeds, self._fastest * np.exp(-elapsed / self._speed_memory_s)
            )
        self.anchor(timestamp, T_cam_world, keyframe_id, slam_map)

    @property
    def velocity(self) -> FloatArray:
        """(6,) [translation, rotation] per second from the last two poses; zeros if unknown.

        After t seconds a point X of camera coordinates is at exp(velocity · t) X.
        """
        return self._velocity

    @property
    def fastest(self) -> tuple[float, float]:
        """Largest recent speeds, map units and radians per second; older speeds decay."""
        return float(self._fastest[0]), float(self._fastest[1])

    @property
    def timestamp(self) -> float:
        """Timestamp of the last pose, seconds."""
        return self._timestamp

    def anchor(
        self, timestamp: float, T_cam_world: FloatArray, keyframe_id: int, slam_map: Map
    ) -> None:
        """Set the last pose without changing the velocity."""
        self._T_cam_keyframe = T_cam_world @ slam_map.pose(keyframe_id)
        self._keyframe_id = keyframe_id
        self._timestamp = timestamp

    def rescale(self, scale: float) -> None:
        """Scale the lengths with the map around the camera."""
        if self._T_cam_keyframe is not None:
            self._T_cam_keyframe[:3, 3] *= scale
        self._velocity[:3] *= scale
        self._fastest[0] *= scale

    def stop(self) -> None:
        """Forget pose and velocity: the motion before a loss predicts nothing after it."""
        self._T_cam_keyframe = None
        self._velocity, self._fastest = np.zeros(6), np.zeros(2)

    def last(self, slam_map: Map) -> FloatArray | None:
        """(4, 4) `T_cam_world` of the last tracked frame in the current map; None if unknown."""
        if self._T_cam_keyframe is None or not slam_map.has_keyframe(self._keyframe_id):
            return None
        return self._T_cam_keyframe @ geometry.inverse(slam_map.pose(self._keyframe_id))

    def predict(self, timestamp: float, slam_map: Map) -> FloatArray | None:
        """(4, 4) predicted `T_cam_world` at `timestamp`; None if the last pose is unknown."""
        last = self.last(slam_map)
        if last is None:
            return None
        return geometry.orthonormalize(
            geometry.se3_exp(self._velocity * (timestamp - self._timestamp)) @ last
        )
