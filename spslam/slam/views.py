"""Views of the map for `Matcher.match_views`: keypoints of frames and keyframes, and points."""

from __future__ import annotations

import numpy as np

from spslam import geometry
from spslam.camera import Camera
from spslam.frame import KeypointView, Observations
from spslam.map.map import NO_POINT, Map
from spslam.typing import IntArray


def frame_view(observations: Observations, camera: Camera) -> KeypointView:
    """Return the keypoints of a frame."""
    return KeypointView(observations.pixels, observations.descriptors, _size(camera))


def keyframe_view(slam_map: Map, camera: Camera, keyframe_id: int) -> KeypointView:
    """Return the keypoints of a keyframe, in the order of its observations.

    Args:
        slam_map: holds the keyframe.
        camera: of the frame to match; it stands for that of a map without an origin.
        keyframe_id: the keyframe.
    """
    rows = slam_map.observation_rows(keyframe_id)
    column = slam_map.observations
    size = _size(_camera_of(slam_map, camera))
    return KeypointView(column["pixel"][rows], column["descriptor"][rows], size)


def points_view(
    slam_map: Map, camera: Camera, keyframe_id: int, point_rows: IntArray
) -> KeypointView:
    """Return points as a keyframe would see them; pixels of points outside its image are NaN.

    Args:
        slam_map: holds the keyframe and the points.
        camera: see `keyframe_view`.
        keyframe_id: the keyframe.
        point_rows: (N,) rows of points around it.
    """
    seeing = _camera_of(slam_map, camera)
    T_cam_world = geometry.inverse(slam_map.pose(keyframe_id))
    points_cam = geometry.apply(T_cam_world, slam_map.positions[point_rows])
    pixels = seeing.project(points_cam)
    pixels[~((points_cam[:, 2] > 0) & seeing.in_image(pixels))] = np.nan
    return KeypointView(pixels, slam_map.points["descriptor"][point_rows], _size(seeing))


def matched_points(matches0: IntArray, point_ids: IntArray) -> IntArray:
    """(N,) int64 the point that each keypoint matches, or NO_POINT.

    Args:
        matches0: (N,) matches of the keypoints with a view.
        point_ids: (M,) the point of each keypoint of the view, or NO_POINT.
    """
    matched = np.full(len(matches0), NO_POINT, dtype=np.int64)
    hit = matches0 >= 0
    matched[hit] = point_ids[matches0[hit]]
    return matched


def _camera_of(slam_map: Map, camera: Camera) -> Camera:
    return camera if slam_map.origin is None else slam_map.origin.camera


def _size(camera: Camera) -> tuple[int, int]:
    return camera.width, camera.height
