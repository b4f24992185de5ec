"""The pose graph of a map, and how the gap of a revisit is spread over it (docs/decisions/0014-loops.md)."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from spslam import geometry
from spslam.interfaces import PoseGraphEdges, PoseGraphSolver

logger = logging.getLogger(__name__)
Array = NDArray[np.float64]
# The chain is loosened until the squared residuals, in standard deviations, are so many times what is to be expected.
_LIKELY, _SPREADING_ROUNDS = 1.5, 6


def spread_gap(
    solver: PoseGraphSolver,
    nodes: Array,
    edges: PoseGraphEdges,
    fixed: NDArray[np.bool_],
    with_scale: bool,
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
    small: translation, rotation vector and log scale of a similarity are its logarithm then.
    """
    E = geometry.inverse(edges.S_i_j) @ geometry.inverse(nodes[edges.i]) @ nodes[edges.j]
    scale = geometry.similarity_scale(E)[:, None]
    columns = [E[:, :3, 3], geometry.so3_log(E[:, :3, :3] / scale[..., None]), np.log(scale)]
    residuals = np.concatenate(columns, axis=1)[:, : edges.information.shape[-1]]
    costs: Array = np.einsum("ei,eij,ej->e", residuals, edges.information, residuals)
    return costs
