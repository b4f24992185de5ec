"""Pose graphs in g2o (Kümmerle et al., g2o: A General Framework for Graph Optimization, ICRA 2011).

The residual of an edge is the discrepancy `E = S_i_j⁻¹ · S_world_i⁻¹ · S_world_j` in node j's
coordinates. For SE(3) it is the translation and rotation vector of E (g2o's `EdgeSE3` has
2·sin(θ/2) for the angle θ), for Sim(3) the logarithm of E (`EdgeSim3`).
`PoseGraphEdges.information` is the inverse covariance of that residual, in the order translation,
rotation [, log scale]. This module alone converts it to the order and units of g2o.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import g2opy as g2o
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from spslam.backend_interfaces import PoseGraphEdges
from spslam.errors import MapError
from spslam.geometry import (
    inverse,
    make_transform,
    orthonormalize,
    quaternion_to_rotation,
    rotation_to_quaternion,
    similarity_scale,
)
from spslam.io.files import write_atomic
from spslam.typing import FloatArray

_log = logging.getLogger(__name__)


# Threshold of Huber's kernel, σ, by degrees of freedom: square root of the 95 % quantile of χ².
_HUBER_DELTA = {6: 3.5485, 7: 3.7506}
# Tags of nodes and edges in a `.g2o` file.
_SE3_TAGS = ("VERTEX_SE3:QUAT", "EDGE_SE3:QUAT")
_SIM3_TAGS = ("VERTEX_SIM3:EXPMAP", "EDGE_SIM3:EXPMAP")
# Relative decrease of the cost in an iteration below which the optimization ends.
_GAIN_THRESHOLD = 1e-7
# Rows of the Sim(3) tangent in g2o's order: rotation, translation, log scale.
_SIM3_ORDER = np.array([3, 4, 5, 0, 1, 2, 6])


class G2oPoseGraph:
    """A `PoseGraphSolver` by Levenberg-Marquardt with a sparse Cholesky factorization.

    The same input gives the same bytes.

    Args:
        iterations: Largest number of iterations.
        huber_delta: Threshold of Huber's kernel on robust edges, standard deviations of the
            residual; None: the 95 % quantile.
    """

    def __init__(self, iterations: int = 50, huber_delta: float | None = None) -> None:
        self.iterations = iterations
        self.huber_delta = huber_delta

    def optimize(
        self,
        S_world_node: FloatArray,
        edges: PoseGraphEdges,
        fixed: NDArray[np.bool_],
        with_scale: bool,
    ) -> FloatArray:
        """Refine the nodes of a graph; see `spslam.interfaces.PoseGraphSolver`.

        Fixed nodes are returned unchanged. In a connected component without a fixed node, the first
        node is fixed. Nodes without edges do not move.

        Args:
            S_world_node: (K, 4, 4) nodes, SE(3) or, with `with_scale`, Sim(3).
            edges: Relative poses between nodes.
            fixed: (K,) which nodes do not move; at least one.
            with_scale: Optimize in Sim(3) instead of SE(3).

        Returns:
            Refined nodes (K, 4, 4).

        Raises:
            ValueError: No node is fixed, arrays disagree in shape or a value is not finite.
        """
        _check(S_world_node, edges, fixed, with_scale)
        held = _with_gauge(edges, fixed)
        refined = S_world_node.astype(np.float64, copy=True)
        if len(edges.i) == 0 or held.all():
            return refined
        build, read = (_build_sim3, _read_sim3) if with_scale else (_build_se3, _read_se3)
        optimizer = g2o.SparseOptimizer()
        # The wrapper objects must outlive the optimization: the graph does not own all of them.
        algorithm = _algorithm(with_scale)
        optimizer.set_algorithm(algorithm)
        vertices, graph_edges = build(optimizer, S_world_node, edges, held, self.huber_delta)
        if not optimizer.initialize_optimization():
            raise ValueError(
                "the pose graph has nothing to optimize: no edge reaches a node that can move"
            )
        stop = g2o.SparseOptimizerTerminateAction()
        stop.set_gain_threshold(_GAIN_THRESHOLD)
        stop.set_max_iterations(self.iterations)
        optimizer.add_post_iteration_action(stop)
        optimizer.compute_active_errors()
        before = optimizer.active_robust_chi2()
        done = optimizer.optimize(self.iterations)
        summary = "pose graph: %d nodes, %d edges, %d iterations, robust χ² %.6g -> %.6g"
        _log.debug(
            summary, len(vertices), len(graph_edges), done, before, optimizer.active_robust_chi2()
        )
        moved = np.flatnonzero(~held)
        refined[moved] = read([vertices[row] for row in moved])
        return refined


def information_to_g2o(information: FloatArray) -> FloatArray:
    """Convert information (..., 6, 6) or (..., 7, 7) to the order and units of g2o's residuals.

    `EdgeSE3` measures rotation by the quaternion's vector part, which is half the rotation vector.
    """
    if information.shape[-1] == 7:
        return information[..., _SIM3_ORDER[:, None], _SIM3_ORDER]
    units = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
    scaled: FloatArray = information * np.outer(units, units)
    return scaled


def information_from_g2o(information: FloatArray) -> FloatArray:
    """Convert information from g2o's order and units; the inverse of `information_to_g2o`."""
    if information.shape[-1] == 7:
        # The permutation swaps two halves, so it is its own inverse.
        return information[..., _SIM3_ORDER[:, None], _SIM3_ORDER]
    units = np.array([1.0, 1.0, 1.0, 0.5, 0.5, 0.5])
    scaled: FloatArray = information * np.outer(units, units)
    return scaled


@dataclass(frozen=True, eq=False)
class PoseGraph:
    """The content of a `.g2o` file.

    Attributes:
        S_world_node: (K, 4, 4) float64, nodes in the order of their ids.
        edges: Relative poses; all of them not robust, as the format has no such field.
        fixed: (K,) bool, nodes that do not move.
        with_scale: Whether nodes are Sim(3) instead of SE(3).
    """

    S_world_node: FloatArray
    edges: PoseGraphEdges
    fixed: NDArray[np.bool_]
    with_scale: bool


def write_g2o(
    path: Path | str, S_world_node: FloatArray, edges: PoseGraphEdges, fixed: NDArray[np.bool_]
) -> None:
    """Write a graph in g2o's text format: SE(3) or, if edges have 7×7 information, Sim(3).

    The lines are those of g2o: `VERTEX_SE3:QUAT id t q`, `EDGE_SE3:QUAT i j t q information`,
    `VERTEX_SIM3:EXPMAP id q t s` of the transform *from* the world, and
    `EDGE_SIM3:EXPMAP i j q t s information` from i to j.

    Args:
        path: The file.
        S_world_node: (K, 4, 4) nodes.
        edges: Relative poses between nodes.
        fixed: (K,) which nodes do not move.

    Raises:
        ValueError: Arrays disagree in shape or a value is not finite.
        OutputError: The file cannot be written.
    """
    with_scale = edges.information.shape[-1] == 7
    _check(S_world_node, edges, fixed, with_scale, need_gauge=False)
    vertex_tag, edge_tag = _SIM3_TAGS if with_scale else _SE3_TAGS
    upper = np.triu_indices(7 if with_scale else 6)
    information = information_to_g2o(edges.information)[:, upper[0], upper[1]]
    lines = [
        _line(vertex_tag, [row], values)
        for row, values in enumerate(_to_columns(S_world_node, with_scale).tolist())
    ]
    lines += [_line("FIX", [row], []) for row in np.flatnonzero(fixed).tolist()]
    values = np.concatenate([_to_columns(edges.S_i_j, with_scale), information], axis=1)
    lines += [
        _line(edge_tag, [i, j], row)
        for i, j, row in zip(edges.i.tolist(), edges.j.tolist(), values.tolist(), strict=True)
    ]
    write_atomic(path, "".join(lines))


def read_g2o(path: Path | str) -> PoseGraph:
    """Read a graph that `write_g2o` or g2o wrote: SE(3) or Sim(3) nodes and edges, `FIX` lines.

    Raises:
        MapError: The file cannot be read, or has other or invalid lines.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MapError(f"cannot read pose graph {path}: {error}") from None
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), start=1)]
    lines = [(number, cells) for number, cells in lines if cells and not cells[0].startswith("#")]
    with_scale = any(cells[0] in _SIM3_TAGS for _, cells in lines)
    vertex_tag, edge_tag = _SIM3_TAGS if with_scale else _SE3_TAGS
    width = 8 if with_scale else 7
    # Numbers of ids and of values by tag.
    columns = {
        vertex_tag: (1, width),
        edge_tag: (2, width + (28 if with_scale else 21)),
        "FIX": (1, 0),
    }
    tables: dict[str, list[tuple[list[int], list[float]]]] = {tag: [] for tag in columns}
    for number, (tag, *cells) in lines:
        if tag not in columns:
            raise MapError(
                f"{path}:{number}: expected one of {', '.join(columns)}, found {tag[:40]!r}"
            )
        ids, count = columns[tag]
        if len(cells) != ids + count and tag != "FIX":
            raise MapError(
                f"{path}:{number}: {tag} takes {ids + count} numbers, found {len(cells)}"
            )
        try:
            if tag == "FIX":
                tables[tag] += [([int(cell)], []) for cell in cells]
            else:
                tables[tag].append(
                    ([int(cell) for cell in cells[:ids]], [float(cell) for cell in cells[ids:]])
                )
        except ValueError:
            raise MapError(
                f"{path}:{number}: expected numbers after {tag}, found {' '.join(cells)[:60]!r}"
            ) from None
    return _assemble(path, tables[vertex_tag], tables[edge_tag], tables["FIX"], with_scale)


def _assemble(
    path: Path,
    vertices: list[tuple[list[int], list[float]]],
    edges: list[tuple[list[int], list[float]]],
    fixed: list[tuple[list[int], list[float]]],
    with_scale: bool,
) -> PoseGraph:
    if not vertices:
        raise MapError(f"{path}: expected a pose graph of SE(3) or Sim(3) nodes, found none")
    rows = {node: row for row, node in enumerate(sorted(ids[0] for ids, _ in vertices))}
    missing = {node for ids, _ in edges + fixed for node in ids} - rows.keys()
    if len(rows) != len(vertices) or missing:
        raise MapError(
            f"{path}: nodes repeat" if not missing else f"{path}: no node has the id {min(missing)}"
        )
    size, width = (7, 8) if with_scale else (6, 7)
    values = np.array([values for _, values in edges]).reshape(
        len(edges), width + size * (size + 1) // 2
    )
    information = np.zeros((len(edges), size, size))
    upper = np.triu_indices(size)
    information[:, upper[0], upper[1]] = information[:, upper[1], upper[0]] = values[:, width:]
    ends = np.array([[rows[node] for node in ids] for ids, _ in edges], dtype=np.int64).reshape(
        -1, 2
    )
    is_fixed = np.zeros(len(rows), dtype=bool)
    is_fixed[[rows[ids[0]] for ids, _ in fixed]] = True
    order = np.argsort([ids[0] for ids, _ in vertices])
    try:
        S_world_node = _from_columns(
            np.array([values for _, values in vertices])[order], with_scale
        )
        graph = PoseGraphEdges(
            ends[:, 0],
            ends[:, 1],
            _from_columns(values[:, :width], with_scale),
            information_from_g2o(information),
            np.zeros(len(edges), dtype=bool),
        )
        _check(S_world_node, graph, is_fixed, with_scale, need_gauge=False)
    except ValueError as error:
        raise MapError(f"{path}: {error}") from None
    return PoseGraph(S_world_node, graph, is_fixed, with_scale)


def _to_columns(S: FloatArray, with_scale: bool) -> FloatArray:
    """Return the columns of a file: `t q` for SE(3), or `q t s` of the inverse for Sim(3)."""
    if not with_scale:
        return np.concatenate([S[:, :3, 3], rotation_to_quaternion(S[:, :3, :3])], axis=1)
    S = inverse(S)
    scale = similarity_scale(S)[:, None]
    quaternion = rotation_to_quaternion(S[:, :3, :3] / scale[..., None])
    return np.concatenate([quaternion, S[:, :3, 3], scale], axis=1)


def _from_columns(values: FloatArray, with_scale: bool) -> FloatArray:
    if not with_scale:
        return make_transform(quaternion_to_rotation(values[:, 3:7]), values[:, :3])
    return inverse(
        make_transform(values[:, 7:, None] * quaternion_to_rotation(values[:, :4]), values[:, 4:7])
    )


def _line(tag: str, ids: list[int], values: list[float]) -> str:
    return " ".join([tag, *map(str, ids), *(repr(value + 0.0) for value in values)]) + "\n"


def _check(
    S_world_node: FloatArray,
    edges: PoseGraphEdges,
    fixed: NDArray[np.bool_],
    with_scale: bool,
    need_gauge: bool = True,
) -> None:
    nodes, count, size = len(S_world_node), len(edges.i), 7 if with_scale else 6
    if S_world_node.shape != (nodes, 4, 4) or fixed.shape != (nodes,):
        raise ValueError(
            f"expected nodes (K, 4, 4) and fixed (K,), found {S_world_node.shape} and {fixed.shape}"
        )
    if need_gauge and not fixed.any():
        raise ValueError(
            f"a pose graph needs at least one fixed node (the gauge), found none among {nodes}"
        )
    shapes = (edges.j.shape, edges.robust.shape, edges.S_i_j.shape, edges.information.shape)
    if shapes != ((count,), (count,), (count, 4, 4), (count, size, size)):
        raise ValueError(
            f"edges of {'Sim(3)' if with_scale else 'SE(3)'} disagree in shape: "
            f"{count} i, then {shapes}"
        )
    ends = np.concatenate([edges.i, edges.j])
    if count and (ends.min() < 0 or ends.max() >= nodes or (edges.i == edges.j).any()):
        raise ValueError(f"an edge must join two different nodes of 0 to {nodes - 1}")
    if not all(
        np.isfinite(values).all() for values in (S_world_node, edges.S_i_j, edges.information)
    ):
        raise ValueError("a pose graph's nodes and edges must be finite")


def _with_gauge(edges: PoseGraphEdges, fixed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    nodes = len(fixed)
    graph = coo_matrix((np.ones(len(edges.i)), (edges.i, edges.j)), shape=(nodes, nodes))
    _, part = connected_components(graph, directed=False)
    held = fixed.copy()
    anchored = np.zeros(nodes, dtype=bool)
    anchored[part[fixed]] = True
    parts, first = np.unique(part, return_index=True)
    held[first[~anchored[parts]]] = True
    return held


def _algorithm(with_scale: bool) -> Any:
    if with_scale:
        return g2o.OptimizationAlgorithmLevenberg(g2o.BlockSolverSim3(g2o.LinearSolverEigenSim3()))
    return g2o.OptimizationAlgorithmLevenberg(g2o.BlockSolverSE3(g2o.LinearSolverEigenSE3()))


def _build_se3(
    optimizer: Any,
    T_world_node: FloatArray,
    edges: PoseGraphEdges,
    held: NDArray[np.bool_],
    delta: float | None,
) -> tuple[list[Any], list[Any]]:
    nodes = [g2o.Isometry3d(T) for T in orthonormalize(T_world_node)]
    measurements = [g2o.Isometry3d(T) for T in orthonormalize(edges.S_i_j)]
    return _build(optimizer, g2o.VertexSE3, g2o.EdgeSE3, nodes, measurements, edges, held, delta)


def _build_sim3(
    optimizer: Any,
    S_world_node: FloatArray,
    edges: PoseGraphEdges,
    held: NDArray[np.bool_],
    delta: float | None,
) -> tuple[list[Any], list[Any]]:
    # EdgeSim3's residual is log(C · S_i · S_j⁻¹). It equals the residual of this module if nodes
    # map from the world and C maps from i to j.
    nodes, measurements = _to_sim3(inverse(S_world_node)), _to_sim3(inverse(edges.S_i_j))
    return _build(
        optimizer, g2o.VertexSim3Expmap, g2o.EdgeSim3, nodes, measurements, edges, held, delta
    )


def _build(
    optimizer: Any,
    vertex_type: Any,
    edge_type: Any,
    estimates: list[Any],
    measurements: list[Any],
    edges: PoseGraphEdges,
    held: NDArray[np.bool_],
    delta: float | None,
) -> tuple[list[Any], list[Any]]:
    vertices = []
    for row, estimate in enumerate(estimates):
        vertex = vertex_type()
        vertex.set_id(row)
        vertex.set_estimate(estimate)
        vertex.set_fixed(bool(held[row]))
        optimizer.add_vertex(vertex)
        vertices.append(vertex)
    information = information_to_g2o(edges.information)
    kernel = g2o.RobustKernelHuber(_HUBER_DELTA[information.shape[-1]] if delta is None else delta)
    graph_edges = []
    for row, measurement in enumerate(measurements):
        edge = edge_type()
        edge.set_vertex(0, vertices[edges.i[row]])
        edge.set_vertex(1, vertices[edges.j[row]])
        edge.set_measurement(measurement)
        edge.set_information(information[row])
        if edges.robust[row]:
            edge.set_robust_kernel(kernel)
        optimizer.add_edge(edge)
        graph_edges.append(edge)
    return vertices, graph_edges


def _to_sim3(S: FloatArray) -> list[Any]:
    scales = similarity_scale(S)
    rotations = orthonormalize(S)[:, :3, :3]
    return [
        g2o.Sim3(np.asfortranarray(R), t, s)
        for R, t, s in zip(rotations, S[:, :3, 3], scales, strict=True)
    ]


def _read_se3(vertices: list[Any]) -> FloatArray:
    return orthonormalize(np.array([vertex.estimate().matrix() for vertex in vertices]))


def _read_sim3(vertices: list[Any]) -> FloatArray:
    estimates = [vertex.estimate() for vertex in vertices]
    scales = np.array([estimate.scale() for estimate in estimates])[:, None, None]
    rotations = np.array([estimate.rotation().rotation_matrix() for estimate in estimates])
    return inverse(
        make_transform(
            scales * rotations, np.array([estimate.translation() for estimate in estimates])
        )
    )
