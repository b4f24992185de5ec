"""A room with a camera path around it, as a scene, and the interface of Slam that viewers use."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from spslam.config import Config
from spslam.frame import Frame, FrameAssociations
from spslam.geometry import make_transform, so3_exp
from spslam.trajectory import Trajectory
from spslam.visualization.map_view import MapView


def room(strays: int = 50) -> tuple[np.ndarray, np.ndarray, Trajectory]:
    """Points, keyframes and trajectory of a loop of cameras that look outwards; y down.

    The points lie on a floor and a wall, apart from `strays` outliers.
    """
    rng = np.random.default_rng(0)
    floor = rng.uniform([-4, 1.5, -3], [4, 1.5, 3], (1500, 3))
    wall = rng.uniform([-4, -1.5, 3], [4, 1.5, 3], (1500, 3))
    angle = np.linspace(0, 2 * np.pi, 100)
    positions = np.stack([2.5 * np.sin(angle), 0 * angle, 1.5 * np.cos(angle)], axis=1)
    poses = make_transform(so3_exp(angle[:, None] * np.array([0.0, 1.0, 0.0])), positions)
    points = np.concatenate([floor, wall, 500 * rng.normal(size=(strays, 3))])
    return points, poses[::10], Trajectory(0.05 * np.arange(100), poses)


def room_scene(**changes: Any) -> MapView:
    """The room with times, edges, a loop and a ground truth 0.4 m above the estimate."""
    points, keyframes, trajectory = room()
    truth = trajectory.T_world_cam @ make_transform(np.eye(3), np.array([0.0, -0.4, 0.0]))
    values = {
        "points": points,
        "keyframes": keyframes,
        "trajectory": trajectory.T_world_cam,
        "ground_truth": truth,
        "point_times": np.linspace(0.0, 4.9, len(points)),
        "keyframe_times": trajectory.timestamps[::10],
        "times": trajectory.timestamps,
        "truth_times": trajectory.timestamps,
        "covisible": np.array([[0, 1], [1, 2], [2, 3], [3, 4], [0, 4]]),
        "loops": np.array([[0, 9]]),
        "depth": 2.0,
        "title": "room",
    }
    return MapView(**(values | changes))


def sighted_frame(camera: Any, index: int = 0) -> tuple[Frame, FrameAssociations]:
    """A grey frame with 20 keypoints, of which the first 12 see map points."""
    rng = np.random.default_rng(index)
    pixels = rng.uniform([20, 20], [camera.width - 20, camera.height - 20], (20, 2))
    image = np.full((camera.height, camera.width), 90, dtype=np.uint8)
    return Frame(index, 0.1 * index, camera, image), FrameAssociations(
        pixels, np.where(np.arange(20) < 12, np.arange(20), -1)
    )


class WatchedSlam:
    """The interface of Slam that viewers use: a map of landmarks, seen from poses to the right."""

    def __init__(self, landmarks: Any, poses: int) -> None:
        seen = landmarks.box()
        self._poses = [landmarks.pose(0.05 * step) for step in range(poses)]
        self.map = seen.map_of(self._poses)
        self.map.origin = SimpleNamespace(metric=True)
        self.config = Config()
        self.main_submap = 0
        self.statistics = SimpleNamespace(points=len(self.map.points), keyframes=poses, loops=0)
        self.frame, self.associations = sighted_frame(seen.camera, poses)

    def trajectory(self) -> Trajectory:
        poses = np.array(self._poses).reshape(-1, 4, 4)
        return Trajectory(0.1 * np.arange(len(poses)), poses)
