"""Covisibility of keyframes and the essential graph made from it (docs/decisions/0014-loops.md)."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix, triu

from spslam import geometry
from spslam.backend_interfaces import PoseGraphEdges
from spslam.map.map import Map
from spslam.typing import IntArray

# Standard deviation of an edge that is not a loop edge: translation in scene depths and rotation in
# radians; log scale of a single camera. In a direction where a loop edge is less certain than a
# chain of such edges, the chain decides.
_STEP_SIGMA, _STEP_SCALE_SIGMA = 1e-3, 5e-3


def essential_graph(slam_map: Map, with_scale: bool, min_covisibility: int) -> PoseGraphEdges:
    """Return the edges of the essential graph, between rows of keyframes.

    Two keyframes are joined if they are consecutive in their submap, share enough points or have a
    loop edge. Loop edges are robust.

    Args:
        slam_map: Map with at least one keyframe.
        with_scale: Use Sim(3) instead of SE(3).
        min_covisibility: Number of shared points that makes an edge.
    """
    poses = slam_map.T_world_keyframe
    pairs = covisible_pairs(slam_map, min_covisibility)
    relative = geometry.inverse(poses[pairs[:, 0]]) @ poses[pairs[:, 1]]
    loops = slam_map.loops
    loop_pairs = np.stack(
        [slam_map.keyframe_rows(loops["i"]), slam_map.keyframe_rows(loops["j"])], axis=1
    )
    size = 7 if with_scale else 6
    all_pairs = np.concatenate([pairs, loop_pairs])
    is_loop = np.arange(len(all_pairs)) >= len(pairs)
    # The unit of a map can be arbitrary, so translation is measured in depths of the scene.
    depth = max(median_depth(slam_map, int(slam_map.keyframes["id"][-1])), 1e-6)
    sigmas = np.array(
        [_STEP_SIGMA * depth] * 3 + [_STEP_SIGMA] * 3 + [_STEP_SCALE_SIGMA] * (size - 6)
    )
    step = np.diag(1 / sigmas**2)
    return PoseGraphEdges(
        i=all_pairs[:, 0],
        j=all_pairs[:, 1],
        S_i_j=np.concatenate([relative, loops["S_i_j"]]),
        information=np.concatenate(
            [np.broadcast_to(step, (len(pairs), size, size)), loops["information"][:, :size, :size]]
        ),
        robust=is_loop,
    )


def covisible_pairs(slam_map: Map, min_covisibility: int) -> IntArray:
    """Return pairs (E, 2), i < j, of rows of keyframes that are consecutive or covisible.

    Consecutive means within their submap; covisible means that they share at least
    `min_covisibility` points.
    """
    linked = np.flatnonzero(slam_map.observations["point"] >= 0)
    keyframe_rows = slam_map.keyframe_rows(slam_map.observations["keyframe"][linked])
    count = len(slam_map.keyframes)
    shared = triu(
        covisibility_matrix(
            keyframe_rows, slam_map.point_rows(slam_map.observations["point"][linked]), count
        ),
        1,
    )
    strong = shared.data >= min_covisibility
    submap = slam_map.keyframes["submap"]
    in_submap = np.argsort(submap, kind="stable")
    follows = np.flatnonzero(submap[in_submap[1:]] == submap[in_submap[:-1]])
    i = np.concatenate([shared.row[strong], in_submap[follows]]).astype(np.int64)
    j = np.concatenate([shared.col[strong], in_submap[follows + 1]]).astype(np.int64)
    keys = np.unique(i * count + j)
    return np.stack([keys // max(count, 1), keys % max(count, 1)], axis=1)


def covisibility_matrix(keyframe_rows: IntArray, point_rows: IntArray, count: int) -> csr_matrix:
    """Return the number of points that each two keyframes share.

    Args:
        keyframe_rows: (N,) row of the keyframe of each linked observation.
        point_rows: (N,) row of the point of each linked observation.
        count: Number of keyframes, K.

    Returns:
        (K, K) int64, sparse.
    """
    ones = np.ones(len(keyframe_rows), dtype=np.int64)
    sees = csr_matrix(
        (ones, (keyframe_rows, point_rows)), shape=(count, int(point_rows.max(initial=-1)) + 1)
    )
    return sees @ sees.T


def median_depth(slam_map: Map, keyframe_id: int) -> float:
    """Return the median depth of the points that a keyframe sees, map units; 0 without points."""
    points = slam_map.points_seen_by(np.array([keyframe_id]))
    if len(points) == 0:
        return 0.0
    T_cam_world = geometry.inverse(slam_map.pose(keyframe_id))
    return float(
        np.median(
            geometry.apply(T_cam_world, slam_map.positions[slam_map.point_rows(points)])[:, 2]
        )
    )
