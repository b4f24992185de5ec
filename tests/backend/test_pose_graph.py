from dataclasses import replace

import g2opy as g2o
import numpy as np
import pytest
from scipy.optimize import least_squares

from spslam.backend.pose_graph import (
    G2oPoseGraph,
    information_from_g2o,
    information_to_g2o,
    read_g2o,
    write_g2o,
)
from spslam.backend_interfaces import PoseGraphEdges, PoseGraphSolver
from spslam.errors import MapError
from spslam.geometry import (
    inverse,
    make_transform,
    rotation_to_quaternion,
    se3_exp,
    sim3_exp,
    sim3_log,
    similarity_scale,
    so3_exp,
)

HUBER = {False: 3.5485, True: 3.7506}


def circle(nodes, radius=5.0):
    """Poses (K, 4, 4) once around a circle, looking along it."""
    angle = np.linspace(0, 2 * np.pi, nodes, endpoint=False)
    zero = np.zeros(nodes)
    positions = radius * np.stack([np.cos(angle), np.sin(angle), 0.1 * np.sin(3 * angle)], axis=1)
    return make_transform(so3_exp(np.stack([zero, zero, angle], axis=1)), positions)


def odometry(S_world_node, loops, step_noise, loop_noise, with_scale, seed=0, weights=None):
    """A graph of noisy steps and loops, and the nodes that result from chaining the steps."""
    rng = np.random.default_rng(seed)
    nodes, size = len(S_world_node), 7 if with_scale else 6
    i = np.concatenate([np.arange(nodes - 1), [loop[0] for loop in loops]]).astype(np.int64)
    j = np.concatenate([np.arange(1, nodes), [loop[1] for loop in loops]]).astype(np.int64)
    is_loop = np.arange(len(i)) >= nodes - 1
    sigma = np.where(is_loop[:, None], loop_noise, np.broadcast_to(step_noise, (len(i), size)))
    noise = sigma * rng.normal(size=(len(i), size))
    S_i_j = (
        inverse(S_world_node[i]) @ S_world_node[j] @ (sim3_exp if with_scale else se3_exp)(noise)
    )
    information = np.zeros((len(i), size, size))
    information[:, np.arange(size), np.arange(size)] = 1 / np.maximum(sigma, 1e-4) ** 2
    chained = [S_world_node[0]]
    for step in S_i_j[: nodes - 1]:
        chained.append(chained[-1] @ step)
    fixed = np.arange(nodes) == 0
    return np.array(chained), PoseGraphEdges(i, j, S_i_j, information, is_loop), fixed


def scipy_solution(S_world_node, edges, fixed, with_scale):
    """The minimum of the cost in the module's docstring, by a dense general-purpose solver."""
    exp, size = (sim3_exp, 7) if with_scale else (se3_exp, 6)
    root = np.linalg.cholesky(edges.information).swapaxes(1, 2)
    free = np.flatnonzero(~fixed)

    def nodes(x):
        moved = S_world_node.copy()
        moved[free] = moved[free] @ exp(x.reshape(-1, size))
        return moved

    def residuals(x):
        S = nodes(x)
        E = inverse(edges.S_i_j) @ inverse(S[edges.i]) @ S[edges.j]
        if with_scale:
            r = sim3_log(E)
        else:
            r = np.concatenate(
                [E[:, :3, 3], 2 * rotation_to_quaternion(E[:, :3, :3])[:, :3]], axis=1
            )
        r = (root @ r[..., None])[..., 0]
        norm, delta = np.linalg.norm(r, axis=1), HUBER[with_scale]
        huber = np.where(norm <= delta, norm, np.sqrt(np.maximum(2 * delta * norm - delta**2, 0)))
        weight = np.where(edges.robust, huber / np.maximum(norm, 1e-12), 1.0)
        return (weight[:, None] * r).ravel()

    return nodes(
        least_squares(residuals, np.zeros(len(free) * size), xtol=1e-9, ftol=1e-9, gtol=1e-9).x
    )


def correlated(edges, seed=1):
    """The same edges with full information matrices, to detect a wrong order or unit."""
    size = edges.information.shape[-1]
    A = np.random.default_rng(seed).normal(size=(len(edges.i), size, size))
    root = np.sqrt(edges.information)
    return replace(edges, information=root @ (np.eye(size) + 0.2 * A @ A.swapaxes(1, 2)) @ root)


def position_error(S, truth):
    return np.sqrt(np.mean(np.sum((S[:, :3, 3] - truth[:, :3, 3]) ** 2, axis=1)))


def test_the_solver_implements_the_interface():
    solver: PoseGraphSolver = G2oPoseGraph()
    assert callable(solver.optimize)


@pytest.mark.parametrize("with_scale", [False, True])
def test_a_noisy_circle_closes_to_its_ground_truth(with_scale):
    truth = circle(60)
    loops = [(k, (k + 3) % 60) for k in (57, 58, 59)] + [(0, 30), (10, 40)]
    chained, edges, fixed = odometry(truth, loops, 0.01, 1e-4, with_scale)
    refined = G2oPoseGraph().optimize(chained, edges, fixed, with_scale)
    assert position_error(chained, truth) > 0.2
    assert position_error(refined, truth) < 0.3 * position_error(chained, truth)
    E = inverse(edges.S_i_j) @ inverse(refined[edges.i]) @ refined[edges.j]
    assert np.linalg.norm(E[edges.robust, :3, 3], axis=1).max() < 1e-3


def test_exact_measurements_give_exactly_the_ground_truth():
    truth = circle(40)
    _, edges, fixed = odometry(truth, [(0, 39), (5, 25)], 0.0, 0.0, False)
    start = truth @ se3_exp(0.1 * np.random.default_rng(0).normal(size=(40, 6)))
    start[0] = truth[0]
    np.testing.assert_allclose(
        G2oPoseGraph().optimize(start, edges, fixed, False), truth, atol=1e-7
    )


def test_scale_drift_is_recovered_by_the_sim3_graph_only():
    truth = circle(60)
    step = np.zeros((59, 7))
    step[:, 6] = -0.01
    # Monocular odometry: the unit of length of each keyframe shrinks, and its similarity to the
    # world undoes this.
    chained, edges, fixed = odometry(truth, [(59, 0), (58, 1), (57, 0)], [0.0] * 7, 1e-5, True)
    edges.S_i_j[:59] = edges.S_i_j[:59] @ sim3_exp(step)
    edges.information[:59, 6, 6] = 1 / 0.01**2
    edges.information[:59, np.arange(6), np.arange(6)] = 1 / 0.001**2
    for k in range(59):
        chained[k + 1] = chained[k] @ edges.S_i_j[k]
    refined = G2oPoseGraph().optimize(chained, edges, fixed, True)
    assert similarity_scale(chained)[-1] == pytest.approx(np.exp(-0.59))
    np.testing.assert_allclose(similarity_scale(refined), 1.0, atol=0.02)
    assert position_error(chained, truth) > 1.0
    assert position_error(refined, truth) < 0.05

    rigid = replace(
        edges, S_i_j=edges.S_i_j.copy(), information=edges.information[:, :6, :6].copy()
    )
    rigid.S_i_j[:, :3, :3] /= similarity_scale(edges.S_i_j)[:, None, None]
    start = chained.copy()
    start[:, :3, :3] /= similarity_scale(chained)[:, None, None]
    # A rigid step contains the drift so far as a wrong length.
    rigid.S_i_j[:59, :3, 3] *= similarity_scale(chained)[:59, None]
    assert position_error(G2oPoseGraph().optimize(start, rigid, fixed, False), truth) > 0.3


@pytest.mark.parametrize("with_scale", [False, True])
def test_agrees_with_a_plain_scipy_solution_of_the_stated_cost(with_scale):
    truth = circle(6, radius=2.0)
    chained, edges, fixed = odometry(truth, [(0, 5), (1, 4), (5, 2)], 0.05, 0.02, with_scale)
    edges = correlated(edges)
    # One loop is wrong, so that the robust kernel takes effect, too.
    edges.S_i_j[-1] = edges.S_i_j[-1] @ se3_exp(np.array([0.3, 0, 0, 0, 0.2, 0]))
    expected = scipy_solution(chained, edges, fixed, with_scale)
    refined = G2oPoseGraph().optimize(chained, edges, fixed, with_scale)
    assert np.abs(expected - chained).max() > 0.02
    np.testing.assert_allclose(refined, expected, atol=1e-4)


@pytest.mark.parametrize("with_scale", [False, True])
def test_two_runs_give_the_same_bytes(with_scale):
    chained, edges, fixed = odometry(circle(30), [(0, 29), (3, 20)], 0.02, 0.001, with_scale)
    once, twice = (G2oPoseGraph().optimize(chained, edges, fixed, with_scale) for _ in range(2))
    assert once.tobytes() == twice.tobytes()
    assert once[0].tobytes() == chained[0].tobytes()


def test_a_wrong_loop_does_little_harm_with_the_robust_kernel():
    truth = circle(60)
    chained, edges, fixed = odometry(truth, [(0, 59), (1, 58), (5, 35)], 0.005, 0.005, False)
    edges.S_i_j[-1] = edges.S_i_j[-1] @ se3_exp(np.array([8.0, 3.0, 0, 0, 0, 1.0]))
    robust = G2oPoseGraph().optimize(chained, edges, fixed, False)
    plain = G2oPoseGraph().optimize(
        chained, replace(edges, robust=np.zeros(len(edges.i), dtype=bool)), fixed, False
    )
    assert position_error(plain, truth) > 1.0
    assert position_error(robust, truth) < 0.2 * position_error(plain, truth)


def test_components_without_a_fixed_node_keep_their_first_and_isolated_nodes_stay():
    truth = circle(21)
    chained, edges, fixed = odometry(truth, [(0, 9), (10, 19)], 0.02, 0.001, False)
    cut = (edges.i != 9) & (edges.i != 19)
    cut[-2:] = True
    edges = PoseGraphEdges(
        edges.i[cut], edges.j[cut], edges.S_i_j[cut], edges.information[cut], edges.robust[cut]
    )
    refined = G2oPoseGraph().optimize(chained, edges, fixed, False)
    for row in (0, 10, 20):
        assert (refined[row] == chained[row]).all()
    assert (np.abs(refined - chained).max(axis=(1, 2)) > 0).sum() == 18


def test_a_graph_without_work_returns_its_nodes():
    truth = circle(4)
    chained, edges, _ = odometry(truth, [(0, 3)], 0.02, 0.001, False)
    assert (G2oPoseGraph().optimize(chained, edges, np.ones(4, dtype=bool), False) == chained).all()
    none = np.zeros(0, dtype=np.int64)
    empty = PoseGraphEdges(
        none, none, np.zeros((0, 4, 4)), np.zeros((0, 6, 6)), np.zeros(0, dtype=bool)
    )
    assert (G2oPoseGraph().optimize(chained, empty, np.arange(4) == 1, False) == chained).all()


def test_invalid_graphs_are_refused():
    chained, edges, fixed = odometry(circle(6), [(0, 5)], 0.01, 0.01, False)
    solver = G2oPoseGraph()
    with pytest.raises(ValueError, match="at least one fixed node"):
        solver.optimize(chained, edges, np.zeros(6, dtype=bool), False)
    with pytest.raises(ValueError, match=r"Sim\(3\) disagree in shape"):
        solver.optimize(chained, edges, fixed, True)
    with pytest.raises(ValueError, match="two different nodes"):
        solver.optimize(chained, replace(edges, j=edges.i), fixed, False)
    with pytest.raises(ValueError, match="two different nodes"):
        solver.optimize(chained, replace(edges, j=edges.j + 1), fixed, False)
    with pytest.raises(ValueError, match="finite"):
        solver.optimize(
            np.where(np.arange(6)[:, None, None] == 3, np.nan, chained), edges, fixed, False
        )


@pytest.mark.parametrize("size", [6, 7])
def test_information_is_unchanged_by_conversion_to_g2o_and_back(size):
    A = np.random.default_rng(0).normal(size=(3, size, size))
    np.testing.assert_allclose(information_from_g2o(information_to_g2o(A)), A)


def test_g2o_weights_half_angles():
    information = information_to_g2o(np.eye(6))
    half_angle = np.sin(0.01 / 2)
    assert half_angle * information[3, 3] * half_angle == pytest.approx(0.01**2, rel=1e-4)


@pytest.mark.parametrize("with_scale", [False, True])
def test_files_are_read_back_as_written(tmp_path, with_scale):
    chained, edges, fixed = odometry(circle(12), [(0, 11), (3, 8)], 0.02, 0.001, with_scale)
    edges = correlated(edges)
    write_g2o(tmp_path / "graph.g2o", chained, edges, fixed)
    graph = read_g2o(tmp_path / "graph.g2o")
    assert graph.with_scale == with_scale
    assert (graph.fixed == fixed).all()
    assert (graph.edges.i == edges.i).all()
    assert (graph.edges.j == edges.j).all()
    np.testing.assert_allclose(graph.S_world_node, chained, atol=1e-12)
    np.testing.assert_allclose(graph.edges.S_i_j, edges.S_i_j, atol=1e-12)
    np.testing.assert_allclose(graph.edges.information, edges.information, rtol=1e-12)


@pytest.mark.parametrize("with_scale", [False, True])
def test_g2o_itself_reads_the_files_and_sees_the_same_cost(tmp_path, with_scale):
    chained, edges, fixed = odometry(circle(12), [(0, 11), (3, 8)], 0.02, 0.001, with_scale)
    edges = correlated(edges)
    write_g2o(tmp_path / "graph.g2o", chained, edges, fixed)
    optimizer = g2o.SparseOptimizer()
    assert optimizer.load(str(tmp_path / "graph.g2o"))
    assert len(optimizer.vertices()) == 12
    assert len(optimizer.edges()) == 13
    assert optimizer.vertex(0).fixed()
    optimizer.initialize_optimization()
    optimizer.compute_active_errors()
    E = inverse(edges.S_i_j) @ inverse(chained[edges.i]) @ chained[edges.j]
    if with_scale:
        r = sim3_log(E)
    else:
        r = np.concatenate([E[:, :3, 3], 2 * rotation_to_quaternion(E[:, :3, :3])[:, :3]], axis=1)
    assert optimizer.active_chi2() == pytest.approx(
        np.einsum("ea,eab,eb->", r, edges.information, r), rel=1e-6
    )


@pytest.mark.parametrize("with_scale", [False, True])
def test_files_that_g2o_wrote_are_read(tmp_path, with_scale):
    chained, edges, fixed = odometry(circle(12), [(0, 11), (3, 8)], 0.02, 0.001, with_scale)
    write_g2o(tmp_path / "ours.g2o", chained, edges, fixed)
    optimizer = g2o.SparseOptimizer()
    optimizer.load(str(tmp_path / "ours.g2o"))
    optimizer.save(str(tmp_path / "theirs.g2o"))
    graph = read_g2o(tmp_path / "theirs.g2o")
    np.testing.assert_allclose(graph.S_world_node, chained, atol=1e-4)
    assert graph.fixed.sum() == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found none"),
        ("VERTEX_SE2 0 0 0 0\n", "graph.g2o:1: expected one of"),
        (
            "# a comment\nVERTEX_SE3:QUAT 0 1 2\n",
            "graph.g2o:2: VERTEX_SE3:QUAT takes 8 numbers, found 3",
        ),
        ("VERTEX_SE3:QUAT 0 0 0 0 0 0 0 one\n", "graph.g2o:1: expected numbers"),
        ("VERTEX_SE3:QUAT 0 0 0 0 0 0 0 1\nFIX 3\n", "no node has the id 3"),
        ("VERTEX_SE3:QUAT 0 0 0 0 0 0 0 1\nVERTEX_SE3:QUAT 0 0 0 0 0 0 0 1\n", "nodes repeat"),
        ("VERTEX_SE3:QUAT 0 nan 0 0 0 0 0 1\n", "finite"),
        ("VERTEX_SE3:QUAT 0 0 0 0 0 0 0 0\n", "quaternion"),
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "graph.g2o").write_text(text)
    with pytest.raises(MapError, match=message) as caught:
        read_g2o(tmp_path / "graph.g2o")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MapError, match=r"absent\.g2o"):
        read_g2o(tmp_path / "absent.g2o")
