"""Places that look the same: find out which of them a camera can be at.

An image does not distinguish the two ends of a corridor, or two floors of an office. The last pose
does: the camera can move only a limited distance in the time since then. A pose beyond that
distance needs more evidence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spslam import geometry
from spslam.config import Config, RelocalizationConfig
from spslam.map.covisibility import median_depth
from spslam.map.map import Map
from spslam.map.submaps import submap_of
from spslam.slam.loops.loop_detection import travelled
from spslam.slam.track_results import TrackedFrame
from spslam.typing import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Reach:
    """The poses that a camera can have reached since its last pose.

    Attributes:
        submap: id of the submap of the last pose.
        T_world_cam: (4, 4) the last pose.
        seconds: time since the last pose.
        distance: largest distance from the last pose, map units.
        turn: largest rotation from the last pose, radians.
    """

    submap: int
    T_world_cam: FloatArray
    seconds: float
    distance: float
    turn: float

    @classmethod
    def after(
        cls,
        config: RelocalizationConfig,
        seconds: float,
        submap: int,
        T_world_cam: FloatArray,
        depth: float,
        fastest: tuple[float, float],
    ) -> Reach:
        """Compute the reach of a camera some time after its last pose.

        Args:
            config: factors and allowances.
            seconds: time since the last pose.
            submap: id of the submap of the last pose.
            T_world_cam: (4, 4) the last pose.
            depth: median depth of the scene, map units.
            fastest: largest recent speeds, map units and radians per second.
        """
        speed, turning = fastest
        return cls(
            submap,
            T_world_cam,
            seconds,
            config.speed_factor * speed * seconds
            + depth * (config.reach_depths + config.reach_depths_per_s * seconds),
            config.speed_factor * turning * seconds
            + config.reach_turn_rad
            + config.reach_turn_rad_per_s * seconds,
        )

    def holds(self, submap: int, T_world_cam: FloatArray) -> bool:
        """Whether a pose (4, 4) in a submap is within reach."""
        if submap != self.submap:
            return False
        distance, turn = _difference(self.T_world_cam, T_world_cam)
        return distance <= self.distance and turn <= self.turn

    def holds_keyframes(self, slam_map: Map) -> NDArray[np.bool_]:
        """(K,) which keyframes have a position within reach, in any viewing direction."""
        distance = np.linalg.norm(
            slam_map.T_world_keyframe[:, :3, 3] - self.T_world_cam[:3, 3], axis=1
        )
        within: NDArray[np.bool_] = (slam_map.keyframes["submap"] == self.submap) & (
            distance <= self.distance
        )
        return within


@dataclass(frozen=True, eq=False)
class Departure:
    """Pose and motion of a camera when tracking lost it.

    Attributes:
        keyframe_id: the keyframe that the last pose is relative to.
        T_keyframe_cam: (4, 4) the last pose, relative to the keyframe.
        timestamp: of the last pose, seconds.
        velocity: (6,) as `Motion.velocity`.
        fastest: largest recent speeds, map units and radians per second.
        carried_away: whether later frames did not show what a camera moving by itself must see.
    """

    keyframe_id: int
    T_keyframe_cam: FloatArray
    timestamp: float
    velocity: FloatArray
    fastest: tuple[float, float]
    carried_away: bool = False

    def reach(self, timestamp: float, slam_map: Map, config: RelocalizationConfig) -> Reach | None:
        """Compute the reach at a timestamp; None if the keyframe was removed."""
        if not slam_map.has_keyframe(self.keyframe_id):
            return None
        return Reach.after(
            config,
            timestamp - self.timestamp,
            submap_of(slam_map, self.keyframe_id),
            slam_map.pose(self.keyframe_id) @ self.T_keyframe_cam,
            median_depth(slam_map, self.keyframe_id),
            self.fastest,
        )

    def expected(self, reach: Reach) -> FloatArray:
        """(4, 4) `T_cam_world` of the camera if it kept its velocity."""
        return geometry.orthonormalize(
            geometry.se3_exp(self.velocity * reach.seconds) @ geometry.inverse(reach.T_world_cam)
        )


@dataclass(frozen=True, eq=False)
class Place:
    """A frame with a pose, and its place in the map.

    Attributes:
        tracked: the frame.
        keyframe_id: the keyframe that shares most points with the frame.
        submap: id of the submap.
        depth: median depth of the scene, map units.
    """

    tracked: TrackedFrame
    keyframe_id: int
    submap: int
    depth: float

    @classmethod
    def of(cls, tracked: TrackedFrame, slam_map: Map) -> Place:
        """Make a place from a frame with a pose in the map."""
        keyframe_id = int(slam_map.keyframes_seeing(tracked.seen)[0][0])
        return cls(
            tracked,
            keyframe_id,
            submap_of(slam_map, keyframe_id),
            median_depth(slam_map, keyframe_id),
        )

    @property
    def inliers(self) -> int:
        """Number of points that agree with the pose."""
        return self.tracked.inliers

    def is_same(self, other: Place, slam_map: Map, config: Config) -> bool:
        """Whether another pose of the same view is the same place.

        The tolerance is the accuracy of the map, or its drift over the path between the two
        keyframes, whichever is larger.
        """
        if other.submap != self.submap:
            return False
        rows = slam_map.keyframe_rows(np.array([self.keyframe_id, other.keyframe_id]))
        path = float(travelled(slam_map, int(rows.max()))[rows.min()])
        distance, turn = _difference(self.tracked.T_world_cam, other.tracked.T_world_cam)
        limits, drift = config.relocalization, config.loop.max_distance_ratio
        near = distance <= max(limits.same_place_depths * self.depth, drift * path)
        return near and turn <= limits.same_place_turn_rad

    def is_within(self, reach: Reach) -> bool:
        """Whether the pose is within reach."""
        return reach.holds(self.submap, self.tracked.T_world_cam)

    def rivals(self, others: Iterable[Place], slam_map: Map, config: Config) -> list[Place]:
        """Select other poses of the same view that are elsewhere and not clearly worse."""
        enough = config.relocalization.rival_inlier_fraction * self.inliers
        return [
            other
            for other in others
            if other.inliers >= enough and not self.is_same(other, slam_map, config)
        ]


def groups_by_similarity(
    ids: IntArray,
    similarity: NDArray[np.float32],
    slam_map: Map,
    min_covisibility: int,
    most: int,
    taken: Iterable[int] = (),
) -> list[int]:
    """Select the most similar keyframes, only one of each group of covisible keyframes.

    Args:
        ids: (N,) ids of keyframes.
        similarity: (N,) their similarities.
        slam_map: holds the keyframes.
        min_covisibility: least number of shared points of two keyframes of a group.
        most: largest number of keyframes to return.
        taken: keyframes whose groups are excluded.

    Returns:
        IntArray of keyframes, the most similar first.
    """
    found: list[int] = []
    closed = set(taken)
    for keyframe_id in ids[np.argsort(-similarity, kind="stable")].tolist():
        if len(found) == most:
            break
        if keyframe_id not in closed:
            found.append(keyframe_id)
            closed |= set(slam_map.covisible(keyframe_id, least=min_covisibility)[0].tolist())
    return found


def _difference(T_world_a: FloatArray, T_world_b: FloatArray) -> tuple[float, float]:
    """Distance (map units) and angle (radians) between two poses (4, 4)."""
    distance = float(np.linalg.norm(T_world_a[:3, 3] - T_world_b[:3, 3]))
    return distance, float(geometry.rotation_angle(T_world_a[:3, :3].T @ T_world_b[:3, :3]))
