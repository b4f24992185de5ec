"""The height of a camera above the ground plane, in units of its map.

The ground plane contains many points, with few points just above it and none below. It is estimated
for each keyframe from the points that this keyframe and its neighbours in time observe, close to
the camera, because the ground may slope. Votes over normals and heights find the plane even if it
contains only 1 in 20 points; random samples of three points would rarely hit it. The first round
takes the down direction from the cameras, the second one from the planes of the first.

For cameras on vehicles cf. Song and Chandraker, Robust Scale Estimation in Real-Time Monocular SFM
for Autonomous Driving, CVPR 2014, and Zhou et al., Ground-Plane-Based Absolute Scale Estimation for
Monocular Visual Odometry, T-ITS 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spslam.map.map import Map
from spslam.typing import FloatArray, IntArray

# Use the points of this many keyframes before and after a keyframe.
_NEIGHBOURS = 5
# Maximum number of keyframes; more are sampled evenly.
_MOST_KEYFRAMES = 200
# Maximum distance of a point from the foot of the camera, camera heights.
_REACH = 5.0
# First round: maximum tilt of the normal against the mean y axis of the cameras, and step between
# the normals that are tried, radians.
_FIRST_TILT, _FIRST_STEP = np.radians(20.0), np.radians(4.0)
# Second round: the same against the median normal of the planes of the first round, radians.
_SECOND_TILT, _SECOND_STEP = np.radians(4.0), np.radians(1.0)
# Width of a bin of the votes, natural logarithm of the height.
_BIN = 0.025
# Thicknesses of slabs that are tried, bins.
_SLABS = (2, 4, 6)
# Number of bins.
_BINS = 300
# Minimum excess of the points in a slab over those above and below it, standard deviations.
_LEAST_SIGNIFICANCE = 3.0
# Maximum distance of a point from the plane, camera heights.
_TOLERANCE = 0.075
# Minimum number of points of a plane.
_LEAST_POINTS = 20
# Maximum standard deviation of the estimated height, fraction of the height.
_WORST_ERROR = 0.03
# Rounds of the robust fit of a plane.
_ROUNDS = 8
# Maximum condition number of the normal equations; points on one line have a larger one.
_DEGENERATE = 1e9
# Number of planes nearest in time whose median normal is the down direction of the second round.
_AGREEING = 20


@dataclass(frozen=True, eq=False)
class GroundHeights:
    """Heights of cameras above the ground plane.

    Attributes:
        heights: (M,) float64, map units, of the keyframes with a ground plane.
        looked_at: number of keyframes examined.
    """

    heights: FloatArray
    looked_at: int

    @property
    def median(self) -> float:
        """Median height, map units."""
        return float(np.median(self.heights))

    @property
    def spread(self) -> float:
        """Median absolute deviation from the median height, fraction of it."""
        return float(np.median(np.abs(self.heights / self.median - 1.0)))


@dataclass(frozen=True, eq=False)
class Plane:
    """The ground plane below a camera.

    Attributes:
        down: (3,) float64, unit normal in world axes.
        height: of the camera above the plane, map units.
    """

    down: FloatArray
    height: float


def ground_heights(slam_map: Map, submap: int) -> GroundHeights:
    """Estimate the heights above the ground plane of at most 200 keyframes of a submap.

    The cameras must be level within 20°: their y axes give the approximate down direction.

    Args:
        slam_map: the map.
        submap: number of the submap.
    """
    rows = np.flatnonzero(slam_map.keyframes["submap"] == submap)
    requested = np.unique(
        np.linspace(0, len(rows) - 1, min(len(rows), _MOST_KEYFRAMES)).astype(np.int64)
    )
    if len(rows) == 0:
        return GroundHeights(np.zeros(0), 0)
    surroundings = [_surroundings(slam_map, rows, int(at)) for at in requested]
    down = [
        _unit(slam_map.T_world_keyframe[_window(rows, int(at)), :3, 1].mean(axis=0))
        for at in requested
    ]
    first = [
        find_ground(points, d, _FIRST_TILT, _FIRST_STEP)
        for points, d in zip(surroundings, down, strict=True)
    ]
    found = [i for i, plane in enumerate(first) if plane is not None]
    if not found:
        return GroundHeights(np.zeros(0), len(requested))
    down = _agreed(
        np.array(found),
        np.array([plane.down for plane in first if plane is not None]),
        len(requested),
    )
    second = [
        find_ground(points, d, _SECOND_TILT, _SECOND_STEP)
        for points, d in zip(surroundings, down, strict=True)
    ]
    return GroundHeights(
        np.array([plane.height for plane in second if plane is not None]), len(requested)
    )


def find_ground(
    points: FloatArray, down: FloatArray, most_tilt: float, step: float
) -> Plane | None:
    """Find the ground plane among points.

    Args:
        points: (N, 3) float64, relative to the camera, in world axes.
        down: (3,) float64, unit vector, approximate normal of the plane.
        most_tilt: maximum angle between the normal and `down`, radians.
        step: angle between the normals that are tried, radians.

    Returns:
        The plane, or None if no plane is significant.
    """
    axes = _axes(down)
    turned = points @ axes.T
    if len(turned) < _LEAST_POINTS:
        return None
    normals = _directions(most_tilt, step)
    voted = _vote(turned, normals)
    fitted = None if voted is None else _fit(turned, *voted)
    if fitted is None or fitted[0][2] < np.cos(most_tilt + step):
        return None
    return Plane(axes.T @ fitted[0], fitted[1])


def _window(rows: IntArray, at: int) -> IntArray:
    return rows[max(0, at - _NEIGHBOURS) : at + _NEIGHBOURS + 1]


def _surroundings(slam_map: Map, rows: IntArray, at: int) -> FloatArray:
    """Return the points (N, 3) of a keyframe and its neighbours, relative to the keyframe."""
    ids = slam_map.keyframes["id"][_window(rows, at)]
    points = slam_map.positions[slam_map.point_rows(slam_map.points_seen_by(ids))]
    relative: FloatArray = points - slam_map.T_world_keyframe[rows[at], :3, 3]
    return relative


def _agreed(found: IntArray, normals: FloatArray, count: int) -> list[FloatArray]:
    """Return the down direction of each of `count` keyframes.

    It is the median normal of the planes nearest in time.
    """
    nearest = [np.argsort(np.abs(found - i), kind="stable")[:_AGREEING] for i in range(count)]
    return [_unit(np.median(normals[rows], axis=0)) for rows in nearest]


def _unit(vector: FloatArray) -> FloatArray:
    unit: FloatArray = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return unit


def _axes(down: FloatArray) -> FloatArray:
    """Return axes as rows (3, 3): two directions in the ground plane, and `down`."""
    along = _unit(np.cross(np.eye(3)[np.argmin(np.abs(down))], down))
    return np.stack([along, np.cross(down, along), down])


def _directions(most_tilt: float, step: float) -> FloatArray:
    """Return unit vectors (M, 3) on a grid around (0, 0, 1)."""
    steps = int(most_tilt / step + 1e-9)
    slope = np.tan(step * np.arange(-steps, steps + 1))
    x, y = (grid.ravel() for grid in np.meshgrid(slope, slope))
    inside = np.hypot(x, y) <= np.tan(most_tilt) + 1e-9
    vectors = np.stack([x, y, np.ones_like(x)], axis=1)[inside]
    directions: FloatArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return directions


def _vote(points: FloatArray, normals: FloatArray) -> tuple[FloatArray, float] | None:
    """Return the normal (3,) and the height of the most significant slab, if any."""
    below = points @ normals.T
    beside = np.sqrt(np.maximum(np.sum(points**2, axis=1)[:, None] - below**2, 0.0))
    counted = (below > 0) & (beside < _REACH * below)
    # Bins cover 0.01 to more than 10 times the median distance of the points.
    shortest = max(0.01 * float(np.median(np.linalg.norm(points, axis=1))), 1e-12)
    bins = np.floor(np.log(np.where(counted, below, shortest) / shortest) / _BIN).astype(np.int64)
    counted &= (bins >= 0) & (bins < _BINS)
    cells = (bins + _BINS * np.arange(len(normals)))[counted]
    votes = np.bincount(cells, minlength=_BINS * len(normals)).reshape(len(normals), _BINS)
    sums = np.concatenate([np.zeros((len(normals), 1)), np.cumsum(votes, axis=1)], axis=1)
    slabs = [_significance(sums, thickness) for thickness in _SLABS]
    best = int(np.argmax([slab.max() for slab in slabs]))
    direction, first_bin = np.unravel_index(int(np.argmax(slabs[best])), slabs[best].shape)
    if slabs[best][direction, first_bin] < _LEAST_SIGNIFICANCE:
        return None
    return normals[direction], shortest * float(np.exp(_BIN * (first_bin + _SLABS[best] / 2)))


def _significance(sums: FloatArray, thickness: int) -> FloatArray:
    """Compute the significance of each slab, standard deviations of a count.

    It is the excess of the points in the slab over those in the slab above it and all below it.

    Args:
        sums: (M, B + 1) float64, cumulative votes of M normals and B bins.
        thickness: of slabs, bins.

    Returns:
        (M, B + 1 - thickness) float64, by normal and first bin.
    """
    inside = sums[:, thickness:] - sums[:, :-thickness]
    above = np.zeros_like(inside)
    above[:, thickness:] = inside[:, :-thickness]
    below = sums[:, -1:] - sums[:, thickness:]
    significance: FloatArray = (inside - above - below) / np.sqrt(
        np.maximum(inside + above + below, 1.0)
    )
    return significance


def _fit(points: FloatArray, normal: FloatArray, height: float) -> tuple[FloatArray, float] | None:
    """Fit a plane to the points near a first estimate of it.

    The weights are Tukey's, reduced for distant points, whose errors are larger.

    Args:
        points: (N, 3) float64, relative to the camera; z is the approximate normal.
        normal: (3,) float64, first estimate.
        height: first estimate, map units.

    Returns:
        Normal and height, or None if too few points are near the plane or the height is uncertain.
    """
    for _ in range(_ROUNDS):
        below = points @ normal
        beside = np.sqrt(np.maximum(np.sum(points**2, axis=1) - below**2, 0.0)) / height
        off = (below / height - 1.0) / _TOLERANCE
        near = (np.abs(off) < 1.0) & (beside < _REACH)
        if np.count_nonzero(near) < _LEAST_POINTS:
            return None
        weights = (1.0 - off[near] ** 2) ** 2 / (1.0 + beside[near] ** 2)
        # Divide by the height to get numbers near one.
        scaled = points[near] / height
        A = np.stack([np.ones(len(scaled)), scaled[:, 0], scaled[:, 1]], axis=1)
        information = A.T @ (A * weights[:, None])
        if np.linalg.cond(information) > _DEGENERATE:
            return None
        covariance = np.linalg.inv(information)
        at_foot, x, y = covariance @ (A.T @ (weights * scaled[:, 2]))
        if not at_foot > 0:
            return None
        length = float(np.sqrt(x**2 + y**2 + 1.0))
        normal, height = np.array([-x, -y, 1.0]) / length, height * float(at_foot) / length
    residual = scaled[:, 2] - A @ np.array([at_foot, x, y])
    variance = float(np.sum(weights * residual**2) / np.sum(weights))
    spread = covariance @ (A.T @ (A * weights[:, None] ** 2)) @ covariance * variance
    return (normal, height) if np.sqrt(spread[0, 0]) < _WORST_ERROR * at_foot else None
