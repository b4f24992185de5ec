"""Absolute pose of one camera from 2D-3D matches: robust refinement, and PnP in RANSAC when nothing is known."""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.geometry import orthonormalize
from spslam.interfaces import PoseEstimate

from .residuals import Reprojection, chi_squared, huber_cost, huber_weight, pose_jacobian

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_MIN_POINTS = 4
# Iterations of each round; between rounds every point is judged again, so outliers may come back.
_ROUNDS = (6, 4, 4, 6)
# A step shorter than this many standard deviations of the estimate (squared) ends a round, and the last one. The next
# would be a hundredth as long; points are judged alike that close to the optimum.
_CONVERGED, _CONVERGED_LAST = 1.0, 1e-4
# Shorter steps are not taken: they are rounding errors.
_NO_STEP = 1e-10
# The last round comes once so small a share of the points was judged otherwise: another round changes the pose by less
# than its standard deviation, and costs a quarter of the time.
_SETTLED = 0.01
_MAX_DAMPING = 1e8
_RANSAC_CONFIDENCE = 0.9999
_RANSAC_ITERATIONS = 5000
# χ² of a sample's supporters, in units of the limit for outliers: a pose of few points is not exact yet.
_SAMPLE_TOLERANCE = 4.0


class PnPSolver:
    """A `PoseSolver`: Levenberg-Marquardt on reprojection errors with re-classified inliers.

    The scheme of rounds follows Mur-Artal & Tardós, ORB-SLAM2, T-RO 2017, section III-C; `u_right` adds a third row
    to the residual of a point, `u - bf / z`.

    Args:
        pixel_sigma: standard deviation of a key point's position, pixels.
        min_inliers: support below which `ransac` gives no pose.
        huber: robust kernel in all rounds but the last.
        seed: seed of `ransac`.
    """

    def __init__(
        self, pixel_sigma: float = 1.0, min_inliers: int = 20, huber: bool = True, seed: int = 0
    ) -> None:
        self.pixel_sigma = pixel_sigma
        self.min_inliers = min_inliers
        self.huber = huber
        self.seed = seed

    def refine(
        self,
        T_cam_world: Array,
        points: Array,
        pixels: Array,
        u_right: Array,
        camera: Camera,
        *,
        coarse: bool = False,
    ) -> PoseEstimate:
        """Robust refinement of a pose (4, 4); see `PoseSolver.refine`.

        Points that are not finite or lie behind the camera are outliers. With fewer than four usable points the pose
        is given back as it came, without inliers.
        """
        problem = _Problem(points, Reprojection(pixels, u_right, camera, self.pixel_sigma))
        return self._refine(problem, T_cam_world, None, coarse)

    def _refine(
        self, problem: _Problem, T_cam_world: Array, active: Mask | None, coarse: bool = False
    ) -> PoseEstimate:
        """Refinement that starts with the `active` points (N,), or with all."""
        T = np.asarray(T_cam_world, dtype=np.float64)
        active = problem.usable if active is None else active
        if np.count_nonzero(active) < _MIN_POINTS or not np.isfinite(T).all():
            return _no_estimate(T_cam_world, len(problem.usable))
        view = _View(problem, T)
        normal = np.full((6, 6), np.nan)
        settled = False
        for number, iterations in enumerate(_ROUNDS[:1] if coarse else _ROUNDS):
            last = number == len(_ROUNDS) - 1
            if settled and not last:
                continue
            tolerance = _CONVERGED_LAST if last else _CONVERGED
            view, normal = _minimize(view, active, self.huber and not last, iterations, tolerance)
            inliers = view.inliers()
            settled = bool(
                np.count_nonzero(inliers != active) <= _SETTLED * np.count_nonzero(active)
            )
            active = inliers
            if np.count_nonzero(active) < _MIN_POINTS:
                return _no_estimate(T_cam_world, len(problem.usable))
        return self._estimate(view, active, normal)

    def ransac(
        self, points: Array, pixels: Array, u_right: Array, camera: Camera
    ) -> PoseEstimate | None:
        """PnP in RANSAC on the pixels, then `refine` on all points; see `PoseSolver.ransac`."""
        problem = _Problem(points, Reprojection(pixels, u_right, camera, self.pixel_sigma))
        if np.count_nonzero(problem.usable) < max(self.min_inliers, _MIN_POINTS):
            return None
        T = self._sample_consensus(points[problem.usable], pixels[problem.usable], camera)
        if T is None:
            return None
        # Only what the sample agrees with: even under a kernel, many outliers would pull the pose away again.
        estimate = self._refine(problem, T, _View(problem, T).inliers(_SAMPLE_TOLERANCE))
        return estimate if np.count_nonzero(estimate.inliers) >= self.min_inliers else None

    def _sample_consensus(self, points: Array, pixels: Array, camera: Camera) -> Array | None:
        parameters = cv2.UsacParams()
        parameters.threshold = 3.0 * self.pixel_sigma
        parameters.confidence = _RANSAC_CONFIDENCE
        parameters.maxIterations = _RANSAC_ITERATIONS
        parameters.randomGeneratorState = self.seed
        # No local optimisation: it takes most of the time, and `refine` does its work.
        parameters.score = cv2.SCORE_METHOD_MSAC
        parameters.loMethod = cv2.LOCAL_OPTIM_NULL
        try:
            found, _, rotation, translation, _ = cv2.solvePnPRansac(
                np.ascontiguousarray(points),
                np.ascontiguousarray(pixels),
                camera.K,
                None,
                params=parameters,
            )
        except cv2.error:
            # OpenCV throws on samples that are degenerate as a whole, for example all points in one place.
            return None
        if not found:
            return None
        T = np.eye(4)
        T[:3, :3] = cv2.Rodrigues(rotation)[0]
        T[:3, 3] = translation.ravel()
        return T if np.isfinite(T).all() else None

    def _estimate(self, view: _View, inliers: Mask, normal: Array) -> PoseEstimate:
        measured = view.problem.measured
        rows = int(2 * np.count_nonzero(inliers) + np.count_nonzero(inliers & measured.stereo))
        variance = float(view.chi2[inliers].sum()) / max(rows - 6, 1)
        try:
            covariance = np.asarray(np.linalg.inv(normal) * max(1.0, variance), dtype=np.float64)
        except np.linalg.LinAlgError:
            covariance = np.full((6, 6), np.nan)
        error = self.pixel_sigma * np.hypot(view.residuals[0, inliers], view.residuals[1, inliers])
        return PoseEstimate(orthonormalize(view.T), inliers, covariance, float(np.median(error)))


class _Problem:
    """The points (3, N) and measurements of one pose."""

    def __init__(self, points: Array, measured: Reprojection) -> None:
        self.usable: Mask = measured.finite & np.isfinite(points).all(axis=1)
        self.points: Array = np.ascontiguousarray(np.where(self.usable[:, None], points, 0.0).T)
        self.measured = measured
        # Without any u_right the third row of each residual is 0.
        self.rows = 3 if measured.stereo.any() else 2


class _View:
    """All points of a problem seen from a pose: what does not depend on which of them count, and how much."""

    def __init__(self, problem: _Problem, T: Array) -> None:
        self.problem, self.T = problem, T
        self._points_cam = T[:3, :3] @ problem.points + T[:3, 3:]
        self.residuals, valid = problem.measured.residuals(self._points_cam)
        self._valid: Mask = valid & problem.usable
        # A point behind the camera costs as much as one 100 σ off: a step gains nothing by hiding points there.
        self.chi2: Array = np.where(self._valid, chi_squared(self.residuals), 1e4)

    @cached_property
    def jacobian(self) -> Array:
        """(6, 2 or 3, N): of the residuals, by a left perturbation of the pose."""
        by_point = self.problem.measured.jacobian(self._points_cam, self._valid)
        return pose_jacobian(by_point, self._points_cam)[:, : self.problem.rows]

    def inliers(self, tolerance: float = 1.0) -> Mask:
        """(N,) which points are within the 95 % limit of χ², or a multiple of it."""
        inliers: Mask = self._valid & (self.chi2 <= tolerance * self.problem.measured.limit)
        return inliers

    def cost(self, active: Mask, huber: bool) -> float:
        """Of the active points."""
        cost = huber_cost(self.chi2, self.problem.measured.limit) if huber else self.chi2
        return float(cost @ active)

    def linearize(self, active: Mask, huber: bool) -> tuple[Array, Array]:
        """Normal matrix (6, 6) and gradient (6,) of the active points."""
        limit, rows = self.problem.measured.limit, self.problem.rows
        weight = huber_weight(self.chi2, limit) * active if huber else active.astype(np.float64)
        weighted = (self.jacobian * weight).reshape(6, -1)
        return weighted @ self.jacobian.reshape(6, -1).T, weighted @ self.residuals[:rows].ravel()


def _minimize(
    view: _View, active: Mask, huber: bool, iterations: int, tolerance: float
) -> tuple[_View, Array]:
    """Levenberg-Marquardt on the active points: the refined pose and the normal matrix (6, 6) of the last step."""
    cost = view.cost(active, huber)
    normal, gradient = view.linearize(active, huber)
    damping = 1e-6
    for iteration in range(iterations):
        step = _solve(normal + damping * np.diag(np.diag(normal) + 1e-12), -gradient)
        if step is None or step @ normal @ step < _NO_STEP:
            break
        moved = _View(view.problem, _perturb(step, view.T))
        new_cost = moved.cost(active, huber)
        if new_cost > cost:
            damping = max(damping, 1e-4) * 10.0
            if damping > _MAX_DAMPING:
                break
            continue
        view, cost = moved, new_cost
        if step @ normal @ step < tolerance or iteration == iterations - 1:
            break
        normal, gradient = view.linearize(active, huber)
        damping *= 0.1
    return view, normal


def _perturb(step: Array, T: Array) -> Array:
    """A pose moved by [translation, rotation]: to first order the exponential, at a tenth of its price."""
    motion = np.eye(4)
    motion[:3, :3] = cv2.Rodrigues(step[3:])[0]
    motion[:3, 3] = step[:3]
    moved: Array = motion @ T
    return moved


def _solve(matrix: Array, rhs: Array) -> Array | None:
    try:
        step = np.asarray(np.linalg.solve(matrix, rhs), dtype=np.float64)
    except np.linalg.LinAlgError:
        return None
    return step if np.isfinite(step).all() else None


def _no_estimate(T_cam_world: Array, count: int) -> PoseEstimate:
    return PoseEstimate(
        np.array(T_cam_world, dtype=np.float64),
        np.zeros(count, dtype=bool),
        np.full((6, 6), np.nan),
        float("nan"),
    )
