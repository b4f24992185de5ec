"""How high a camera is over the ground, in the units of its map.

The ground is the plane that many points lie in, that few lie just above and none lie below. Each key frame looks for
it among the points that it and its neighbours in time see, near the foot of the camera, so that slopes do no harm.
Votes over directions and heights find the plane where a random sample of three points would hardly ever hit it: a floor
may hold one in twenty points. A first round takes down from the cameras, a second one from the planes that were found.

For cameras on vehicles cf. Song and Chandraker, Robust Scale Estimation in Real-Time Monocular SFM for Autonomous
Driving, CVPR 2014, and Zhou et al., Ground-Plane-Based Absolute Scale Estimation for Monocular Visual Odometry,
T-ITS 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spslam.map.map import Map
from spslam.typing import FloatArray, IntArray

# Key frames before and after one whose points it takes.
_NEIGHBOURS = 5
# More key frames than these are sampled evenly.
_MOST_KEYFRAMES = 200
# A point counts if it is at most this many camera heights from the foot of the camera.
_REACH = 5.0
# The ground may be tilted by this against the y axis of the camera, then against that of its neighbours, radians.
_FIRST_TILT, _FIRST_STEP = np.radians(20.0), np.radians(4.0)
_SECOND_TILT, _SECOND_STEP = np.radians(4.0), np.radians(1.0)
# Votes: bins of the logarithm of the height, and how many of them a slab may be thick.
_BIN = 0.025
_SLABS = (2, 4, 6)
_BINS = 300
# What a slab must have more than those above and below it, standard deviations of a count.
_LEAST_SIGNIFICANCE = 3.0
# The plane: how far off a point may be, in heights; how many it takes; how well they must fix the height.
_TOLERANCE = 0.075
_LEAST_POINTS = 20
_WORST_ERROR = 0.03
_ROUNDS = 8
# Condition of the normal equations of points on one line.
_DEGENERATE = 1e9
# Planes before and after one that tell it where down is.
_AGREEING = 20


@dataclass(frozen=True, eq=False)
class GroundHeights:
    """Heights of cameras over the ground.

    Attributes:
        heights: (M,) float64, map units, of the key frames that show a ground.
        looked_at: how many key frames were asked.
    """

    heights: FloatArray
    looked_at: int

    @property
    def median(self) -> float:
        """The robust height, map units."""
        return float(np.median(self.heights))

    @property
    def spread(self) -> float:
        """Median deviation from it, as a share of it."""
        return float(np.median(np.abs(self.heights / self.median - 1.0)))


@dataclass(frozen=True, eq=False)
class Plane:
    """The ground under a camera: `down` (3,), its unit normal in the world, and the camera's `height`, map units."""

    down: FloatArray
    height: float


def ground_heights(slam_map: Map, part: int) -> GroundHeights:
    """Heights over the ground of the key frames of a part of a map, of at most 200 of them.

    Cameras must be within 20° of level: their y axes say roughly where down is.
    """
    rows = np.flatnonzero(slam_map.keyframes["part"] == part)
    asked = np.unique(
        np.linspace(0, len(rows) - 1, min(len(rows), _MOST_KEYFRAMES)).astype(np.int64)
    )
    if len(rows) == 0:
        return GroundHeights(np.zeros(0), 0)
    surroundings = [_surroundings(slam_map, rows, int(at)) for at in asked]
    down = [
        _unit(slam_map.T_world_keyframe[_window(rows, int(at)), :3, 1].mean(axis=0)) for at in asked
    ]
    first = [
        find_ground(points, d, _FIRST_TILT, _FIRST_STEP)
        for points, d in zip(surroundings, down, strict=True)
    ]
    found = [i for i, plane in enumerate(first) if plane is not None]
    if not found:
        return GroundHeights(np.zeros(0), len(asked))
    down = _agreed(
        np.array(found), np.array([plane.down for plane in first if plane is not None]), len(asked)
    )
    second = [
        find_ground(points, d, _SECOND_TILT, _SECOND_STEP)
        for points, d in zip(surroundings, down, strict=True)
    ]
    return GroundHeights(
        np.array([plane.height for plane in second if plane is not None]), len(asked)
    )


def find_ground(
    points: FloatArray, down: FloatArray, most_tilt: float, step: float
) -> Plane | None:
    """The ground among points, or None where nothing stands out.

    Args:
        points: (N, 3) float64 relative to the camera, in the world's axes.
        down: (3,) unit vector, roughly its normal.
        most_tilt: how far from `down` the normal may be, radians.
        step: between the directions that are tried, radians.
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
    """Points (N, 3) that a key frame and its neighbours see, relative to it."""
    ids = slam_map.keyframes["id"][_window(rows, at)]
    points = slam_map.positions[slam_map.point_rows(slam_map.points_seen_by(ids))]
    relative: FloatArray = points - slam_map.T_world_keyframe[rows[at], :3, 3]
    return relative


def _agreed(found: IntArray, normals: FloatArray, count: int) -> list[FloatArray]:
    """Where down is for each of `count` key frames: the median of the planes nearest in time."""
    nearest = [np.argsort(np.abs(found - i), kind="stable")[:_AGREEING] for i in range(count)]
    return [_unit(np.median(normals[rows], axis=0)) for rows in nearest]


def _unit(vector: FloatArray) -> FloatArray:
    unit: FloatArray = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return unit


def _axes(down: FloatArray) -> FloatArray:
    """(3, 3) rows: two directions along the ground and `down`."""
    along = _unit(np.cross(np.eye(3)[np.argmin(np.abs(down))], down))
    return np.stack([along, np.cross(down, along), down])


def _directions(most_tilt: float, step: float) -> FloatArray:
    """Unit vectors (M, 3) on a grid around (0, 0, 1)."""
    steps = int(most_tilt / step + 1e-9)
    slope = np.tan(step * np.arange(-steps, steps + 1))
    x, y = (grid.ravel() for grid in np.meshgrid(slope, slope))
    inside = np.hypot(x, y) <= np.tan(most_tilt) + 1e-9
    vectors = np.stack([x, y, np.ones_like(x)], axis=1)[inside]
    directions: FloatArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return directions


def _vote(points: FloatArray, normals: FloatArray) -> tuple[FloatArray, float] | None:
    """The normal (3,) and the height of the slab that stands out most."""
    below = points @ normals.T
    beside = np.sqrt(np.maximum(np.sum(points**2, axis=1)[:, None] - below**2, 0.0))
    counted = (below > 0) & (beside < _REACH * below)
    # Bins from a hundredth of the usual distance of a point to more than ten times it.
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
    """How much each slab holds more than the one above it and all that is below it, in standard deviations.

    Args:
        sums: (M, B + 1), votes up to each bin.
        thickness: of slabs, bins.

    Returns:
        (M, B + 1 - thickness) by first bin.
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
    """The plane (normal, height) through the points near one, with Tukey's weights and less of what is far: the error
    of a point grows with its distance. None if too few are near it, or they do not fix the height.
    """
    for _ in range(_ROUNDS):
        below = points @ normal
        beside = np.sqrt(np.maximum(np.sum(points**2, axis=1) - below**2, 0.0)) / height
        off = (below / height - 1.0) / _TOLERANCE
        near = (np.abs(off) < 1.0) & (beside < _REACH)
        if np.count_nonzero(near) < _LEAST_POINTS:
            return None
        weights = (1.0 - off[near] ** 2) ** 2 / (1.0 + beside[near] ** 2)
        # In heights, so that the numbers are of the size of one.
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
