"""Reprojection residuals, their Jacobians and 3×3 block algebra, shared by all solvers.

Observations are along the last axis, (…, N): operations on whole arrays then run over contiguous
memory, which is several times faster than stacks of small matrices. Jacobians are indexed
[parameter, row, observation]. Poses are perturbed from the left,
`exp([translation, rotation]) · T_cam_world`.
"""

from __future__ import annotations

import copy
import math

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.typing import BoolArray, Float32Array, FloatArray

# 95 % quantiles of the χ² distribution with 2 and 3 degrees of freedom.
CHI2_MONO = 5.991
CHI2_STEREO = 7.815
# Depth, map units, up to which a point counts as behind the camera.
MIN_DEPTH = 1e-6


class Reprojection:
    """The measurements of N observations: pixel (u, v) and, if known, x in the right image.

    Residuals are predicted minus measured, in units of their standard deviation, three rows each.
    The third row is that of the disparity u - u_right, because u_right is found by matching the
    patch around the left keypoint: an error of the keypoint shifts both. Without
    `disparity_sigma` it is that of u_right itself, as if it were independent of u. It is 0 where
    u_right is unknown.

    Args:
        pixels: (N, 2), undistorted.
        u_right: (N,) x in the right image, pixels; NaN where unknown.
        camera: the camera.
        pixel_sigma: standard deviation of a keypoint's position, pixels.
        relative_sigma: (N,) factors on it; None: 1.
        disparity_sigma: standard deviation of a disparity, pixels; None: see above.

    Attributes:
        finite: (N,) bool, observations with finite pixels.
        stereo: (N,) bool, observations with u_right.
        limit: (N,) χ² above which an observation is an outlier (95 %).
        any_stereo: whether any observation has u_right.
        everything: (N,) bool, True; `residuals` returns this array if all are valid.
        sigma: (N,) or, if all are equal, (1,) standard deviations of the positions, pixels.
    """

    def __init__(
        self,
        pixels: FloatArray,
        u_right: FloatArray,
        camera: Camera,
        pixel_sigma: float,
        disparity_sigma: float | None = None,
        relative_sigma: Float32Array | None = None,
    ) -> None:
        self.finite: BoolArray = all_finite(pixels, axis=1)
        self.stereo: BoolArray = np.logical_and(self.finite, np.isfinite(u_right))
        if camera.bf <= 0:
            self.stereo = np.zeros_like(self.finite)
        self.limit: FloatArray = np.where(self.stereo, CHI2_STEREO, CHI2_MONO)
        self._count_kinds()
        self.sigma: FloatArray = np.array([pixel_sigma], dtype=np.float64)
        if relative_sigma is not None:
            self.sigma = pixel_sigma * relative_sigma.astype(np.float64)
        measured = np.column_stack([pixels, u_right]).T
        centre = np.array([[camera.cx], [camera.cy], [camera.cx]])
        self._measured: FloatArray = (
            np.where(np.isfinite(measured), measured - centre, 0.0) / self.sigma
        )
        self._of_disparity = disparity_sigma is not None
        self._bf: FloatArray = camera.bf / self.sigma
        if disparity_sigma is not None:
            self._bf = np.array([camera.bf / disparity_sigma])
            disparity = pixels[:, 0] - u_right
            self._measured[2] = np.where(np.isfinite(disparity), disparity, 0.0) / disparity_sigma
        self._focal: FloatArray = np.array([[camera.fx], [camera.fy]]) / self.sigma

    def _count_kinds(self) -> None:
        """Note what holds for all observations: tracking computes residuals a hundred times."""
        self._mono = ~self.stereo
        self._any_mono, self.any_stereo = bool(self._mono.any()), bool(self.stereo.any())
        # The same array whenever all observations are valid, so that callers can see it at once.
        self.everything: BoolArray = np.ones(len(self.finite), dtype=np.bool_)
        self._all_finite = bool(self.finite.all())

    def select(self, index: NDArray[np.int64]) -> Reprojection:
        """Return only the observations at `index`."""
        chosen = copy.copy(self)
        chosen.finite, chosen.stereo, chosen.limit = (
            self.finite[index],
            self.stereo[index],
            self.limit[index],
        )
        chosen._measured = np.take(self._measured, index, axis=1)
        if len(self.sigma) == len(self.finite):
            chosen.sigma, chosen._focal = self.sigma[index], np.take(self._focal, index, axis=1)
        if len(self._bf) == len(self.finite):
            chosen._bf = self._bf[index]
        chosen._count_kinds()
        return chosen

    def residuals(self, points_cam: FloatArray) -> tuple[FloatArray, BoolArray]:
        """Return residuals (3, N) of points (3, N) in camera coordinates, and which (N,) are valid.

        Invalid are NaN points, NaN pixels and points at or behind the camera; their residuals
        are 0.
        """
        z = points_cam[2]
        # A comparison with NaN is False.
        ahead = self._all_finite and len(z) > 0 and z.min() > MIN_DEPTH and z.max() < np.inf
        valid = self.everything if ahead else (z > MIN_DEPTH) & (z < np.inf) & self.finite
        inverse_z = 1.0 / (z if ahead else np.where(valid, z, 1.0))
        out = np.empty_like(points_cam)
        np.multiply(points_cam[:2], self._focal, out=out[:2])
        out[:2] *= inverse_z
        np.multiply(self._bf, inverse_z, out=out[2])
        if not self._of_disparity:
            np.subtract(out[0], out[2], out=out[2])
        out -= self._measured
        if self._any_mono:
            np.copyto(out[2], 0.0, where=self._mono)
        # One sum instead of a test of each residual: it is finite only if all of them are.
        if ahead and math.isfinite(out.sum()):
            return out, valid
        valid = valid & np.isfinite(out[0]) & np.isfinite(out[1])
        out[:, ~valid] = 0.0
        return out, valid

    def jacobian(self, points_cam: FloatArray, valid: BoolArray) -> FloatArray:
        """Return derivatives (3, 3, N) of residuals by the camera point; 0 where not `valid`."""
        if valid is self.everything:
            z = points_cam[2]
            x_over_z, y_over_z = points_cam[:2] / z
        else:
            z = np.where(valid, points_cam[2], 1.0)
            x_over_z, y_over_z = np.where(valid, points_cam[:2], 0.0) / z
        inverse_z = valid / z
        out = np.zeros((3, 3, len(z)))
        fx_over_z, fy_over_z = self._focal * inverse_z
        out[0, 0] = fx_over_z
        out[1, 1] = fy_over_z
        out[2, 0] = -fx_over_z * x_over_z
        out[2, 1] = -out[1, 1] * y_over_z
        by_depth = self._bf * inverse_z * inverse_z
        if self._of_disparity:
            out[2, 2] = -by_depth * self.stereo
        else:
            out[0, 2] = fx_over_z * self.stereo
            out[2, 2] = (out[2, 0] + by_depth) * self.stereo
        return out

    def pose_jacobian(self, points_cam: FloatArray, valid: BoolArray) -> FloatArray:
        """Return derivatives (6, 3 or 2, N) of residuals by a left pose perturbation.

        There are two rows if no observation has `u_right`. Equals `pose_jacobian` of `jacobian` in
        fewer operations.
        """
        if valid is not self.everything:
            both = pose_jacobian(self.jacobian(points_cam, valid), points_cam)
            return both if self.any_stereo else both[:, :2]
        x, y, z = points_cam
        inverse_z = 1.0 / z
        out = np.zeros((6, 3 if self.any_stereo else 2, len(z)))
        by_image = self._focal * inverse_z
        by_depth = -by_image * (points_cam[:2] / z)
        minus_x = -x
        out[0, 0], out[1, 1] = by_image
        out[2, :2] = by_depth
        np.multiply(by_depth, y, out=out[3, :2])
        np.multiply(by_depth, minus_x, out=out[4, :2])
        out[3, 1] -= by_image[1] * z
        out[4, 0] += by_image[0] * z
        np.multiply(by_image[0], -y, out=out[5, 0])
        np.multiply(by_image[1], x, out=out[5, 1])
        if not self.any_stereo:
            return out
        third = self._bf * inverse_z * inverse_z
        third = -third if self._of_disparity else by_depth[0] + third
        np.multiply(third, self.stereo, out=out[2, 2])
        np.multiply(out[2, 2], y, out=out[3, 2])
        np.multiply(out[2, 2], minus_x, out=out[4, 2])
        if not self._of_disparity:
            np.multiply(by_image[0], self.stereo, out=out[0, 2])
            out[4, 2] += out[0, 2] * z
            np.multiply(out[0, 2], -y, out=out[5, 2])
        return out


def all_finite(values: FloatArray, axis: int | tuple[int, ...]) -> BoolArray:
    """Return which slices along `axis` have only finite values."""
    return np.asarray(np.isfinite(values).all(axis=axis), dtype=np.bool_)


def pose_jacobian(jacobian_cam: FloatArray, points_cam: FloatArray) -> FloatArray:
    """Convert derivatives by the camera point to those (6, 3, N) by a left pose perturbation."""
    a0, a1, a2 = jacobian_cam
    x, y, z = np.where(np.isfinite(points_cam), points_cam, 0.0)
    out = np.empty((6, *a0.shape))
    out[:3] = jacobian_cam
    np.subtract(a2 * y, a1 * z, out=out[3])
    np.subtract(a0 * z, a2 * x, out=out[4])
    np.subtract(a1 * x, a0 * y, out=out[5])
    return out


def chi_squared(residuals: FloatArray) -> FloatArray:
    """Return the squared norms (N,) of residuals (3, N)."""
    chi2: FloatArray = np.einsum("in,in->n", residuals, residuals)
    return chi2


def huber_weight(chi2: FloatArray, limit: FloatArray) -> FloatArray:
    """Return the weights (N,) of squared residuals under Huber's kernel, threshold sqrt(limit)."""
    weight: FloatArray = np.sqrt(limit / np.maximum(chi2, limit))
    return weight


def huber_cost(chi2: FloatArray, limit: FloatArray) -> FloatArray:
    """Return Huber's kernel (N,) of χ²: χ² up to `limit`, linear in the residual beyond."""
    cost: FloatArray = np.where(chi2 <= limit, chi2, 2.0 * np.sqrt(limit * chi2) - limit)
    return cost


def cholesky3(blocks: FloatArray) -> FloatArray:
    """Factor symmetric positive blocks (6, N) into L (6, N), order 00, 10, 11, 20, 21, 22.

    Pivots lost to rounding are raised, so that a degenerate block gives a finite step, not NaN.
    """
    m00, m10, m11, m20, m21, m22 = blocks
    tiny = 1e-14 * (m00 + m11 + m22) + 1e-300
    L = np.empty_like(blocks)
    L[0] = np.sqrt(np.maximum(m00, tiny))
    L[1] = m10 / L[0]
    L[2] = np.sqrt(np.maximum(m11 - L[1] * L[1], tiny))
    L[3] = m20 / L[0]
    L[4] = (m21 - L[3] * L[1]) / L[2]
    L[5] = np.sqrt(np.maximum(m22 - L[3] * L[3] - L[4] * L[4], tiny))
    return L


def forward3(L: FloatArray, b: FloatArray) -> FloatArray:
    """Return L⁻¹ b for factors (6, N) of `cholesky3` and b (3, …, N)."""
    out = np.empty_like(b)
    np.divide(b[0], L[0], out=out[0])
    out[1] = (b[1] - L[1] * out[0]) / L[2]
    out[2] = (b[2] - L[3] * out[0] - L[4] * out[1]) / L[5]
    return out


def backward3(L: FloatArray, b: FloatArray) -> FloatArray:
    """Return L⁻ᵀ b for factors (6, N) of `cholesky3` and b (3, …, N)."""
    out = np.empty_like(b)
    np.divide(b[2], L[5], out=out[2])
    out[1] = (b[1] - L[4] * out[2]) / L[2]
    out[0] = (b[0] - L[1] * out[1] - L[3] * out[2]) / L[0]
    return out
