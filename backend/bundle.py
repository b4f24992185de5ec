"""Bundle adjustment: Levenberg-Marquardt with the points eliminated (Schur complement).

All steps are NumPy operations on whole arrays. The reduced camera system is one dense product for
a local window and a sparse block product for a whole map. Source: Triggs et al., Bundle
adjustment: a modern synthesis, 2000, section 6.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg

from spslam.backend_interfaces import BundleProblem, BundleResult
from spslam.camera import Camera
from spslam.geometry import make_transform, orthonormalize, so3_exp
from spslam.typing import BoolArray, FloatArray, IntArray

from .damping import Damping, minimize
from .residuals import (
    Reprojection,
    all_finite,
    backward3,
    chi_squared,
    cholesky3,
    forward3,
    huber_cost,
    huber_weight,
    pose_jacobian,
)

_log = logging.getLogger(__name__)

_DAMPING = Damping(first=1e-4, least=1e-9)
# Relative decrease of the cost that ends the first stage (which only finds the outliers) and the
# second stage. After a loop closure a map is far from its optimum: a first stage that ends early
# then rejects good observations, so the thorough one converges further.
_CONVERGED, _CONVERGED_THOROUGH = (5e-3, 1e-5), (1e-4, 1e-5)
# Residual of an observation whose point lies behind the camera, in σ.
_BEHIND_SIGMAS = 100.0
# Up to this number of moving keyframes, their coupling with the points is a dense matrix.
_DENSE_CAMERAS = 16
# Entries of one block of the dense coupling. Products of larger blocks start BLAS threads, which
# cost more on a busy machine than they gain on an idle one.
_PIECE = 262_144
# Up to this number of unknowns of keyframes, the reduced system is dense.
_DENSE_SYSTEM = 1_200
# Lower triangle of a symmetric 3×3 block, in the order of `cholesky3`.
_LOWER = ((0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2))


class SchurBundleAdjuster:
    """A `BundleAdjuster` in NumPy.

    The first half of the iterations uses all observations under Huber's kernel. The second half
    uses the observations within the 95 % limit of χ². Points that the active observations do not
    determine (at most one mono observation) stay fixed, and their observations do not act on
    keyframes. Keyframes without active observations stay fixed, too.

    Args:
        pixel_sigma: Standard deviation of a keypoint's position, pixels.
        iterations: Largest number of iterations, both stages together.
        thorough: Let the first stage converge further, for a map far from its optimum.
        disparity_sigma: Standard deviation of a disparity, pixels; None: that of `u_right` is
            `pixel_sigma`.
    """

    def __init__(
        self,
        pixel_sigma: float = 1.0,
        iterations: int = 8,
        thorough: bool = False,
        disparity_sigma: float | None = None,
    ) -> None:
        self.pixel_sigma = pixel_sigma
        self.disparity_sigma = disparity_sigma
        self.iterations = iterations
        self._converged_first, self._converged = _CONVERGED_THOROUGH if thorough else _CONVERGED

    def adjust(self, problem: BundleProblem, camera: Camera) -> BundleResult:
        """Refine keyframes and points together; see `BundleAdjuster.adjust`.

        The inliers are the observations within the 95 % limit of χ² in the result. The costs are
        Σ min(χ², limit) over the observations of points that can move. The cost of the result is
        never higher than the cost of the input.

        Args:
            problem: Poses, points and observations; at least one fixed keyframe.
            camera: Camera of all observations.

        Returns:
            Refined poses and points, inliers and the costs before and after.

        Raises:
            ValueError: No keyframe is fixed, so that the whole map could drift.
        """
        if len(problem.fixed) and not problem.fixed.any():
            raise ValueError(
                f"bundle adjustment needs a fixed keyframe, found none among {len(problem.fixed)}"
            )
        scene = _Scene(problem, camera, self.pixel_sigma, self.disparity_sigma)
        start = _State(
            np.array(problem.T_cam_world, dtype=np.float64),
            np.array(problem.points, dtype=np.float64).T,
        )
        everything = scene.usable(start)
        first = (self.iterations + 1) // 2
        state = _Stage(scene, everything, self._converged_first).minimize(start, first)
        inliers = everything & scene.inliers(state)
        state = _Stage(scene, inliers, self._converged).minimize(state, self.iterations - first)
        counted = scene.determining(everything)
        before, after = scene.truncated_cost(start, counted), scene.truncated_cost(state, counted)
        if not after <= before:
            state, after = start, before
        inliers = np.empty_like(inliers)
        inliers[scene.order] = everything & scene.inliers(state)
        T_cam_world = np.where(
            problem.fixed[:, None, None], start.T_cam_world, orthonormalize(state.T_cam_world)
        )
        _log.debug("bundle: %d observations, cost %.1f -> %.1f", len(inliers), before, after)
        return BundleResult(
            T_cam_world, np.ascontiguousarray(state.points.T), inliers, before, after
        )


@dataclass(frozen=True, eq=False)
class _State:
    """The estimated variables: poses (K, 4, 4) and points (3, P)."""

    T_cam_world: FloatArray
    points: FloatArray


class _Scene:
    """The observations (O), sorted by keyframe and point, and which keyframes are fixed."""

    def __init__(
        self,
        problem: BundleProblem,
        camera: Camera,
        pixel_sigma: float,
        disparity_sigma: float | None,
    ) -> None:
        keys = problem.camera_index * np.int64(len(problem.points)) + problem.point_index
        self.order: IntArray = np.argsort(keys, kind="stable")
        self.cameras: IntArray = problem.camera_index[self.order]
        self.points: IntArray = problem.point_index[self.order]
        sigma = problem.relative_sigma
        self.measured = Reprojection(
            problem.pixels[self.order],
            problem.u_right[self.order],
            camera,
            pixel_sigma,
            disparity_sigma,
            None if sigma is None else sigma[self.order],
        )
        self.fixed: BoolArray = problem.fixed

    def usable(self, state: _State) -> BoolArray:
        """Return which observations (O,) have a finite pixel, point and pose."""
        points, cameras = (
            all_finite(state.points, axis=0),
            all_finite(state.T_cam_world, axis=(1, 2)),
        )
        return self.measured.finite & points[self.points] & cameras[self.cameras]

    def determining(self, active: BoolArray) -> BoolArray:
        """Return which active observations (O,) belong to a point that they determine."""
        rows = np.where(self.measured.stereo, 3.0, 2.0) * active
        determining: BoolArray = active & (np.bincount(self.points, rows) >= 3.0)[self.points]
        return determining

    def inliers(self, state: _State) -> BoolArray:
        residuals, valid = self.measured.residuals(_points_cam(state, self.cameras, self.points))
        inliers: BoolArray = valid & (chi_squared(residuals) <= self.measured.limit)
        return inliers

    def truncated_cost(self, state: _State, active: BoolArray) -> float:
        residuals, valid = self.measured.residuals(_points_cam(state, self.cameras, self.points))
        cost = np.where(
            valid, np.minimum(chi_squared(residuals), self.measured.limit), self.measured.limit
        )
        return float(cost[active].sum())


def _points_cam(state: _State, cameras: IntArray, points: IntArray) -> FloatArray:
    """Return the observed points (3, O) in the coordinates of their cameras."""
    moved: FloatArray = np.einsum(
        "ijo,jo->io", _rotations(state, cameras), _take(state.points, points)
    )
    moved += _take(state.T_cam_world[:, :3, 3].T, cameras)
    return moved


def _rotations(state: _State, cameras: IntArray) -> FloatArray:
    """Return the rotations (3, 3, O) of the observing cameras."""
    return _take(state.T_cam_world[:, :3, :3].transpose(1, 2, 0), cameras)


def _compress(index: IntArray) -> tuple[IntArray, IntArray]:
    """Return the sorted distinct values of an index array, and the row of each element in them."""
    present = np.bincount(index) > 0
    rows: IntArray = (np.cumsum(present) - 1)[index]
    return np.flatnonzero(present), rows


def _take(values: FloatArray, index: IntArray) -> FloatArray:
    """Select along the last axis; unlike indexing, the result is contiguous, so einsum is fast."""
    return np.take(values, index, axis=-1)


@dataclass(frozen=True, eq=False)
class _Evaluation:
    """A state, its cost, and its active observations.

    Of these the points (3, O) in camera coordinates, residuals (3, O), χ² (O,) and validity (O,).
    """

    state: _State
    cost: float
    points_cam: FloatArray
    residuals: FloatArray
    chi2: FloatArray
    valid: BoolArray


@dataclass(frozen=True, eq=False)
class _Normal:
    """The normal equations before elimination; see `_Stage.linearize`."""

    camera_blocks: FloatArray
    camera_gradient: FloatArray
    point_blocks: FloatArray
    point_gradient: FloatArray
    camera_jacobian: FloatArray
    point_jacobian: FloatArray


class _Stage:
    """One minimization: its active observations, moving keyframes (F) and moving points (Q).

    It is a problem of `damping.minimize`: its states are evaluations, and a step is a pair of steps
    (6 F,) of the keyframes and (3, Q) of the points.
    """

    def __init__(self, scene: _Scene, active: BoolArray, tolerance: float) -> None:
        self._tolerance = tolerance
        chosen = np.flatnonzero(scene.determining(active))
        self.cameras, self.points = scene.cameras[chosen], scene.points[chosen]
        self.measured = scene.measured.select(chosen)
        self.free_points, self.point_rows = _compress(self.points)
        # Only observations by moving keyframes (M) have columns in the camera system.
        self.moving: IntArray = np.flatnonzero(~scene.fixed[self.cameras])
        self.free_cameras, self.camera_rows = _compress(self.cameras[self.moving])
        self.camera_starts: IntArray = np.searchsorted(
            self.camera_rows, np.arange(len(self.free_cameras) + 1)
        )
        self.coupled_rows: IntArray = self.point_rows[self.moving]
        twice = (np.diff(self.camera_rows) == 0) & (np.diff(self.coupled_rows) == 0)
        self.dense = 0 < len(self.free_cameras) <= _DENSE_CAMERAS and not twice.any()
        if self.dense:
            height = 6 * len(self.free_cameras)
            width = _PIECE // height**2
            columns = 3 * self.coupled_rows + np.arange(3)[:, None]
            rows = 6 * self.camera_rows + np.arange(6)[:, None, None]
            self._coupling = np.zeros((-(-3 * len(self.free_points) // width), height, width))
            self._places: IntArray = (columns // width * height + rows) * width + columns % width

    def minimize(self, state: _State, iterations: int) -> _State:
        """Return the state with the least cost after some iterations; the cost never rises."""
        if not len(self.free_points) or iterations == 0:
            return state
        best, _ = minimize(self, self.evaluate(state), iterations, _DAMPING)
        return best.state

    def evaluate(self, state: _State) -> _Evaluation:
        points_cam = _points_cam(state, self.cameras, self.points)
        residuals, valid = self.measured.residuals(points_cam)
        chi2 = np.where(valid, chi_squared(residuals), _BEHIND_SIGMAS**2)
        cost = float(huber_cost(chi2, self.measured.limit).sum())
        return _Evaluation(state, cost, points_cam, residuals, chi2, valid)

    def cost(self, seen: _Evaluation) -> float:
        return seen.cost

    def linearize(self, seen: _Evaluation) -> _Normal:
        """Return the normal equations before elimination.

        These are blocks (F, 6, 6) and gradient (6 F,) of the keyframes, blocks (6, Q) and gradient
        (3, Q) of the points, and the weighted Jacobians (6, 3, M) and (3, 3, M) of the
        observations by moving keyframes.
        """
        root_weight = np.sqrt(huber_weight(seen.chi2, self.measured.limit))
        jacobian = self.measured.jacobian(seen.points_cam, seen.valid) * root_weight
        residuals = seen.residuals * root_weight
        by_point = np.einsum("iro,ijo->jro", jacobian, _rotations(seen.state, self.cameras))
        point_blocks = np.stack(
            [self._sum_points(np.einsum("ro,ro->o", by_point[a], by_point[b])) for a, b in _LOWER]
        )
        point_gradient = np.stack(
            [self._sum_points(np.einsum("ro,ro->o", axis, residuals)) for axis in by_point]
        )
        by_camera = pose_jacobian(_take(jacobian, self.moving), _take(seen.points_cam, self.moving))
        moving_residuals = _take(residuals, self.moving)
        camera_blocks = np.empty((len(self.free_cameras), 6, 6))
        camera_gradient = np.empty((len(self.free_cameras), 6))
        for row, (begin, end) in enumerate(
            zip(self.camera_starts[:-1], self.camera_starts[1:], strict=True)
        ):
            flat = by_camera[:, :, begin:end].reshape(6, -1)
            camera_blocks[row] = flat @ flat.T
            camera_gradient[row] = flat @ moving_residuals[:, begin:end].ravel()
        return _Normal(
            camera_blocks,
            camera_gradient.ravel(),
            point_blocks,
            point_gradient,
            by_camera,
            _take(by_point, self.moving),
        )

    def solve(self, normal: _Normal, damping: float) -> tuple[FloatArray, FloatArray] | None:
        try:
            camera_step, point_step = self._eliminate(normal, damping)
        except np.linalg.LinAlgError:
            return None
        if not (np.isfinite(camera_step).all() and np.isfinite(point_step).all()):
            return None
        return camera_step, point_step

    def _eliminate(self, normal: _Normal, damping: float) -> tuple[FloatArray, FloatArray]:
        """Solve the damped normal equations with the points eliminated.

        Raises:
            numpy.linalg.LinAlgError: The damped system is not positive definite.
        """
        point_blocks = normal.point_blocks.copy()
        point_blocks[[0, 2, 5]] *= 1.0 + damping
        factor = cholesky3(point_blocks)
        whitened = forward3(factor, normal.point_gradient)
        if not len(self.free_cameras):
            return np.zeros(0), -backward3(factor, whitened)
        # B = W L⁻ᵀ for every block W that couples a keyframe and a point, so that W V⁻¹ Wᵀ = B Bᵀ.
        blocks = np.einsum(
            "aro,jro->ajo",
            normal.camera_jacobian,
            forward3(_take(factor, self.coupled_rows), normal.point_jacobian),
        )
        camera_blocks = normal.camera_blocks.copy()
        diagonal = np.einsum("faa->fa", camera_blocks)
        diagonal += damping * diagonal + 1e-12
        seen_by = _take(whitened, self.coupled_rows)
        rhs = np.add.reduceat(
            np.einsum("ajo,jo->ao", blocks, seen_by), self.camera_starts[:-1], axis=1
        )
        camera_step = self._solve_cameras(
            blocks, camera_blocks, rhs.T.ravel() - normal.camera_gradient
        )
        steps = _take(camera_step.reshape(-1, 6).T, self.camera_rows)
        coupled = [self._sum_coupled(row) for row in np.einsum("ajo,ao->jo", blocks, steps)]
        return camera_step, -backward3(factor, whitened + np.stack(coupled))

    def is_negligible(self, step: tuple[FloatArray, FloatArray]) -> bool:
        return False

    def move(self, seen: _Evaluation, step: tuple[FloatArray, FloatArray]) -> _Evaluation:
        """Evaluate the state after a step.

        Points that would fall behind a camera do not move: one of them could spoil the whole step.
        """
        camera_step, point_step = step
        moved = self.evaluate(self._moved(seen.state, camera_step, point_step))
        lost = seen.valid & ~moved.valid
        if not lost.any():
            return moved
        staying = point_step.copy()
        staying[:, self.point_rows[lost]] = 0.0
        return self.evaluate(self._moved(seen.state, camera_step, staying))

    def is_converged(
        self, step: tuple[FloatArray, FloatArray], before: float, after: float
    ) -> bool:
        return before - after <= self._tolerance * before

    def _moved(self, state: _State, camera_step: FloatArray, point_step: FloatArray) -> _State:
        T, points = state.T_cam_world.copy(), state.points.copy()
        step = camera_step.reshape(-1, 6)
        T[self.free_cameras] = (
            make_transform(so3_exp(step[:, 3:]), step[:, :3]) @ T[self.free_cameras]
        )
        points[:, self.free_points] += point_step
        return _State(T, points)

    def _sum_points(self, values: FloatArray) -> FloatArray:
        return np.bincount(self.point_rows, values, minlength=len(self.free_points)).astype(
            np.float64, copy=False
        )

    def _sum_coupled(self, values: FloatArray) -> FloatArray:
        return np.bincount(self.coupled_rows, values, minlength=len(self.free_points)).astype(
            np.float64, copy=False
        )

    def _solve_cameras(
        self, blocks: FloatArray, camera_blocks: FloatArray, rhs: FloatArray
    ) -> FloatArray:
        """Solve `camera_blocks - B Bᵀ` for the step (6 F,); `blocks` (6, 3, M) make up B."""
        if self.dense:
            self._coupling.ravel()[self._places] = blocks
            product = (self._coupling @ self._coupling.transpose(0, 2, 1)).sum(axis=0)
            return _solve_positive(_subtract_product(camera_blocks, product), rhs)
        count = len(self.free_cameras)
        coupling = scipy.sparse.bsr_matrix(
            (
                np.ascontiguousarray(blocks.transpose(2, 0, 1)),
                self.coupled_rows,
                self.camera_starts,
            ),
            shape=(6 * count, 3 * len(self.free_points)),
        )
        product = coupling @ coupling.T
        if 6 * count <= _DENSE_SYSTEM:
            return _solve_positive(_subtract_product(camera_blocks, product.toarray()), rhs)
        diagonal = scipy.sparse.bsr_matrix((camera_blocks, np.arange(count), np.arange(count + 1)))
        return _solve_sparse_positive((diagonal - product).tocsc(), rhs)


def _subtract_product(camera_blocks: FloatArray, product: FloatArray) -> FloatArray:
    """Subtract `product` (6 F, 6 F), in place, from block-diagonal `camera_blocks` (F, 6, 6)."""
    np.negative(product, out=product)
    rows = np.arange(len(camera_blocks))
    product.reshape(len(rows), 6, len(rows), 6)[rows, :, rows, :] += camera_blocks
    return product


def _solve_positive(system: FloatArray, rhs: FloatArray) -> FloatArray:
    factor = scipy.linalg.cho_factor(system, lower=True, overwrite_a=True, check_finite=False)
    return np.asarray(scipy.linalg.cho_solve(factor, rhs, check_finite=False), dtype=np.float64)


def _solve_sparse_positive(system: scipy.sparse.csc_matrix, rhs: FloatArray) -> FloatArray:
    options = {"SymmetricMode": True}
    try:
        factor = scipy.sparse.linalg.splu(
            system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options
        )
    except RuntimeError as error:
        raise np.linalg.LinAlgError(str(error)) from error
    return np.asarray(factor.solve(rhs), dtype=np.float64)
