"""Places that look the same: where a camera can be by how it moved, and which of two poses is the better founded.

A picture does not tell the two ends of a corridor apart, or two floors of an office. What does is where the camera was
before: it comes so far in so long. A pose beyond that takes more to be believed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spslam import geometry
from spslam.config import Config, RelocalizationConfig
from spslam.map.covisibility import median_depth
from spslam.map.map import Ids, Map
from spslam.slam.loops.loop_detection import travelled
from spslam.slam.tracking import Tracked

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Reach:
    """Where a camera may be a while after its last pose.

    Attributes:
        part: of the map that it was in.
        T_world_cam: (4, 4) its last pose.
        seconds: since then.
        distance, turn: how far from the last pose it may be, map units and radians.
    """

    part: int
    T_world_cam: Array
    seconds: float
    distance: float
    turn: float

    @classmethod
    def after(
        cls,
        config: RelocalizationConfig,
        seconds: float,
        part: int,
        T_world_cam: Array,
        depth: float,
        fastest: tuple[float, float],
    ) -> Reach:
        """So long after the last pose (4, 4) of a camera that moved and turned so fast at most, map units and radians
        per second, in a scene of this median depth.
        """
        speed, turning = fastest
        return cls(
            part,
            T_world_cam,
            seconds,
            config.speed_factor * speed * seconds
            + depth * (config.reach_depths + config.reach_depths_per_s * seconds),
            config.speed_factor * turning * seconds
            + config.reach_turn_rad
            + config.reach_turn_rad_per_s * seconds,
        )

    def holds(self, part: int, T_world_cam: Array) -> bool:
        """Whether a pose (4, 4) in a part of the map is within reach."""
        if part != self.part:
            return False
        distance, turn = _difference(self.T_world_cam, T_world_cam)
        return distance <= self.distance and turn <= self.turn

    def holds_keyframes(self, slam_map: Map) -> NDArray[np.bool_]:
        """(K,) the key frames that were taken from within reach, whichever way they look."""
        distance = np.linalg.norm(
            slam_map.T_world_keyframe[:, :3, 3] - self.T_world_cam[:3, 3], axis=1
        )
        within: NDArray[np.bool_] = (slam_map.keyframes["part"] == self.part) & (
            distance <= self.distance
        )
        return within


@dataclass(frozen=True, eq=False)
class Departure:
    """Where a camera was when tracking lost it, and how it moved.

    Attributes:
        keyframe_id, T_keyframe_cam: (4, 4) its last pose, beside a key frame.
        timestamp: of that, seconds.
        velocity: (6,) as `Motion.velocity`.
        fastest: how fast it moved and turned at most of late, map units and radians per second.
        carried_away: frames after that did not show what they had to, had the camera moved on by itself.
    """

    keyframe_id: int
    T_keyframe_cam: Array
    timestamp: float
    velocity: Array
    fastest: tuple[float, float]
    carried_away: bool = False

    def reach(self, timestamp: float, slam_map: Map, config: RelocalizationConfig) -> Reach | None:
        """Where the camera may be by then; None if the key frame is gone."""
        if not slam_map.has_keyframe(self.keyframe_id):
            return None
        return Reach.after(
            config,
            timestamp - self.timestamp,
            slam_map.part_of(self.keyframe_id),
            slam_map.pose(self.keyframe_id) @ self.T_keyframe_cam,
            median_depth(slam_map, self.keyframe_id),
            self.fastest,
        )

    def expected(self, reach: Reach) -> Array:
        """(4, 4) `T_cam_world` of the camera if it moved on as it did."""
        return geometry.orthonormalize(
            geometry.se3_exp(self.velocity * reach.seconds) @ geometry.inverse(reach.T_world_cam)
        )


@dataclass(frozen=True, eq=False)
class Place:
    """A frame with a pose, and where in the map that is.

    Attributes:
        tracked: the frame.
        keyframe_id: sees most of its points.
        part: of the map.
        depth: median depth of the scene.
    """

    tracked: Tracked
    keyframe_id: int
    part: int
    depth: float

    @classmethod
    def of(cls, tracked: Tracked, slam_map: Map) -> Place:
        """Of a frame with a pose in the map."""
        keyframe_id = int(slam_map.keyframes_seeing(tracked.seen)[0][0])
        return cls(
            tracked, keyframe_id, slam_map.part_of(keyframe_id), median_depth(slam_map, keyframe_id)
        )

    @property
    def inliers(self) -> int:
        """Number of points that agree with the pose."""
        return self.tracked.inliers

    def is_same(self, other: Place, slam_map: Map, config: Config) -> bool:
        """Whether another pose of the same view is the same one: as near as the map is accurate, which may have drifted
        by a fraction of the path between the two.
        """
        if other.part != self.part:
            return False
        rows = slam_map.keyframe_rows(np.array([self.keyframe_id, other.keyframe_id]))
        path = float(travelled(slam_map, int(rows.max()))[rows.min()])
        distance, turn = _difference(self.tracked.T_world_cam, other.tracked.T_world_cam)
        limits, drift = config.relocalization, config.loop.max_distance_ratio
        near = distance <= max(limits.same_place_depths * self.depth, drift * path)
        return near and turn <= limits.same_place_turn_rad

    def is_within(self, reach: Reach) -> bool:
        """Whether the pose is within reach."""
        return reach.holds(self.part, self.tracked.T_world_cam)

    def rivals(self, others: Iterable[Place], slam_map: Map, config: Config) -> list[Place]:
        """Those of other poses of the same view that are elsewhere and not clearly worse."""
        enough = config.relocalization.rival_inlier_fraction * self.inliers
        return [
            other
            for other in others
            if other.inliers >= enough and not self.is_same(other, slam_map, config)
        ]


def groups_by_likeness(
    ids: Ids,
    likeness: NDArray[np.float32],
    slam_map: Map,
    min_covisibility: int,
    most: int,
    taken: Iterable[int] = (),
) -> list[int]:
    """The likest of key frames (N,) of likeness (N,), of each group that shares so many points only one.

    Args:
        most: how many.
        taken: neither these nor what shares a group with them is chosen.
    """
    found: list[int] = []
    closed = set(taken)
    for keyframe_id in ids[np.argsort(-likeness, kind="stable")].tolist():
        if len(found) == most:
            break
        if keyframe_id not in closed:
            found.append(keyframe_id)
            closed |= set(slam_map.covisible(keyframe_id, least=min_covisibility)[0].tolist())
    return found


def _difference(T_world_a: Array, T_world_b: Array) -> tuple[float, float]:
    """Distance and angle (radians) between two poses (4, 4)."""
    distance = float(np.linalg.norm(T_world_a[:3, 3] - T_world_b[:3, 3]))
    return distance, float(geometry.rotation_angle(T_world_a[:3, :3].T @ T_world_b[:3, :3]))
