"""The result of tracking a frame: its state, its pose and the points that it sees."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam import geometry
from spslam.backend_interfaces import PoseEstimate
from spslam.camera import Camera
from spslam.frame import Observations
from spslam.map.map import NO_POINT, Map
from spslam.typing import FloatArray, IntArray

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

    @classmethod
    def of(
        cls,
        observations: Observations,
        estimate: PoseEstimate,
        keypoints: IntArray,
        point_ids: IntArray,
        inliers: NDArray[np.bool_],
        how: str,
    ) -> TrackedFrame:
        """Make a tracked frame from its matches (M,) with points of the map.

        Args:
            observations: of the frame.
            estimate: its pose.
            keypoints: (M,) indices of the keypoints.
            point_ids: (M,) their points.
            inliers: (M,) which agree with the pose.
            how: see the class.
        """
        matched = np.full((2, len(observations)), NO_POINT, dtype=np.int64)
        matched[np.where(inliers, 0, 1), keypoints] = point_ids
        return cls(observations, estimate, matched[0], matched[1], how)

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
