"""Spread the gap of a loop over the pose graph of a map (docs/decisions/0014-loops.md)."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from spslam import geometry
from spslam.backend_interfaces import PoseGraphEdges, PoseGraphSolver
from spslam.typing import FloatArray

logger = logging.getLogger(__name__)
# Weaken the covisibility edges until the squared residuals are below this multiple of the expected
# value.
_LIKELY = 1.5
# Largest number of optimizations; each weakens the edges further.
_SPREADING_ROUNDS = 6


def spread_gap(
    solver: PoseGraphSolver,
    nodes: FloatArray,
    edges: PoseGraphEdges,
    fixed: NDArray[np.bool_],
    with_scale: bool,
) -> FloatArray:
    """Optimize the pose graph so that the gap of its last edge, a verified loop, is plausible.

    The drift of the covisibility edges is not known beforehand: a wrong calibration causes far more
    drift than the noise. So their information is reduced until the gap is plausible.

    Args:
        solver: optimizes a graph.
        nodes: (K, 4, 4) poses of the keyframes.
        edges: of the graph; those that are not robust are the covisibility edges.
        fixed: (K,) which nodes do not move.
        with_scale: whether nodes have a scale (single camera).

    Returns:
        (K, 4, 4) optimized nodes.
    """
    chain = ~edges.robust
    robust = edges.robust.copy()
    # The loop was verified: it counts fully, however large the drift.
    robust[-1] = False
    information = edges.information.copy()
    for _ in range(_SPREADING_ROUNDS):
        graph = replace(edges, information=information, robust=robust)
        after = solver.optimize(nodes, graph, fixed, with_scale)
        # The expected value is the number of equations that the new loop adds: the size of its
        # residual.
        excess = float(edge_costs(after, graph)[~robust].sum()) / information.shape[-1]
        if excess < _LIKELY:
            break
        information[chain] /= excess
    logger.debug("gap spread over %d edges, χ² %.2f times what was expected", len(edges.i), excess)
    return after


def edge_costs(nodes: FloatArray, edges: PoseGraphEdges) -> FloatArray:
    """(E,) squared residuals, in standard deviations, of the edges between nodes (K, 4, 4).

    No robust kernel. Residuals are small: translation, rotation vector and log scale approximate
    the logarithm of a similarity.
    """
    E = geometry.inverse(edges.S_i_j) @ geometry.inverse(nodes[edges.i]) @ nodes[edges.j]
    scale = geometry.similarity_scale(E)[:, None]
    columns = [E[:, :3, 3], geometry.so3_log(E[:, :3, :3] / scale[..., None]), np.log(scale)]
    residuals = np.concatenate(columns, axis=1)[:, : edges.information.shape[-1]]
    costs: FloatArray = np.einsum("ei,eij,ej->e", residuals, edges.information, residuals)
    return costs
