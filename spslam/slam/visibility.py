"""Which points of the map a frame should see at a pose, and how often each was seen."""

from __future__ import annotations

import numpy as np

from spslam import geometry
from spslam.camera import Camera
from spslam.config import TrackingConfig
from spslam.map.map import Map
from spslam.slam.track_results import TrackedFrame
from spslam.typing import BoolArray, FloatArray, IntArray


def project_points(
    config: TrackingConfig, slam_map: Map, camera: Camera, T_cam_world: FloatArray, rows: IntArray
) -> tuple[FloatArray, BoolArray]:
    """Project points (rows) to pixels (N, 2), and find which (N,) should be visible.

    Args:
        config: limits of the viewing angle and of the change of scale.
        slam_map: holds the points.
        camera: of the frame.
        T_cam_world: (4, 4) its pose.
        rows: (N,) of the points.
    """
    positions = slam_map.positions[rows]
    points_cam = geometry.apply(T_cam_world, positions)
    pixels = camera.project(points_cam)
    centre = geometry.inverse(T_cam_world)[:3, 3]
    rays = centre - positions
    distance = np.linalg.norm(rays, axis=1)
    cosine = np.sum(rays * slam_map.points["normal"][rows], axis=1) / np.maximum(distance, 1e-12)
    change = distance / np.maximum(slam_map.points["distance"][rows], 1e-12)
    limit = config.max_scale_change
    visible = (
        (points_cam[:, 2] > 0)
        & camera.in_image(pixels)
        & (cosine > np.cos(np.radians(config.max_view_angle_deg)))
        & (change < limit)
        & (change > 1.0 / limit)
    )
    return pixels, visible


def visible_points(
    config: TrackingConfig,
    slam_map: Map,
    camera: Camera,
    T_cam_world: FloatArray,
    point_ids: IntArray,
) -> tuple[IntArray, FloatArray]:
    """Return rows (N,) and pixels (N, 2) of those of the points (ids) that should be visible.

    Arguments as for `project_points`. Ids that are no longer in the map are left out.
    """
    rows = slam_map.point_rows(point_ids)
    rows = rows[rows >= 0]
    pixels, visible = project_points(config, slam_map, camera, T_cam_world, rows)
    return rows[visible], pixels[visible]


def count_visibility(
    config: TrackingConfig,
    slam_map: Map,
    camera: Camera,
    tracked: TrackedFrame,
    local_points: IntArray,
) -> None:
    """Count which local points (ids) a frame should have seen, and which it saw."""
    T_cam_world = tracked.estimate.T_cam_world
    rows, _ = visible_points(config, slam_map, camera, T_cam_world, local_points)
    found = slam_map.point_rows(tracked.seen)
    # A point that was found counts as visible.
    counted = np.zeros(len(slam_map.points), dtype=bool)
    counted[rows] = counted[found] = True
    slam_map.points["visible"][counted] += 1
    slam_map.points["found"][found] += 1
