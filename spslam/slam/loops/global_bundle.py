"""Global bundle adjustment: refine a whole submap after a loop closure, in parallel with tracking.

It works on a copy of the map. The result is applied at a fixed later keyframe, so that two runs
give the same bytes. What was added meanwhile moves along. A new loop discards a running refinement
and starts another one.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from spslam import geometry
from spslam.backend_interfaces import BundleAdjuster, BundleProblem, BundleResult
from spslam.camera import Camera
from spslam.config import GlobalBundleConfig
from spslam.map.map import Map
from spslam.map.submaps import keyframes_of, points_of
from spslam.slam.mapping import FIRM_LINKS, bundle_problem, drop_single_views
from spslam.typing import IntArray

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Copy:
    """A copy of the submap to refine.

    Attributes:
        submap: id of the submap.
        keyframe_ids, point_ids: ids of the rows of the problem.
        problem: the copy.
        has_depth: whether the sensor measures depth.
    """

    submap: int
    keyframe_ids: IntArray
    point_ids: IntArray
    problem: BundleProblem
    has_depth: bool


class GlobalRefiner:
    """Refines all keyframes and points of the current submap, in a thread.

    Args:
        config: number of keyframes after which the result is applied; 0: never refine.
        bundle: the bundle adjustment.
    """

    def __init__(self, config: GlobalBundleConfig, bundle: BundleAdjuster) -> None:
        self._delay = config.delay
        self._bundle = bundle
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="global bundle")
        self._copy: _Copy | None = None
        self._result: Future[BundleResult] | None = None
        self._since = 0

    def start(self, slam_map: Map, camera: Camera) -> None:
        """Start with the map as it is, and discard a refinement that is running."""
        if self._delay == 0:
            return
        if self._result is not None:
            self._result.cancel()
        self._copy = _copy_of(slam_map, camera)
        self._result = self._pool.submit(self._bundle.adjust, self._copy.problem, camera)
        self._since = 0

    def keyframe_added(self, slam_map: Map) -> bool:
        """Count a new keyframe; apply the result after the delay. Return whether it was applied."""
        self._since += 1
        return self._since >= self._delay and self.finish(slam_map)

    def finish(self, slam_map: Map) -> bool:
        """Wait for the result and apply it. Return whether a refinement was running."""
        if self._copy is None or self._result is None:
            return False
        copy, result = self._copy, self._result.result()
        self._copy = self._result = None
        logger.info(
            "global bundle adjustment: %d keyframes, %d points, %d observations, cost %.0f to %.0f",
            len(copy.keyframe_ids), len(copy.point_ids), len(copy.problem.pixels),
            result.cost_before, result.cost_after,
        )  # fmt: skip
        _take_up(slam_map, copy, result)
        return True


def _copy_of(slam_map: Map, camera: Camera) -> _Copy:
    has_depth = camera.has_depth
    submap = slam_map.submap
    point_ids = points_of(slam_map, submap)
    point_ids = point_ids[slam_map.views(point_ids) >= (1 if has_depth else 2)]
    keyframe_ids = _firm(slam_map, keyframes_of(slam_map, submap), has_depth)
    fixed = np.zeros(len(keyframe_ids), dtype=bool)
    fixed[0] = True
    problem, _ = bundle_problem(slam_map, keyframe_ids, fixed, point_ids)
    return _Copy(submap, keyframe_ids, point_ids, problem, has_depth)


def _firm(slam_map: Map, keyframe_ids: IntArray, has_depth: bool) -> IntArray:
    """Return the first keyframe and those whose points hold them.

    A keyframe that a single camera made while it turned on the spot may see hardly any points: it
    moves with the keyframe before it.
    """
    if has_depth:
        return keyframe_ids
    links = [
        np.count_nonzero(slam_map.observations["point"][slam_map.observation_rows(k)] >= 0)
        for k in keyframe_ids.tolist()
    ]
    firm = np.array(links) >= FIRM_LINKS
    firm[0] = True
    return keyframe_ids[firm]


def _take_up(slam_map: Map, copy: _Copy, result: BundleResult) -> None:
    """Write the result to the map; move newer keyframes and points with the one before them."""
    keyframe_rows = np.flatnonzero(slam_map.keyframes["submap"] == copy.submap)
    ids = slam_map.keyframes["id"][keyframe_rows]
    refined = geometry.orthonormalize(geometry.inverse(result.T_cam_world))
    before = slam_map.T_world_keyframe[keyframe_rows]
    known = np.isin(ids, copy.keyframe_ids)
    # The first keyframe of a submap is never culled: every other keyframe has a refined one before
    # it.
    anchor = np.maximum.accumulate(np.where(known, np.arange(len(ids)), 0))
    target = refined[np.searchsorted(copy.keyframe_ids, ids[anchor])]
    correction = target @ geometry.inverse(before[anchor])
    slam_map.T_world_keyframe[keyframe_rows] = geometry.orthonormalize(correction @ before)

    point_rows = slam_map.point_rows(points_of(slam_map, copy.submap))
    born = np.clip(
        np.searchsorted(ids, slam_map.points["born"][point_rows], side="right") - 1, 0, None
    )
    slam_map.positions[point_rows] = geometry.apply(
        correction[born], slam_map.positions[point_rows]
    )
    rows = slam_map.point_rows(copy.point_ids)
    slam_map.positions[rows[rows >= 0]] = result.points[rows >= 0]

    problem = copy.problem
    bad = ~result.inliers
    _unlink(
        slam_map,
        copy.keyframe_ids[problem.camera_index[bad]],
        copy.point_ids[problem.point_index[bad]],
    )
    if not copy.has_depth:
        drop_single_views(slam_map, copy.point_ids)
    slam_map.refresh_normals(slam_map.points["id"])


def _unlink(slam_map: Map, keyframe_ids: IntArray, point_ids: IntArray) -> None:
    """Remove the links between keyframes and points (N,) that still exist."""
    column = slam_map.observations
    width = int(max(slam_map.points["id"].max(initial=0), point_ids.max(initial=0))) + 1
    linked = np.flatnonzero(column["point"] >= 0)
    keys = column["keyframe"][linked] * width + column["point"][linked]
    slam_map.unlink(linked[np.isin(keys, keyframe_ids * width + point_ids)])
