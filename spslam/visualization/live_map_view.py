"""The scene of a run in progress, for viewers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spslam.errors import TrajectoryError
from spslam.evaluation.association import associate
from spslam.evaluation.ate import transform_trajectory
from spslam.geometry import inverse, umeyama
from spslam.trajectory import Trajectory
from spslam.visualization.map_view import MapView
from spslam.visualization.saved_run import build_map_view

if TYPE_CHECKING:
    from spslam.slam.system import Slam


def live_map_view(slam: Slam, ground_truth: Trajectory | None) -> MapView:
    """The current scene of a run, in the submap that most frames are in."""
    trajectory = slam.trajectory()
    return build_map_view(
        slam.map,
        slam.main_submap,
        slam.map.session,
        trajectory,
        _truth_beside(slam, trajectory, ground_truth),
        min_covisibility=slam.config.loop.min_covisibility,
    )


def _truth_beside(
    slam: Slam, trajectory: Trajectory, truth: Trajectory | None
) -> Trajectory | None:
    """The ground truth until now in the world of the estimate; None if they cannot be aligned.

    It is aligned as for a run's metrics. While there are too few poses for that, it is aligned by
    the first pose if the map is metric.
    """
    if truth is None or len(truth) == 0 or len(trajectory) == 0:
        return None
    metric = slam.map.origin is not None and slam.map.origin.metric
    try:
        pairs = associate(trajectory, truth)
    except TrajectoryError:
        return None
    here, there = trajectory.select(pairs.estimate), truth.select(pairs.ground_truth)
    try:
        S_truth_world = umeyama(here.positions, there.positions, with_scale=not metric)
    except ValueError:
        # Too few poses, or all on one line.
        if not metric or not truth.has_rotations:
            return None
        S_truth_world = there.T_world_cam[0] @ inverse(here.T_world_cam[0])
    first, end = np.searchsorted(truth.timestamps, here.timestamps[[0, -1]])
    return transform_trajectory(
        inverse(S_truth_world), truth.select(np.arange(first, min(end + 1, len(truth))))
    )
