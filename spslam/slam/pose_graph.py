"""The pose graph of a map, and how the gap of a revisit is spread over it (docs/decisions/0014-loops.md)."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, triu

from spslam import geometry
from spslam.slam.loop_detection import median_depth
from spslam.map.map import Ids, Map
from spslam.interfaces import PoseGraphEdges, PoseGraphSolver

logger = logging.getLogger(__name__)
Array = NDArray[np.float64]
# What one edge between key frames in a row may be off by: scene depths and radians; log scale of a single camera. A
# revisit's pose may be less sure than a chain of them, in some directions, which then decides there.
_STEP_SIGMA, _STEP_SCALE_SIGMA = 1e-3, 5e-3
# The chain is loosened until the squared residuals, in standard deviations, are so many times what is to be expected.
_LIKELY, _SPREADING_ROUNDS = 1.5, 6


def essential_graph(slam_map: Map, with_scale: bool, min_covisibility: int) -> PoseGraphEdges:
    """Edges between rows of key frames: those that follow each other, share enough points, or are revisits."""
    poses = slam_map.T_world_keyframe
    pairs = covisible_pairs(slam_map, min_covisibility)
    relative = geometry.inverse(poses[pairs[:, 0]]) @ poses[pairs[:, 1]]
    loops = slam_map.loops
    loop_pairs = np.stack([slam_map.keyframe_rows(loops["i"]), slam_map.keyframe_rows(loops["j"])], axis=1)
    size = 7 if with_scale else 6
    all_pairs = np.concatenate([pairs, loop_pairs])
    is_loop = np.arange(len(all_pairs)) >= len(pairs)
    # Depths of the scene, not metres, make translation and rotation comparable: the unit of a map is arbitrary.
    depth = max(median_depth(slam_map, int(slam_map.keyframes["id"][-1])), 1e-6)
    sigmas = np.array([_STEP_SIGMA * depth] * 3 + [_STEP_SIGMA] * 3 + [_STEP_SCALE_SIGMA] * (size - 6))
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


def spread_gap(
    solver: PoseGraphSolver, nodes: Array, edges: PoseGraphEdges, fixed: NDArray[np.bool_], with_scale: bool
) -> Array:
    """Nodes (K, 4, 4) of the graph once the gap of its last edge, a verified revisit, is spread over it.

    By how much the chain of key frames drifts is not known beforehand: a wrong calibration makes it drift far more
    than its noise. So it is believed as much as lets the gap be a likely one.
    """
    chain = ~edges.robust
    robust = edges.robust.copy()
    # It was verified, however far the chain has drifted.
    robust[-1] = False
    information = edges.information.copy()
    for _ in range(_SPREADING_ROUNDS):
        graph = replace(edges, information=information, robust=robust)
        after = solver.optimize(nodes, graph, fixed, with_scale)
        # The new revisit adds as many equations as its residual has numbers to a graph that holds together without.
        excess = float(edge_costs(after, graph)[~robust].sum()) / information.shape[-1]
        if excess < _LIKELY:
            break
        information[chain] /= excess
    logger.debug("gap spread over %d edges, χ² %.2f times what was expected", len(edges.i), excess)
    return after


def edge_costs(nodes: Array, edges: PoseGraphEdges) -> Array:
    """(E,) squared residuals of the edges between nodes (K, 4, 4), in standard deviations, without kernels. They are
    small: translation, rotation vector and log scale of a similarity are its logarithm then."""
    E = geometry.inverse(edges.S_i_j) @ geometry.inverse(nodes[edges.i]) @ nodes[edges.j]
    scale = geometry.similarity_scale(E)[:, None]
    columns = [E[:, :3, 3], geometry.so3_log(E[:, :3, :3] / scale[..., None]), np.log(scale)]
    residuals = np.concatenate(columns, axis=1)[:, : edges.information.shape[-1]]
    costs: Array = np.einsum("ei,eij,ej->e", residuals, edges.information, residuals)
    return costs


def covisible_pairs(slam_map: Map, min_covisibility: int) -> Ids:
    """(E, 2) rows of key frames that follow each other in their part or share enough points, i < j."""
    linked = np.flatnonzero(slam_map.observations["point"] >= 0)
    keyframe_rows = slam_map.keyframe_rows(slam_map.observations["keyframe"][linked])
    count = len(slam_map.keyframes)
    shared = triu(
        covisibility_matrix(keyframe_rows, slam_map.point_rows(slam_map.observations["point"][linked]), count), 1
    )
    strong = shared.data >= min_covisibility
    part = slam_map.keyframes["part"]
    in_part = np.argsort(part, kind="stable")
    follows = np.flatnonzero(part[in_part[1:]] == part[in_part[:-1]])
    i = np.concatenate([shared.row[strong], in_part[follows]]).astype(np.int64)
    j = np.concatenate([shared.col[strong], in_part[follows + 1]]).astype(np.int64)
    keys = np.unique(i * count + j)
    return np.stack([keys // max(count, 1), keys % max(count, 1)], axis=1)


def covisibility_matrix(keyframe_rows: Ids, point_rows: Ids, count: int) -> csr_matrix:
    """(K, K) int64, sparse: how many points each two of `count` key frames share, from the rows of all links (N,)."""
    ones = np.ones(len(keyframe_rows), dtype=np.int64)
    sees = csr_matrix((ones, (keyframe_rows, point_rows)), shape=(count, int(point_rows.max(initial=-1)) + 1))
    return sees @ sees.T
