"""Relative pose of two views from matches, and triangulation of matches with known poses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from spslam.backend_interfaces import TwoViewEstimate
from spslam.camera import Camera
from spslam.errors import Refusal
from spslam.geometry import apply, hat, inverse, make_transform, so3_exp
from spslam.typing import BoolArray, FloatArray

from .residuals import CHI2_MONO, all_finite

# 95 % quantile of the χ² distribution with one degree of freedom: distance to an epipolar line.
_CHI2_LINE = 3.841
# Smallest number of matches to estimate a motion from.
_MIN_MATCHES = 8
# Fraction of the best motion's points: refuse the result if another motion has more points. The
# 0.75 of ORB-SLAM refuses too many scenes with a dominant plane.
_CLEARLY_FEWER = 0.9
# Largest angle, degrees, between the translations of two motions that count as the same.
_SAME_DIRECTION_DEG = 10.0
# Largest standard deviation of the direction of translation, degrees.
_MAX_UNCERTAINTY_DEG = 4.0
# Probability of finding the best model, and largest number of samples.
_RANSAC_CONFIDENCE = 0.9999
_RANSAC_ITERATIONS = 5000
# Largest number of Gauss-Newton iterations, and largest entry of a step that ends them (radians).
_REFINE_ITERATIONS, _REFINE_CONVERGED = 10, 1e-9


class EpipolarSolver:
    """A `TwoViewSolver`: select between essential matrix and homography, refuse ambiguous motion.

    The scheme follows Mur-Artal et al., ORB-SLAM, T-RO 2015, section IV, with GRIC in place of its
    ratio of scores.

    Args:
        pixel_sigma: Standard deviation of a keypoint's position, pixels.
        min_parallax_deg: Smallest median parallax of the points from `solve`, degrees. The parallax
            of a point is the angle between its two rays.
        min_points: Smallest number of triangulated points for `solve`.
        seed: Seed of the sampling.
        min_point_parallax_deg: Smallest parallax of a point from `triangulate`, degrees.
    """

    def __init__(
        self,
        pixel_sigma: float = 1.0,
        min_parallax_deg: float = 1.0,
        min_points: int = 80,
        seed: int = 0,
        min_point_parallax_deg: float = 1.0,
    ) -> None:
        self.pixel_sigma = pixel_sigma
        self.min_parallax_deg = min_parallax_deg
        self.min_points = min_points
        self.seed = seed
        self.min_point_parallax_deg = min_point_parallax_deg

    def solve(
        self, pixels0: FloatArray, pixels1: FloatArray, camera: Camera
    ) -> TwoViewEstimate | Refusal:
        """Estimate relative pose and points from matched pixels; see `TwoViewSolver.solve`."""
        finite = np.flatnonzero(all_finite(pixels0, axis=1) & all_finite(pixels1, axis=1))
        if len(finite) < max(self.min_points, _MIN_MATCHES):
            return Refusal(
                f"too few matches: {len(finite)} of at least {max(self.min_points, _MIN_MATCHES)}"
            )
        matches = _Matches(pixels0[finite], pixels1[finite], camera, self.pixel_sigma)
        essential, homography = self._estimate_models(matches)
        if essential is None and homography is None:
            return Refusal(
                "no model fits the matches: neither an essential matrix nor a homography was found"
            )
        candidates = {
            "essential": [self._reconstruct(matches, T) for T in _decompose_essential(essential)],
            "homography": [
                self._reconstruct(matches, T) for T in _decompose_homography(homography, camera)
            ],
        }
        model = _choose_model(matches, essential, homography)
        if not candidates[model]:
            return Refusal(f"the {model} does not decompose into a motion: the camera only turned")
        best = max(candidates[model], key=lambda candidate: candidate.support)
        refusal = self._refusal(best, candidates["essential"] + candidates["homography"], matches)
        if refusal is not None:
            return Refusal(f"{refusal} ({model})")
        if model == "essential":
            # Not for the homography: on a plane it determines the motion better than the epipolar
            # lines do.
            T_1_0, uncertainty = _refine(matches, best.T_1_0, best.good)
            if uncertainty > np.radians(_MAX_UNCERTAINTY_DEG):
                return Refusal(
                    "uncertain motion: its direction is known to "
                    f"{np.degrees(uncertainty):.1f}° (one sigma), "
                    f"expected {_MAX_UNCERTAINTY_DEG:g}° ({model})"
                )
            best = max(
                self._reconstruct(matches, T_1_0), best, key=lambda candidate: candidate.support
            )
        points = np.full((len(pixels0), 3), np.nan)
        points[finite[best.good]] = best.points[best.good]
        return TwoViewEstimate(best.T_1_0, points, model, best.parallax(matches))

    def triangulate(
        self,
        T_cam0_world: FloatArray,
        T_cam1_world: FloatArray,
        pixels0: FloatArray,
        pixels1: FloatArray,
        camera: Camera,
    ) -> FloatArray:
        """Triangulate world points from matched pixels; see `TwoViewSolver.triangulate`.

        The method minimizes the reprojection error (Lindstrom, Triangulation made easy, CVPR 2010).
        A point is refused if its parallax is below `min_point_parallax_deg`, if it is behind a
        camera, or if its error exceeds the 95 % limit of χ² in either image.
        """
        T_0_world = np.asarray(T_cam0_world, dtype=np.float64)
        matches = _Matches(pixels0, pixels1, camera, self.pixel_sigma)
        points, good = matches.triangulate(
            np.asarray(T_cam1_world, dtype=np.float64) @ inverse(T_0_world)
        )
        good &= matches.parallax(points, T_cam1_world @ inverse(T_0_world)) >= np.radians(
            self.min_point_parallax_deg
        )
        return np.where(good[:, None], apply(inverse(T_0_world), points), np.nan)

    def standstill(
        self, pixels0: FloatArray, pixels1: FloatArray, still: FloatArray, camera: Camera
    ) -> tuple[BoolArray, FloatArray] | None:
        """Test still pixels against the motion of matches; see `TwoViewSolver.standstill`.

        Distances are Sampson's. While the camera turns, hardly any point of a static scene stays in
        place, and such a point is no farther from its epipolar line than noise explains.
        """
        if len(pixels0) < _MIN_MATCHES:
            return None
        matches = _Matches(pixels0, pixels1, camera, self.pixel_sigma)
        essential, _ = self._estimate_models(matches)
        if essential is None:
            return None
        inverse_K = np.linalg.inv(camera.K)
        F_10 = inverse_K.T @ essential @ inverse_K
        agree = _sampson_epipolar(matches, F_10) <= _CHI2_LINE
        chi2 = _sampson_epipolar(_Matches(still, still, camera, self.pixel_sigma), F_10)
        return agree, np.sqrt(chi2) * self.pixel_sigma

    def _estimate_models(self, matches: _Matches) -> tuple[FloatArray | None, FloatArray | None]:
        """Estimate the essential matrix and the homography of pixels, each (3, 3) or None."""
        pixels0, pixels1, K = matches.pixels0, matches.pixels1, matches.camera.K
        parameters = cv2.UsacParams()
        parameters.confidence = _RANSAC_CONFIDENCE
        parameters.maxIterations = _RANSAC_ITERATIONS
        parameters.randomGeneratorState = self.seed
        parameters.score = cv2.SCORE_METHOD_MSAC
        parameters.loMethod = cv2.LOCAL_OPTIM_INNER_LO
        parameters.threshold = float(np.sqrt(_CHI2_LINE)) * self.pixel_sigma
        essential, _ = cv2.findEssentialMat(pixels0, pixels1, K, K, None, None, parameters)
        parameters.threshold = float(np.sqrt(CHI2_MONO)) * self.pixel_sigma
        homography, _ = cv2.findHomography(pixels0, pixels1, parameters)
        return _checked(essential), _checked(homography)

    def _reconstruct(self, matches: _Matches, T_1_0: FloatArray) -> _Candidate:
        points, good = matches.triangulate(T_1_0)
        return _Candidate(T_1_0, points, good)

    def _refusal(
        self, best: _Candidate, rivals: list[_Candidate], matches: _Matches
    ) -> Refusal | None:
        """Return why the best candidate is refused, or None."""
        if best.support < self.min_points:
            return Refusal(
                f"too few points triangulated: {best.support} of at least {self.min_points}"
            )
        parallax = np.degrees(best.parallax(matches))
        if parallax < self.min_parallax_deg:
            return Refusal(
                f"too little parallax: {parallax:.2f}° of at least {self.min_parallax_deg:g}°"
            )
        second = max((rival.support for rival in rivals if not best.resembles(rival)), default=0)
        if second > _CLEARLY_FEWER * best.support:
            return Refusal(
                f"ambiguous motion: {best.support} points agree with the best solution, "
                f"{second} with another"
            )
        return None


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A motion, the points (N, 3) in camera 0 triangulated with it, and which (N,) are good."""

    T_1_0: FloatArray
    points: FloatArray
    good: BoolArray

    @property
    def support(self) -> int:
        return int(np.count_nonzero(self.good))

    def parallax(self, matches: _Matches) -> float:
        """Return the median angle between the two rays of the good points, radians."""
        return (
            float(np.median(matches.parallax(self.points, self.T_1_0)[self.good]))
            if self.support
            else 0.0
        )

    def resembles(self, other: _Candidate) -> bool:
        """Return whether both have the same direction of translation, up to noise."""
        return bool(
            self.T_1_0[:3, 3] @ other.T_1_0[:3, 3] > np.cos(np.radians(_SAME_DIRECTION_DEG))
        )


class _Matches:
    """Matched pixels (N, 2) of one camera, also as rays (N, 3) with z = 1."""

    def __init__(
        self, pixels0: FloatArray, pixels1: FloatArray, camera: Camera, pixel_sigma: float
    ) -> None:
        self.pixels0 = np.ascontiguousarray(pixels0, dtype=np.float64)
        self.pixels1 = np.ascontiguousarray(pixels1, dtype=np.float64)
        self.camera = camera
        self.pixel_sigma = pixel_sigma
        ones = np.ones(len(self.pixels0))
        self.rays0 = camera.unproject(self.pixels0, ones)
        self.rays1 = camera.unproject(self.pixels1, ones)

    def triangulate(self, T_1_0: FloatArray) -> tuple[FloatArray, BoolArray]:
        """Triangulate points (N, 3) in camera 0, and return which fit both images.

        A point fits an image if it is in front of the camera and within the 95 % limit of χ².
        """
        points = _triangulate_rays(self.rays0, self.rays1, T_1_0)
        points1 = apply(T_1_0, points)
        limit = CHI2_MONO * self.pixel_sigma**2
        error0 = np.sum((self.camera.project(points) - self.pixels0) ** 2, axis=1)
        error1 = np.sum((self.camera.project(points1) - self.pixels1) ** 2, axis=1)
        # Points behind a camera project to NaN, and comparisons with NaN are false.
        good: BoolArray = all_finite(points, axis=1) & (error0 <= limit) & (error1 <= limit)
        return points, good

    def parallax(self, points: FloatArray, T_1_0: FloatArray) -> FloatArray:
        """Return the angles (N,), radians, between the two rays to points (N, 3) in camera 0."""
        from_second = points - inverse(T_1_0)[:3, 3]
        crossing = np.linalg.norm(np.cross(points, from_second), axis=1)
        angles: FloatArray = np.arctan2(crossing, np.sum(points * from_second, axis=1))
        return angles


def _checked(matrix: Any) -> FloatArray | None:
    """Return the matrix from OpenCV, or None if OpenCV found no solution or several."""
    if matrix is None or matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        return None
    return np.asarray(matrix, dtype=np.float64)


def _choose_model(
    matches: _Matches, essential: FloatArray | None, homography: FloatArray | None
) -> str:
    """Return the model with the lower GRIC.

    Only matches that fit at least one of the two models count; matches that fit neither would
    favour the essential matrix. Source: Torr, Geometric motion segmentation and model selection,
    1998.
    """
    if homography is None or essential is None:
        return "essential" if homography is None else "homography"
    inverse_K = np.linalg.inv(matches.camera.K)
    error_e = _sampson_epipolar(matches, inverse_K.T @ essential @ inverse_K)
    error_h = _sampson_homography(matches, homography)
    fits = (error_e <= _CHI2_LINE) | (error_h <= CHI2_MONO)
    gric_e = _gric(error_e[fits], dimension=3, parameters=5)
    gric_h = _gric(error_h[fits], dimension=2, parameters=8)
    return "homography" if gric_h < gric_e else "essential"


def _gric(chi2: FloatArray, dimension: int, parameters: int) -> float:
    """Return the geometric robust information criterion (GRIC), given squared errors (N,)."""
    structure = np.log(4.0) * dimension * len(chi2)
    return float(
        np.minimum(chi2, 2.0 * (4 - dimension)).sum()
        + structure
        + np.log(4.0 * len(chi2) + 1.0) * parameters
    )


def _sampson_epipolar(matches: _Matches, F_10: FloatArray) -> FloatArray:
    """Return the χ² (N,), one degree of freedom, of the distance to the nearest pair for F."""
    homogeneous0, homogeneous1 = _homogeneous(matches.pixels0), _homogeneous(matches.pixels1)
    lines1, lines0 = homogeneous0 @ F_10.T, homogeneous1 @ F_10
    gradient2 = np.sum(lines1[:, :2] ** 2, axis=1) + np.sum(lines0[:, :2] ** 2, axis=1)
    chi2: FloatArray = (
        np.sum(homogeneous1 * lines1, axis=1) ** 2
        / np.maximum(gradient2, 1e-300)
        / matches.pixel_sigma**2
    )
    return chi2


def _sampson_homography(matches: _Matches, H_10: FloatArray) -> FloatArray:
    """Return the χ² (N,), two degrees of freedom, of the distance to the nearest pair for H."""
    mapped = _homogeneous(matches.pixels0) @ H_10.T
    with np.errstate(divide="ignore", invalid="ignore"):
        predicted = mapped[:, :2] / mapped[:, 2:]
        residual = predicted - matches.pixels1
        # Covariance of the residual: identity for image 1, plus that of image 0 mapped by H.
        J = (H_10[:2, :2] - predicted[:, :, None] * H_10[2, :2]) / mapped[:, 2, None, None]
        a = 1.0 + np.sum(J[:, 0] ** 2, axis=1)
        b = np.sum(J[:, 0] * J[:, 1], axis=1)
        c = 1.0 + np.sum(J[:, 1] ** 2, axis=1)
        u, v = residual.T
        chi2 = (c * u * u - 2.0 * b * u * v + a * v * v) / (a * c - b * b) / matches.pixel_sigma**2
    return np.where(np.isfinite(chi2) & (mapped[:, 2] * np.sign(H_10[2, 2]) > 0), chi2, np.inf)


def _homogeneous(pixels: FloatArray) -> FloatArray:
    return np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1)


def _decompose_essential(essential: FloatArray | None) -> list[FloatArray]:
    """Return the four motions (4, 4) of an essential matrix, translation of unit length."""
    if essential is None:
        return []
    R_a, R_b, t = (
        np.asarray(part, dtype=np.float64) for part in cv2.decomposeEssentialMat(essential)
    )
    return [make_transform(R, sign * t.ravel()) for R in (R_a, R_b) for sign in (1.0, -1.0)]


def _decompose_homography(homography: FloatArray | None, camera: Camera) -> list[FloatArray]:
    """Return the up to four motions (4, 4) of a homography of pixels; none for a pure rotation.

    Their translation has unit length.
    """
    if homography is None:
        return []
    _, rotations, translations, _ = cv2.decomposeHomographyMat(homography, camera.K)
    motions = []
    for R, t in zip(rotations, translations, strict=True):
        direction = np.asarray(t, dtype=np.float64).ravel()
        length = float(np.linalg.norm(direction))
        if length > 1e-6:
            motions.append(make_transform(np.asarray(R, dtype=np.float64), direction / length))
    return motions


def _triangulate_rays(rays0: FloatArray, rays1: FloatArray, T_1_0: FloatArray) -> FloatArray:
    """Triangulate rays (N, 3) with z = 1 to points (N, 3) in camera 0.

    Source: Lindstrom, Triangulation made easy, CVPR 2010, listing 3, two iterations.
    """
    R, t = T_1_0[:3, :3], T_1_0[:3, 3]
    E = hat(t) @ R
    E_inner = E[:2, :2]
    x0, x1 = rays0, rays1
    n1, n0 = (x0 @ E.T)[:, :2], (x1 @ E)[:, :2]
    with np.errstate(divide="ignore", invalid="ignore"):
        a = np.einsum("ni,ij,nj->n", n1, E_inner, n0)
        b = 0.5 * (np.sum(n0 * n0, axis=1) + np.sum(n1 * n1, axis=1))
        c = np.einsum("ni,ij,nj->n", x1, E, x0)
        d = np.sqrt(np.maximum(b * b - a * c, 0.0))
        scale = (c / (b + d))[:, None]
        n1, n0 = n1 - scale * (n0 @ E_inner.T), n0 - scale * (n1 @ E_inner)
        scale = scale * (2.0 * d / (np.sum(n0 * n0, axis=1) + np.sum(n1 * n1, axis=1)))[:, None]
        y0 = x0 - scale * _pad(n0)
        y1 = x1 - scale * _pad(n1)
        z = np.cross(y1, y0 @ R.T)
        # depth1 · y1 = depth0 · R y0 + t, crossed with y1.
        depth = np.sum(z * np.cross(t, y1), axis=1) / np.sum(z * z, axis=1)
    points: FloatArray = depth[:, None] * y0
    return points


def _pad(vectors: FloatArray) -> FloatArray:
    return np.concatenate([vectors, np.zeros((len(vectors), 1))], axis=1)


def _refine(matches: _Matches, T_1_0: FloatArray, good: BoolArray) -> tuple[FloatArray, float]:
    """Minimize the Sampson error of the good matches: Gauss-Newton on five degrees of freedom.

    Returns:
        The motion (4, 4) and the standard deviation of its direction of translation, radians.
    """
    x0, x1 = matches.rays0[good], matches.rays1[good]
    sigma = matches.pixel_sigma / np.sqrt(matches.camera.fx * matches.camera.fy)
    T = T_1_0
    for _ in range(_REFINE_ITERATIONS):
        residual, jacobian, tangent = _linearize_sampson(x0, x1, T, sigma)
        robust = 1.0 / np.sqrt(np.maximum(residual**2 / _CHI2_LINE, 1.0))
        normal = (jacobian * robust[:, None]).T @ jacobian
        # Directions that a degenerate scene leaves undetermined get a huge variance, which shows up
        # in the standard deviation.
        curvature, axes = np.linalg.eigh(normal)
        covariance = (axes / np.maximum(curvature, 1e-10 * curvature[-1])) @ axes.T
        step = -covariance @ ((jacobian * robust[:, None]).T @ residual)
        direction = T[:3, 3] + tangent @ step[3:]
        T = make_transform(so3_exp(step[:3]) @ T[:3, :3], direction / np.linalg.norm(direction))
        if np.abs(step).max() < _REFINE_CONVERGED:
            break
    variance = max(1.0, float(residual @ residual) / max(len(residual) - 5, 1))
    return T, min(float(np.sqrt(variance * np.linalg.eigvalsh(covariance[3:, 3:])[-1])), np.pi)


def _linearize_sampson(
    x0: FloatArray, x1: FloatArray, T_1_0: FloatArray, sigma: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Linearize the Sampson errors of rays.

    Returns:
        Errors (N,) in units of `sigma`, their derivatives (N, 5) by a left rotation and by the unit
        translation along two tangents, and these tangents (3, 2).
    """
    R, t = T_1_0[:3, :3], T_1_0[:3, 3]
    rotated = x0 @ R.T
    line1, line0 = np.cross(t, rotated), np.cross(x1, t)
    gradient2 = np.sum(line1[:, :2] ** 2, axis=1) + np.sum((line0 @ R)[:, :2] ** 2, axis=1)
    # The derivatives of the weight are of second order in the residual and left out.
    weight = 1.0 / (np.sqrt(np.maximum(gradient2, 1e-300)) * sigma)
    tangent = np.linalg.svd(t[None])[2][1:].T
    jacobian = np.concatenate([np.cross(rotated, line0), np.cross(rotated, x1) @ tangent], axis=1)
    return np.sum(x1 * line1, axis=1) * weight, jacobian * weight[:, None], tangent
