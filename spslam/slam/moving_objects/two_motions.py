"""Detect a pose that lies between two motions, and find the motion that most of the image supports.

Noise differs from point to point. Between two motions the residuals are similar within each region
of the image: the means of image cells explain most of their square. If the pose is that of the
smaller region, which may hold most of the points, the rejected matches are similar within their
cells instead. Each hypothesis comes from the points of four random cells by one linear step, and is
scored with equal weight per cell (after Fischler & Bolles, "Random sample consensus", 1981, with
the truncated cost of Torr & Zisserman, "MLESAC", 2000).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spslam import geometry
from spslam.camera import Camera
from spslam.typing import BoolArray, FloatArray, IntArray

# Number of cells along the longer side of the image.
_CELLS = 8
# A cell moves coherently if at least this number of its points are marked ...
_LEAST_IN_CELL = 3
# ... which are at least this fraction of its points ...
_CELL_FRACTION = 0.6
# ... and if their vectors add up to at least this fraction of the sum of their lengths.
_MIN_ALIGNMENT = 0.7
# The pose lies between two motions if the RMS of the cell means is at least this, pixels ...
_LEAST_MEAN_PX = 0.1
# ... and this multiple of the standard deviation within cells.
_LEAST_MEAN = 0.5
# The pose may be that of the smaller region if this number of rejected points move coherently ...
_LEAST_REJECTED = 10
# ... in at least this fraction of the cells.
_REJECTED_FRACTION = 0.25
# Number of random hypotheses per round.
_SAMPLES = 24
# Number of cells per hypothesis.
_SAMPLE_CELLS = 4
# Scales of the kernel (Geman & McClure) of successive steps, standard deviations.
_SCALES = (4.0, 2.0, 1.0)
# Truncation of the cost, standard deviations. A pose between two motions fits as many points as
# either motion, but less closely.
_TIGHT = 1.5
# Largest residual of an inlier, standard deviations.
_CUT = 2.5
# Floor of the standard deviation, pixels.
_LEAST_SIGMA_PX = 0.15
# Largest residual of a point that can belong to either motion, pixels.
_REACH_PX = 8.0
# Rivals: floor of the standard deviation, pixels.
_LEAST_YOUNG_SIGMA_PX = 0.3
# Rivals: largest residual of a point that can belong to either motion, pixels.
_FAR_PX = 60.0
# Rivals: least median residual of the moving points, pixels.
_APART_PX = 5.0
# Rivals: residual above which a point contradicts the given motion, standard deviations.
_AROUND = 6.0
# Rivals: a motion is the given one if at most this fraction of either's inliers contradicts the
# other.
_MOSTLY = 0.5
# Gain in cost (0 to 1) of a rival whose points are farther away ...
_FARTHER = 0.06
# ... by at least this factor in median depth.
_CLEARLY_FARTHER = 1.35
# Least fraction of the image, mean over the cells, that only one of the motions explains.
_ALONE = 0.2
# Least number of points that only the rival explains.
_LEAST_ALONE = 30
# Floor of the depth in projections, map units.
_LEAST_DEPTH = 1e-3


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of the image that hold points.

    Attributes:
        of: (N,) the cell of each point.
        count: (C,) number of points in each cell.
    """

    of: IntArray
    count: IntArray

    @staticmethod
    def over(pixels: FloatArray, camera: Camera) -> Cells:
        """Make the cells of points at pixels (N, 2)."""
        side = max(camera.width, camera.height) / _CELLS
        place = np.clip(np.floor((pixels + 0.5) / side).astype(np.int64), 0, _CELLS - 1)
        number = place[:, 1] * _CELLS + place[:, 0]
        count = np.bincount(number, minlength=_CELLS**2)
        held = np.flatnonzero(count)
        row = np.zeros(_CELLS**2, dtype=np.int64)
        row[held] = np.arange(len(held))
        return Cells(row[number], count[held])

    def sums(self, values: FloatArray | BoolArray) -> FloatArray:
        """(C,) sums over the points of each cell."""
        return np.asarray(np.bincount(self.of, values, minlength=len(self.count)), dtype=np.float64)

    def fraction(self, mask: BoolArray) -> float:
        """Fraction of the cells with most of their points in the mask."""
        return float(np.mean(self.sums(mask) > 0.5 * self.count))

    def agreement(self, mask: BoolArray) -> float:
        """Fraction of the points in the mask, mean over the cells."""
        return float(np.mean(self.sums(mask) / self.count))

    def together(self, mask: BoolArray, vectors: FloatArray) -> BoolArray:
        """(N,) which points of a mask lie in coherently moving cells, by their vectors (N, 2)."""
        if not mask.any():
            return mask
        marked = self.sums(mask)
        summed = np.hypot(*(self.sums(np.where(mask, axis, 0.0)) for axis in vectors.T))
        lengths = self.sums(np.where(mask, np.hypot(*vectors.T), 0.0))
        cells = (
            (marked >= _LEAST_IN_CELL)
            & (marked >= _CELL_FRACTION * self.count)
            & (summed >= _MIN_ALIGNMENT * lengths)
        )
        return mask & cells[self.of]


@dataclass(frozen=True, eq=False)
class Split:
    """The residuals of a pose that does not fit all points.

    Attributes:
        part: (M,) rows of the points that can belong to either motion.
        cells: of these points.
        sigma_px: standard deviation of the residuals within cells, along one axis.
        between: whether the pose lies between two motions; False: it may be that of the smaller
            region.
    """

    part: IntArray
    cells: Cells
    sigma_px: float
    between: bool


def residuals(
    T_cam_world: FloatArray, points: FloatArray, pixels: FloatArray, camera: Camera
) -> FloatArray:
    """(N, 2) residuals, pixels: points (N, 3) projected from a pose, minus their pixels (N, 2)."""
    return camera.project(geometry.apply(T_cam_world, points)) - pixels


def find_split(
    min_explained: float, pixels: FloatArray, off: FloatArray, inlier: BoolArray, camera: Camera
) -> Split | None:
    """Test whether the residuals of a pose are those of two motions.

    Args:
        min_explained: least fraction of the squared residuals that the cell means must explain.
        pixels: (N, 2) of the points.
        off: (N, 2) residuals, pixels.
        inlier: (N,) which points agree with the pose.
        camera: of the image.

    Returns:
        None if there is one motion only.
    """
    if np.count_nonzero(inlier) < 3 * _SAMPLE_CELLS:
        return None
    seen, total = Cells.over(pixels[inlier], camera), float(np.sum(off[inlier] ** 2))
    points, cells = len(seen.of), len(seen.count)
    if cells < 2 * _SAMPLE_CELLS or points < 3 * cells:
        return None
    systematic, sigma = _scatter(off[inlier], seen)
    mean = np.sqrt(systematic / (2 * points))
    between = bool(
        systematic >= min_explained * total and mean >= max(_LEAST_MEAN_PX, _LEAST_MEAN * sigma)
    )
    if not between and not _another_motion(pixels, off, ~inlier, camera):
        return None
    part = np.flatnonzero(np.hypot(*off.T) < _REACH_PX)
    return Split(part, Cells.over(pixels[part], camera), sigma, between)


def _scatter(off: FloatArray, cells: Cells) -> tuple[float, float]:
    """Separate residuals (N, 2) into the cell means and the noise within cells.

    Returns:
        Sum of the squared cell means beyond the noise, and standard deviation within cells along
        one axis.
    """
    means = sum(float(np.sum(cells.sums(axis) ** 2 / cells.count)) for axis in off.T)
    free = max(len(cells.of) - len(cells.count), 1)
    variance = max(float(np.sum(off**2)) - means, 0.0) / (2 * free)
    return max(means - 2 * len(cells.count) * variance, 0.0), float(np.sqrt(variance))


def _another_motion(
    pixels: FloatArray, off: FloatArray, rejected: BoolArray, camera: Camera
) -> bool:
    """Whether the rejected points move coherently."""
    if np.count_nonzero(rejected) < _LEAST_REJECTED:
        return False
    cells = Cells.over(pixels, camera)
    moving = cells.together(rejected, off)
    return bool(
        np.count_nonzero(moving) >= _LEAST_REJECTED and cells.fraction(moving) >= _REJECTED_FRACTION
    )


def consensus(
    found: Split, T_cam_world: FloatArray, points: FloatArray, pixels: FloatArray, camera: Camera
) -> tuple[FloatArray, BoolArray]:
    """Find a pose near `T_cam_world` that most cells agree with.

    Args:
        found: the residuals of `T_cam_world`.
        T_cam_world: (4, 4) the first pose.
        points: (N, 3) in the world.
        pixels: (N, 2) where the points were seen.
        camera: of the image.

    Returns:
        The pose (4, 4), and which points (N,) agree with it.
    """
    sigma = max(found.sigma_px, _LEAST_SIGMA_PX)
    motions = _motions(
        T_cam_world, points[found.part], pixels[found.part], found.cells, camera, sigma
    )
    best = int(np.argmin(motions.cost))
    agree = np.zeros(len(points), dtype=bool)
    agree[found.part[motions.squared[best] < (_CUT * sigma) ** 2]] = True
    return motions.T_cam_world[best], agree


@dataclass(frozen=True, eq=False)
class Rival:
    """A second motion in the image, next to that of the pose.

    Attributes:
        wins: whether it is more likely the camera's motion.
        moving: (N,) which points move by themselves if it is.
        even: whether each motion alone explains a large part of the image.
    """

    wins: bool
    moving: BoolArray
    even: bool


def rival(
    min_gain: float,
    T_cam_world: FloatArray,
    points: FloatArray,
    pixels: FloatArray,
    inlier: BoolArray,
    camera: Camera,
) -> Rival | None:
    """Find the motion of the points that a pose rejects; None if nothing moves far from the pose.

    The motions must be far apart: while they are close, a pose in between fits more points than
    either.

    Args:
        min_gain: least drop of the cost, 0 to 1, for the rival to win.
        T_cam_world: (4, 4) the pose.
        points: (N, 3) in the world.
        pixels: (N, 2) where the points were seen.
        inlier: (N,) which points agree with the pose.
        camera: of the image.
    """
    off = residuals(T_cam_world, points, pixels, camera)
    if np.count_nonzero(Cells.over(pixels, camera).together(~inlier, off)) < _LEAST_REJECTED:
        return None
    part = np.flatnonzero(np.hypot(*off.T) < _FAR_PX)
    if min(int(np.count_nonzero(inlier)), len(part)) < 3 * _SAMPLE_CELLS:
        return None
    sigma = max(_scatter(off[inlier], Cells.over(pixels[inlier], camera))[1], _LEAST_YOUNG_SIGMA_PX)
    points, pixels = points[part], pixels[part]
    cells = Cells.over(pixels, camera)
    motions = _motions(T_cam_world, points, pixels, cells, camera, sigma)
    near = motions.squared < (2 * sigma) ** 2
    around = motions.squared[0] < (_AROUND * sigma) ** 2
    similar = (
        np.count_nonzero(near & ~around, axis=1) <= _MOSTLY * np.count_nonzero(near, axis=1)
    ) & (np.count_nonzero(near[0] & ~near, axis=1) <= _MOSTLY * np.count_nonzero(near[0]))
    if similar.all():
        return None
    ours = int(np.argmin(np.where(similar, motions.cost, np.inf)))
    theirs = int(np.argmin(np.where(similar, np.inf, motions.cost)))
    off = residuals(motions.T_cam_world[theirs], points, pixels, camera)
    moving = cells.together(np.hypot(*off.T) > 3 * sigma, off)
    if (
        np.count_nonzero(moving) < _LEAST_REJECTED
        or float(np.median(np.hypot(*off[moving].T))) < _APART_PX
    ):
        return None
    only_ours, only_theirs = near[ours] & ~near[theirs], near[theirs] & ~near[ours]
    gain = float(motions.cost[ours] - motions.cost[theirs])
    if only_ours.any() and only_theirs.any():
        depths = geometry.apply(T_cam_world, points)[:, 2]
        ratio = float(np.median(depths[only_theirs]) / np.median(depths[only_ours]))
        # A moving object hides the scene behind it: it is nearer.
        gain += _FARTHER * ((ratio > _CLEARLY_FARTHER) - (ratio < 1 / _CLEARLY_FARTHER))
    marked = np.zeros(len(inlier), dtype=bool)
    marked[part[moving]] = True
    alone = cells.agreement(only_theirs)
    wins = gain > min_gain and alone >= _ALONE and np.count_nonzero(only_theirs) >= _LEAST_ALONE
    return Rival(bool(wins), marked, min(alone, cells.agreement(only_ours)) >= _ALONE)


@dataclass(frozen=True, eq=False)
class _Motions:
    """Poses (H, 4, 4) that regions of the image agree with; the first is near the given pose.

    Attributes:
        T_cam_world: (H, 4, 4) the poses.
        squared: (H, N) squared residuals of the points.
        cost: (H,) mean over the cells of the truncated squared residuals, from 0 to 1.
    """

    T_cam_world: FloatArray
    squared: FloatArray
    cost: FloatArray


def _motions(
    T_cam_world: FloatArray,
    points: FloatArray,
    pixels: FloatArray,
    cells: Cells,
    camera: Camera,
    sigma: float,
) -> _Motions:
    """Estimate poses from samples of all cells, then of the points that the best one rejects."""
    weight = 1.0 / cells.count[cells.of]
    start = np.sum(residuals(T_cam_world, points, pixels, camera) ** 2, axis=1)
    around = weight / (1.0 + start / (2 * sigma) ** 2) ** 2
    weights = np.concatenate([around[None], weight * _samples(cells)])
    first = _refined(T_cam_world, weights, points, pixels, cells, camera, sigma)
    rest = np.flatnonzero(first.squared[np.argmin(first.cost)] > (3 * sigma) ** 2)
    weights = np.zeros((_SAMPLES, len(points)))
    samples = _samples(Cells.over(pixels[rest], camera)) if len(rest) else weights[:0, :0]
    if len(samples) == 0:
        return first
    weights[:, rest] = weight[rest] * samples
    second = _refined(T_cam_world, weights, points, pixels, cells, camera, sigma)
    return _Motions(
        np.concatenate([first.T_cam_world, second.T_cam_world]),
        np.concatenate([first.squared, second.squared]),
        np.concatenate([first.cost, second.cost]),
    )


def _refined(
    T_cam_world: FloatArray,
    weights: FloatArray,
    points: FloatArray,
    pixels: FloatArray,
    cells: Cells,
    camera: Camera,
    sigma: float,
) -> _Motions:
    """Refine poses by Gauss-Newton, first with weights (H, N), then with all points that agree."""
    weight = 1.0 / cells.count[cells.of]
    T = np.broadcast_to(T_cam_world, (len(weights), 4, 4))
    for scale in (*_SCALES, None):
        off, jacobian = _linearize(T, points, pixels, camera)
        T = geometry.se3_exp(_steps(off, jacobian, weights)) @ T
        squared = np.sum(_residuals_of_many(T, points, pixels, camera) ** 2, axis=1)
        if scale is not None:
            weights = weight / (1.0 + squared / (scale * sigma) ** 2) ** 2
    cost = np.minimum(squared / (_TIGHT * sigma) ** 2, 1.0) @ weight / len(cells.count)
    return _Motions(T, squared, cost)


def _steps(off: FloatArray, jacobian: FloatArray, weights: FloatArray) -> FloatArray:
    """(H, 6) steps for residuals (H, 2, N), their derivatives (H, 2, N, 6) and weights (H, N)."""
    weighted = jacobian * weights[:, None, :, None]
    hypotheses = len(off)
    flat, weighted = jacobian.reshape(hypotheses, -1, 6), weighted.reshape(hypotheses, -1, 6)
    normal = np.swapaxes(weighted, 1, 2) @ flat
    gradient = np.swapaxes(weighted, 1, 2) @ off.reshape(hypotheses, -1, 1)
    diagonal = np.einsum("hpp->hp", normal)
    diagonal += 1e-9 * diagonal + 1e-12
    return np.asarray(-np.linalg.solve(normal, gradient)[..., 0])


def _in_cameras(T: FloatArray, points: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Normalized coordinates x and y, and depths, (H, N) each, from poses (H, 4, 4)."""
    x, y, z = np.moveaxis(points @ np.swapaxes(T[:, :3, :3], 1, 2) + T[:, None, :3, 3], -1, 0)
    z = np.maximum(z, _LEAST_DEPTH)
    return x / z, y / z, z


def _residuals_of_many(
    T: FloatArray, points: FloatArray, pixels: FloatArray, camera: Camera
) -> FloatArray:
    """(H, 2, N) residuals from poses (H, 4, 4), pixels."""
    u, v, _ = _in_cameras(T, points)
    return np.stack(
        [camera.fx * u + camera.cx - pixels[:, 0], camera.fy * v + camera.cy - pixels[:, 1]], axis=1
    )


def _linearize(
    T: FloatArray, points: FloatArray, pixels: FloatArray, camera: Camera
) -> tuple[FloatArray, FloatArray]:
    """Residuals (H, 2, N), derivatives (H, 2, N, 6) by left steps [translation, rotation]."""
    u, v, z = _in_cameras(T, points)
    zero = np.zeros_like(z)
    along_x = camera.fx * np.stack([1 / z, zero, -u / z, -u * v, 1 + u * u, -v], axis=-1)
    along_y = camera.fy * np.stack([zero, 1 / z, -v / z, -1 - v * v, u * v, u], axis=-1)
    return _residuals_of_many(T, points, pixels, camera), np.stack([along_x, along_y], axis=1)


def _samples(cells: Cells) -> BoolArray:
    """(H, N) masks of the points of a few random cells each."""
    usable = np.flatnonzero(cells.count >= _LEAST_IN_CELL)
    if len(usable) < _SAMPLE_CELLS:
        return np.zeros((0, len(cells.of)), dtype=bool)
    # A fixed seed: two runs give the same bytes.
    rng = np.random.default_rng(0)
    chosen = usable[np.argsort(rng.random((_SAMPLES, len(usable))), axis=1)[:, :_SAMPLE_CELLS]]
    return np.asarray(np.any(chosen[:, :, None] == cells.of, axis=1))
