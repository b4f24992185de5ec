"""Detect a pose that lies between two motions, and find the motion that most of the image supports.

Noise differs from point to point. Between two motions the residuals are alike within each region of the image:
the means of image cells explain most of their square. If the pose is that of the smaller region, which may hold
most of the points, the rejected matches are alike within their cells instead. Each hypothesis comes from the
points of four random cells by one linear step, and is scored with equal weight per cell (after Fischler &
Bolles, "Random sample consensus", 1981, with the truncated cost of Torr & Zisserman, "MLESAC", 2000).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spslam import geometry
from spslam.camera import Camera

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Index = NDArray[np.int64]

# Cells along the longer side of the image. A cell moves coherently if at least 3 and 60 % of its points are
# marked, and their vectors add up to 70 % of their lengths.
_CELLS, _LEAST_IN_CELL, _CELL_SHARE, _ALIKE = 8, 3, 0.6, 0.7
# The pose lies between two motions if the cell means explain 45 % of the squared residuals (static recordings
# stay below 33 %), with an RMS of the means of 0.1 px and of half the standard deviation within cells.
_EXPLAINED, _LEAST_MEAN_PX, _LEAST_MEAN = 0.45, 0.1, 0.5
# The pose may be that of the smaller region if 10 rejected points move coherently in 25 % of the cells.
_LEAST_REJECTED, _REJECTED_SHARE = 10, 0.25
# Number of hypotheses and cells per hypothesis; truncation of the cost, standard deviations; floor of the standard
# deviation and largest residual of a point that takes part, pixels.
_SAMPLES, _SAMPLE_CELLS, _CUT, _LEAST_SIGMA_PX, _REACH_PX = 128, 4, 2.5, 0.15, 8.0


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of the image that hold points.

    Attributes:
        of: (N,) the cell that each point is in.
        count: (C,) points in each.
    """

    of: Index
    count: Index

    @staticmethod
    def over(pixels: Array, camera: Camera) -> Cells:
        """Of points at pixels (N, 2)."""
        side = max(camera.width, camera.height) / _CELLS
        place = np.clip(np.floor((pixels + 0.5) / side).astype(np.int64), 0, _CELLS - 1)
        number = place[:, 1] * _CELLS + place[:, 0]
        count = np.bincount(number, minlength=_CELLS**2)
        held = np.flatnonzero(count)
        row = np.zeros(_CELLS**2, dtype=np.int64)
        row[held] = np.arange(len(held))
        return Cells(row[number], count[held])

    def sums(self, values: Array | Mask) -> Array:
        """(C,) sums over the points of each cell."""
        return np.asarray(np.bincount(self.of, values, minlength=len(self.count)), dtype=np.float64)

    def share(self, mask: Mask) -> float:
        """Of the cells, those most of whose points are in the mask."""
        return float(np.mean(self.sums(mask) > 0.5 * self.count))

    def agreement(self, mask: Mask) -> float:
        """Share of points in the mask, mean over the cells."""
        return float(np.mean(self.sums(mask) / self.count))

    def together(self, mask: Mask, vectors: Array) -> Mask:
        """Which points (N,) of a mask lie in cells most of which is in the mask, with vectors (N, 2) that are alike."""
        if not mask.any():
            return mask
        marked = self.sums(mask)
        summed = np.hypot(*(self.sums(np.where(mask, axis, 0.0)) for axis in vectors.T))
        lengths = self.sums(np.where(mask, np.hypot(*vectors.T), 0.0))
        cells = (marked >= _LEAST_IN_CELL) & (marked >= _CELL_SHARE * self.count) & (summed >= _ALIKE * lengths)
        return mask & cells[self.of]


@dataclass(frozen=True, eq=False)
class Split:
    """The residuals of a pose that is not that of all points.

    Attributes:
        part: (M,) rows of the points that may be part of either motion.
        cells: of these.
        sigma_px: standard deviation of the residuals within cells, along one axis.
        between: whether the pose lies between two motions; otherwise it may be that of the lesser one.
    """

    part: Index
    cells: Cells
    sigma_px: float
    between: bool


def residuals(T_cam_world: Array, points: Array, pixels: Array, camera: Camera) -> Array:
    """(N, 2) pixels: where points (N, 3) are seen from a pose, less where they were seen."""
    return camera.project(geometry.apply(T_cam_world, points)) - pixels


def find_split(pixels: Array, off: Array, inlier: Mask, camera: Camera) -> Split | None:
    """Whether the residuals `off` (N, 2) of a pose at `pixels` (N, 2) are those of two motions.

    Args:
        inlier: (N,) which points agree with the pose.
    """
    if np.count_nonzero(inlier) < 3 * _SAMPLE_CELLS:
        return None
    seen, total = Cells.over(pixels[inlier], camera), float(np.sum(off[inlier] ** 2))
    points, cells = len(seen.of), len(seen.count)
    if cells < 2 * _SAMPLE_CELLS or points < 3 * cells:
        return None
    means = sum(float(np.sum(seen.sums(axis) ** 2 / seen.count)) for axis in off[inlier].T)
    variance = max(total - means, 0.0) / (2 * (points - cells))
    systematic = max(means - 2 * cells * variance, 0.0)
    mean = np.sqrt(systematic / (2 * points))
    sigma = float(np.sqrt(variance))
    between = bool(systematic >= _EXPLAINED * total and mean >= max(_LEAST_MEAN_PX, _LEAST_MEAN * sigma))
    if not between and not _another_motion(pixels, off, ~inlier, camera):
        return None
    part = np.flatnonzero(np.hypot(*off.T) < _REACH_PX)
    return Split(part, Cells.over(pixels[part], camera), sigma, between)


def _another_motion(pixels: Array, off: Array, rejected: Mask, camera: Camera) -> bool:
    """Whether what a pose rejects moves together."""
    if np.count_nonzero(rejected) < _LEAST_REJECTED:
        return False
    cells = Cells.over(pixels, camera)
    moving = cells.together(rejected, off)
    return bool(np.count_nonzero(moving) >= _LEAST_REJECTED and cells.share(moving) >= _REJECTED_SHARE)


def consensus(found: Split, T_cam_world: Array, points: Array, pixels: Array, camera: Camera) -> tuple[Array, Mask]:
    """A pose near `T_cam_world` that most cells agree with, and which points (N,) do.

    Args:
        points: (N, 3) in the world.
        pixels: (N, 2) where they were seen.
    """
    cells, cut = found.cells, _CUT * max(found.sigma_px, _LEAST_SIGMA_PX)
    weight = 1.0 / cells.count[cells.of]
    off, jacobian = _linearize(T_cam_world, points[found.part], pixels[found.part], camera)
    steps = _samples(cells, off, jacobian, weight)
    moved = off[:, :, None] + np.einsum("anp,hp->anh", jacobian, steps)
    squared = np.minimum(moved[0] ** 2 + moved[1] ** 2, cut**2)
    best = int(np.argmin(weight @ squared))
    agree = np.zeros(len(points), dtype=bool)
    agree[found.part[squared[:, best] < cut**2]] = True
    return geometry.se3_exp(steps[best]) @ T_cam_world, agree


def _linearize(T_cam_world: Array, points: Array, pixels: Array, camera: Camera) -> tuple[Array, Array]:
    """Residuals (2, N) and their derivatives (2, N, 6) by a left perturbation [translation, rotation]."""
    x, y, z = geometry.apply(T_cam_world, points).T
    u, v, zero = x / z, y / z, np.zeros_like(z)
    along_x = camera.fx * np.stack([1 / z, zero, -u / z, -u * v, 1 + u * u, -v], axis=1)
    along_y = camera.fy * np.stack([zero, 1 / z, -v / z, -1 - v * v, u * v, u], axis=1)
    return residuals(T_cam_world, points, pixels, camera).T, np.stack([along_x, along_y])


def _samples(cells: Cells, off: Array, jacobian: Array, weight: Array) -> Array:
    """(H, 6) steps, each the best for the points of a few cells; the first is none."""
    usable = np.flatnonzero(cells.count >= _LEAST_IN_CELL)
    if len(usable) < _SAMPLE_CELLS:
        return np.zeros((1, 6))
    normal = np.einsum("anp,anq,n->npq", jacobian, jacobian, weight)
    gradient = np.einsum("anp,an,n->np", jacobian, off, weight)
    in_order = np.argsort(cells.of, kind="stable")
    starts = np.searchsorted(cells.of[in_order], np.arange(len(cells.count)))
    normal, gradient = (np.add.reduceat(values[in_order], starts, axis=0) for values in (normal, gradient))
    # The same every time: two runs give the same bytes.
    rng = np.random.default_rng(0)
    chosen = usable[np.argsort(rng.random((_SAMPLES, len(usable))), axis=1)[:, :_SAMPLE_CELLS]]
    normal, gradient = normal[chosen].sum(axis=1), gradient[chosen].sum(axis=1)
    diagonal = np.einsum("hpp->hp", normal)
    diagonal += 1e-9 * diagonal + 1e-12
    steps = -np.linalg.solve(normal, gradient[..., None])[..., 0]
    return np.concatenate([np.zeros((1, 6)), steps])
