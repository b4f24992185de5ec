"""Tracking: estimate the camera pose of each frame from the local map."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from spslam.backend_interfaces import PoseSolver
from spslam.camera import Camera
from spslam.config import Config
from spslam.frame import KeypointView, Observations
from spslam.interfaces import Matcher, WideStage
from spslam.map.map import NO_POINT, Map
from spslam.slam.track_results import TrackedFrame
from spslam.slam.views import frame_view, keyframe_view, matched_points, points_view
from spslam.slam.visibility import visible_points
from spslam.typing import Float32Array, FloatArray, IntArray

# The small search radius is enough with this ratio of the usual fraction of inliers.
_USUAL_RATIO = 0.8
# Two search radii lead to the same pose if the larger finds up to this many times the inliers.
_SAME_INLIERS = 1.1


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
        for keyframe_id in keyframe_ids:
            seen = slam_map.observations["point"][slam_map.observation_rows(keyframe_id)]
            tracked = self._recover_by(
                keyframe_view(slam_map, camera, keyframe_id),
                seen,
                observations,
                slam_map,
                camera,
                least,
                stage,
                ratio=self._config.ratio,
                among=np.flatnonzero(seen >= 0),
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
        return self._recover_by(around, point_ids, observations, slam_map, camera, least, stage)

    def _recover_by(
        self,
        view: KeypointView,
        point_ids: IntArray,
        observations: Observations,
        slam_map: Map,
        camera: Camera,
        least: int | None,
        stage: WideStage | None,
        *,
        ratio: float | None = None,
        among: IntArray | None = None,
    ) -> TrackedFrame | None:
        """Find the pose of a frame by its matches with a view of points (ids)."""
        for attempt in (None,) if stage is None else self._matcher.attempts(stage):
            matches0 = self._matcher.match_views(
                frame_view(observations, camera),
                view,
                self._max_descriptor_distance,
                ratio,
                among=among,
                stage=attempt,
            ).matches0
            matched = matched_points(matches0, point_ids)
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
            points,
            observations.pixels[seen],
            observations.u_right[seen],
            camera,
            relative_sigma=observations.relative_sigma[seen],
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
            relative_sigma=observations.relative_sigma[keypoints],
        )
        least = self._config.min_inliers if tracked is None else tracked.inliers
        if np.count_nonzero(estimate.inliers) < least:
            return tracked
        return TrackedFrame.of(
            observations, estimate, keypoints, joined[keypoints], estimate.inliers, "motion"
        )

    def local_keyframes(self, slam_map: Map, point_ids: IntArray) -> IntArray:
        """Return keyframes that see the points, best first, then covisible ones of the best."""
        ids, _ = slam_map.keyframes_seeing(point_ids)
        wanted = self._config.max_keyframes
        local = list(ids[:wanted])
        if local and len(local) < wanted:
            companions, _ = slam_map.covisible(int(local[0]))
            local += [k for k in companions if k not in local][: wanted - len(local)]
        return np.array(local, dtype=np.int64)

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
        rows, pixels = visible_points(self._config, slam_map, camera, T_cam_world, local_points)
        if len(rows) < self._config.min_inliers:
            return None
        matched = self.match_near(pixels, slam_map.points["descriptor"][rows], observations, radius)
        if matched is None:
            return None
        hit, keypoints = matched
        rows = rows[hit]
        return _Matches(
            observations, keypoints, slam_map.points["id"][rows], slam_map.positions[rows]
        )

    def match_near(
        self,
        pixels: FloatArray,
        descriptors: Float32Array,
        observations: Observations,
        radius: float,
    ) -> tuple[IntArray, IntArray] | None:
        """Match expected positions with keypoints of a frame; None if too few match.

        Args:
            pixels: (N, 2) expected positions.
            descriptors: (N, D) expected there.
            observations: of the frame.
            radius: search radius, pixels.

        Returns:
            Indices (M,) of the expected positions that match, and of their keypoints (M,).
        """
        matches0 = self._matcher.match_near(
            pixels,
            descriptors,
            observations.pixels,
            observations.descriptors,
            radius,
            self._max_descriptor_distance,
        )
        hit = np.flatnonzero(matches0 >= 0)
        return (hit, matches0[hit]) if len(hit) >= self._config.min_inliers else None

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
            relative_sigma=observations.relative_sigma[keypoints],
            coarse=coarse,
        )
        if np.count_nonzero(estimate.inliers) < self._config.min_inliers:
            return None
        return TrackedFrame.of(
            observations, estimate, keypoints, matches.point_ids, estimate.inliers, "motion"
        )
