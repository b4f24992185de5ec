"""The points of the map that a frame matches, with their residuals."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spslam.backend_interfaces import PoseEstimate
from spslam.camera import Camera
from spslam.map.map import NO_POINT, Map
from spslam.slam.moving_objects.two_motions import residuals
from spslam.slam.track_results import TrackedFrame
from spslam.typing import BoolArray, Float32Array, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class MatchedPoints:
    """The matches (M) of a frame with points of the map.

    Attributes:
        keypoints, ids: (M,) keypoint and point of each.
        inlier: (M,) which agree with the tracked pose.
        points: (M, 3) in the world.
        pixels, u_right: (M, 2), (M,) where they are seen.
        relative_sigma: (M,) how precisely (see `Observations`).
    """

    keypoints: NDArray[np.int64]
    ids: IntArray
    inlier: BoolArray
    points: FloatArray
    pixels: FloatArray
    u_right: FloatArray
    relative_sigma: Float32Array

    def select(self, kept: BoolArray) -> MatchedPoints:
        """Return a subset of the matches, given by a mask (M,)."""
        return MatchedPoints(
            self.keypoints[kept],
            self.ids[kept],
            self.inlier[kept],
            self.points[kept],
            self.pixels[kept],
            self.u_right[kept],
            self.relative_sigma[kept],
        )

    def residuals(self, T_cam_world: FloatArray, camera: Camera) -> FloatArray:
        """(M, 2) residuals of a pose, pixels."""
        return residuals(T_cam_world, self.points, self.pixels, camera)

    def weighted_residuals(self, T_cam_world: FloatArray, camera: Camera) -> FloatArray:
        """(M, 2) residuals of a pose, divided by `relative_sigma`, pixels."""
        return self.residuals(T_cam_world, camera) / self.relative_sigma[:, None]

    @classmethod
    def of(cls, tracked: TrackedFrame, slam_map: Map) -> MatchedPoints:
        """Return the matches of a frame, inliers and outliers."""
        ids = np.where(tracked.point_ids >= 0, tracked.point_ids, tracked.rejected)
        keypoints = np.flatnonzero(ids >= 0)
        ids = ids[keypoints]
        return cls(
            keypoints=keypoints,
            ids=ids,
            inlier=tracked.point_ids[keypoints] >= 0,
            points=slam_map.positions[slam_map.point_rows(ids)],
            pixels=tracked.observations.pixels[keypoints],
            u_right=tracked.observations.u_right[keypoints],
            relative_sigma=tracked.observations.relative_sigma[keypoints],
        )

    def at_pose(
        self, estimate: PoseEstimate, tracked: TrackedFrame, inlier: BoolArray
    ) -> TrackedFrame:
        """Return their frame at another pose, with only the marked matches (M,) as inliers."""
        ids = np.stack([tracked.point_ids, tracked.rejected])
        ids[:, self.keypoints] = NO_POINT
        ids[np.where(inlier, 0, 1), self.keypoints] = self.ids
        return replace(
            tracked, estimate=replace(estimate, inliers=inlier), point_ids=ids[0], rejected=ids[1]
        )
