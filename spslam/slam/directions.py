"""Track a single camera by directions while it turns on the spot.

Without parallax, keypoints get no depth, and a camera that turns away from its points would be
lost. But each keypoint of a keyframe has a direction. A camera near that keyframe sees it in the
same direction, whatever its depth. Such keypoints without a point are matched like points at the
typical distance of the scene. They constrain the rotation; where the camera does move a little, the
typical distance is a better guess than infinity (Civera, Davison & Montiel, Inverse depth
parametrization for monocular SLAM, T-RO 2008, start their points like that). They are no points of
the map: bundle adjustment does not see them until two keyframes with enough parallax triangulate
them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from spslam import geometry
from spslam.backend_interfaces import PoseSolver
from spslam.camera import Camera
from spslam.config import Config
from spslam.frame import Observations
from spslam.map.map import NO_POINT, Map
from spslam.map.submaps import keyframes_of, points_of
from spslam.slam.track_results import TrackedFrame
from spslam.slam.tracking import Tracker
from spslam.slam.visibility import visible_points
from spslam.typing import FloatArray, IntArray

# Maximum number of keyframes whose directions are searched.
_ANCHORS = 4
# Maximum distance of the camera from them, typical distances of the scene: the direction of a point
# at half or twice that distance is then off by less than about 3°.
_MAX_SHIFT = 0.1
# Number of times that the distances of the directions are fitted to the pose, and the pose to them.
_FITS = 3
# Standard deviation of the inverse distance of a direction, and its limits, ratios to the typical.
_NEARNESS_SIGMA, _NEARNESS_RANGE = 0.4, (0.1, 4.0)
# Standard deviation of a keypoint for that fit, pixels.
_SIGMA_PX = 1.0
# Maximum number of keyframes whose points are searched, and maximum distance from them.
_AROUND, _MAX_POINT_SHIFT = 12, 0.5
# Maximum angle between the viewing directions, radians.
_MAX_TURN = 0.9
# `TrackedFrame.how`.
_HOW = "directions"
# Minimum number of links to points from which a keyframe tells the distance of the scene itself.
_ENOUGH_LINKS = 20


@dataclass(frozen=True, eq=False)
class _Directions:
    """Keypoints without a point.

    Attributes:
        keyframes: (M,) id of the keyframe of each.
        origins: (M, 3) position of that keyframe in the world.
        rays: (M, 3) unit vectors, direction in the world.
        nearness: (M,) inverse of the typical distance of the scene.
        descriptors: (M, D) float32.
    """

    keyframes: IntArray
    origins: FloatArray
    rays: FloatArray
    nearness: FloatArray
    descriptors: FloatArray

    def positions(self, nearness: FloatArray) -> FloatArray:
        """Positions (M, 3) in the world at inverse distances (M,)."""
        there: FloatArray = self.origins + self.rays / nearness[:, None]
        return there

    def select(self, index: IntArray) -> _Directions:
        """Return the directions at `index`."""
        return _Directions(
            self.keyframes[index],
            self.origins[index],
            self.rays[index],
            self.nearness[index],
            self.descriptors[index],
        )

    def fit(
        self, T_cam_world: FloatArray, pixels: FloatArray, camera: Camera, sigma: float
    ) -> FloatArray:
        """Estimate inverse distances (M,) from their pixels (M, 2) in a frame, and the prior.

        One Gauss-Newton step for each on its own, from the typical distance.
        """
        turned = self.rays @ T_cam_world[:3, :3].T
        shift = geometry.apply(T_cam_world, self.origins)
        x = turned + self.nearness[:, None] * shift
        z = np.maximum(x[:, 2], 1e-6)
        focal = np.array([camera.fx, camera.fy])
        slope = focal * (shift[:, :2] - x[:, :2] / z[:, None] * shift[:, 2:]) / z[:, None]
        error = pixels - camera.project(x)
        prior = (sigma / (_NEARNESS_SIGMA * self.nearness)) ** 2
        step = np.sum(slope * error, axis=1) / (np.sum(slope**2, axis=1) + prior)
        step = np.where(np.isfinite(step), step, 0.0)
        low, high = _NEARNESS_RANGE
        fitted: FloatArray = np.clip(
            self.nearness + step, low * self.nearness, high * self.nearness
        )
        return fitted


class DirectionTracker:
    """Finds the pose of a frame by points, and by directions of keyframes near the camera.

    Args:
        config: of all stages.
        pose_solver: estimates poses.
        tracker: matches points.
    """

    def __init__(
        self,
        config: Config,
        pose_solver: PoseSolver,
        tracker: Tracker,
    ) -> None:
        self._config = config.tracking
        self._pose_solver = pose_solver
        self._tracker = tracker

    def track(
        self,
        observations: Observations,
        slam_map: Map,
        camera: Camera,
        T_cam_world: FloatArray | None,
        local_points: IntArray,
    ) -> TrackedFrame | None:
        """Find the pose of a frame near a predicted one; None if too few keypoints agree.

        Args:
            observations: of the frame.
            slam_map: to track in, in its current submap.
            camera: of the frame.
            T_cam_world: (4, 4) predicted pose; None without a prediction.
            local_points: ids of points to search besides those of the keyframes near the camera.
        """
        if T_cam_world is None:
            return None
        around, anchors = self._around(slam_map, T_cam_world)
        if len(anchors) == 0:
            return None
        directions = _directions(slam_map, camera, anchors)
        points = np.union1d(local_points, slam_map.points_seen_by(around))
        near, wide = self._config.near_radius_ratio, self._config.wide_radius_ratio
        for widening in (near, 1.0, wide):
            T, best = T_cam_world, None
            for radius in (self._config.search_radius_px * widening, self._config.refine_radius_px):
                found = self._match(observations, slam_map, camera, T, points, directions, radius)
                if found is None:
                    break
                T, best = found.estimate.T_cam_world, found
            if best is not None and self._is_enough(best):
                return best
        return None

    def _is_enough(self, tracked: TrackedFrame) -> bool:
        inliers = int(np.count_nonzero(tracked.estimate.inliers))
        return (
            inliers >= self._config.recovery_inliers
            and inliers >= self._config.min_inlier_fraction * len(tracked.estimate.inliers)
        )

    def _around(self, slam_map: Map, T_cam_world: FloatArray) -> tuple[IntArray, IntArray]:
        """Return keyframes that look in the direction of the camera, the most similar first.

        Returns:
            Those whose points are searched, and those near enough for their directions.
        """
        ids = keyframes_of(slam_map, slam_map.submap)
        poses = slam_map.T_world_keyframe[slam_map.keyframe_rows(ids)]
        camera_pose = geometry.inverse(T_cam_world)
        turn = np.arccos(np.clip(poses[:, :3, 2] @ camera_pose[:3, 2], -1.0, 1.0))
        shift = np.linalg.norm(poses[:, :3, 3] - camera_pose[:3, 3], axis=1)
        distance = scene_distance(slam_map, int(ids[-1])) if len(ids) else 0.0
        order = np.argsort(turn, kind="stable")
        order = order[turn[order] < _MAX_TURN]
        around = order[shift[order] < _MAX_POINT_SHIFT * distance][:_AROUND]
        near = order[shift[order] < _MAX_SHIFT * distance][:_ANCHORS]
        return ids[around], ids[near]

    def _match(
        self,
        observations: Observations,
        slam_map: Map,
        camera: Camera,
        T_cam_world: FloatArray,
        points: IntArray,
        directions: _Directions,
        radius: float,
    ) -> TrackedFrame | None:
        """Match points and directions around their projections, and refine the pose."""
        rows, pixels = visible_points(self._config, slam_map, camera, T_cam_world, points)
        guess = directions.positions(directions.nearness)
        in_camera = geometry.apply(T_cam_world, guess)
        direction_pixels = camera.project(in_camera)
        ahead = np.flatnonzero((in_camera[:, 2] > 0) & camera.in_image(direction_pixels))
        matched = self._tracker.match_near(
            np.concatenate([pixels, direction_pixels[ahead]]),
            np.concatenate([slam_map.points["descriptor"][rows], directions.descriptors[ahead]]),
            observations,
            radius,
        )
        if matched is None:
            return None
        hit, keypoints = matched
        is_point = hit < len(rows)
        seen = directions.select(ahead[hit[~is_point] - len(rows)])
        positions = np.concatenate([slam_map.positions[rows], guess[ahead]])[hit]
        T = T_cam_world
        for number in range(_FITS + 1):
            estimate = self._pose_solver.refine(
                T, positions, observations.pixels[keypoints], observations.u_right[keypoints],
                camera, relative_sigma=observations.relative_sigma[keypoints],
                coarse=number < _FITS,
            )  # fmt: skip
            T = estimate.T_cam_world
            if np.count_nonzero(estimate.inliers) < self._config.min_inliers:
                return None
            if number < _FITS:
                pixels = observations.pixels[keypoints[~is_point]]
                positions[~is_point] = seen.positions(seen.fit(T, pixels, camera, _SIGMA_PX))
        ids = slam_map.points["id"][rows[hit[is_point]]]
        tracked = TrackedFrame.of(
            observations, estimate, keypoints[is_point], ids, estimate.inliers[is_point], _HOW
        )
        agree = estimate.inliers & ~is_point
        keyframes, counts = np.unique(seen.keyframes[agree[~is_point]], return_counts=True)
        by_direction = np.zeros(len(observations), dtype=bool)
        by_direction[keypoints[agree]] = True
        return replace(
            tracked,
            anchors=keyframes[np.argsort(-counts, kind="stable")],
            by_direction=by_direction,
        )


def scene_distance(slam_map: Map, keyframe_id: int) -> float:
    """Return the typical distance of the scene from a keyframe: the median of its points.

    A keyframe with few points uses those of its whole submap.
    """
    points = slam_map.points_seen_by(np.array([keyframe_id]))
    pose = slam_map.pose(keyframe_id)
    if len(points) < _ENOUGH_LINKS:
        submap = slam_map.keyframes["submap"][slam_map.keyframe_rows(np.asarray(keyframe_id))]
        points = points_of(slam_map, int(submap))
    if len(points) == 0:
        return 0.0
    offsets = slam_map.positions[slam_map.point_rows(points)] - pose[:3, 3]
    return float(np.median(np.linalg.norm(offsets, axis=1)))


def _directions(slam_map: Map, camera: Camera, keyframe_ids: IntArray) -> _Directions:
    """Return the keypoints without a point of keyframes, at the typical distance of the scene."""
    parts = []
    for keyframe_id in keyframe_ids.tolist():
        rows = slam_map.observation_rows(keyframe_id)
        free = np.flatnonzero(slam_map.observations["point"][rows] == NO_POINT) + rows.start
        rays = camera.unproject(slam_map.observations["pixel"][free], np.ones(len(free)))
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        pose = slam_map.pose(keyframe_id)
        parts.append(
            (
                np.full(len(free), keyframe_id, dtype=np.int64),
                np.broadcast_to(pose[:3, 3], (len(free), 3)),
                rays @ pose[:3, :3].T,
                np.full(len(free), 1.0 / scene_distance(slam_map, keyframe_id)),
                slam_map.observations["descriptor"][free].astype(np.float32),
            )
        )
    return _Directions(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
