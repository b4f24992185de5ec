"""Formulas of the lens models: from rays to positions in the image, and back.

A position is a pixel minus the principal point, divided by the focal lengths. Sources:

* equidistant: Kannala and Brandt, A generic camera model and calibration method, PAMI 2006.
* double_sphere: Usenko, Demmel, Cremers, The double sphere camera model, 3DV 2018.
* eucm: Khomutenko, Garcia, Martinet, An enhanced unified camera model, RA-L 2016; ucm is its case
  β = 1, in the form of Usenko's paper.
* omni: Mei and Rives, Single view point omnidirectional camera calibration from planar grids,
  ICRA 2007.
* fov: Devernay and Faugeras, Straight lines have to be straight, MVA 2001.

`spslam.camera` computes radtan with OpenCV.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from spslam.typing import FloatArray

# Number of angles in the table from which `straighten_angles` starts.
_TABLE_STEPS = 512
# Number of Newton steps that refine an angle or a position.
_NEWTON_STEPS = 12
# Magnitude below which a coefficient of the lens has no effect and counts as 0.
_BENDS_NOTHING = 1e-20
# Largest tangent up to which `widest_slope` follows a radtan lens, and number of steps.
_STEEPEST, _SLOPE_STEPS = 20.0, 4001
# Largest error of an undistorted position when it is distorted again, focal lengths; NaN beyond.
_MAX_ERROR = 1e-9
# Below this w a fov lens is computed as a pinhole lens: its formula divides 0 by 0.
_SMALLEST_W = 1e-7


def positions_of(model: str, coefficients: tuple[float, ...], rays: FloatArray) -> FloatArray:
    """Project rays (N, 3) of any length to positions (N, 2); NaN where the lens sees nothing.

    Args:
        model: a `DistortionModel`, but not radtan.
        coefficients: of the model, see `spslam.lens.COEFFICIENT_COUNTS`.
        rays: directions in camera coordinates.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if model == "equidistant":
            return _equidistant_positions(rays, coefficients)
        if model == "double_sphere":
            return _double_sphere_positions(rays, *coefficients)
        if model == "omni":
            return _omni_positions(rays, coefficients[0], coefficients[1:])
        if model == "fov":
            return _fov_positions(rays, coefficients[0])
        if model in ("ucm", "eucm"):
            return _unified_positions(rays, *coefficients)
    raise ValueError(f"no formula of lens model {model!r}")


def rays_of(model: str, coefficients: tuple[float, ...], positions: FloatArray) -> FloatArray:
    """Unit rays (N, 3) of positions (N, 2); NaN where the lens sees nothing.

    Arguments as for `positions_of`.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if model == "equidistant":
            return _equidistant_rays(positions, coefficients)
        if model == "double_sphere":
            return _double_sphere_rays(positions, *coefficients)
        if model == "omni":
            return _omni_rays(positions, coefficients[0], coefficients[1:])
        if model == "fov":
            return _fov_rays(positions, coefficients[0])
        if model in ("ucm", "eucm"):
            return _unified_rays(positions, *coefficients)
    raise ValueError(f"no formula of lens model {model!r}")


def central_scale(model: str, coefficients: tuple[float, ...]) -> float:
    """Return the scale of a lens at its principal point, in units of its focal length.

    It is 1 except for omni, double_sphere and fov, whose fx and fy are no focal lengths in the
    sense of a pinhole camera.
    """
    if model in ("double_sphere", "omni"):
        return 1.0 / (1.0 + coefficients[0])
    if model == "fov" and coefficients[0] > _SMALLEST_W:
        return 2.0 * math.tan(coefficients[0] / 2.0) / coefficients[0]
    return 1.0


# -- equidistant ----------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def widest_angle(k: tuple[float, ...]) -> float:
    """Largest angle, radians, at most π, up to which an equidistant lens does not fold back.

    There θ (1 + k1 θ² + k2 θ⁴ + k3 θ⁶ + k4 θ⁸) stops growing. `k` is k1 k2 k3 k4.
    """
    # Polynomial of θ², highest power first.
    slope = np.array([9 * k[3], 7 * k[2], 5 * k[1], 3 * k[0], 1.0])
    # Coefficients without effect would overflow when the others are divided by them.
    slope[np.abs(slope) < _BENDS_NOTHING] = 0.0
    roots = np.roots(slope)
    real = roots[np.abs(roots.imag) < 1e-9 * np.maximum(1.0, np.abs(roots))].real
    turns = np.sqrt(real[real > 0])
    return float(min(turns.min(initial=np.pi), np.pi))


def bend_angles(theta: FloatArray, k: tuple[float, ...]) -> FloatArray:
    """Radii (N,), focal lengths, of angles (N,), radians from the axis of an equidistant lens.

    An angle beyond which the lens folds back becomes NaN.
    """
    square = theta * theta
    radius = theta * (1 + square * (k[0] + square * (k[1] + square * (k[2] + square * k[3]))))
    return np.where(theta <= widest_angle(k), radius, np.nan)


def straighten_angles(radius: FloatArray, k: tuple[float, ...]) -> FloatArray:
    """Angles (N,) from the axis, radians, of radii (N,), focal lengths: inverts `bend_angles`.

    A radius that the lens never reaches becomes NaN.
    """
    widest = widest_angle(k)
    table = np.linspace(0.0, widest, _TABLE_STEPS)
    reached = bend_angles(table, k)
    theta: FloatArray = np.interp(radius, reached, table)
    for _ in range(_NEWTON_STEPS):
        square = theta * theta
        slope = 1 + square * (
            3 * k[0] + square * (5 * k[1] + square * (7 * k[2] + square * 9 * k[3]))
        )
        # Near the widest angle the slope goes to zero: limit the step.
        step = (bend_angles(theta, k) - radius) / np.maximum(slope, 1e-3)
        theta = np.clip(theta - step, 0.0, widest)
    return np.where(radius <= reached[-1], theta, np.nan)


def _equidistant_positions(rays: FloatArray, k: tuple[float, ...]) -> FloatArray:
    # OpenCV's fisheye functions treat a ray as a line: they also project the scene behind the
    # camera, mirrored.
    across = np.hypot(rays[:, 0], rays[:, 1])
    radius = bend_angles(np.arctan2(across, rays[:, 2]), k)
    # A ray along the axis backwards has no direction in the image: NaN.
    ahead = np.where(rays[:, 2] > 0, 1.0, np.nan)
    scale = np.divide(radius, across, out=radius * 0.0 + ahead, where=across > 0)
    return rays[:, :2] * scale[:, None]


def _equidistant_rays(positions: FloatArray, k: tuple[float, ...]) -> FloatArray:
    radius = np.linalg.norm(positions, axis=1)
    theta = straighten_angles(radius, k)
    # sin θ / r → 1 at the centre, because θ → r for any lens.
    scale = np.divide(np.sin(theta), radius, out=np.ones_like(radius), where=radius > 0)
    return np.concatenate([positions * scale[:, None], np.cos(theta)[:, None]], axis=1)


# -- fov ------------------------------------------------------------------------------------------


def _fov_positions(rays: FloatArray, w: float) -> FloatArray:
    """Compute r = atan2(2 tan(w / 2) ρ, z) / w, which goes on beyond 90 degrees."""
    across = np.hypot(rays[:, 0], rays[:, 1])
    if w <= _SMALLEST_W:
        return np.where(rays[:, 2:] > 0, rays[:, :2] / rays[:, 2:], np.nan)
    angle = np.arctan2(2.0 * math.tan(w / 2.0) * across, rays[:, 2])
    centre = np.where(rays[:, 2] > 0, 0.0, np.nan)
    scale = np.divide(angle / w, across, out=centre, where=across > 0)
    return rays[:, :2] * scale[:, None]


def _fov_rays(positions: FloatArray, w: float) -> FloatArray:
    radius = np.linalg.norm(positions, axis=1)
    if w <= _SMALLEST_W:
        return _unit(np.concatenate([positions, np.ones((len(positions), 1))], axis=1))
    angle = np.where(radius * w < math.pi, radius * w, np.nan)
    # sin(r w) / r → w at the centre.
    sine = np.divide(np.sin(angle), radius, out=np.full_like(radius, w), where=radius > 0)
    across = positions * (sine / (2.0 * math.tan(w / 2.0)))[:, None]
    return _unit(np.concatenate([across, np.cos(angle)[:, None]], axis=1))


# -- unified models -------------------------------------------------------------------------------


def _unified_positions(rays: FloatArray, alpha: float, beta: float = 1.0) -> FloatArray:
    """Compute (x, y) / (α d + (1 - α) z) with d² = β (x² + y²) + z²."""
    z = rays[:, 2]
    d = np.sqrt(beta * (rays[:, 0] ** 2 + rays[:, 1] ** 2) + z * z)
    seen = z > -_cosine_limit(alpha) * d
    return rays[:, :2] / np.where(seen, alpha * d + (1.0 - alpha) * z, np.nan)[:, None]


def _unified_rays(positions: FloatArray, alpha: float, beta: float = 1.0) -> FloatArray:
    z = _sphere_z(beta * np.sum(positions**2, axis=1), alpha)
    return _unit(np.concatenate([positions, z[:, None]], axis=1))


def _double_sphere_positions(rays: FloatArray, xi: float, alpha: float) -> FloatArray:
    """Compute (x, y) / (α d₂ + (1 - α) z₂) with z₂ = ξ d₁ + z.

    The limit is where the second projection folds back, z₂ = -w d₂. The paper's limit z = -w₂ d₁ is
    narrower than its unprojection: some pixels would have rays that have no pixels.
    """
    across = rays[:, 0] ** 2 + rays[:, 1] ** 2
    z = xi * np.sqrt(across + rays[:, 2] ** 2) + rays[:, 2]
    d = np.sqrt(across + z * z)
    seen = z > -_cosine_limit(alpha) * d
    return rays[:, :2] / np.where(seen, alpha * d + (1.0 - alpha) * z, np.nan)[:, None]


def _double_sphere_rays(positions: FloatArray, xi: float, alpha: float) -> FloatArray:
    square = np.sum(positions**2, axis=1)
    z = _sphere_z(square, alpha)
    scale = (z * xi + np.sqrt(z * z + (1.0 - xi * xi) * square)) / (z * z + square)
    return _unit(np.concatenate([positions * scale[:, None], (scale * z - xi)[:, None]], axis=1))


def _sphere_z(square: FloatArray, alpha: float) -> FloatArray:
    """Return z (N,) of (x, y, z) that a unified lens shows at a squared radius (N,); else NaN."""
    root = np.sqrt(1.0 - (2.0 * alpha - 1.0) * square)
    return (1.0 - alpha * alpha * square) / (alpha * root + 1.0 - alpha)


def _cosine_limit(alpha: float) -> float:
    """Return w: a unified lens shows the rays with z > -w d."""
    return alpha / (1.0 - alpha) if alpha <= 0.5 else (1.0 - alpha) / alpha


# -- omni -----------------------------------------------------------------------------------------


def _omni_positions(rays: FloatArray, xi: float, k: tuple[float, ...]) -> FloatArray:
    """Compute (x, y) / (z + ξ d), then radtan with k1 k2 p1 p2."""
    d = np.linalg.norm(rays, axis=1)
    z = rays[:, 2]
    # Beyond, a lens with ξ > 1 shows the far side of the sphere a second time.
    seen = z > -(min(xi, 1.0 / xi) if xi > 0 else 0.0) * d
    flat = rays[:, :2] / np.where(seen, z + xi * d, np.nan)[:, None]
    if not any(k):
        return flat
    inside = np.linalg.norm(flat, axis=1) <= widest_slope(k)
    return np.where(inside[:, None], _bend_flat(flat, k)[0], np.nan)


def _omni_rays(positions: FloatArray, xi: float, k: tuple[float, ...]) -> FloatArray:
    flat = _straighten_flat(positions, k) if any(k) else positions
    square = np.sum(flat**2, axis=1)
    scale = (xi + np.sqrt(1.0 + (1.0 - xi * xi) * square)) / (1.0 + square)
    return _unit(np.concatenate([flat * scale[:, None], (scale - xi)[:, None]], axis=1))


def _bend_flat(flat: FloatArray, k: tuple[float, ...]) -> tuple[FloatArray, FloatArray]:
    """Distort positions (N, 2) with k1 k2 p1 p2; return them and their derivatives (N, 2, 2)."""
    k1, k2, p1, p2 = k
    x, y = flat.T
    square = x * x + y * y
    radial = 1.0 + square * (k1 + square * k2)
    # Half of the derivative of `radial` by x divided by x.
    growth = k1 + 2.0 * k2 * square
    bent = np.stack(
        [
            x * radial + 2.0 * p1 * x * y + p2 * (square + 2.0 * x * x),
            y * radial + p1 * (square + 2.0 * y * y) + 2.0 * p2 * x * y,
        ],
        axis=1,
    )
    mixed = 2.0 * x * y * growth + 2.0 * p1 * x + 2.0 * p2 * y
    along_x = radial + 2.0 * x * x * growth + 2.0 * p1 * y + 6.0 * p2 * x
    along_y = radial + 2.0 * y * y * growth + 6.0 * p1 * y + 2.0 * p2 * x
    slopes = np.stack([np.stack([along_x, mixed], 1), np.stack([mixed, along_y], 1)], axis=1)
    return bent, slopes


def _straighten_flat(positions: FloatArray, k: tuple[float, ...]) -> FloatArray:
    """Invert `_bend_flat` up to the radius where the lens folds back; NaN beyond."""
    limit = widest_slope(k)
    radius = np.linalg.norm(positions, axis=1)
    straight = straight_radii(radius, k)
    start = np.divide(straight, radius, out=np.ones_like(radius), where=radius > 0)
    flat = positions * start[:, None]
    for _ in range(_NEWTON_STEPS):
        found, slopes = _bend_flat(flat, k)
        (a, b), (_, d) = slopes.transpose(1, 2, 0)
        x, y = (found - positions).T
        flat = flat - np.stack([d * x - b * y, a * y - b * x], axis=1) / (a * d - b * b)[:, None]
    missed = np.linalg.norm(_bend_flat(flat, k)[0] - positions, axis=1)
    good = (missed < _MAX_ERROR) & (np.linalg.norm(flat, axis=1) <= limit)
    return np.where(good[:, None], flat, np.nan)


# -- radtan ---------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def widest_slope(coefficients: tuple[float, ...]) -> float:
    """Tangent, at most 20, of the angle up to which a radtan lens does not fold back radially."""
    k = np.zeros(8)
    k[: min(8, len(coefficients))] = coefficients[:8]
    r = np.linspace(0.0, _STEEPEST, _SLOPE_STEPS)
    bent, below = _radial(r, k)
    with np.errstate(divide="ignore", invalid="ignore"):
        falls = np.flatnonzero(~(np.diff(bent) > 0) | ~(below[1:] > 0))
    return float(r[falls[0]]) if len(falls) else float(r[-1])


def straight_radii(radius: FloatArray, coefficients: tuple[float, ...]) -> FloatArray:
    """Radii (N,) that the radial part of a radtan lens bends to `radius` (N,), focal lengths.

    To about 1e-5 focal lengths; radii beyond the fold give `widest_slope`.
    """
    k = np.zeros(8)
    k[: min(8, len(coefficients))] = coefficients[:8]
    r = np.linspace(0.0, widest_slope(coefficients), _SLOPE_STEPS)
    straight: FloatArray = np.interp(radius, _radial(r, k)[0], r)
    return straight


def _radial(r: FloatArray, k: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the bent radii (N,) of radii (N,), and the denominator of their factor."""
    square = r * r
    above = 1 + square * (k[0] + square * (k[1] + square * k[4]))
    below = 1 + square * (k[5] + square * (k[6] + square * k[7]))
    with np.errstate(divide="ignore", invalid="ignore"):
        return r * above / below, below


def _unit(rays: FloatArray) -> FloatArray:
    unit: FloatArray = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    return unit
