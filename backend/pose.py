"""Absolute pose of one camera from 2D-3D matches: robust refinement, and PnP with RANSAC."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np

from spslam.backend_interfaces import MEDIAN_LENGTH, PoseEstimate
from spslam.camera import Camera
from spslam.geometry import orthonormalize
from spslam.typing import BoolArray, Float32Array, FloatArray

from .damping import Damping, minimize
from .residuals import Reprojection, chi_squared, huber_cost, huber_weight

# Smallest number of points that determine a pose: fewer give no estimate.
_MIN_POINTS = 4
# Largest number of iterations of each round. After a round, all points are classified again, so
# outliers can become inliers.
_ROUNDS = (6, 4, 4, 6)
# Squared length of a step, in standard deviations of the estimate, that ends a round; the second
# value is for the last round. So close to the optimum, the classification no longer changes.
_CONVERGED, _CONVERGED_LAST = 1.0, 1e-4
# Squared length of a step, in standard deviations, below which it is only a rounding error.
_NO_STEP = 1e-10
# Fraction of the active points: skip to the last round if fewer change their class in a round.
# Another round would change the pose by less than its standard deviation.
_SETTLED = 0.01
# Nearly Gauss-Newton at the start: a predicted pose is close to the optimum.
_DAMPING = Damping(first=1e-6, raised_from=1e-4)
# Probability of finding the best model, and largest number of samples.
_RANSAC_CONFIDENCE = 0.9999
_RANSAC_ITERATIONS = 5000
# χ² of a RANSAC inlier, in units of the outlier limit: a pose from four points is not exact.
_SAMPLE_TOLERANCE = 4.0


class PnPSolver:
    """A `PoseSolver`: Levenberg-Marquardt on reprojection errors in rounds.

    Inliers are classified again after each round (Mur-Artal & Tardós, ORB-SLAM2, T-RO 2017,
    section III-C). `u_right` adds a third row to the residual of a point, see `Reprojection`.

    Args:
        pixel_sigma: Standard deviation of a keypoint's position, pixels.
        min_inliers: Smallest number of inliers of a pose from `ransac`.
        huber: Use Huber's kernel in all rounds but the last.
        seed: Seed of `ransac`.
        disparity_sigma: Standard deviation of a disparity, pixels; None: that of `u_right` is
            `pixel_sigma`.
    """

    def __init__(
        self,
        pixel_sigma: float = 1.0,
        min_inliers: int = 20,
        huber: bool = True,
        seed: int = 0,
        disparity_sigma: float | None = None,
    ) -> None:
        self.pixel_sigma = pixel_sigma
        self.disparity_sigma = disparity_sigma
        self.min_inliers = min_inliers
        self.huber = huber
        self.seed = seed

    def refine(
        self,
        T_cam_world: FloatArray,
        points: FloatArray,
        pixels: FloatArray,
        u_right: FloatArray,
        camera: Camera,
        *,
        relative_sigma: Float32Array | None = None,
        coarse: bool = False,
    ) -> PoseEstimate:
        """Refine a pose (4, 4) robustly; see `PoseSolver.refine`.

        Points that are not finite or lie behind the camera are outliers. With fewer than four
        usable points, the pose is returned unchanged and without inliers.
        """
        problem = self._problem(points, pixels, u_right, camera, relative_sigma)
        return self._refine(problem, T_cam_world, None, coarse)

    def _problem(
        self,
        points: FloatArray,
        pixels: FloatArray,
        u_right: FloatArray,
        camera: Camera,
        relative_sigma: Float32Array | None,
    ) -> _Problem:
        measured = Reprojection(
            pixels, u_right, camera, self.pixel_sigma, self.disparity_sigma, relative_sigma
        )
        return _Problem(points, measured)

    def _refine(
        self,
        problem: _Problem,
        T_cam_world: FloatArray,
        active: BoolArray | None,
        coarse: bool = False,
    ) -> PoseEstimate:
        """Refine a pose, starting with the `active` points (N,) or, with None, all usable ones."""
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
            view, (normal, _) = minimize(
                _Round(active, self.huber and not last, tolerance), view, iterations, _DAMPING
            )
            inliers = view.inliers()
            settled = bool(
                np.count_nonzero(inliers != active) <= _SETTLED * np.count_nonzero(active)
            )
            active = inliers
            if np.count_nonzero(active) < _MIN_POINTS:
                return _no_estimate(T_cam_world, len(problem.usable))
        return self._estimate(view, active, normal)

    def ransac(
        self,
        points: FloatArray,
        pixels: FloatArray,
        u_right: FloatArray,
        camera: Camera,
        *,
        relative_sigma: Float32Array | None = None,
    ) -> PoseEstimate | None:
        """Run PnP with RANSAC on the pixels, then refine on all points; see `PoseSolver.ransac`."""
        problem = self._problem(points, pixels, u_right, camera, relative_sigma)
        if np.count_nonzero(problem.usable) < max(self.min_inliers, _MIN_POINTS):
            return None
        T = self._sample_consensus(points[problem.usable], pixels[problem.usable], camera)
        if T is None:
            return None
        # Start with the RANSAC inliers: many outliers pull the pose away even under the kernel.
        estimate = self._refine(problem, T, _View(problem, T).inliers(_SAMPLE_TOLERANCE))
        return estimate if np.count_nonzero(estimate.inliers) >= self.min_inliers else None

    def _sample_consensus(
        self, points: FloatArray, pixels: FloatArray, camera: Camera
    ) -> FloatArray | None:
        parameters = cv2.UsacParams()
        parameters.threshold = 3.0 * self.pixel_sigma
        parameters.confidence = _RANSAC_CONFIDENCE
        parameters.maxIterations = _RANSAC_ITERATIONS
        parameters.randomGeneratorState = self.seed
        # No local optimization: it takes most of the time, and `refine` does the same.
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
            # OpenCV throws on degenerate input, for example if all points coincide.
            return None
        if not found:
            return None
        T = np.eye(4)
        T[:3, :3] = cv2.Rodrigues(rotation)[0]
        T[:3, 3] = translation.ravel()
        return T if np.isfinite(T).all() else None

    def _estimate(self, view: _View, inliers: BoolArray, normal: FloatArray) -> PoseEstimate:
        measured = view.problem.measured
        rows = int(2 * np.count_nonzero(inliers) + np.count_nonzero(inliers & measured.stereo))
        variance = float(view.chi2[inliers].sum()) / max(rows - 6, 1)
        try:
            covariance = np.asarray(np.linalg.inv(normal) * max(1.0, variance), dtype=np.float64)
        except np.linalg.LinAlgError:
            covariance = np.full((6, 6), np.nan)
        lengths = np.hypot(view.residuals[0], view.residuals[1])
        return PoseEstimate(
            orthonormalize(view.T),
            inliers,
            covariance,
            median_error_px=float(np.median((measured.sigma * lengths)[inliers])),
            scatter=float(np.median(lengths[inliers])) / MEDIAN_LENGTH,
        )


class _Problem:
    """The points (3, N) and measurements of one pose."""

    def __init__(self, points: FloatArray, measured: Reprojection) -> None:
        self.points: FloatArray = np.array(points.T, dtype=np.float64, order="C")
        self.usable: BoolArray = measured.finite & np.isfinite(self.points).all(axis=0)
        self.all_usable = bool(self.usable.all())
        if not self.all_usable:
            self.points[:, ~self.usable] = 0.0
        self.measured = measured
        # Without any u_right, the third row of each residual is 0 and left out.
        self.rows = 3 if measured.any_stereo else 2


class _View:
    """All points of a problem seen from a pose: residuals and Jacobian, without weights."""

    def __init__(self, problem: _Problem, T: FloatArray) -> None:
        self.problem, self.T = problem, T
        self._points_cam = T[:3, :3] @ problem.points + T[:3, 3:]
        self.residuals, valid = problem.measured.residuals(self._points_cam)
        self._valid: BoolArray = valid if problem.all_usable else valid & problem.usable
        self.chi2: FloatArray = chi_squared(self.residuals)
        if self._valid is not problem.measured.everything:
            # A point behind the camera has a residual of 100 σ, so that a step cannot gain by
            # moving points there.
            self.chi2 = np.where(self._valid, self.chi2, 1e4)

    @cached_property
    def jacobian(self) -> FloatArray:
        """Derivatives (6, 2 or 3, N) of the residuals by a left perturbation of the pose."""
        return self.problem.measured.pose_jacobian(self._points_cam, self._valid)

    def inliers(self, tolerance: float = 1.0) -> BoolArray:
        """Return which points (N,) are within `tolerance` times the 95 % limit of χ²."""
        inliers: BoolArray = self._valid & (self.chi2 <= tolerance * self.problem.measured.limit)
        return inliers

    def cost(self, active: FloatArray, huber: bool) -> float:
        """Return the cost of the active points (N,), 1 or 0 each."""
        cost = huber_cost(self.chi2, self.problem.measured.limit) if huber else self.chi2
        return float(cost @ active)

    def linearize(self, active: FloatArray, huber: bool) -> tuple[FloatArray, FloatArray]:
        """Return the normal matrix (6, 6) and gradient (6,) of the active points."""
        limit, rows = self.problem.measured.limit, self.problem.rows
        weight = huber_weight(self.chi2, limit) * active if huber else active
        jacobian = self.jacobian
        weighted = (jacobian * weight).reshape(6, -1)
        return weighted @ jacobian.reshape(6, -1).T, weighted @ self.residuals[:rows].ravel()


class _Step(NamedTuple):
    """A step (6,) of a pose, and its squared length in standard deviations."""

    motion: FloatArray
    squared: float


class _Round:
    """One round, a problem of `minimize`: its active points (N,), its kernel and its stop rule."""

    def __init__(self, active: BoolArray, huber: bool, tolerance: float) -> None:
        self._active: FloatArray = active.astype(np.float64)
        self._huber, self._tolerance = huber, tolerance

    def cost(self, view: _View) -> float:
        return view.cost(self._active, self._huber)

    def linearize(self, view: _View) -> tuple[FloatArray, FloatArray]:
        return view.linearize(self._active, self._huber)

    def solve(self, normal: tuple[FloatArray, FloatArray], damping: float) -> _Step | None:
        matrix, gradient = normal
        damped = matrix.copy()
        damped.ravel()[::7] += damping * (matrix.ravel()[::7] + 1e-12)
        step = _solve(damped, -gradient)
        return None if step is None else _Step(step, float(step @ matrix @ step))

    def is_negligible(self, step: _Step) -> bool:
        return step.squared < _NO_STEP

    def move(self, view: _View, step: _Step) -> _View:
        return _View(view.problem, _perturb(step.motion, view.T))

    def is_converged(self, step: _Step, before: float, after: float) -> bool:
        return step.squared < self._tolerance


def _perturb(step: FloatArray, T: FloatArray) -> FloatArray:
    """Move a pose by [translation, rotation]; equals the exponential to first order, but faster."""
    motion = np.eye(4)
    motion[:3, :3] = cv2.Rodrigues(step[3:])[0]
    motion[:3, 3] = step[:3]
    moved: FloatArray = motion @ T
    return moved


def _solve(matrix: FloatArray, rhs: FloatArray) -> FloatArray | None:
    try:
        step = np.asarray(np.linalg.solve(matrix, rhs), dtype=np.float64)
    except np.linalg.LinAlgError:
        return None
    return step if np.isfinite(step).all() else None


def _no_estimate(T_cam_world: FloatArray, count: int) -> PoseEstimate:
    return PoseEstimate(
        np.array(T_cam_world, dtype=np.float64),
        np.zeros(count, dtype=bool),
        np.full((6, 6), np.nan),
        median_error_px=float("nan"),
        scatter=float("nan"),
    )
