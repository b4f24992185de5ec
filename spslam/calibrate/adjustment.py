"""Bundle adjustment that also estimates the intrinsic parameters, and their covariance.

Levenberg-Marquardt on all poses, points and the chosen intrinsic parameters of one camera. Points
are eliminated by the Schur complement, and the reduced system is solved densely. All steps are
whole-array operations of one thread: equal inputs give equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve

from spslam.calibrate.model import NAMES, Intrinsics, Structure, project
from spslam.geometry import so3_exp
from spslam.typing import FloatArray

# Scale of Cauchy's robust loss, pixels: observations this far off have half of the weight.
_LOSS_PX = 1.5
# Iterations of Levenberg-Marquardt, and the step of the parameters that ends them, standard
# deviations of an error of 1 px.
_ITERATIONS, _ENOUGH = 25, 0.02
_FIRST_DAMPING, _MOST_DAMPING = 1e-4, 1e8
# Least depth of an observed point, in units of the structure's median depth.
_LEAST_DEPTH = 1e-3
# Images of one block of the cluster-robust covariance. Errors of neighbouring images are
# correlated, because they match the same points to the same wrong places.
_BLOCK_IMAGES = 6


@dataclass(frozen=True, eq=False)
class Adjusted:
    """The result of `adjust`.

    Attributes:
        structure, intrinsics: the refined ones.
        free: names of the intrinsic parameters that were estimated.
        covariance: (P, P) of them from the images; see `adjust`.
        bias: (P, P) what the standard deviations of the prior add to it.
        cost: mean robust cost of an observation, pixels².
        residuals: (K, 2) of all observations, pixels.
    """

    structure: Structure
    intrinsics: Intrinsics
    free: tuple[str, ...]
    covariance: FloatArray
    bias: FloatArray
    cost: float
    residuals: FloatArray

    def sigma(self, name: str, with_bias: bool = True) -> float:
        """Return the standard deviation of a parameter; 0 if it was not estimated.

        Args:
            name: one of `NAMES`.
            with_bias: whether to add the bias of the prior.
        """
        if name not in self.free:
            return 0.0
        index = self.free.index(name)
        variance = self.covariance[index, index] + with_bias * self.bias[index, index]
        return float(np.sqrt(variance))


@dataclass(frozen=True, eq=False)
class Prior:
    """Normal distributions of the intrinsic parameters before the images are seen.

    Attributes:
        mean: (8,) most likely values, see `NAMES`.
        sigma: (8,) their standard deviations; infinite: nothing is known.
        observation_px: error of an observation against which these count, pixels.
    """

    mean: FloatArray
    sigma: FloatArray
    observation_px: float = 1.0

    @property
    def precision(self) -> FloatArray:
        """(8,) pixels² by squared units of the parameters."""
        return (self.observation_px / self.sigma) ** 2

    @classmethod
    def nothing(cls) -> Prior:
        """Return the prior of parameters about which nothing is known."""
        return cls(np.zeros(len(NAMES)), np.full(len(NAMES), np.inf))


def adjust(
    structure: Structure,
    intrinsics: Intrinsics,
    free: Sequence[str],
    prior: Prior | None = None,
    iterations: int = _ITERATIONS,
) -> Adjusted:
    """Refine poses, points and intrinsic parameters.

    The covariance is the larger one, parameter by parameter, of the inverse normal matrix times
    the variance of the residuals, and of the cluster-robust covariance over blocks of images
    (Liang and Zeger, Longitudinal data analysis using generalized linear models, 1986). The bias
    of the prior, whose means are off by its standard deviations, is kept apart.

    Args:
        structure: poses, points and observations.
        intrinsics: first values of the camera.
        free: the parameters to estimate, of `NAMES`.
        prior: what is known about the parameters before; None: nothing.
        iterations: maximum number of iterations.
    """
    columns = np.array([NAMES.index(name) for name in free], dtype=np.int64)
    state = _State(structure, intrinsics.values.copy(), prior or Prior.nothing())
    damping = _FIRST_DAMPING
    cost = state.cost()
    for _ in range(iterations):
        linear = state.linearize(columns)
        length = 0.0
        while damping < _MOST_DAMPING:
            of_cameras, of_points, step = linear.step(damping)
            moved = state.moved((of_cameras, of_points), columns)
            new = moved.cost()
            if new < cost:
                state, cost, damping, length = moved, new, max(damping / 10.0, 1e-10), step
                break
            damping *= 10.0
        if not length > _ENOUGH:
            break
    linear = state.linearize(columns)
    return Adjusted(
        state.structure,
        replace(intrinsics, values=state.values),
        tuple(free),
        *linear.covariance(),
        cost,
        linear.residuals,
    )


class _State:
    """Poses, points and parameters of one iteration."""

    def __init__(self, structure: Structure, values: FloatArray, prior: Prior) -> None:
        self.structure, self.values, self._prior = structure, values, prior

    def _in_camera(self) -> FloatArray:
        s = self.structure
        T = s.T_cam_world[s.image]
        seen: FloatArray = np.einsum("kij,kj->ki", T[:, :3, :3], s.points[s.point]) + T[:, :3, 3]
        return seen

    def cost(self) -> float:
        """Return the mean robust cost of an observation, pixels²; infinite behind a camera."""
        points = self._in_camera()
        if not points[:, 2].min() > _LEAST_DEPTH * np.median(points[:, 2]):
            return np.inf
        pixels, _, _ = project(points, self.values)
        square = ((pixels - self.structure.pixels) ** 2).sum(axis=1)
        known = (self._prior.precision * (self.values - self._prior.mean) ** 2).sum()
        return float(np.log1p(square / _LOSS_PX**2).mean() * _LOSS_PX**2 + known / len(pixels))

    def moved(self, step: tuple[FloatArray, FloatArray], columns: NDArray[np.int64]) -> _State:
        of_cameras, of_points = step
        s = self.structure
        count = 6 * len(s.names)
        xi = of_cameras[:count].reshape(-1, 6)
        T = s.T_cam_world.copy()
        R = so3_exp(xi[:, 3:])
        T[:, :3, :3] = R @ T[:, :3, :3]
        T[:, :3, 3] = np.einsum("nij,nj->ni", R, T[:, :3, 3]) + xi[:, :3]
        values = self.values.copy()
        values[columns] += of_cameras[count:]
        return _State(replace(s, T_cam_world=T, points=s.points + of_points), values, self._prior)

    def linearize(self, columns: NDArray[np.int64]) -> _Linear:
        s = self.structure
        points = self._in_camera()
        pixels, by_point, by_values = project(points, self.values)
        residuals = pixels - s.pixels
        # The pose is perturbed from the left: R becomes exp(ω) R, and t becomes exp(ω) t + v.
        cross = np.zeros((len(points), 3, 3))
        cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = points[:, 2], -points[:, 1], points[:, 0]
        cross -= cross.transpose(0, 2, 1)
        J_pose = np.concatenate([by_point, by_point @ cross], axis=2)
        J_point = by_point @ s.T_cam_world[s.image][:, :3, :3]
        weights = 1.0 / (1.0 + (residuals**2).sum(axis=1) / _LOSS_PX**2)
        known = self._prior.precision[columns]
        pull = known * (self.values - self._prior.mean)[columns]
        spread = known * self._prior.observation_px**2
        J_values = by_values[:, :, columns]
        return _Linear(s, residuals, weights, J_pose, J_point, J_values, known, pull, spread)


class _Linear:
    """The linearized problem."""

    def __init__(
        self,
        structure: Structure,
        residuals: FloatArray,
        weights: FloatArray,
        J_pose: FloatArray,
        J_point: FloatArray,
        J_values: FloatArray,
        known: FloatArray,
        pull: FloatArray,
        spread: FloatArray,
    ) -> None:
        self.residuals, self._weights = residuals, weights
        # Variance of the prior's pull: precision² times the variance of its mean.
        self._spread = spread
        self._s = structure
        self._images, self._points = len(structure.names), len(structure.points)
        self._P = J_values.shape[2]
        self._size = 6 * self._images + self._P
        K = len(residuals)
        root = np.sqrt(weights)[:, None, None]
        of_pose = 6 * structure.image[:, None] + np.arange(6)
        of_values = np.broadcast_to(6 * self._images + np.arange(self._P), (K, self._P))
        columns = np.repeat(np.concatenate([of_pose, of_values], axis=1), 2, axis=0)
        data = (np.concatenate([J_pose, J_values], axis=2) * root).reshape(2 * K, -1)
        starts = np.arange(2 * K + 1) * (6 + self._P)
        self._A = sparse.csr_matrix(
            (data.ravel(), columns.ravel(), starts), shape=(2 * K, self._size)
        )
        columns = np.repeat(3 * structure.point[:, None] + np.arange(3), 2, axis=0)
        self._J_point = J_point * root
        self._B = sparse.csr_matrix(
            (self._J_point.ravel(), columns.ravel(), 3 * np.arange(2 * K + 1)),
            shape=(2 * K, 3 * self._points),
        )
        self._r = (residuals * root[:, :, 0]).ravel()
        self._U = np.asarray((self._A.T @ self._A).todense())
        self._W = (self._A.T @ self._B).tocsr()
        blocks = np.einsum("kia,kib->kab", self._J_point, self._J_point)
        self._V = np.zeros((self._points, 3, 3))
        np.add.at(self._V, structure.point, blocks)
        self._a, self._b = self._A.T @ self._r, (self._B.T @ self._r).reshape(-1, 3)
        last = np.arange(self._size - self._P, self._size)
        self._U[last, last] += known
        self._a[last] += pull

    def step(self, damping: float) -> tuple[FloatArray, FloatArray, float]:
        """Solve the damped equations.

        Returns:
            The step of poses and parameters (6 N + P,), that of points (M, 3), and the length of
            that of the parameters in standard deviations of an error of 1 px.
        """
        V = self._V + damping * self._diagonals(self._V)
        V_inverse = np.linalg.inv(V)
        S, right = self._reduced(V_inverse)
        diagonal = np.diag(self._U)
        S[np.diag_indices(self._size)] += damping * diagonal + 1e-12 * diagonal.max()
        factor = cho_factor(S)
        of_cameras = -cho_solve(factor, right)
        # The last rows of the upper factor are the root of the parameters' own information.
        root = np.triu(factor[0][-self._P :, -self._P :])
        length = float(np.linalg.norm(root @ of_cameras[-self._P :]))
        back = (self._W.T @ of_cameras).reshape(-1, 3)
        of_points = -np.einsum("mij,mj->mi", V_inverse, self._b + back)
        return of_cameras, of_points, length

    def covariance(self) -> tuple[FloatArray, FloatArray]:
        """Return the covariance of the parameters (P, P), and the bias of the prior (P, P)."""
        V_inverse = np.linalg.inv(self._V + 1e-12 * self._diagonals(self._V))
        S, _ = self._reduced(V_inverse)
        # Fix the gauge: the first pose, and the component of the farthest pose that moves most.
        kept = np.setdiff1d(np.arange(self._size), self._gauge())
        factor = cho_factor(S[np.ix_(kept, kept)] + 1e-14 * np.diag(np.diag(S)[kept]))
        selector = np.zeros((len(kept), self._P))
        selector[-self._P :] = np.eye(self._P)
        rows = np.zeros((self._size, self._P))
        rows[kept] = cho_solve(factor, selector)
        degrees = 2 * len(self.residuals) - 3 * self._points - self._size + 7
        variance = float((self._r**2).sum() / max(degrees, 1))
        model = rows[-self._P :] * variance
        robust = self._clustered(rows, V_inverse)
        grow = np.sqrt(np.maximum(np.diag(robust) / np.diag(model), 1.0))
        bias = rows[-self._P :].T * self._spread @ rows[-self._P :]
        return model * grow[:, None] * grow, bias

    def _clustered(self, rows: FloatArray, V_inverse: NDArray[np.floating]) -> FloatArray:
        """Return the cluster-robust covariance of the parameters (P, P)."""
        # Influence of each residual on the parameters: rows^T (A - B V^-1 W^T)^T.
        back = (self._W.T @ rows).reshape(-1, 3, self._P)
        of_points = np.einsum("mij,mjp->mip", V_inverse, back).reshape(-1, self._P)
        influence = self._A @ rows - self._B @ of_points
        scores = (influence * self._r[:, None]).reshape(-1, 2, self._P).sum(axis=1)
        blocks = self._s.image // _BLOCK_IMAGES
        sums = np.zeros((int(blocks.max()) + 1, self._P))
        np.add.at(sums, blocks, scores)
        count = len(sums)
        covariance: FloatArray = sums.T @ sums * (count / max(count - 1, 1))
        return covariance

    def _reduced(self, V_inverse: NDArray[np.floating]) -> tuple[FloatArray, FloatArray]:
        M = self._points
        inverse = sparse.bsr_matrix(
            (V_inverse, np.arange(M), np.arange(M + 1)), shape=(3 * M, 3 * M)
        )
        WV = (self._W @ inverse).tocsr()
        S = self._U - np.asarray((WV @ self._W.T).todense())
        return S, self._a - WV @ self._b.ravel()

    def _diagonals(self, blocks: FloatArray) -> FloatArray:
        out = np.zeros_like(blocks)
        index = np.arange(3)
        diagonal = blocks[:, index, index]
        out[:, index, index] = np.maximum(diagonal, 1e-9 * diagonal.max())
        return out

    def _gauge(self) -> NDArray[np.int64]:
        centres = -np.einsum(
            "nji,nj->ni", self._s.T_cam_world[:, :3, :3], self._s.T_cam_world[:, :3, 3]
        )
        away = centres - centres[0]
        far = int(np.argmax((away**2).sum(axis=1)))
        # Moving along the baseline, in the coordinates of the far camera, changes the scale.
        direction = self._s.T_cam_world[far, :3, :3] @ away[far]
        return np.array([*range(6), 6 * far + int(np.argmax(np.abs(direction)))])
