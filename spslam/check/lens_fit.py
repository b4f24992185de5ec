"""Estimate what is wrong with a camera model from matches of pairs of frames of a moving camera.

The matches of all pairs must agree with one camera and one motion a pair. All motions and a few
numbers of the camera (`Lens`) are fitted together: the Sampson distances to the epipolar lines of
essential matrices are minimised by Levenberg-Marquardt with Cauchy weights (Hartley and Zisserman,
Multiple View Geometry, chapters 9 and 11; Sampson 1982).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from spslam import geometry
from spslam.camera import Camera
from spslam.typing import BoolArray, FloatArray, IntArray

# Order of the parameters of a lens.
FOCAL, RADIAL, CENTRE_X, CENTRE_Y, READOUT = range(5)
PARAMETERS = 5
# Standard deviations of their priors: weak, they only keep the fit from running away.
_PRIOR = np.array([0.7, 0.5, 0.2, 0.2, 1.5])
# Steps of the finite differences: parameters of the lens, of a motion.
_STEP = 1e-5
# Largest number of steps, and relative decrease of the cost at which the fit ends.
_STEPS, _ENOUGH = 20, 3e-4
# Largest number of dampings that are tried in a step.
_TRIALS = 6
# Smallest standard deviation of a match, fraction of the width of the image (0.1 px of 640).
_LEAST_SIGMA = 0.1 / 640


@dataclass(frozen=True, eq=False)
class PairMatches:
    """Matches of two frames, with the velocity of each point in both.

    Attributes:
        first, second: (N, 2) pixels of the image.
        velocity_first, velocity_second: (N, 2) motion in one frame step there, pixels.
    """

    first: FloatArray
    second: FloatArray
    velocity_first: FloatArray
    velocity_second: FloatArray

    def select(self, keep: BoolArray) -> PairMatches:
        """The matches where `keep` (N,) is True."""
        return PairMatches(
            self.first[keep],
            self.second[keep],
            self.velocity_first[keep],
            self.velocity_second[keep],
        )


@dataclass(frozen=True, eq=False)
class Lens:
    """What a fit changes of a camera.

    Attributes:
        values: (5,): logarithm of the factor of the focal length; radial distortion beyond that of
            the camera (relative displacement at one focal length from the centre); shift of the
            principal point, fractions of the width; read-out time of all rows beyond that of the
            camera, frame steps.
        sigma: (5,) their standard deviations; 0 where not fitted.
        cost: robust cost at the end.
        rms_px: robust standard deviation of the residuals at the end, pixels.
        count: number of matches.
    """

    values: FloatArray
    sigma: FloatArray
    cost: float
    rms_px: float
    count: int
    motions: tuple[FloatArray, FloatArray]


class LensFit:
    """Fits motions and lenses to the matches of pairs.

    Args:
        pairs: matches of each pair; outliers are better left out before.
        camera: the camera to examine.
    """

    def __init__(self, pairs: list[PairMatches], camera: Camera) -> None:
        self._camera = camera
        # The calibration's own read-out time, frame steps.
        self._readout = camera.readout_s * camera.fps
        self._pair: IntArray = np.repeat(np.arange(len(pairs)), [len(p.first) for p in pairs])
        self._count = len(pairs)
        first = np.concatenate([p.first for p in pairs])
        second = np.concatenate([p.second for p in pairs])
        self._rows = [(pixels[:, 1] / (camera.height - 1.0) - 0.5) for pixels in (first, second)]
        velocities = [
            np.concatenate([p.velocity_first for p in pairs]),
            np.concatenate([p.velocity_second for p in pairs]),
        ]
        # Undistorted pixels have the focal lengths of the ideal camera.
        focal = self._focal = np.array(camera.ideal_focal)
        centre = np.array([camera.cx, camera.cy])
        self._points = [(camera.undistort(pixels) - centre) / focal for pixels in (first, second)]
        self._velocities = [velocity / focal for velocity in velocities]
        seen = np.isfinite(self._points[0]).all(1) & np.isfinite(self._points[1]).all(1)
        if not seen.all():
            self._pair = self._pair[seen]
            self._rows = [rows[seen] for rows in self._rows]
            self._points = [points[seen] for points in self._points]
            self._velocities = [velocity[seen] for velocity in self._velocities]
        # First match of each pair; pairs without matches are left out.
        _, self._pair = np.unique(self._pair, return_inverse=True)
        self._count = int(self._pair.max()) + 1
        self._begin: IntArray = np.searchsorted(self._pair, np.arange(self._count))

    def fit(self, free: tuple[int, ...], start: Lens | None = None) -> Lens:
        """Fit all motions and the `free` parameters of the lens, from a start or from nothing."""
        lens = np.zeros(PARAMETERS) if start is None else start.values.copy()
        R, t = self._start(lens) if start is None else start.motions
        damping = 1e-3
        for _ in range(_STEPS):
            residuals = self._residuals(lens, R, t)
            sigma = self._sigma(residuals)
            cost = self._cost(residuals, sigma, lens)
            H, g = self._normal(lens, R, t, residuals, sigma, free)
            for _ in range(_TRIALS):
                step: FloatArray = -np.asarray(
                    np.linalg.solve(H + damping * np.diag(np.diag(H)), g), dtype=np.float64
                )
                tried = self._moved(lens, R, t, step, free)
                new = self._cost(self._residuals(*tried), sigma, tried[0])
                if new < cost:
                    break
                damping *= 5.0
            else:
                break
            lens, R, t = tried
            damping = max(damping / 5.0, 1e-7)
            if cost - new < _ENOUGH * cost:
                break
        residuals = self._residuals(lens, R, t)
        sigma = self._sigma(residuals)
        deviations = np.zeros(PARAMETERS)
        if free:
            H, _ = self._normal(lens, R, t, residuals, sigma, free)
            deviations[list(free)] = np.sqrt(np.diag(np.linalg.inv(H))[: len(free)])
        cost = self._cost(residuals, sigma, lens)
        return Lens(lens, deviations, cost, sigma, len(residuals), (R, t))

    def _normal(
        self,
        lens: FloatArray,
        R: FloatArray,
        t: FloatArray,
        residuals: FloatArray,
        sigma: float,
        free: tuple[int, ...],
    ) -> tuple[FloatArray, FloatArray]:
        """Return matrix and right side of the normal equations: free parameters, then motions."""
        of_lens, of_motion = self._jacobians(lens, R, t, residuals, free)
        weight = 1.0 / (1.0 + (residuals / (2 * sigma)) ** 2) / sigma**2
        count, size = len(free), len(free) + 5 * self._count
        H, g = 1e-9 * np.eye(size), np.zeros(size)
        prior = 1.0 / _PRIOR[list(free)] ** 2
        H[:count, :count] += of_lens.T @ (of_lens * weight[:, None]) + np.diag(prior)
        g[:count] = of_lens.T @ (residuals * weight) + prior * lens[list(free)]
        weighted = of_motion * weight[:, None]
        # Matches are in the order of their pairs: sum up each pair.
        own = np.add.reduceat(of_motion[:, :, None] * weighted[:, None, :], self._begin)
        mixed = np.add.reduceat(of_lens[:, :, None] * weighted[:, None, :], self._begin)
        side = np.add.reduceat(weighted * residuals[:, None], self._begin)
        for pair in range(self._count):
            at = slice(count + 5 * pair, count + 5 * pair + 5)
            H[at, at] += own[pair]
            H[:count, at], H[at, :count] = mixed[pair], mixed[pair].T
            g[at] = side[pair]
        return H, g

    # -- the model ---------------------------------------------------------------------------------

    def _rays(self, lens: FloatArray) -> tuple[list[FloatArray], list[FloatArray]]:
        """Directions (N, 3) with z = 1 in both frames, and the magnification (N,) of the lens."""
        rays, scales = [], []
        for points, velocity, rows in zip(self._points, self._velocities, self._rows, strict=True):
            ratio = np.array([1.0, self._focal[0] / self._focal[1]])
            shift = lens[[CENTRE_X, CENTRE_Y]] * self._camera.width / self._focal[0]
            late = (self._readout + lens[READOUT]) * rows
            xy = points - shift * ratio - velocity * late[:, None]
            square = np.sum(xy**2, axis=1)
            bend = 1.0 + lens[RADIAL] * square
            xy = xy * (bend * np.exp(-lens[FOCAL]))[:, None]
            rays.append(np.concatenate([xy, np.ones((len(xy), 1))], axis=1))
            scales.append(1.0 + 2.0 * lens[RADIAL] * square)
        return rays, scales

    def _residuals(self, lens: FloatArray, R: FloatArray, t: FloatArray) -> FloatArray:
        """Sampson distances (N,), pixels of the image."""
        return self._distances(lens, self._rays(lens), R, t)

    def _distances(
        self,
        lens: FloatArray,
        rays: tuple[list[FloatArray], list[FloatArray]],
        R: FloatArray,
        t: FloatArray,
    ) -> FloatArray:
        (first, second), (scale_first, scale_second) = rays
        E = (geometry.hat(t) @ R)[self._pair]
        line_second = np.einsum("nij,nj->ni", E, first)
        line_first = np.einsum("nji,nj->ni", E, second)
        error = np.einsum("ni,ni->n", second, line_second)
        square = (line_second[:, :2] ** 2).sum(1) + (line_first[:, :2] ** 2).sum(1)
        distance = error / np.sqrt(np.maximum(square, 1e-18))
        focal = self._focal[0] * np.exp(lens[FOCAL])
        scale = np.maximum(0.5 * (scale_first + scale_second), 0.1)
        result: FloatArray = focal * distance / scale
        return result

    def _sigma(self, residuals: FloatArray) -> float:
        return max(1.4826 * float(np.median(np.abs(residuals))), _LEAST_SIGMA * self._camera.width)

    def _cost(self, residuals: FloatArray, sigma: float, lens: FloatArray) -> float:
        cauchy = 4.0 * np.log1p((residuals / (2 * sigma)) ** 2).sum()
        return float(cauchy + np.sum((lens / _PRIOR) ** 2))

    def cost(self, lens: Lens, sigma: float) -> float:
        """Robust cost of a fit at a given standard deviation of the matches, pixels."""
        return self._cost(self._residuals(lens.values, *lens.motions), sigma, np.zeros(PARAMETERS))

    def _jacobians(
        self,
        lens: FloatArray,
        R: FloatArray,
        t: FloatArray,
        residuals: FloatArray,
        free: tuple[int, ...],
    ) -> tuple[FloatArray, FloatArray]:
        """Return derivatives of residuals (N,) by the lens (N, F) and by their motion (N, 5)."""
        of_lens = np.zeros((len(residuals), len(free)))
        for column, parameter in enumerate(free):
            changed = lens.copy()
            changed[parameter] += _STEP
            of_lens[:, column] = (self._residuals(changed, R, t) - residuals) / _STEP
        of_motion = np.zeros((len(residuals), 5))
        rays = self._rays(lens)
        for column in range(5):
            step = np.zeros((self._count, 5))
            step[:, column] = _STEP
            moved = _moved_motions(R, t, step)
            of_motion[:, column] = (self._distances(lens, rays, *moved) - residuals) / _STEP
        return of_lens, of_motion

    def _moved(
        self,
        lens: FloatArray,
        R: FloatArray,
        t: FloatArray,
        step: FloatArray,
        free: tuple[int, ...],
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        changed = lens.copy()
        changed[list(free)] += np.clip(step[: len(free)], -0.3, 0.3)
        motions = np.clip(step[len(free) :].reshape(self._count, 5), -0.3, 0.3)
        return changed, *_moved_motions(R, t, motions)

    def _start(self, lens: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return a rotation (P, 3, 3) and a direction (P, 3) for each pair."""
        rays, _ = self._rays(lens)
        R, t = np.tile(np.eye(3), (self._count, 1, 1)), np.tile([0.0, 0.0, 1.0], (self._count, 1))
        for pair in range(self._count):
            mine = self._pair == pair
            R[pair], t[pair] = start_motion(rays[0][mine], rays[1][mine], self._focal[0])
        return R, t


def start_motion(
    first: FloatArray, second: FloatArray, focal: float
) -> tuple[FloatArray, FloatArray]:
    """Estimate rotation (3, 3) and unit translation (3,) of rays (N, 3) with z = 1."""
    candidates: list[tuple[FloatArray, FloatArray]] = []
    cv2.setRNGSeed(0)
    E, _ = cv2.findEssentialMat(
        first[:, :2], second[:, :2], np.eye(3), cv2.RANSAC, 0.999, 2.0 / focal
    )
    if E is not None and E.shape[0] >= 3:
        _, R, t, _ = cv2.recoverPose(E[:3], first[:, :2], second[:, :2], np.eye(3))
        candidates.append((np.asarray(R, np.float64), np.asarray(t, np.float64).ravel()))
    turned = rotation_only(first, second)
    crossed = np.cross(first @ turned.T, second)
    crossed /= np.maximum(np.linalg.norm(crossed, axis=1, keepdims=True), 1e-4)
    candidates.append((turned, np.linalg.svd(crossed, full_matrices=False)[2][-1]))

    def cost(motion: tuple[FloatArray, FloatArray]) -> float:
        line = (first @ motion[0].T) @ geometry.hat(motion[1]).T
        distance = np.sum(second * line, axis=1) / np.maximum(
            np.linalg.norm(line[:, :2], axis=1), 1e-9
        )
        return float(np.median(np.abs(distance)))

    return min(candidates, key=cost)


def rotation_only(first: FloatArray, second: FloatArray) -> FloatArray:
    """Fit the rotation (3, 3) that turns rays (N, 3) to others, robustly."""
    a = first / np.linalg.norm(first, axis=1, keepdims=True)
    b = second / np.linalg.norm(second, axis=1, keepdims=True)
    weight = np.ones(len(a))
    R = np.eye(3)
    for _ in range(6):
        u, _, v = np.linalg.svd((b * weight[:, None]).T @ a)
        R = u @ np.diag([1.0, 1.0, np.linalg.det(u @ v)]) @ v
        error = np.linalg.norm(a @ R.T - b, axis=1)
        weight = 1.0 / (1.0 + (error / max(float(np.median(error)), 1e-6)) ** 2)
    return R


def _moved_motions(R: FloatArray, t: FloatArray, step: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Turn rotations (P, 3, 3) and unit directions (P, 3) by small steps (P, 5)."""
    moved_R = geometry.so3_exp(step[:, :3]) @ R
    # Two directions perpendicular to t.
    other = np.where(np.abs(t[:, :1]) < 0.7, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    u = np.cross(t, other)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    v = np.cross(t, u)
    moved_t = t + step[:, 3:4] * u + step[:, 4:5] * v
    return moved_R, moved_t / np.linalg.norm(moved_t, axis=1, keepdims=True)
